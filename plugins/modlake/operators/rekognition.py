"""Bulk image moderation with Amazon Rekognition media analysis jobs."""

from __future__ import annotations

import random
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils import validate_execute_complete_event
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.sdk import conf

from modlake.exceptions import ModlakeTransientError
from modlake.hooks.object_store import S3ObjectStoreHook, explained
from modlake.hooks.rekognition import InvalidRequestError, RekognitionHook, check_min_confidence, check_text
from modlake.links.rekognition import MediaAnalysisResultLink, RekognitionMediaAnalysisJobLink
from modlake.operators.arguments import is_known_later
from modlake.pipeline.engines import Engine
from modlake.pipeline.media_analysis import (
    RETRY_SECONDS,
    SUCCEEDED,
    Analysis,
    MediaAnalysisReconciler,
    Progress,
    analysis_of,
    duration_seconds,
    unstoppable,
)
from modlake.pipeline.s3_uri import s3_object_uri, split_s3_uri
from modlake.pipeline.submissions import MemorySubmissionLedger, client_request_token, digest
from modlake.retries import never_retry_terminal_errors
from modlake.triggers.rekognition import ManifestGroupAnalysedTrigger, MediaAnalysisJobCompletedTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.execution_time.context import TaskStateStoreAccessor
    from airflow.triggers.base import BaseTrigger

    from modlake.operators.rekognition_synchronous import SynchronousJudge
    from modlake.pipeline.plan import Plan, Shard

# Jobs that end soon are awaited in the worker: Airflow 3.3.2 loses deferrals that end at once.
WORKER_WAIT_SECONDS = 15.0

# The trigger wakes its task at the deadline; Airflow's own timeout only catches a trigger that can't.
DEFER_TIMEOUT_GRACE = timedelta(minutes=5)


class MediaAnalysisDeadlineError(ModlakeTransientError):
    """The jobs had not ended within the time given; they run on, and another try takes them up again."""


class TaskJobMemory:
    """The jobs of a task instance, kept in Airflow's task state store across tries and clears."""

    KEY = "media_analysis_jobs"

    def __init__(self, task_state_store: TaskStateStoreAccessor | None) -> None:
        self._store = task_state_store
        kept: Any = None if task_state_store is None else task_state_store.get(self.KEY)
        self._jobs: dict[str, dict[str, Any]] = kept or {}

    def recall(self, fingerprint: str) -> tuple[int, str] | None:
        # By fingerprint, as another manifest may have this task's map index after the upstream list changed.
        known = self._jobs.get(fingerprint)
        return (known["generation"], known["job_id"]) if known else None

    def remember(self, fingerprint: str, generation: int, job_id: str) -> None:
        self.remember_all({fingerprint: (generation, job_id)})

    def remember_all(self, jobs: Mapping[str, tuple[int, str]]) -> None:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        for fingerprint, (generation, job_id) in jobs.items():
            self._jobs[fingerprint] = {"generation": generation, "job_id": job_id}
        if jobs and self._store is not None:
            self._store.set(self.KEY, self._jobs, retention=NEVER_EXPIRE)


class MediaAnalysisBaseOperator(AwsBaseOperator[RekognitionHook]):
    """
    Bring media analysis jobs about and wait for them, in the worker or in the triggerer.

    :param poll_interval: seconds between looks at the jobs
    :param timeout: how long one attempt of the task waits
    :param deferrable: wait in the triggerer
    """

    aws_hook_class = RekognitionHook
    operator_extra_links = (RekognitionMediaAnalysisJobLink(), MediaAnalysisResultLink())
    ui_color = "#e7f2fa"

    def __init__(self, *, poll_interval: float, timeout: timedelta, deferrable: bool, **kwargs: Any) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.deferrable = deferrable
        self._reconciler: MediaAnalysisReconciler | None = None

    def _check_positive(self, name: str, value: timedelta | float, example: str) -> None:
        if (value.total_seconds() if isinstance(value, timedelta) else value) <= 0:
            raise ValueError(
                f"Task {self.task_id!r}: {name} is {value}. Write a positive one, for example {example}."
            )

    def execute(self, context: Context) -> dict[str, Any]:
        return self._run(context, deadline=datetime.now(UTC) + self.timeout, first_generations={})

    def execute_complete(
        self, context: Context, event: dict[str, Any], *, deadline: str, first_generations: dict[str, int]
    ) -> dict[str, Any]:
        """Resume after the trigger fired; its event is news only, the jobs themselves are read again."""
        news = validate_execute_complete_event(event)
        self.log.info("Resumed: %s", {name: news.get(name) for name in ("status", "message")})
        TaskJobMemory(context.get("task_state_store")).remember_all(news.get("submitted", {}))
        followed = first_generations | news.get("first_generations", {})
        return self._run(context, deadline=datetime.fromisoformat(deadline), first_generations=followed)

    def on_kill(self) -> None:
        if self._reconciler is not None and (job_ids := self._reconciler.active_job_ids):
            self.log.warning(unstoppable(job_ids))

    @abstractmethod
    def _run(
        self, context: Context, *, deadline: datetime, first_generations: Mapping[str, int]
    ) -> dict[str, Any]:
        """Go on where the last attempt or the time before the deferral ended."""

    def _bring_about(
        self,
        context: Context,
        analyses: list[Analysis],
        *,
        deadline: datetime,
        first_generations: Mapping[str, int],
        until: Callable[[Progress], bool],
        jobs_at_once: int | None = None,
    ) -> MediaAnalysisReconciler:
        """
        Reconcile until ``until`` is content; may defer.

        :raises MediaAnalysisDeadlineError: ``deadline`` has passed
        """
        reconciler = MediaAnalysisReconciler(
            self.hook,
            analyses,
            report=self.log.info,
            first_generations=first_generations,
            jobs_at_once=jobs_at_once,
        )
        self._reconciler = reconciler
        began = time.monotonic()
        linked = False
        while True:
            progress = reconciler.reconcile()
            self.log.info("%s", progress)
            if reconciler.jobs and not linked:
                self._persist_links(context)
                linked = True
            if until(progress):
                return reconciler
            if datetime.now(UTC) >= deadline:
                raise MediaAnalysisDeadlineError(
                    f"Media analysis had not ended after {self.timeout}: {progress}. "
                    f"{reconciler.trouble or 'The jobs are slow.'} What was started runs on, and another try "
                    "takes it up again without paying twice: clear the task, or give it a longer timeout."
                )
            waited = time.monotonic() - began
            if waited < WORKER_WAIT_SECONDS and self._may_end_soon(reconciler, progress):
                time.sleep(min(self.poll_interval, (1 + waited / 4) * random.uniform(0.8, 1.2)))  # noqa: S311 spreads calls
            elif self.deferrable:
                self._defer(progress, deadline, reconciler)
            else:
                time.sleep(self.poll_interval * random.uniform(0.8, 1.2))  # noqa: S311 - spreads calls

    def _may_end_soon(self, reconciler: MediaAnalysisReconciler, progress: Progress) -> bool:
        """Tell whether a short wait in the worker may spare a deferral, or fill a slot that was refused."""
        if reconciler.is_held_up:
            return True
        ended = [job for job in reconciler.jobs.values() if job["Status"] == SUCCEEDED]
        took = max(map(duration_seconds, ended), default=0.0)
        return not progress.awaiting and took < WORKER_WAIT_SECONDS

    def _defer(self, progress: Progress, deadline: datetime, reconciler: MediaAnalysisReconciler) -> None:
        self.defer(
            trigger=self._trigger(progress, deadline, reconciler.first_generations),
            method_name="execute_complete",
            kwargs={"deadline": deadline.isoformat(), "first_generations": reconciler.first_generations},
            timeout=deadline - datetime.now(UTC) + DEFER_TIMEOUT_GRACE,
        )

    def _trigger(
        self,
        progress: Progress,
        deadline: datetime,
        first_generations: Mapping[str, int],  # noqa: ARG002 for triggers that start jobs
    ) -> BaseTrigger:
        """Return what wakes the task when there may be something for it to do."""
        wake_at = deadline
        if progress.awaiting:
            pause = max(self.poll_interval, RETRY_SECONDS) * random.uniform(1, 2)  # noqa: S311
            wake_at = min(deadline, datetime.now(UTC) + timedelta(seconds=pause))
        return MediaAnalysisJobCompletedTrigger(
            job_ids=progress.active_job_ids,
            poll_interval=self.poll_interval,
            wake_at=wake_at,
            **self._aws_settings,
        )

    @property
    def _aws_settings(self) -> dict[str, Any]:
        return {
            "aws_conn_id": self.aws_conn_id,
            "region_name": self.region_name,
            "verify": self.verify,
            "botocore_config": self.botocore_config,
        }

    def _persist_links(self, context: Context) -> None:
        bucket, prefix = self._result_place()
        place = {"region_name": self.hook.conn_region_name, "aws_partition": self.hook.conn_partition}
        RekognitionMediaAnalysisJobLink.persist(context=context, operator=self, **place)
        MediaAnalysisResultLink.persist(context=context, operator=self, bucket=bucket, prefix=prefix, **place)

    def _result_place(self) -> tuple[str, str]:
        """Return bucket and prefix of what a person may want to look at."""
        raise NotImplementedError


class AnalyseManifestsOperator(MediaAnalysisBaseOperator):
    """
    Analyse a group of a plan's manifests: one media analysis job for each, started once and awaited.

    Every try takes up what exists, found by the task state store, the submission records of the work bucket
    or the job's name, in this order, before it starts anything; so retries, clears and further runs of the
    day pay for nothing twice. A full account is waited out. The jobs are told in ``jobs/`` of the run folder.

    Images that a job left without an answer, or could not judge for a passing reason, are asked for again in
    a job of their own, as often as the plan's ``image_retries`` allow.

    What single calls were given before is left to them, and judged here. When jobs are denied and the plan
    was asked for ``auto``, the denial is explained in the log and noted for the plans of the coming days, and
    the shards that have no job yet are judged here by single calls.

    Returns the group. For readable map indexes set
    ``map_index_template="shards {{ task.manifest_group['shards'] | join(', ') }}"``.

    :param manifest_group: ``{"plan_uri": …, "group": 0, "shards": [0, 1]}``, as BuildManifestsOperator
        returns it (templated)
    :param jobs_at_once: how many of the group's jobs run at a time; as many as the account takes by default.
        Give the task as many slots of the pool that stands for the account's quota
    :param poll_interval: seconds between looks at the jobs
    :param timeout: how long one attempt of the task waits for the jobs
    :param deferrable: wait in the triggerer
    """

    template_fields = aws_template_fields("manifest_group")
    template_fields_renderers: ClassVar = {"manifest_group": "json"}

    def __init__(
        self,
        *,
        manifest_group: Mapping[str, Any],
        jobs_at_once: int | None = None,
        poll_interval: float = 60,
        timeout: timedelta = timedelta(hours=24),
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(poll_interval=poll_interval, timeout=timeout, deferrable=deferrable, **kwargs)
        self.manifest_group = manifest_group
        self.jobs_at_once = jobs_at_once
        if jobs_at_once is not None:
            self._check_positive("jobs_at_once", jobs_at_once, "5")
        self._single_calls: SynchronousJudge | None = None
        self._shards: list[Shard] = []
        self._check_positive("poll_interval", poll_interval, "60")
        self._check_positive("timeout", timeout, "timedelta(hours=24)")

    def _run(
        self, context: Context, *, deadline: datetime, first_generations: Mapping[str, int]
    ) -> dict[str, Any]:
        from modlake.operators.rekognition_synchronous import SynchronousJudge
        from modlake.operators.shards_judge import ShardsJudge
        from modlake.pipeline.plan import read_plan

        group = self._group()
        store = S3ObjectStoreHook(**self._hook_parameters)
        plan = read_plan(store, group["plan_uri"])
        memory = TaskJobMemory(context.get("task_state_store"))
        self._reconciler = None
        self._single_calls = SynchronousJudge(self.hook, store, plan, context, self.log.info)

        def by_bulk(shards: list[Shard]) -> None:
            self._shards = shards
            followed = self._reconciler.first_generations if self._reconciler else first_generations
            reconciler = self._bring_about(
                context,
                [analysis_of(store, plan, shard, memory) for shard in shards],
                deadline=deadline,
                first_generations=followed,
                until=lambda progress: progress.is_complete,
                jobs_at_once=self.jobs_at_once,
            )
            for name, job in sorted(reconciler.jobs.items()):
                self.log.info("%s: job %s took %.1f min", name, job["JobId"], duration_seconds(job) / 60)

        ShardsJudge(
            api=self.hook,
            store=store,
            plan=plan,
            prefers=Engine.BULK,
            by_bulk=by_bulk,
            by_sync=partial(self._single_calls.judge, rate_share=self._share_of_rate(plan)),
            report=self.log.info,
        ).judge([plan.shards[number] for number in group["shards"]])
        images = sum(plan.shards[shard].image_count for shard in group["shards"])
        self.log.info(
            "Analysed group %s of %s: %s images in %d jobs",
            group["group"],
            plan.day,
            f"{images:,}",
            len(group["shards"]),
        )
        return group

    def on_kill(self) -> None:
        super().on_kill()
        if self._single_calls is not None:
            self._single_calls.stop()

    def _may_end_soon(self, reconciler: MediaAnalysisReconciler, progress: Progress) -> bool:
        # What has to wait for its start does so in the triggerer, which starts it there.
        is_trigger_needed = self.deferrable and bool(progress.awaiting)
        return not is_trigger_needed and super()._may_end_soon(reconciler, progress)

    def _trigger(
        self, progress: Progress, deadline: datetime, first_generations: Mapping[str, int]
    ) -> BaseTrigger:
        if not progress.awaiting:
            return super()._trigger(progress, deadline, first_generations)
        return ManifestGroupAnalysedTrigger(
            plan_uri=self.manifest_group["plan_uri"],
            shards=[asdict(shard) for shard in self._shards],
            jobs_at_once=self.jobs_at_once,
            first_generations=first_generations,
            deadline=deadline,
            poll_interval=self.poll_interval,
            **self._aws_settings,
        )

    def _share_of_rate(self, plan: Plan) -> float:
        """Return what this task may use of the rate of single calls, beside the tasks that hold the jobs."""
        groups = len(plan.groups_of(Engine.BULK))
        at_once = plan.engines.concurrent_jobs // self.pool_slots if plan.engines else groups
        return 1 / max(1, min(groups, at_once))

    def _group(self) -> dict[str, Any]:
        group = self.manifest_group
        if not isinstance(group, Mapping) or not {"plan_uri", "group", "shards"} <= group.keys():
            raise InvalidRequestError(
                f"Task {self.task_id!r}: manifest_group is {group!r}. Write one element of what "
                "BuildManifestsOperator returns, a dict with plan_uri, group and shards."
            )
        return dict(group)

    def _result_place(self) -> tuple[str, str]:
        return split_s3_uri(self.manifest_group["plan_uri"].removesuffix("plan.json"))


_TEXT_FIELDS = {
    "manifest_bucket": "Bucket",
    "manifest_key": "Name",
    "manifest_version": "Version",
    "output_bucket": "Bucket",
    "output_prefix": "S3KeyPrefix",
    "project_version": "ProjectVersion",
    "kms_key_id": "KmsKeyId",
    "job_name": "JobName",
    "client_request_token": "ClientRequestToken",
}


class StartMediaAnalysisJobOperator(MediaAnalysisBaseOperator):
    """
    Start an Amazon Rekognition media analysis job: the bulk moderation of the images of one manifest.

    The same manifest with the same parameters and the same output is started, and paid for, once: the job is
    found again by the task state store, by its default name, or by AWS by its default token. A job that
    FAILED is followed by another one on the next try or clear.

    Returns pointers: ``job_id``, ``status``, ``manifest_uri``, ``results_uri``, ``summary_uri`` and
    ``model_version``.

    .. seealso::
        https://docs.aws.amazon.com/rekognition/latest/APIReference/API_StartMediaAnalysisJob.html

    :param manifest_bucket: bucket of the manifest (templated)
    :param manifest_key: key of the manifest, JSON Lines of ``{"source-ref": "s3://…"}`` (templated)
    :param manifest_version: version of the manifest object; the newest by default (templated)
    :param output_bucket: bucket for the results, in the region of the job (templated)
    :param output_prefix: key prefix for the results (templated)
    :param min_confidence: labels below it are not returned, 0 to 100 percent (templated)
    :param project_version: ARN of a custom moderation adapter; Rekognition's own model by default (templated)
    :param kms_key_id: KMS key that encrypts the results (templated)
    :param job_name: by default one that names the analysis, by which a lost job is found again (templated)
    :param client_request_token: by default the digest of manifest (URI and ETag or version), parameters and
        output (templated)
    :param wait_for_completion: wait until the job has ended; otherwise only until it is accepted
    :param waiter_delay: seconds between looks at the job
    :param waiter_max_attempts: looks at the job until an attempt of the task gives up
    :param timeout: how long an attempt of the task waits, instead of ``waiter_delay * waiter_max_attempts``
    :param deferrable: wait in the triggerer
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    template_fields = aws_template_fields(*_TEXT_FIELDS, "min_confidence")

    def __init__(
        self,
        *,
        manifest_bucket: str,
        manifest_key: str,
        manifest_version: str | None = None,
        output_bucket: str,
        output_prefix: str = "",
        min_confidence: float | str = 50.0,
        project_version: str | None = None,
        kms_key_id: str | None = None,
        job_name: str | None = None,
        client_request_token: str | None = None,
        wait_for_completion: bool = True,
        waiter_delay: int = 60,
        waiter_max_attempts: int = 1440,
        timeout: timedelta | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            poll_interval=waiter_delay,
            timeout=timedelta(seconds=waiter_delay * waiter_max_attempts) if timeout is None else timeout,
            deferrable=deferrable,
            **kwargs,
        )
        self.manifest_bucket = manifest_bucket
        self.manifest_key = manifest_key
        self.manifest_version = manifest_version
        self.output_bucket = output_bucket
        self.output_prefix = output_prefix
        self.min_confidence = min_confidence
        self.project_version = project_version
        self.kms_key_id = kms_key_id
        self.job_name = job_name
        self.client_request_token = client_request_token
        self.wait_for_completion = wait_for_completion
        self.waiter_delay = waiter_delay
        self.waiter_max_attempts = waiter_max_attempts
        self._check_positive("waiter_delay", waiter_delay, "60")
        self._check_positive("waiter_max_attempts", waiter_max_attempts, "1440")
        self._check_positive("timeout", self.timeout, "timedelta(hours=24)")
        self._check_fields(known_now=True)

    def _run(
        self, context: Context, *, deadline: datetime, first_generations: Mapping[str, int]
    ) -> dict[str, Any]:
        self._check_fields()
        analysis = self._analysis(TaskJobMemory(context.get("task_state_store")))
        reconciler = self._bring_about(
            context,
            [analysis],
            deadline=deadline,
            first_generations=first_generations,
            until=lambda progress: (
                progress.is_complete or (not self.wait_for_completion and not progress.awaiting)
            ),
        )
        job = reconciler.jobs[analysis.name]
        pointers = {
            "job_id": job["JobId"],
            "status": job["Status"],
            "manifest_uri": analysis.name,
            "results_uri": s3_object_uri(job.get("Results")),
            "summary_uri": s3_object_uri(job.get("ManifestSummary")),
            "model_version": job.get("Results", {}).get("ModelVersions", {}).get("Moderation"),
        }
        self.log.info("Media analysis job of %s: %s", analysis.name, pointers)
        return pointers

    def _check_fields(self, *, known_now: bool = False) -> None:
        """Check all fields that are given, or those of them that no template and no other task fills in."""
        for name, member in _TEXT_FIELDS.items():
            value = getattr(self, name)
            if value is not None and not (known_now and is_known_later(value)):
                check_text(member, value, written_as=f"Task {self.task_id!r}: {name}")
        if not (known_now and is_known_later(self.min_confidence)):
            check_min_confidence(self._confidence(), written_as=f"Task {self.task_id!r}: min_confidence")

    def _confidence(self) -> float:
        try:
            return float(self.min_confidence)
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(
                f"Task {self.task_id!r}: min_confidence is {self.min_confidence!r}. Write a number, 0 to 100."
            ) from error

    def _analysis(self, memory: TaskJobMemory) -> Analysis:
        parameters = self._parameters()
        fingerprint = digest(self._manifest_state(), parameters)

        def request_for(generation: int) -> dict[str, Any]:
            token = self.client_request_token
            if token is None or generation > 0:
                token = client_request_token(token or fingerprint, generation)
            name = self.job_name or f"modlake-{fingerprint[:16]}-g{generation}"
            return {**parameters, "JobName": name, "ClientRequestToken": token}

        return Analysis(
            name=f"s3://{self.manifest_bucket}/{self.manifest_key}",
            fingerprint=fingerprint,
            request_for=request_for,
            ledger=MemorySubmissionLedger(fingerprint, memory, request_for),
        )

    def _parameters(self) -> dict[str, Any]:
        moderation: dict[str, Any] = {"MinConfidence": self._confidence()}
        manifest = {"Bucket": self.manifest_bucket, "Name": self.manifest_key}
        output = {"S3Bucket": self.output_bucket}
        parameters: dict[str, Any] = {
            "OperationsConfig": {"DetectModerationLabels": moderation},
            "Input": {"S3Object": manifest},
            "OutputConfig": output,
        }
        optional: list[tuple[dict[str, Any], str, str | None]] = [
            (moderation, "ProjectVersion", self.project_version),
            (manifest, "Version", self.manifest_version),
            (output, "S3KeyPrefix", self.output_prefix),
            (parameters, "KmsKeyId", self.kms_key_id),
        ]
        for part, member, value in optional:
            if value:
                part[member] = value
        return parameters

    def _manifest_state(self) -> str:
        """Return what changes when the manifest does."""
        if self.manifest_version is not None:
            return self.manifest_version
        hook = S3ObjectStoreHook(**self._hook_parameters)
        with explained("s3:GetObject", f"s3://{self.manifest_bucket}/{self.manifest_key}"):
            # Not HeadObject: its refusals have no body that would tell the cause.
            manifest = hook.conn.get_object(Bucket=self.manifest_bucket, Key=self.manifest_key)
        manifest["Body"].close()
        return str(manifest["ETag"])

    def _result_place(self) -> tuple[str, str]:
        return self.output_bucket, self.output_prefix
