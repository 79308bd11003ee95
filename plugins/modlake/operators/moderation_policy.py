"""What follows from the labels of a day, step by step: decide, brake, request, record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Asset

from modlake.exceptions import ModlakeTerminalError
from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.lake.storage import storage_errors_explained
from modlake.operators.arguments import InvalidValueError, action_targets
from modlake.pipeline.day import parse_day
from modlake.retries import never_retry_terminal_errors

if TYPE_CHECKING:
    from airflow.sdk import Context

    from modlake.policy.intents import Intent


class DecideOperator(AwsBaseOperator[S3ObjectStoreHook]):
    """
    Decide a published day by the policies, and write down what is left to be done about its images.

    Decisions go into the table ``decisions``, figures into ``enforcements``, intents into the enforcement's
    folder below ``work_uri``. Returns the batches to map over, ``[{"enforcement_uri": …, "batch": 0}]``, none
    when nothing is to be done; pushes the XComs ``enforcement_uri`` and ``summary``.

    :param day: the day, YYYY-MM-DD (templated)
    :param work_uri: the bucket or prefix for Modlake's own files (templated)
    :param policies_uri: the folder of the policies, on the worker's disk or ``s3://bucket/prefix/``
        (templated)
    :param policy_uri: one policy file that stands in for the policy of the same name, or is one more
        (templated)
    :param targets: where actions go, by kind, a mapping or its JSON (templated)
    :param actions_per_batch: how many actions one mapped task carries out, about (templated)
    """

    aws_hook_class = S3ObjectStoreHook
    template_fields = aws_template_fields(
        "day", "work_uri", "policies_uri", "policy_uri", "targets", "actions_per_batch"
    )

    def __init__(
        self,
        *,
        day: str,
        work_uri: str,
        policies_uri: str,
        policy_uri: str | None = None,
        targets: Mapping[str, Mapping[str, str]] | str,
        actions_per_batch: int | str = 1_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.day = day
        self.work_uri = work_uri
        self.policies_uri = policies_uri
        self.policy_uri = policy_uri
        self.targets = targets
        self.actions_per_batch = actions_per_batch

    def execute(self, context: Context) -> list[dict[str, Any]]:
        from modlake.lake.catalog import ensure_tables, open_catalog
        from modlake.lake.decisions import by_policy
        from modlake.lake.enforcement import plan_enforcement
        from modlake.policy.enforcement_folder import EnforcementFolder
        from modlake.policy.policy_files import load_policies
        from modlake.policy.targets import Targets

        day = parse_day(self.day)
        policies = load_policies(self.hook, self.policies_uri, self.policy_uri)
        with storage_errors_explained(f"Deciding {day}"):
            catalog = open_catalog()
            ensure_tables(catalog)
            enforcement = plan_enforcement(
                catalog,
                self.hook,
                day=day,
                work_uri=self.work_uri,
                policies=policies,
                targets=Targets(action_targets(self.targets)),
                batch_size=self._batch_size(),
                report=self.log.info,
            )
        for each in enforcement.figures:
            self.log.info(
                "%s %s (%s), %s: %s %d images, newly hit %d, released %d, unchanged %d",
                each.policy,
                each.policy_version,
                each.mode,
                each.rule or "no rule",
                each.verdict,
                each.images,
                each.newly_hit,
                each.released,
                each.unchanged,
            )
        uri = EnforcementFolder(self.work_uri, day, enforcement.enforcement_id).enforcement_uri
        summary = {
            "day": day.isoformat(),
            "enforcement_id": enforcement.enforcement_id,
            "run_id": enforcement.run_id,
            "images": enforcement.images,
            "policies": [asdict(difference) for difference in by_policy(enforcement.figures)],
            "changed": enforcement.changed,
            "intents": enforcement.intents,
            "held": len(enforcement.held),
        }
        context["ti"].xcom_push(key="enforcement_uri", value=uri)
        context["ti"].xcom_push(key="summary", value=summary)
        self.log.info("Decided %s as %s: %s", day, uri, summary)
        return [{"enforcement_uri": uri, "batch": batch} for batch in range(enforcement.batches)]

    def _batch_size(self) -> int:
        size = str(self.actions_per_batch)
        if not size.isdecimal() or int(size) < 1:
            raise InvalidValueError(
                f"Task {self.task_id!r}, actions_per_batch: {size!r} is no number of actions; "
                "write 1 or more."
            )
        return int(size)


class BrakeOperator(ApprovalOperator):
    """
    Let an enforcement pass when it is as usual; ask a person in Airflow's UI when it isn't.

    What is usual the policies' brakes say, and DecideOperator has found out. When nothing is to be done, and
    rejected, or not answered within ``response_timeout``, the tasks right behind this one are skipped. Pushes
    the XCom ``approval``: ``asked``, ``approved``, and ``by`` whom.

    :param enforcement_uri: the enforcement's ``enforcement.json`` (templated)

    .. seealso::
        - :class:`airflow.providers.standard.operators.hitl.ApprovalOperator` for ``response_timeout``,
          ``assigned_users`` and ``notifiers``
    """

    template_fields = ("enforcement_uri", "aws_conn_id", "region_name")

    def __init__(
        self,
        *,
        enforcement_uri: str,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs = {"subject": "More than usual", "defaults": self.REJECT} | kwargs
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.enforcement_uri = enforcement_uri
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name

    def execute(self, context: Context) -> None:
        from modlake.policy.approval import approval_body, approval_subject
        from modlake.policy.enforcement_folder import EnforcementFolder, read_enforcement

        hook = S3ObjectStoreHook(aws_conn_id=self.aws_conn_id, region_name=self.region_name)
        enforcement = read_enforcement(hook, EnforcementFolder.of_uri(self.enforcement_uri))
        if not enforcement["held"]:
            self.log.info("As usual: %s", enforcement["intents"] or "nothing is to be done")
            self._tell(context, asked=False, approved=True, by=None)
            if not enforcement["intents"]:
                self.skip(context["ti"], context["task"].get_direct_relatives(upstream=False))
            return
        self.subject = approval_subject(enforcement)
        self.body = approval_body(enforcement, self.enforcement_uri)
        self.log.info("%s: a person must approve.\n%s", self.subject, self.body)
        # Parks the task until somebody answers, and goes on in execute_complete.
        super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        approved = event.get("chosen_options") == [self.APPROVE]
        user = event.get("responded_by_user") or {}
        by = user.get("name") or user.get("id")
        if "error" not in event:
            self.log.info("%s by %s", "Approved" if approved else "Rejected", by or "time-out")
            self._tell(context, asked=True, approved=approved, by=by)
        # Of a rejection it ends in an exception, by which Airflow skips what is downstream.
        super().execute_complete(context, event)

    def _tell(self, context: Context, **approval: Any) -> None:
        context["ti"].xcom_push(key="approval", value=approval)


class RequestActionsOperator(AwsBaseOperator[S3ObjectStoreHook]):
    """
    Write an enforcement's intents into the table ``actions`` before any of them is carried out.

    Returns how many rows that changed. Who approved them, ``detail`` of each row tells as ``approved_by``.

    :param enforcement_uri: the enforcement's ``enforcement.json`` (templated)
    :param approval: what BrakeOperator has pushed (templated)

    :raises ModlakeTerminalError: the day was decided otherwise since, say while a person was awaited
    """

    aws_hook_class = S3ObjectStoreHook
    template_fields = aws_template_fields("enforcement_uri", "approval")
    template_fields_renderers: ClassVar = {"approval": "json"}

    def __init__(
        self, *, enforcement_uri: str, approval: Mapping[str, Any] | str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.enforcement_uri = enforcement_uri
        self.approval = approval

    def execute(self, context: Context) -> int:  # noqa: ARG002 Airflow's signature
        from modlake.lake.actions import add_intents
        from modlake.lake.catalog import open_catalog
        from modlake.lake.decisions import is_current
        from modlake.policy.enforcement_folder import EnforcementFolder, read_all_intents, read_enforcement

        folder = EnforcementFolder.of_uri(self.enforcement_uri)
        decided = read_enforcement(self.hook, folder)
        with storage_errors_explained(f"Requesting the actions of {folder.day}"):
            catalog = open_catalog()
            if not is_current(catalog, folder.day, decided["run_id"], decided["figures"]):
                raise ModlakeTerminalError(
                    f"{folder.day} was decided otherwise since {folder.enforcement_id} was made, and nothing "
                    "of it is done. The newer run acts, or asks for itself; run the DAG for the day again "
                    "if there is none."
                )
            intents = map(self._approved, read_all_intents(self.hook, folder))
            requested = add_intents(catalog, folder.day, intents)
        self.log.info("%d actions of %s requested", requested, folder.day)
        return requested

    def _approved(self, intent: Intent) -> Intent:
        by = self.approval.get("by") if isinstance(self.approval, Mapping) else None
        return replace(intent, detail=intent.detail | {"approved_by": by}) if by else intent


class RecordActionsOperator(AwsBaseOperator[S3ObjectStoreHook]):
    """
    Write how actions ended into the table ``actions``, also when some could not be carried out.

    Every outlet asset gets an event for the partition of the day, with the counts as its extra; returns them.

    :param enforcement_uri: the enforcement's ``enforcement.json`` (templated)
    :param approval: what BrakeOperator has pushed (templated)

    :raises ModlakeTerminalError: after recording, when actions failed or have no result
    """

    aws_hook_class = S3ObjectStoreHook
    template_fields = aws_template_fields("enforcement_uri", "approval")
    template_fields_renderers: ClassVar = {"approval": "json"}

    def __init__(
        self, *, enforcement_uri: str | None, approval: Mapping[str, Any] | str | None, **kwargs: Any
    ) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.enforcement_uri = enforcement_uri
        self.approval = approval

    def execute(self, context: Context) -> dict[str, Any]:
        from modlake.lake.actions import record_results
        from modlake.lake.catalog import open_catalog
        from modlake.policy.actions.results import IntendedResults
        from modlake.policy.enforcement_folder import EnforcementFolder, read_enforcement

        if not self.enforcement_uri or not isinstance(self.approval, Mapping):
            raise ModlakeTerminalError(
                "There is nothing to record, as decide or brake did not finish. Read the log of that task, "
                "mend what it names, then clear it."
            )
        folder = EnforcementFolder.of_uri(self.enforcement_uri)
        enforcement = read_enforcement(self.hook, folder)
        batches = enforcement["batches"] if self.approval["approved"] else 0
        results = IntendedResults(self.hook, folder, batches)
        with storage_errors_explained(f"Recording the actions of {folder.day}"):
            record_results(open_catalog(), folder.day, results)
        verdicts: Counter[str] = Counter()
        for each in enforcement["figures"]:
            if each["mode"] == "live":
                verdicts[each["verdict"]] += each["images"]
        facts = {
            "day": folder.day.isoformat(),
            "enforcement_id": folder.enforcement_id,
            "run_id": enforcement["run_id"],
            "images": enforcement["images"],
            "verdicts": dict(verdicts),
            "newly_hit": sum(each["newly_hit"] for each in enforcement["figures"]),
            "released": sum(each["released"] for each in enforcement["figures"]),
            "changed": enforcement["changed"],
            "actions": dict(results.by_status),
            "approval": dict(self.approval),
        }
        self.log.info("Recorded %s: %s", folder.day, facts)
        missing = results.intended - results.by_status.total()
        self._check(folder.uri, missing, results.by_status["failed"])
        for asset in self.outlets:
            if isinstance(asset, Asset):
                event = context["outlet_events"][asset]
                event.add_partitions(facts["day"])
                event.extra.update(facts)
        return facts

    def _check(self, folder_uri: str, missing: int, failed: int) -> None:
        if missing:
            raise ModlakeTerminalError(
                f"{missing} actions have no result. The others are recorded: mend what the log of act names, "
                "then clear act and this task."
            )
        if failed:
            raise ModlakeTerminalError(
                f"{failed} actions failed, as {folder_uri}results/ tells. The others are recorded: mend the "
                "causes, then run this DAG for the day again, which tries only these."
            )
