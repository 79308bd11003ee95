"""Single calls were asked for, but jobs have some of the shards already: they are paid for, and awaited."""

from __future__ import annotations

from unittest import mock

import pytest

from modlake.exceptions import ModlakeTransientError
from modlake.hooks.rekognition import RekognitionHook
from modlake.operators import rekognition_synchronous
from modlake.operators.rekognition_synchronous import DetectModerationLabelsOperator
from modlake.pipeline.engine_claims import NoMemory
from modlake.pipeline.media_analysis import MediaAnalysisReconciler, analysis_of
from modlake.pipeline.plan import Plan
from tests.support.days import plan_day, upload
from tests.support.fake_rekognition import FakeRekognition, FakeTime
from tests.support.memory_store import MemoryObjectStore


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryObjectStore:
    made = MemoryObjectStore()
    monkeypatch.setattr(rekognition_synchronous, "S3ObjectStoreHook", lambda **_: made)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    made = FakeTime()
    monkeypatch.setattr(rekognition_synchronous, "time", made)
    return made


def submitted(store: MemoryObjectStore) -> Plan:
    """Return a plan whose shards have been submitted as jobs by another task."""
    upload(store, ["a.jpg", "b.jpg"])
    plan = plan_day(store, images_per_manifest=1)
    analyses = [analysis_of(store, plan, shard, NoMemory()) for shard in plan.shards]
    hook = RekognitionHook(aws_conn_id="elsewhere")
    MediaAnalysisReconciler(hook, analyses, report=lambda _: None).reconcile()
    return plan


def execute(plan: Plan) -> None:
    group = {"plan_uri": plan.folder.plan_uri, "group": 0, "shards": [0, 1]}
    operator = DetectModerationLabelsOperator(
        task_id="analyse", manifest_group=group, aws_conn_id="elsewhere"
    )
    assert operator.execute({"ti": mock.Mock(id="ti")}) == group


def test_they_are_awaited_and_nothing_is_judged_by_calls(
    aws: FakeRekognition, store: MemoryObjectStore, clock: FakeTime
) -> None:
    plan = submitted(store)
    execute(plan)
    assert len(aws.started) == 2
    assert "DetectModerationLabels" not in aws.calls
    assert len(clock.slept) > 0


def test_a_job_that_never_ends_does_not_hold_the_slot_for_ever(
    aws: FakeRekognition, store: MemoryObjectStore, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rekognition_synchronous, "JOBS_POLL_SECONDS", 3_600)
    aws.script = ("IN_PROGRESS",)
    plan = submitted(store)
    began = clock.now
    with pytest.raises(ModlakeTransientError, match=r"0 of 2 jobs done, 2 running.*fresh=true"):
        execute(plan)
    waited = clock.now - began
    assert 24 * 3_600 <= waited < 26 * 3_600
    assert "DetectModerationLabels" not in aws.calls
