"""One manifest on its way through the synchronous engine: what is pending, what is kept, what it leaves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.engines import Engine
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.outcomes import unanswered_codes
from modlake.pipeline.plan import Plan, Shard
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.pipeline.submissions import fingerprint, start_request
from modlake.pipeline.synchronous.checkpoint import Answers, CheckpointFolder, Completion, Contents
from modlake.pipeline.synchronous.lease import Lease
from modlake.pipeline.synchronous.result_lines import ImageFailure, join_lines, manifest_summary

ENGINE = Engine.SYNC.value


@dataclass(frozen=True, slots=True)
class Attempt:
    """Who judges: ``holder`` names this attempt as no other; ``now`` gives aware UTC times."""

    holder: str
    now: Callable[[], datetime]


class ShardAnalysis:
    """The analysis of a plan's shard.

    It is opened, asked for what is ``pending``, told the answers, saved now and then, and completed: then the
    run folder holds results, manifest summary and ``jobs/<shard>.json`` as of a bulk job that SUCCEEDED.
    ``outstanding`` counts the pending images that no part tells of yet. Once complete,
    ``may_gain_from_a_retry`` tells whether images lack an answer that asking again could bring.
    """

    def __init__(self, store: ObjectStore, plan: Plan, shard: Shard, attempt: Attempt) -> None:
        self._store = store
        self._plan = plan
        self._shard = shard
        self._attempt = attempt
        self._fingerprint = fingerprint(shard.images_sha256, plan.parameters, shard.retry)
        self._folder = CheckpointFolder(store, plan.folder.work_uri, self._fingerprint)
        self._previous: Completion | None = None
        self._unsaved = Answers()
        self._parts_written = 0
        self._lease: Lease | None = None
        self.may_gain_from_a_retry = False
        self.pending: list[tuple[int, str]] = []
        self.outstanding = 0

    @property
    def name(self) -> str:
        return self._shard.name

    @property
    def image_count(self) -> int:
        return self._shard.image_count

    @property
    def unsaved(self) -> int:
        """How many answers no part holds yet."""
        return len(self._unsaved)

    def open(self) -> bool:
        """Find out what is pending; False when another attempt is judging this manifest."""
        # Stands on pyarrow, and operators import this module for its shapes.
        from modlake.pipeline.manifests import read_manifest

        contents = self._folder.list()
        if _is_unfinished(contents):
            lease = Lease(self._store, self._folder.terms_uri, self._attempt.holder, self._attempt.now)
            if not lease.take(contents.terms):
                return False
            self._lease = lease
            # The one before may have written until its lease ended.
            contents = self._folder.list()
        self._previous = contents.completion
        if _is_unfinished(contents):
            settled = self._folder.read_parts(contents.parts).settled
            lines = enumerate(read_manifest(self._store, self._shard), start=1)
            self.pending = [(line, source_ref) for line, source_ref in lines if line not in settled]
        self.outstanding = len(self.pending)
        return True

    def add_result(self, line: int, result: bytes, model_version: str | None) -> None:
        self._unsaved.results[line] = result
        if model_version is not None:
            self._unsaved.model_versions.add(model_version)

    def add_failure(self, line: int, failure: ImageFailure) -> None:
        self._unsaved.failures[line] = failure

    def take_unsaved(self) -> Answers:
        """Hand over the answers that no part holds yet, for ``save``, which may run in another thread."""
        taken, self._unsaved = self._unsaved, Answers()
        return taken

    def put_back(self, answers: Answers) -> None:
        """Keep answers for another try to save them."""
        self._unsaved.merge(answers)

    def save(self, answers: Answers) -> None:
        """Write a part."""
        assert self._lease is not None
        # A number is used once, even when writing fails: it may have taken effect all the same.
        number, self._parts_written = self._parts_written, self._parts_written + 1
        self._folder.write_part(self._lease.term, number, answers)

    def complete(self) -> None:
        """Write what a bulk job would leave: the same again whenever nothing new was learnt."""
        completion, answers = self._conclude()
        self._write_run_files(completion, answers)
        failed_by_code = Counter(failure.code for failure in answers.failures.values())
        self.may_gain_from_a_retry = bool(unanswered_codes(failed_by_code, self.image_count))
        self.release()

    def require_lease(self) -> None:
        """Raise LeaseLostError when another attempt may be judging this manifest."""
        assert self._lease is not None
        self._lease.require()

    def renew_lease(self) -> None:
        """Keep other attempts away; raise LeaseLostError when one has taken over."""
        lease = self._lease  # which another thread may release meanwhile
        if lease is not None:
            lease.renew()

    def release(self) -> None:
        """Let another attempt judge the manifest."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _conclude(self) -> tuple[Completion, Answers]:
        previous = self._previous
        if previous is not None:
            known = self._folder.read_parts(previous.parts)
            if not previous.open:
                return previous, known
        parts = self._folder.list().parts
        answers = self._folder.read_parts(parts)
        if previous is not None and answers.says_the_same_as(known):
            return previous, known
        self._require_all(answers)
        return (
            self._folder.complete(
                Completion(
                    generation=0 if previous is None else previous.generation + 1,
                    parts=parts,
                    open=sorted(set(answers.failures) - answers.settled),
                    started_at=self._folder.started_at(),
                    completed_at=self._attempt.now().isoformat(),
                )
            ),
            answers,
        )

    def _require_all(self, answers: Answers) -> None:
        told = set(answers.results) | set(answers.failures)
        if told != set(range(1, self.image_count + 1)):
            raise ModlakeTerminalError(
                f"The parts of {self._folder.uri} tell of {len(told)} images, {self.name} of "
                f"{self._plan.day} has {self.image_count}. Check that nobody else writes below the work "
                "bucket, then trigger the day with fresh=true."
            )

    def _write_run_files(self, completion: Completion, answers: Answers) -> None:
        number, retry = self._shard.shard, self._shard.retry
        request = start_request(self._plan, self._shard, self._fingerprint, completion.generation)
        job_id = f"{ENGINE}-{self._fingerprint[:16]}-g{completion.generation}"
        folder_uri = f"{self._plan.folder.results_uri(number, retry)}{job_id}/"
        results_uri, summary_uri = f"{folder_uri}results.jsonl", f"{folder_uri}manifest-summary.json"
        self._store.write(results_uri, join_lines(result for _, result in sorted(answers.results.items())))
        self._store.write(summary_uri, manifest_summary(self.image_count, answers.failures))
        job = {
            "JobId": job_id,
            **{name: value for name, value in request.items() if name != "ClientRequestToken"},
            "Status": "SUCCEEDED",
            "CreationTimestamp": completion.started_at,
            "CompletionTimestamp": completion.completed_at,
            "Results": {
                "S3Object": _s3_object(results_uri),
                "ModelVersions": {"Moderation": ", ".join(sorted(answers.model_versions))},
            },
            "ManifestSummary": {"S3Object": _s3_object(summary_uri)},
        }
        record = {
            "shard": number,
            "retry": retry,
            "engine": ENGINE,
            "fingerprint": self._fingerprint,
            "generation": completion.generation,
            "request": request,
            "job_id": job_id,
            "job": job,
        }
        self._store.write(self._plan.folder.job_uri(number, retry), json.dumps(record, indent=1).encode())


def analyses_of(
    store: ObjectStore, plan: Plan, shards: Iterable[Shard], attempt: Attempt
) -> list[ShardAnalysis]:
    """Return the analyses of a plan's shards, or of retries of some of their images.

    Raises ModlakeTerminalError when the plan asks for a KMS key: that is a member of bulk jobs alone.
    """
    if plan.parameters.kms_key_id is not None:
        raise ModlakeTerminalError(
            f"The plan of {plan.day} has a kms_key_id, which only bulk jobs take. Set the key as the default "
            "encryption of the work bucket, and plan the day without it."
        )
    return [ShardAnalysis(store, plan, shard, attempt) for shard in shards]


def _is_unfinished(contents: Contents) -> bool:
    return contents.completion is None or bool(contents.completion.open)


def _s3_object(uri: str) -> dict[str, str]:
    bucket, key = split_s3_uri(uri)
    return {"Bucket": bucket, "Name": key}
