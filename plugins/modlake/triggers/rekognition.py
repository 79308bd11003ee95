"""Start Amazon Rekognition media analysis jobs, and wait for them, without holding a worker."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent
from botocore.exceptions import BotoCoreError, ClientError

from modlake.exceptions import ModlakeError, ModlakeTransientError
from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.hooks.rekognition import LIST_PAGE_SIZE, RekognitionHook, check_whole, typed_error
from modlake.pipeline.engine_claims import NoMemory
from modlake.pipeline.media_analysis import (
    FAILED,
    GETS_WORTH_A_LIST,
    RETRY_SECONDS,
    MediaAnalysisReconciler,
    analysis_of,
    has_ended,
    unstoppable,
)
from modlake.triggers.aws import MINIMUM_AGE_SECONDS, AwsTrigger

if TYPE_CHECKING:
    from modlake.pipeline.media_analysis import Progress


class MediaAnalysisJobCompletedTrigger(AwsTrigger):
    """
    Fire when media analysis jobs have ended.

    The event is ``{"status": "success" | "waiting" | "error", "jobs": {job id: status}, "message": …}``:
    ``success`` when all jobs have ended, or one FAILED; ``waiting`` when ``wake_at`` came first;
    ``error`` when AWS refused to answer. Read the jobs again on resumption: an event has no failure details.

    Throttling and server errors are waited out.

    :param job_ids: the jobs to wait for; none waits for ``wake_at`` alone
    :param poll_interval: seconds between looks, give or take a fifth
    :param wake_at: fire at this time (aware) in any case
    :param aws_settings: see :class:`~modlake.triggers.aws.AwsTrigger`
    """

    # Triggers of deferred tasks are rebuilt from these names: add with a default, never rename.
    def __init__(
        self,
        *,
        job_ids: Sequence[str],
        poll_interval: float = 60,
        wake_at: datetime | None = None,
        **aws_settings: Any,
    ) -> None:
        super().__init__(**aws_settings)
        if not job_ids and wake_at is None:
            raise ValueError("Nothing would ever fire: give job_ids, wake_at, or both.")
        self.job_ids = list(job_ids)
        self.poll_interval = poll_interval
        self.wake_at = wake_at

    def _own_arguments(self) -> dict[str, Any]:
        return {
            "job_ids": self.job_ids,
            "poll_interval": self.poll_interval,
            "wake_at": self.wake_at,
        }

    def hook(self) -> RekognitionHook:
        return RekognitionHook(**self.hook_settings)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        began = time.monotonic()
        try:
            event = await self._wait()
        except ModlakeError as error:
            event = {"status": "error", "jobs": {}, "message": str(error)}
        await asyncio.sleep(MINIMUM_AGE_SECONDS - (time.monotonic() - began))
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        if self.job_ids:
            self.log.warning(unstoppable(self.job_ids))

    async def _wait(self) -> dict[str, Any]:
        statuses: dict[str, str] = {}
        trouble: str | None = None
        async with await self.hook().get_async_conn() as client:
            while True:
                try:
                    await self._look(client, statuses)
                    trouble = None
                except ModlakeTransientError as error:
                    trouble = str(error)
                    self.log.warning(trouble)
                ended = [job_id for job_id in self.job_ids if self._has_ended(job_id, statuses)]
                self.log.info("%d of %d media analysis jobs have ended", len(ended), len(self.job_ids))
                if 0 < len(self.job_ids) == len(ended) or FAILED in statuses.values():
                    return {"status": "success", "jobs": statuses, "message": None}
                pause = self.poll_interval * random.uniform(0.8, 1.2)  # noqa: S311 - spreads calls, no secret
                if self.wake_at is not None:
                    left = (self.wake_at - datetime.now(UTC)).total_seconds()
                    if left <= 0:
                        return {"status": "waiting", "jobs": statuses, "message": trouble}
                    pause = min(pause, left)
                await asyncio.sleep(pause)

    @staticmethod
    def _has_ended(job_id: str, statuses: dict[str, str]) -> bool:
        return job_id in statuses and has_ended({"JobId": job_id, "Status": statuses[job_id]})

    async def _look(self, client: Any, statuses: dict[str, str]) -> None:
        """Bring ``statuses`` up to date for the jobs that had not ended when last looked at."""
        wanted = [job_id for job_id in self.job_ids if not self._has_ended(job_id, statuses)]
        listed: dict[str, str] = {}
        if len(wanted) > GETS_WORTH_A_LIST:
            call = client.list_media_analysis_jobs(MaxResults=LIST_PAGE_SIZE)
            page = await _answer(call, "ListMediaAnalysisJobs", "the account")
            listed = {job["JobId"]: job["Status"] for job in page["MediaAnalysisJobs"]}
        for job_id in wanted:
            # The list holds the newest jobs only.
            if job_id not in listed:
                call = client.get_media_analysis_job(JobId=job_id)
                listed[job_id] = (await _answer(call, "GetMediaAnalysisJob", f"job {job_id}"))["Status"]
            statuses[job_id] = listed[job_id]


class ManifestGroupAnalysedTrigger(AwsTrigger):
    """
    Start the jobs that a group of manifests lacks as slots come free, and fire when all have succeeded.

    The event is ``{"status": "success" | "waiting" | "error", "message": …, "first_generations": {…},
    "submitted": {fingerprint: [generation, job id]}}``: ``waiting`` when the deadline came first; ``error``
    when something needs the task, such as a job that failed for good: the task reads everything again, and
    meets the same. ``first_generations`` are for its reconciler, ``submitted`` for its memory. Throttling,
    server errors and a full account are waited out.

    What was started is found again by its submission records, so a trigger that is moved to another
    triggerer, or runs in two of them for a while, starts nothing twice.

    :param plan_uri: the plan of the run
    :param shards: the manifests, as ``dataclasses.asdict`` gives their :class:`~modlake.pipeline.plan.Shard`
    :param jobs_at_once: how many of the jobs run at a time; as many as the account takes by default
    :param first_generations: see :class:`~modlake.pipeline.media_analysis.MediaAnalysisReconciler`
    :param deadline: fire at this time (aware) in any case
    :param poll_interval: seconds between looks, give or take a fifth
    :param aws_settings: see :class:`~modlake.triggers.aws.AwsTrigger`
    """

    # Triggers of deferred tasks are rebuilt from these names: add with a default, never rename.
    def __init__(
        self,
        *,
        plan_uri: str,
        shards: Sequence[Mapping[str, Any]],
        deadline: datetime,
        jobs_at_once: int | None = None,
        first_generations: Mapping[str, int] | None = None,
        poll_interval: float = 60,
        **aws_settings: Any,
    ) -> None:
        super().__init__(**aws_settings)
        self.plan_uri = plan_uri
        self.shards = [dict(shard) for shard in shards]
        self.deadline = deadline
        self.jobs_at_once = jobs_at_once
        self.first_generations = dict(first_generations or {})
        self.poll_interval = poll_interval
        self._reconciler: MediaAnalysisReconciler | None = None

    def _own_arguments(self) -> dict[str, Any]:
        return {
            "plan_uri": self.plan_uri,
            "shards": self.shards,
            "deadline": self.deadline,
            "jobs_at_once": self.jobs_at_once,
            "first_generations": self.first_generations,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        began = time.monotonic()
        try:
            event = await self._bring_about()
        except ModlakeError as error:
            event = {"status": "error", "message": str(error)}
        finally:
            if self._reconciler is not None:
                # A pass runs on in its thread when the trigger is cancelled.
                self._reconciler.may_start = False
        if self._reconciler is not None:
            event["first_generations"] = self._reconciler.first_generations
            event["submitted"] = self._reconciler.submitted
        await asyncio.sleep(MINIMUM_AGE_SECONDS - (time.monotonic() - began))
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        if self._reconciler is not None and (job_ids := self._reconciler.active_job_ids):
            self.log.warning(unstoppable(job_ids))

    async def _bring_about(self) -> dict[str, Any]:
        # botocore's calls and S3 in threads: one reconciler serves workers and triggerers.
        reconciler = self._reconciler = await asyncio.to_thread(self._make_reconciler)
        may_start_at = time.monotonic()
        progress: Progress | None = None
        while True:
            succeeded = 0 if progress is None else progress.succeeded
            reconciler.may_start = time.monotonic() >= may_start_at
            progress = await asyncio.to_thread(reconciler.reconcile)
            self.log.info("%s", progress)
            if progress.is_complete:
                return {"status": "success", "message": None}
            left = (self.deadline - datetime.now(UTC)).total_seconds()
            if left <= 0:
                return {"status": "waiting", "message": reconciler.trouble}
            if reconciler.is_refused:
                # The account's slots are others' too, and each Start comes after a search.
                may_start_at = time.monotonic() + RETRY_SECONDS * random.uniform(1, 2)  # noqa: S311
            elif not reconciler.may_start and progress.succeeded > succeeded:
                may_start_at = time.monotonic()  # an own job has left its slot
                continue
            await asyncio.sleep(min(left, self.poll_interval * random.uniform(0.8, 1.2)))  # noqa: S311

    def _make_reconciler(self) -> MediaAnalysisReconciler:
        from modlake.pipeline.plan import Shard, read_plan

        store = S3ObjectStoreHook(**self.hook_settings)
        plan = read_plan(store, self.plan_uri)
        return MediaAnalysisReconciler(
            RekognitionHook(**self.hook_settings),
            [analysis_of(store, plan, Shard(**shard), NoMemory()) for shard in self.shards],
            report=self.log.info,
            first_generations=self.first_generations,
            jobs_at_once=self.jobs_at_once,
        )


async def _answer(call: Awaitable[dict[str, Any]], operation: str, subject: str) -> dict[str, Any]:
    try:
        answer = await call
    except (ClientError, BotoCoreError) as error:
        raise typed_error(error, operation, subject) from error
    check_whole(answer, operation, subject)
    return answer
