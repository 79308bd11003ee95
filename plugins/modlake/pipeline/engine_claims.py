"""Which engine a manifest belongs to: the first that writes its submission down, whoever asks later.

Both engines write under the same fingerprint, ``<work>/submissions/<fingerprint>/``, by the same conditional
write: so a manifest that one has submitted is never paid for through the other as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.engines import Engine
from modlake.pipeline.submissions import (
    StoredSubmissionLedger,
    Submission,
    SubmissionLedger,
    fingerprint,
    start_request,
)

if TYPE_CHECKING:
    from modlake.pipeline.object_store import ObjectStore
    from modlake.pipeline.plan import AnalysisParameters, Plan, Shard

_ENGINE = "Engine"

LOOKS_AT_ONCE = 16
"""Each is up to three requests to S3, which take the time of the network."""


class JudgedSynchronouslyError(ModlakeTerminalError):
    """A manifest that a job was to be started for has been taken by single calls meanwhile."""


class NoMemory:
    """A JobMemory for those that only look."""

    def recall(self, fingerprint: str) -> tuple[int, str] | None:  # noqa: ARG002
        return None

    def remember(self, fingerprint: str, generation: int, job_id: str) -> None:
        """Keep nothing."""


def engine_of(submission: Submission) -> Engine:
    """Return the engine that a submission was written down for."""
    return Engine(submission.request.get(_ENGINE, Engine.BULK))


def require_bulk(submission: Submission, name: str) -> Submission:
    """Return a submission that a job may be started for; raise JudgedSynchronouslyError for another."""
    if engine_of(submission) is Engine.SYNC:
        raise JudgedSynchronouslyError(
            f"{name} is judged by DetectModerationLabels calls since this task looked. Clear the task: it "
            "takes up what they have judged."
        )
    return submission


def latest_submissions(
    store: ObjectStore, work_uri: str, shards: Iterable[Shard], parameters: AnalysisParameters
) -> list[Submission | None]:
    """Return for each shard what was submitted last for its images, None when nothing was."""

    def latest(shard: Shard) -> Submission | None:
        name = fingerprint(shard.images_sha256, parameters, shard.retry)
        return StoredSubmissionLedger(store, work_uri, name, NoMemory()).latest()

    with ThreadPoolExecutor(LOOKS_AT_ONCE) as threads:
        return list(threads.map(latest, shards))


class Claim:
    """Who has a shard, and the right to take it for single calls."""

    def __init__(self, store: ObjectStore, plan: Plan, shard: Shard) -> None:
        self._plan = plan
        self._shard = shard
        self.fingerprint = fingerprint(shard.images_sha256, plan.parameters, shard.retry)
        self.ledger: SubmissionLedger = StoredSubmissionLedger(
            store, plan.folder.work_uri, self.fingerprint, NoMemory()
        )

    def latest(self) -> Submission | None:
        """Return what was submitted last, None when nobody has taken the shard."""
        return self.ledger.latest()

    def take_for_single_calls(self, generation: int) -> Engine:
        """
        Take a shard that nobody has, or whose last submission came to nothing; return who has it then.

        :raises ModlakeTerminalError: the plan has a KMS key, with which single calls could judge nothing
        """
        key = self._plan.parameters.kms_key_id
        if key is not None:
            raise ModlakeTerminalError(
                f"Only media analysis jobs take a kms_key_id ({key}), so single calls take nothing of the "
                f"plan of {self._plan.day}. Plan the day with engine=bulk; or set the key as the default "
                "encryption of the work bucket, and plan the day without it."
            )
        return engine_of(self.ledger.claim(generation, self._request(generation)))

    def settle(self, submission: Submission, job_id: str) -> None:
        """Write down the job of a submission."""
        self.ledger.settle(replace(submission, job_id=job_id))

    def _request(self, generation: int) -> dict[str, Any]:
        # Shaped as a job's, so that maintenance finds the files that it needs.
        request = start_request(self._plan, self._shard, self.fingerprint, generation)
        return {_ENGINE: Engine.SYNC.value, **request}
