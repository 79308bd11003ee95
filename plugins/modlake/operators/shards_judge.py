"""Judging shards by the engine that each belongs to, whichever engine a task was planned for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from modlake.exceptions import ModlakeError
from modlake.hooks.rekognition import BulkAnalysisDeniedError, RekognitionHook
from modlake.pipeline.bulk_access import note_access, note_denial, noted_denial
from modlake.pipeline.engine_claims import Claim, JudgedSynchronouslyError, engine_of, latest_submissions
from modlake.pipeline.engines import Engine, EngineChoice
from modlake.pipeline.media_analysis import (
    FAILED,
    NAME_SEARCH_PAGES,
    MediaAnalysisJobNotFoundError,
    NoJobSlotError,
)

if TYPE_CHECKING:
    from modlake.pipeline.object_store import ObjectStore
    from modlake.pipeline.plan import Plan, Shard
    from modlake.pipeline.submissions import Submission

Judge = Callable[[list["Shard"]], None]


@dataclass
class ShardsJudge:
    """
    Judges shards of a plan. What an engine was given before stays with it, so that nothing is paid twice.

    :param prefers: the engine of shards that nobody has yet
    :param by_bulk: brings the jobs of shards about; may defer
    :param by_sync: judges shards by single calls
    :param report: gets lines of progress
    """

    api: RekognitionHook
    store: ObjectStore
    plan: Plan
    prefers: Engine
    by_bulk: Judge
    by_sync: Judge
    report: Callable[[str], None]
    _engines: dict[tuple[int, int], Engine] = field(default_factory=dict)

    def judge(self, shards: Sequence[Shard]) -> None:
        """
        Judge shards, and ask again for images that got no answer, as often as the plan allows.

        :raises BulkAnalysisDeniedError: jobs are denied, and the run was asked for bulk analysis alone
        """
        self._judge(list(shards))
        # Not before: a task that defers needs no pyarrow, which takes longer to import than all else.
        from modlake.pipeline.image_retries import plan_retries

        for retry in range(1, self.plan.image_retries + 1):
            retries = plan_retries(self.store, self.plan, [shard.shard for shard in shards], retry)
            if not retries:
                break
            for shard in retries:
                self.report(
                    f"shard {shard.shard:05d}: {shard.image_count} images got no answer and are asked for "
                    f"again ({retry} of {self.plan.image_retries})"
                )
            self._judge(retries)

    def _judge(self, shards: list[Shard]) -> None:
        judged: set[str] = set()
        while True:
            self._find_engines(shards)
            sync = [
                shard
                for shard in shards
                if self._engine(shard) is Engine.SYNC and shard.manifest_uri not in judged
            ]
            if sync:
                self.by_sync(sync)
                judged.update(shard.manifest_uri for shard in sync)
            bulk = [shard for shard in shards if self._engine(shard) is Engine.BULK]
            if not bulk:
                return
            try:
                self._bring_about(bulk)
            except JudgedSynchronouslyError:
                self._engines.clear()
            except BulkAnalysisDeniedError as denied:
                if not self._may_hand_over():
                    raise
                self._hand_over(bulk, denied)
            else:
                return

    def _bring_about(self, shards: list[Shard]) -> None:
        """Have jobs judge shards; where jobs are noted as denied, note it when one could be started."""
        work_uri = self.plan.folder.work_uri
        unstarted: list[Shard] = []
        if noted_denial(self.store, work_uri, datetime.now(UTC)) is not None:
            unstarted = self._without_job(shards)
        try:
            self.by_bulk(shards)
        finally:  # also when the task is deferred, or a later Start is denied
            if len(self._without_job(unstarted)) < len(unstarted):
                note_access(self.store, work_uri, datetime.now(UTC))

    def _without_job(self, shards: list[Shard]) -> list[Shard]:
        return [
            shard
            for shard, submission in zip(shards, self._latest(shards), strict=True)
            if submission is None or submission.job_id is None
        ]

    def _latest(self, shards: list[Shard]) -> list[Submission | None]:
        return latest_submissions(self.store, self.plan.folder.work_uri, shards, self.plan.parameters)

    def _engine(self, shard: Shard) -> Engine:
        return self._engines[shard.shard, shard.retry]

    def _find_engines(self, shards: list[Shard]) -> None:
        unknown = [shard for shard in shards if (shard.shard, shard.retry) not in self._engines]
        for shard, submission in zip(unknown, self._latest(unknown), strict=True):
            self._engines[shard.shard, shard.retry] = self._found_engine(shard, submission)

    def _found_engine(self, shard: Shard, submission: Submission | None) -> Engine:
        if self.prefers is Engine.BULK:
            return Engine.BULK if submission is None else engine_of(submission)
        claim = Claim(self.store, self.plan, shard)
        if submission is None:
            return claim.take_for_single_calls(0)
        if engine_of(submission) is Engine.BULK and self._has_failed(submission):
            return claim.take_for_single_calls(submission.generation + 1)
        return engine_of(submission)

    def _has_failed(self, submission: Submission) -> bool:
        if submission.job_id is None:
            return False
        try:
            return bool(self.api.get_media_analysis_job(submission.job_id)["Status"] == FAILED)
        except MediaAnalysisJobNotFoundError:
            return False  # who awaits it knows whether it came to an end

    def _may_hand_over(self) -> bool:
        return self.plan.asked_engine is not EngineChoice.BULK and self.plan.parameters.kms_key_id is None

    def _hand_over(self, shards: list[Shard], denied: BulkAnalysisDeniedError) -> None:
        """
        Take those shards for single calls of which it is certain that they have no job.

        :raises ModlakeError: all have one, or may have: what keeps them from being judged
        """
        note_denial(self.store, self.plan.folder.work_uri, datetime.now(UTC), str(denied))
        self.report(f"{denied} What has no job yet is judged by single calls.")
        obstacle: ModlakeError = denied
        has_moved = False
        for shard in shards:
            try:
                has_moved |= self._move(shard)
            except NoJobSlotError as full:
                obstacle = full
        if not has_moved:  # the same would be denied again, at once and without end
            raise obstacle

    def _move(self, shard: Shard) -> bool:
        """Find the job of a shard, or else take it for single calls; False when its job was known before."""
        key = shard.shard, shard.retry
        claim = Claim(self.store, self.plan, shard)
        submission = claim.latest()
        if submission is None:
            self._engines[key] = claim.take_for_single_calls(0)
        elif engine_of(submission) is Engine.SYNC:
            self._engines[key] = Engine.SYNC
        elif submission.job_id is not None:
            return False
        elif (job_id := self._job_of(submission)) is not None:
            claim.settle(submission, job_id)
            self.report(f"{shard.name}: job {job_id} had been started, and is awaited")
        else:
            self._engines[key] = claim.take_for_single_calls(submission.generation + 1)
        return True

    def _job_of(self, submission: Submission) -> str | None:
        """Look for the job that an earlier Start has begun, then ask for it once more by its token."""
        try:
            return self._find_by_name(submission) or self.api.start_media_analysis_job(**submission.request)
        except BulkAnalysisDeniedError:
            return None

    def _find_by_name(self, submission: Submission) -> str | None:
        """A token may have expired since: only the name tells then that the job is there."""
        with suppress(BulkAnalysisDeniedError):
            job = self.api.find_media_analysis_job(submission.request["JobName"], max_pages=NAME_SEARCH_PAGES)
            return str(job["JobId"]) if job is not None else None
        return None
