"""A shard's job record, jobs/<shard>.json in the run folder, as the analysis left it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.plan import Plan


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What is known of a shard's job: the engine, and the last GetMediaAnalysisJob answer."""

    shard: int
    engine: str
    job_id: str
    job: dict[str, Any]

    @property
    def results_uri(self) -> str | None:
        return _object_uri(self.job.get("Results"))

    @property
    def summary_uri(self) -> str | None:
        return _object_uri(self.job.get("ManifestSummary"))

    @property
    def manifest_uri(self) -> str | None:
        return _object_uri(self.job.get("Input"))

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


def read_finished_job(store: ObjectStore, plan: Plan, shard: int) -> JobRecord:
    """Return the record of a shard's job that succeeded.

    Raises ObjectNotFoundError when the shard has no job yet, ModlakeTerminalError when it is not SUCCEEDED.
    """
    record = json.loads(store.read(plan.folder.job_uri(shard)))
    job = record.get("job") or {}
    if job.get("Status") != "SUCCEEDED":
        raise ModlakeTerminalError(
            f"Job {record.get('job_id')} of shard {shard} of {plan.day} is "
            f"{job.get('Status', 'not started')}, not SUCCEEDED. Clear the analyse task of its group."
        )
    return JobRecord(shard=shard, engine=record["engine"], job_id=record["job_id"], job=job)


def _object_uri(place: dict[str, Any] | None) -> str | None:
    s3_object = (place or {}).get("S3Object")
    return f"s3://{s3_object['Bucket']}/{s3_object['Name']}" if s3_object else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
