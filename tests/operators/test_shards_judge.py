"""Who judges a shard: what one engine was given never goes to the other as well."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.hooks.rekognition import (
    BulkAnalysisDeniedError,
    RekognitionHook,
    RekognitionTerminalError,
    RekognitionTransientError,
)
from modlake.operators.shards_judge import ShardsJudge
from modlake.pipeline.engine_claims import Claim, JudgedSynchronouslyError, NoMemory
from modlake.pipeline.engines import Engine
from modlake.pipeline.media_analysis import (
    GETS_WORTH_A_LIST,
    MediaAnalysisReconciler,
    NoJobSlotError,
    analysis_of,
)
from modlake.pipeline.plan import Plan, Shard
from tests.support.days import plan_day, upload
from tests.support.fake_rekognition import LOST, FakeRekognition
from tests.support.memory_store import MemoryObjectStore

DENIED = "AccessDeniedException"


class Scene:
    """A day of three shards, an account, and tasks that note which shards each engine gets."""

    def __init__(self, aws: FakeRekognition, asked: str = "auto", images: int = 3) -> None:
        self.aws = aws
        self.store = MemoryObjectStore()
        upload(self.store, [f"{number}.jpg" for number in range(images)])
        self.by_sync: list[int] = []
        self.said: list[str] = []
        self.plan = replace(
            plan_day(self.store, images_per_manifest=1),
            engines=mock.Mock(asked=asked, requests_per_second=50),
        )

    def judge(
        self, prefers: Engine, plan: Plan | None = None, *, stop: type[BaseException] | None = None
    ) -> None:
        """Let a task judge; with ``stop`` it is left as soon as its jobs are started, as by a deferral."""
        plan = plan or self.plan
        hook = RekognitionHook(aws_conn_id="elsewhere")

        def by_bulk(shards: list[Shard]) -> None:
            analyses = [analysis_of(self.store, plan, shard, NoMemory()) for shard in shards]
            reconciler = MediaAnalysisReconciler(hook, analyses, report=self.said.append)
            while not reconciler.reconcile().is_complete:
                if stop is not None:
                    raise stop

        def by_sync(shards: list[Shard]) -> None:
            self.by_sync += [shard.shard for shard in shards]

        ShardsJudge(hook, self.store, plan, prefers, by_bulk, by_sync, self.said.append).judge(plan.shards)

    def lose_the_answer_to_a_start(self, shard: Shard) -> None:
        """As a worker leaves it that is killed there: the job runs, and the record does not name it."""
        analysis = analysis_of(self.store, self.plan, shard, NoMemory())
        request = analysis.ledger.claim(0, analysis.request_for(0)).request
        self.aws.faults["StartMediaAnalysisJob"] = [LOST] * 3
        with pytest.raises(RekognitionTransientError):
            RekognitionHook(aws_conn_id="elsewhere").start_media_analysis_job(**request)
        self.aws.faults.clear()

    @property
    def is_noted_as_open(self) -> bool:
        return bool(json.loads(self.store.read("s3://work/engines/bulk.json"))["is_open"])

    @property
    def owners(self) -> list[str]:
        """Who has each shard, by the records."""
        found = [Claim(self.store, self.plan, shard).latest() for shard in self.plan.shards]
        return [each.request.get("Engine", "bulk") if each else "nobody" for each in found]


def test_each_engine_takes_what_nobody_has(aws: FakeRekognition) -> None:
    bulk, sync = Scene(aws), Scene(aws)
    bulk.judge(Engine.BULK)
    sync.judge(Engine.SYNC)
    assert (bulk.owners, bulk.by_sync, len(aws.started)) == (["bulk"] * 3, [], 3)
    assert (sync.owners, sync.by_sync) == (["sync"] * 3, [0, 1, 2])
    claim = json.loads(sync.store.objects[next(uri for uri in sync.store.objects if "submissions" in uri)])
    # Maintenance reads from it which files are needed.
    assert {"Input", "OutputConfig"} <= claim.keys()


@pytest.mark.parametrize("asked", ["bulk", "sync"])
def test_the_other_engine_leaves_it_to_the_first(aws: FakeRekognition, asked: str) -> None:
    scene = Scene(aws, asked)
    scene.judge(Engine.SYNC if asked == "bulk" else Engine.BULK)
    before = list(scene.by_sync), len(aws.started)
    scene.by_sync.clear()
    scene.judge(Engine(asked))
    # Bulk jobs are awaited, answers of single calls taken up: nothing new is submitted.
    assert len(aws.started) == before[1]
    assert scene.by_sync == before[0]


def test_single_calls_leave_what_was_judged_by_jobs_that_aws_has_forgotten(aws: FakeRekognition) -> None:
    scene = Scene(aws)
    scene.judge(Engine.BULK)
    aws.jobs.clear()
    scene.judge(Engine.SYNC)
    assert (scene.by_sync, len(aws.started)) == ([], 3)


def test_a_denied_start_leads_to_single_calls_and_is_noted(aws: FakeRekognition) -> None:
    scene = Scene(aws)
    aws.faults["StartMediaAnalysisJob"] = [DENIED] * 20
    scene.judge(Engine.BULK)
    assert (scene.owners, scene.by_sync, aws.started) == (["sync"] * 3, [0, 1, 2], [])
    assert not scene.is_noted_as_open
    assert any("since 2026-04-30" in line for line in scene.said)


def test_denied_midway_the_started_job_is_awaited(aws: FakeRekognition) -> None:
    scene = Scene(aws)
    aws.faults["StartMediaAnalysisJob"] = [None] + [DENIED] * 20
    scene.judge(Engine.BULK)
    assert (scene.owners, scene.by_sync, len(aws.started)) == (["bulk", "sync", "sync"], [1, 2], 1)
    assert not scene.is_noted_as_open
    aws.faults.clear()
    scene.by_sync.clear()
    scene.judge(Engine.BULK)
    assert (scene.by_sync, len(aws.started)) == ([1, 2], 1)
    # Awaited jobs tell nothing of the account's access: none was started since.
    assert not scene.is_noted_as_open


@pytest.mark.parametrize("stop", [None, KeyboardInterrupt], ids=["to the end", "deferred"])
def test_a_job_that_could_be_started_ends_the_noted_denial(
    aws: FakeRekognition, stop: type[BaseException] | None
) -> None:
    scene = Scene(aws)
    aws.faults["StartMediaAnalysisJob"] = [DENIED] * 20
    scene.judge(Engine.BULK)
    assert not scene.is_noted_as_open
    aws.faults.clear()
    fresh = replace(scene.plan, parameters=replace(scene.plan.parameters, fresh="again"))
    with pytest.raises(stop) if stop else nullcontext():
        scene.judge(Engine.BULK, fresh, stop=stop)
    assert len(aws.started) == 3
    assert scene.is_noted_as_open


def test_a_run_that_asked_for_bulk_fails_with_the_explanation(aws: FakeRekognition) -> None:
    scene = Scene(aws, "bulk")
    aws.faults["StartMediaAnalysisJob"] = [DENIED] * 20
    with pytest.raises(BulkAnalysisDeniedError, match="DetectModerationLabels stays open to all"):
        scene.judge(Engine.BULK)
    assert scene.by_sync == []
    assert "s3://work/engines/bulk.json" not in scene.store.objects


def test_a_job_whose_start_was_not_answered_is_not_judged_again(aws: FakeRekognition) -> None:
    """The list, which would tell its name, is denied too; its token finds it."""
    scene = Scene(aws)
    scene.lose_the_answer_to_a_start(scene.plan.shards[0])
    aws.faults["ListMediaAnalysisJobs"] = [DENIED] * 20
    scene.judge(Engine.BULK)
    assert scene.owners[0] == "bulk"
    assert 0 not in scene.by_sync
    assert len({request["ClientRequestToken"] for request in aws.started}) == len(aws.started)


def test_a_job_that_only_its_name_tells_of_is_awaited(aws: FakeRekognition) -> None:
    """No job can be started any more, not by an old token either; the account's list still names it."""
    scene = Scene(aws)
    scene.lose_the_answer_to_a_start(scene.plan.shards[2])
    aws.faults["StartMediaAnalysisJob"] = [DENIED] * 20
    scene.judge(Engine.BULK)
    assert (scene.owners, scene.by_sync) == (["sync", "sync", "bulk"], [0, 1])
    (started,) = aws.jobs
    assert Claim(scene.store, scene.plan, scene.plan.shards[2]).latest().job_id == started
    assert f"shard 00002: job {started} had been started, and is awaited" in scene.said


def test_a_submission_without_a_job_of_its_name_goes_to_single_calls(aws: FakeRekognition) -> None:
    """Killed before the Start: other jobs of the account are not taken for it."""
    scene, other = Scene(aws), Scene(aws)
    other.plan = replace(other.plan, parameters=replace(other.plan.parameters, fresh="other"))
    other.judge(Engine.BULK)
    analysis = analysis_of(scene.store, scene.plan, scene.plan.shards[2], NoMemory())
    analysis.ledger.claim(0, analysis.request_for(0))
    aws.faults["StartMediaAnalysisJob"] = [DENIED] * 20
    scene.judge(Engine.BULK)
    assert (scene.owners, scene.by_sync) == (["sync"] * 3, [0, 1, 2])
    assert len(aws.started) == len(other.plan.shards)


def test_jobs_that_are_known_are_awaited_one_by_one_where_the_list_is_denied(aws: FakeRekognition) -> None:
    scene = Scene(aws, images=GETS_WORTH_A_LIST + 1)
    with pytest.raises(KeyboardInterrupt):
        scene.judge(Engine.BULK, stop=KeyboardInterrupt)
    aws.faults["ListMediaAnalysisJobs"] = [DENIED] * 1_000
    scene.judge(Engine.BULK)
    assert (set(scene.owners), scene.by_sync) == ({"bulk"}, [])
    assert len(aws.started) == len(scene.plan.shards)


def test_what_is_denied_is_an_error_where_every_shard_has_its_job(aws: FakeRekognition) -> None:
    """Nothing can be handed over, and to ask once more would be denied once more, without end."""
    scene = Scene(aws, images=GETS_WORTH_A_LIST + 1)
    with pytest.raises(KeyboardInterrupt):
        scene.judge(Engine.BULK, stop=KeyboardInterrupt)
    for operation in ("ListMediaAnalysisJobs", "GetMediaAnalysisJob"):
        aws.faults[operation] = [DENIED] * 1_000
    with pytest.raises(RekognitionTerminalError, match="GetMediaAnalysisJob"):
        scene.judge(Engine.BULK)
    assert scene.by_sync == []
    aws.faults.clear()
    scene.judge(Engine.BULK)
    assert len(aws.started) == len(scene.plan.shards)


def test_a_full_account_whose_list_is_denied_is_waited_for(aws: FakeRekognition) -> None:
    """Not even Start tells whether the job is there, so nobody may judge its images."""
    scene = Scene(aws, images=1)
    scene.lose_the_answer_to_a_start(scene.plan.shards[0])
    aws.forgets_tokens, aws.slots = True, 1
    aws.faults["ListMediaAnalysisJobs"] = [DENIED] * 1_000
    with pytest.raises(NoJobSlotError):
        scene.judge(Engine.BULK)
    assert (scene.owners, scene.by_sync, len(aws.started)) == (["bulk"], [], 1)


def test_what_single_calls_have_judged_is_not_handed_to_them_again(aws: FakeRekognition) -> None:
    scene = Scene(aws)
    Claim(scene.store, scene.plan, scene.plan.shards[0]).take_for_single_calls(0)
    aws.faults["StartMediaAnalysisJob"] = [DENIED] * 20
    scene.judge(Engine.BULK)
    assert scene.by_sync == [0, 1, 2]


def test_single_calls_take_over_a_job_that_failed(aws: FakeRekognition) -> None:
    scene = Scene(aws, "sync")
    aws.script = ("FAILED:ACCESS_DENIED",)
    with pytest.raises(Exception, match="ACCESS_DENIED"):
        scene.judge(Engine.BULK)
    aws.script = ("SUCCEEDED",)
    scene.judge(Engine.SYNC)
    assert scene.owners == ["sync"] * 3
    assert scene.by_sync == [0, 1, 2]


def test_whoever_claims_second_gives_way(aws: FakeRekognition) -> None:
    scene = Scene(aws)
    shard = scene.plan.shards[0]
    analysis = analysis_of(scene.store, scene.plan, shard, NoMemory())
    reconciler = MediaAnalysisReconciler(mock.Mock(), [analysis], report=lambda _: None)
    real = analysis.ledger.claim

    def lose(generation: int, request: dict[str, Any]) -> Any:
        assert Claim(scene.store, scene.plan, shard).take_for_single_calls(0) is Engine.SYNC
        return real(generation, request)

    with mock.patch.object(analysis.ledger, "claim", lose), pytest.raises(JudgedSynchronouslyError):
        reconciler.reconcile()
    assert Claim(scene.store, scene.plan, scene.plan.shards[1]).take_for_single_calls(0) is Engine.SYNC


def test_what_single_calls_took_while_it_waited_for_a_slot_is_not_started(aws: FakeRekognition) -> None:
    scene = Scene(aws, images=1)
    analysis = analysis_of(scene.store, scene.plan, scene.plan.shards[0], NoMemory())
    waiting = MediaAnalysisReconciler(
        RekognitionHook(aws_conn_id="elsewhere"), [analysis], report=lambda _: None
    )
    aws.faults["StartMediaAnalysisJob"] = ["LimitExceededException"] * 3
    waiting.reconcile()
    assert waiting.is_refused
    aws.faults["StartMediaAnalysisJob"] = [DENIED] * 20
    scene.judge(Engine.BULK)
    assert (scene.owners, scene.by_sync) == (["sync"], [0])
    aws.faults.clear()
    with pytest.raises(JudgedSynchronouslyError):
        waiting.reconcile()
    assert aws.started == []


def test_with_a_kms_key_single_calls_take_nothing(aws: FakeRekognition) -> None:
    """Or a later run by jobs, which do take the key, would find every shard taken."""
    scene = Scene(aws, "sync")
    scene.plan = replace(scene.plan, parameters=replace(scene.plan.parameters, kms_key_id="alias/modlake"))
    with pytest.raises(ModlakeTerminalError, match=r"kms_key_id.*engine=bulk"):
        scene.judge(Engine.SYNC)
    assert (scene.owners, scene.by_sync) == (["nobody"] * 3, [])
    scene.judge(Engine.BULK)
    assert {request["KmsKeyId"] for request in aws.started} == {"alias/modlake"}
    # What jobs have is awaited all the same.
    scene.judge(Engine.SYNC)
    assert (len(aws.started), scene.by_sync) == (3, [])


def test_a_kms_key_is_not_dropped_for_single_calls(aws: FakeRekognition) -> None:
    scene = Scene(aws)
    plan = replace(scene.plan, parameters=replace(scene.plan.parameters, kms_key_id="alias/modlake"))
    aws.faults["StartMediaAnalysisJob"] = [DENIED] * 20
    with pytest.raises(BulkAnalysisDeniedError):
        scene.judge(Engine.BULK, plan)
