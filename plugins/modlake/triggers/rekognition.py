"""Wait for Amazon Rekognition media analysis jobs without holding a worker."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from airflow.triggers.base import BaseTrigger, TriggerEvent
from botocore.exceptions import BotoCoreError, ClientError

from modlake.exceptions import ModlakeError, ModlakeTransientError
from modlake.hooks.rekognition import LIST_PAGE_SIZE, RekognitionHook, check_whole, typed_error
from modlake.pipeline.media_analysis import FAILED, GETS_WORTH_A_LIST, has_ended, unstoppable

MINIMUM_AGE_SECONDS = 20
"""Airflow 3.3.2 fails a task whose trigger fires within some seconds of the deferral: never fire sooner."""


class MediaAnalysisJobCompletedTrigger(BaseTrigger):
    """
    Fire when media analysis jobs have ended.

    The event is ``{"status": "success" | "waiting" | "error", "jobs": {job id: status}, "message": …}``:
    ``success`` when the jobs waited for have ended, well or not; ``waiting`` when ``wake_at`` came first;
    ``error`` when AWS refused to answer. Read the jobs again on resumption: an event has no failure details.

    Throttling and server errors are waited out.

    :param job_ids: the jobs to wait for; none waits for ``wake_at`` alone
    :param wait_for: ``all`` fires when all have ended; ``any`` one look after the first has, so that those
        which end with it wake the task only once; both as soon as one FAILED
    :param poll_interval: seconds between looks, give or take a fifth
    :param wake_at: fire at this time (aware) in any case
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    # Triggers of deferred tasks are rebuilt from these names: add with a default, never rename.
    def __init__(
        self,
        *,
        job_ids: Sequence[str],
        wait_for: Literal["all", "any"] = "all",
        poll_interval: float = 60,
        wake_at: datetime | None = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not job_ids and wake_at is None:
            raise ValueError("Nothing would ever fire: give job_ids, wake_at, or both.")
        self.job_ids = list(job_ids)
        self.wait_for = wait_for
        self.poll_interval = poll_interval
        self.wake_at = wake_at
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "job_ids": self.job_ids,
                "wait_for": self.wait_for,
                "poll_interval": self.poll_interval,
                "wake_at": self.wake_at,
                "aws_conn_id": self.aws_conn_id,
                "region_name": self.region_name,
                "verify": self.verify,
                "botocore_config": self.botocore_config,
            },
        )

    def hook(self) -> RekognitionHook:
        return RekognitionHook(
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            config=self.botocore_config,
        )

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
        ended: list[str] = []
        async with await self.hook().get_async_conn() as client:
            while True:
                try:
                    await self._look(client, statuses)
                    trouble = None
                except ModlakeTransientError as error:
                    trouble = str(error)
                    self.log.warning(trouble)
                had_ended = len(ended)
                ended = [job_id for job_id in self.job_ids if self._has_ended(job_id, statuses)]
                self.log.info("%d of %d media analysis jobs have ended", len(ended), len(self.job_ids))
                have_all_ended = 0 < len(self.job_ids) == len(ended)
                is_any_due = self.wait_for == "any" and had_ended > 0
                if have_all_ended or is_any_due or FAILED in statuses.values():
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


async def _answer(call: Awaitable[dict[str, Any]], operation: str, subject: str) -> dict[str, Any]:
    try:
        answer = await call
    except (ClientError, BotoCoreError) as error:
        raise typed_error(error, operation, subject) from error
    check_whole(answer, operation, subject)
    return answer
