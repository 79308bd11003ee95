"""The records of a shard's jobs, jobs/<shard>.json in the run folder, as the analysis left them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.object_store import ObjectNotFoundError, ObjectStore
from modlake.pipeline.plan import Plan
from modlake.pipeline.s3_uri import s3_object_uri


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What is known of a job of a shard: the engine, and the last GetMediaAnalysisJob answer.

    ``retry`` is 0 for the job of all its images.
    """

    shard: int
    retry: int
    engine: str
    job_id: str
    job: dict[str, Any]

    @property
    def results_uri(self) -> str | None:
        return s3_object_uri(self.job.get("Results"))

    @property
    def summary_uri(self) -> str | None:
        return s3_object_uri(self.job.get("ManifestSummary"))

    @property
    def manifest_uri(self) -> str | None:
        return s3_object_uri(self.job.get("Input"))

    @property
    def adapter_arn(self) -> str | None:
        """The adapter that the job was asked to use."""
        asked: dict[str, str] = self.job.get("OperationsConfig", {}).get("DetectModerationLabels", {})
        return asked.get("ProjectVersion")

    @property
    def started_at(self) -> datetime | None:
        return _time(self.job.get("CreationTimestamp"))

    @property
    def completed_at(self) -> datetime | None:
        return _time(self.job.get("CompletionTimestamp"))


def read_finished_jobs(
    store: ObjectStore, plan: Plan, shard: int, *, retries: int | None = None
) -> list[JobRecord]:
    """Return the records of a shard's jobs, all of which succeeded: the first one, and the retries in order.

    ``retries`` is how many of these to read at most; by default as many as the plan allows.

    Raises ObjectNotFoundError when the shard has no job yet, ModlakeTerminalError when one is not SUCCEEDED,
    or is missing although a manifest asks for it.
    """
    records = [read_finished_job(store, plan, shard)]
    for retry in range(1, (plan.image_retries if retries is None else retries) + 1):
        manifest_uri = plan.folder.manifest_uri(shard, retry)
        if not store.exists(manifest_uri):
            break
        try:
            records.append(read_finished_job(store, plan, shard, retry))
        except ObjectNotFoundError as error:
            raise ModlakeTerminalError(
                f"{manifest_uri} asks again for images of shard {shard}, but no record tells of its job. "
                "Clear the analyse task of its group; if this stays, the plan task of that day."
            ) from error
    return records


def read_finished_job(store: ObjectStore, plan: Plan, shard: int, retry: int = 0) -> JobRecord:
    """Return the record of a job that succeeded.

    Raises ObjectNotFoundError when there is no such job, ModlakeTerminalError when it is not SUCCEEDED.
    """
    record = json.loads(store.read(plan.folder.job_uri(shard, retry)))
    job = record.get("job") or {}
    if job.get("Status") != "SUCCEEDED":
        raise ModlakeTerminalError(
            f"Job {record.get('job_id')} of shard {shard} of {plan.day} is "
            f"{job.get('Status', 'not started')}, not SUCCEEDED. Clear the analyse task of its group."
        )
    return JobRecord(shard=shard, retry=retry, engine=record["engine"], job_id=record["job_id"], job=job)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
