"""
What was submitted for analysis: names that don't depend on who submits, and a ledger of the submissions.

A media analysis job is paid for and can't be stopped, and its Start may take effect although the answer is
lost. So a submission is written down before it is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Protocol

from modlake.pipeline.object_store import ObjectExistsError, ObjectNotFoundError
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri

if TYPE_CHECKING:
    from modlake.pipeline.object_store import ObjectStore
    from modlake.pipeline.plan import AnalysisParameters, Plan, Shard

_TIMES = ("CreationTimestamp", "CompletionTimestamp")


def digest(*parts: Any) -> str:
    """Hash JSON values to 64 hex digits, the same in every process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def fingerprint(images_sha256: str, parameters: AnalysisParameters, retry: int = 0) -> str:
    """
    Name an analysis by what is judged and how, and by nothing else: 64 hex digits.

    Neither day, run nor place is in it, so that equal images are paid for once, whoever submits them; the
    ETags are, since a replaced image must not get the answer of the one before. Each ``retry`` of images that
    got no answer is an analysis of its own.
    """
    asked = {
        "min_confidence": float(parameters.min_confidence),
        "adapter_arn": parameters.adapter_arn,
        "kms_key_id": parameters.kms_key_id,
        "fresh": parameters.fresh,
    }
    return digest(images_sha256, asked, *([retry] if retry else []))


def client_request_token(fingerprint: str, generation: int) -> str:
    """
    Derive the idempotency token of a submission: 64 hex digits.

    The generation is in it since a token presumably answers with its old job, even when that FAILED.
    """
    return digest(fingerprint, generation)


def job_name(day: date, shard: int, fingerprint: str, generation: int, retry: int = 0) -> str:
    """Name a job so that it can be found again, for example ``modlake-2026-11-21-00000-3f1c…-g0`` (≤ 64)."""
    tried = f"-r{retry}" if retry else ""
    return f"modlake-{day.isoformat()}-{shard:05d}{tried}-{fingerprint[:16]}-g{generation}"


@dataclass(frozen=True, slots=True)
class Submission:
    """
    A StartMediaAnalysisJob that was made or is about to be.

    :param generation: counts from 0, and moves on only after a job FAILED
    :param job_id: None as long as no answer to the Start is known
    :param is_new: this process made it up, so no job can exist for it yet
    """

    generation: int
    request: dict[str, Any]
    job_id: str | None = None
    is_new: bool = False


class JobMemory(Protocol):
    """What a task remembers across its tries: by fingerprint, the generation and the job id."""

    def recall(self, fingerprint: str) -> tuple[int, str] | None: ...

    def remember(self, fingerprint: str, generation: int, job_id: str) -> None: ...


class SubmissionLedger(Protocol):
    """The submissions of one fingerprint."""

    def latest(self) -> Submission | None:
        """Return the submission of the highest generation, None when there is none."""
        ...

    def current(self, submission: Submission) -> Submission:
        """Return the submission, unless others have started a job for it or submitted another since."""
        ...

    def claim(self, generation: int, request: dict[str, Any]) -> Submission:
        """Write a submission down before it is made. The first writer wins: others get its request."""
        ...

    def settle(self, submission: Submission) -> None:
        """Write down the job id of a submission."""
        ...

    def conclude(self, submission: Submission, job: dict[str, Any]) -> None:
        """Write down what AWS says of a job that SUCCEEDED: it forgets jobs after a year."""
        ...

    def concluded_job(self, submission: Submission) -> dict[str, Any] | None:
        """Return what was written down of the end of a submission's job; None when nothing was."""
        ...


class MemorySubmissionLedger:
    """A ledger for tasks without a work bucket: the task's memory; beyond it AWS knows tokens and names."""

    def __init__(
        self, fingerprint: str, memory: JobMemory, request_for: Callable[[int], dict[str, Any]]
    ) -> None:
        self._fingerprint = fingerprint
        self._memory = memory
        self._request_for = request_for

    def latest(self) -> Submission | None:
        known = self._memory.recall(self._fingerprint)
        return None if known is None else Submission(known[0], self._request_for(known[0]), job_id=known[1])

    def current(self, submission: Submission) -> Submission:
        return submission

    def claim(self, generation: int, request: dict[str, Any]) -> Submission:
        # Never new: another run may have submitted the same analysis.
        return Submission(generation, request)

    def settle(self, submission: Submission) -> None:
        assert submission.job_id is not None
        self._memory.remember(self._fingerprint, submission.generation, submission.job_id)

    def conclude(self, submission: Submission, job: dict[str, Any]) -> None:
        """Keep nothing: there is no place that lasts longer than the job."""

    def concluded_job(self, submission: Submission) -> dict[str, Any] | None:  # noqa: ARG002 nothing is kept
        return None


class StoredSubmissionLedger:
    """
    A ledger shared by all runs of all days: ``<work>/submissions/<fingerprint>/``.

    ``00.json`` is the exact request of generation 0, ``00.job.json`` its job id once Start has answered,
    ``00.ended.job.json`` what AWS said of that job when it had SUCCEEDED.
    """

    def __init__(self, store: ObjectStore, work_uri: str, fingerprint: str, memory: JobMemory) -> None:
        self._store = store
        self._uri = f"{as_folder_uri(work_uri)}submissions/{fingerprint}/"
        self._fingerprint = fingerprint
        self._memory = memory

    def latest(self) -> Submission | None:
        known = self._memory.recall(self._fingerprint)
        if known is not None:
            generation, job_id = known
            return Submission(generation, self._read(f"{generation:02d}.json"), job_id=job_id)
        generations = _generations(self._names())
        return self._recorded(max(generations)) if generations else None

    def current(self, submission: Submission) -> Submission:
        # Not from the task's memory, which knows less than it has claimed since.
        names = self._names()
        newest = max(_generations(names), default=submission.generation)
        if newest > submission.generation or f"{submission.generation:02d}.job.json" in names:
            return self._recorded(newest)
        return submission

    def claim(self, generation: int, request: dict[str, Any]) -> Submission:
        try:
            self._write(f"{generation:02d}.json", request, if_absent=True)
        except ObjectExistsError:
            return self._recorded(generation)
        return Submission(generation, request, is_new=True)

    def settle(self, submission: Submission) -> None:
        assert submission.job_id is not None
        self._write(f"{submission.generation:02d}.job.json", {"job_id": submission.job_id})
        self._memory.remember(self._fingerprint, submission.generation, submission.job_id)

    def conclude(self, submission: Submission, job: dict[str, Any]) -> None:
        told = {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in job.items()
        }
        with suppress(ObjectExistsError):
            self._write(f"{submission.generation:02d}.ended.job.json", told, if_absent=True)

    def concluded_job(self, submission: Submission) -> dict[str, Any] | None:
        try:
            job = self._read(f"{submission.generation:02d}.ended.job.json")
        except ObjectNotFoundError:
            return None
        times = {name: datetime.fromisoformat(job[name]) for name in _TIMES if job.get(name)}
        return job | times if job["JobId"] == submission.job_id else None

    def _names(self) -> list[str]:
        bucket, prefix = split_s3_uri(self._uri)
        pages = self._store.list_objects(bucket, prefix)
        return [each.key[len(prefix) :] for page in pages for each in page]

    def _recorded(self, generation: int) -> Submission:
        try:
            job_id = self._read(f"{generation:02d}.job.json")["job_id"]
        except ObjectNotFoundError:
            job_id = None
        return Submission(generation, self._read(f"{generation:02d}.json"), job_id=job_id)

    def _read(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._store.read(self._uri + name))
        return content

    def _write(self, name: str, content: dict[str, Any], *, if_absent: bool = False) -> None:
        self._store.write(self._uri + name, json.dumps(content, indent=1).encode(), if_absent=if_absent)


def _generations(names: list[str]) -> list[int]:
    return [int(name[:2]) for name in names if not name.endswith(".job.json")]


def start_request(plan: Plan, shard: Shard, fingerprint: str, generation: int) -> dict[str, Any]:
    """Return the StartMediaAnalysisJob request of a shard."""
    manifest_bucket, manifest_key = split_s3_uri(shard.manifest_uri)
    output_bucket, output_prefix = split_s3_uri(plan.folder.results_uri(shard.shard, shard.retry))
    parameters = plan.parameters
    # MinConfidence is always given: its default in bulk analysis is not documented.
    moderation: dict[str, Any] = {"MinConfidence": float(parameters.min_confidence)}
    if parameters.adapter_arn is not None:
        moderation["ProjectVersion"] = parameters.adapter_arn
    request: dict[str, Any] = {
        "OperationsConfig": {"DetectModerationLabels": moderation},
        "Input": {"S3Object": {"Bucket": manifest_bucket, "Name": manifest_key}},
        "OutputConfig": {"S3Bucket": output_bucket, "S3KeyPrefix": output_prefix},
        "JobName": job_name(plan.day, shard.shard, fingerprint, generation, shard.retry),
        "ClientRequestToken": client_request_token(fingerprint, generation),
    }
    if parameters.kms_key_id is not None:
        request["KmsKeyId"] = parameters.kms_key_id
    return request
