"""Maintenance of the lake, step by step: snapshots, small files, orphans, runs; and the report of it all."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from modlake.exceptions import ModlakeTerminalError
from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.pipeline.s3_uri import as_folder_uri
from modlake.retries import never_retry_terminal_errors

if TYPE_CHECKING:
    from airflow.sdk import Context

    from modlake.lake.maintenance.findings import Finding
    from modlake.lake.maintenance.policy import MaintenancePolicy

FINDINGS = "findings"
"""The XCom under which a step leaves what it found, also when it then refused to act on it."""


class MaintenanceStepOperator(AwsBaseOperator[S3ObjectStoreHook]):
    """
    Base of the steps. Returns, and pushes as the XCom ``findings``, a list of findings.

    :param policy: the params of :class:`~modlake.lake.maintenance.policy.MaintenancePolicy.from_params`, and
        ``steps``, the ids of the tasks that are to be done; the others are skipped (templated)
    """

    aws_hook_class = S3ObjectStoreHook
    template_fields = aws_template_fields("policy")
    template_fields_renderers: ClassVar = {"policy": "json"}

    def __init__(self, *, policy: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.policy = policy

    @abstractmethod
    def maintain(self, policy: MaintenancePolicy) -> list[Finding]:
        """Find, and unless it is a dry run do, what is to be done."""

    def execute(self, context: Context) -> list[dict[str, Any]]:
        from modlake.lake.maintenance.findings import MaintenanceRefusedError
        from modlake.lake.maintenance.policy import MaintenancePolicy

        if self.task_id not in self.policy["steps"]:
            raise AirflowSkipException(f"{self.task_id} is not among the steps that are to be done.")
        policy = MaintenancePolicy.from_params(self.policy)
        self.log.info("%s: %s", "Dry run, nothing is changed" if policy.dry_run else "Real run", policy)
        try:
            findings = self.maintain(policy)
        except MaintenanceRefusedError as error:
            context["ti"].xcom_push(key=FINDINGS, value=[each.to_dict() for each in error.findings])
            raise
        told = [each.to_dict() for each in findings]
        context["ti"].xcom_push(key=FINDINGS, value=told)
        return told


class ExpireSnapshotsOperator(MaintenanceStepOperator):
    """Expire the snapshots of all tables that are past retention; deletes no file."""

    def maintain(self, policy: MaintenancePolicy) -> list[Finding]:
        from modlake.lake.catalog import open_catalog
        from modlake.lake.maintenance.snapshots import expire_snapshots

        return expire_snapshots(open_catalog(), policy, datetime.now(UTC), self.log.info)


class CompactTablesOperator(MaintenanceStepOperator):
    """Rewrite days of many small files as few sorted ones with the same rows."""

    def maintain(self, policy: MaintenancePolicy) -> list[Finding]:
        from modlake.lake.catalog import open_catalog
        from modlake.lake.maintenance.compaction import compact_tables

        return compact_tables(open_catalog(), policy, self.log.info)


class SweepOrphansOperator(MaintenanceStepOperator):
    """Delete data and metadata files of the tables that no snapshot leads to."""

    def maintain(self, policy: MaintenancePolicy) -> list[Finding]:
        from modlake.lake.catalog import open_catalog
        from modlake.lake.maintenance.orphans import sweep_orphans

        return sweep_orphans(open_catalog(), self.hook, policy, datetime.now(UTC), self.log.info)


class SweepRunsOperator(MaintenanceStepOperator):
    """
    Retire runs that are not published, and delete what nothing needs below the work bucket.

    :param work_uri: the bucket or prefix of Modlake's own files (templated)
    :param moderation_dag_id: the DAG whose runs plan, land and publish there
    """

    template_fields = aws_template_fields("policy", "work_uri")

    def __init__(self, *, work_uri: str, moderation_dag_id: str = "moderate_images", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.work_uri = work_uri
        self.moderation_dag_id = moderation_dag_id

    def maintain(self, policy: MaintenancePolicy) -> list[Finding]:
        from modlake.lake.catalog import open_catalog
        from modlake.lake.maintenance.runs import sweep_runs

        ti = get_current_context()["ti"]

        def is_going(run_id: str) -> bool:
            count: int = ti.get_dr_count(
                dag_id=self.moderation_dag_id, run_ids=[run_id], states=["queued", "running"]
            )
            return count > 0

        return sweep_runs(
            open_catalog(),
            self.hook,
            self.work_uri,
            policy=policy,
            now=datetime.now(UTC),
            is_going=is_going,
            report=self.log.info,
        )


class ReportMaintenanceOperator(AwsBaseOperator[S3ObjectStoreHook]):
    """
    Write what the steps found and did to ``<work>/maintenance/<time>.json``; returns that URI.

    Fails after writing when a step that was to be done left nothing, or left findings on which it refused to
    act.

    :param work_uri: the bucket or prefix of Modlake's own files (templated)
    :param policy: the params that the steps got (templated)
    :param steps: their task ids
    """

    aws_hook_class = S3ObjectStoreHook
    template_fields = aws_template_fields("work_uri", "policy")
    template_fields_renderers: ClassVar = {"policy": "json"}

    def __init__(
        self, *, work_uri: str, policy: Mapping[str, Any], steps: Sequence[str], **kwargs: Any
    ) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.work_uri = work_uri
        self.policy = policy
        self.steps = steps

    def execute(self, context: Context) -> str:
        ti = context["ti"]
        steps = [step for step in self.steps if step in self.policy["steps"]]
        findings = {step: ti.xcom_pull(task_ids=step, key=FINDINGS) for step in steps}
        unfinished = [step for step in steps if ti.xcom_pull(task_ids=step) is None]
        started = context["dag_run"].start_date or datetime.now(UTC)
        uri = f"{as_folder_uri(self.work_uri)}maintenance/{started.astimezone(UTC):%Y%m%dT%H%M%SZ}.json"
        report = {
            "airflow_run_id": context["run_id"],
            "started_at": started.isoformat(),
            "policy": dict(self.policy),
            "steps": findings,
            "unfinished": unfinished,
        }
        self.hook.write(uri, json.dumps(report, indent=1).encode())
        self.log.info("%s:\n%s", uri, _as_table(findings))
        if unfinished:
            raise ModlakeTerminalError(
                f"Maintenance ended early: {', '.join(unfinished)} did not finish. What was found and done "
                f"is in {uri}; read the log of that task, mend what it names, then clear it."
            )
        return uri


def _as_table(findings: Mapping[str, list[dict[str, Any]] | None]) -> str:
    lines = [f"{'scope':<10} {'kind':<24} {'of':>9} {'found':>9} {'done':>9} {'MB':>10}  oldest"]
    lines += [
        f"{each['scope']:<10} {each['kind']:<24} {each['total']:>9,} {each['found']:>9,} {each['done']:>9,} "
        f"{each['size_bytes'] / 1e6:>10,.1f}  {(each['oldest'] or '-')[:16]}"
        for step in findings.values()
        for each in step or ()
    ]
    return "\n".join(lines)
