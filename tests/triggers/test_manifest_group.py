"""Tests of the trigger that starts the jobs of a group, one by one, while no worker is held."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from airflow.models.trigger import Trigger

from modlake.pipeline.media_analysis import RETRY_SECONDS
from modlake.pipeline.submissions import fingerprint
from modlake.triggers import rekognition as module
from modlake.triggers.aws import MINIMUM_AGE_SECONDS
from modlake.triggers.rekognition import ManifestGroupAnalysedTrigger
from tests.pipeline.test_media_analysis import make_plan
from tests.support.fake_rekognition import FakeRekognition, FakeTime
from tests.support.memory_store import MemoryObjectStore
from tests.triggers.test_rekognition import HOOK_SETTINGS

PLAN = make_plan()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> FakeRekognition:
    aws = FakeRekognition()
    monkeypatch.setattr(module, "RekognitionHook", mock.Mock(return_value=aws))
    return aws


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryObjectStore:
    store = MemoryObjectStore()
    store.write(PLAN.folder.plan_uri, PLAN.to_json().encode())
    monkeypatch.setattr(module, "S3ObjectStoreHook", mock.Mock(return_value=store))
    return store


def make(**arguments: Any) -> ManifestGroupAnalysedTrigger:
    settings = {
        "plan_uri": PLAN.folder.plan_uri,
        "shards": [asdict(shard) for shard in PLAN.shards],
        "deadline": datetime.now(UTC) + timedelta(hours=1),
        "poll_interval": 10,
    }
    return ManifestGroupAnalysedTrigger(**{**settings, **arguments})


async def first_event(trigger: ManifestGroupAnalysedTrigger) -> dict[str, Any]:
    async for event in trigger.run():
        payload: dict[str, Any] = event.payload
        return payload
    raise AssertionError("ended without an event")


def fire(trigger: ManifestGroupAnalysedTrigger) -> dict[str, Any]:
    return asyncio.run(first_event(trigger))


def first_generations(generation: int = 0) -> dict[str, int]:
    return {fingerprint(shard.images_sha256, PLAN.parameters): generation for shard in PLAN.shards}


def test_the_serialised_trigger_is_rebuilt_with_every_setting() -> None:
    trigger = make(jobs_at_once=5, first_generations={"a": 1}, **HOOK_SETTINGS)
    path, arguments = trigger.serialize()
    # As Airflow's database keeps them.
    rebuilt = ManifestGroupAnalysedTrigger(**Trigger._decrypt_kwargs(Trigger.encrypt_kwargs(arguments)))

    assert path == "modlake.triggers.rekognition.ManifestGroupAnalysedTrigger"
    assert rebuilt.serialize() == trigger.serialize()
    assert arguments["shards"] == [asdict(shard) for shard in PLAN.shards]
    assert arguments.items() >= {"jobs_at_once": 5, "first_generations": {"a": 1}, **HOOK_SETTINGS}.items()


def test_the_hooks_get_every_setting(aws: FakeRekognition, clock: FakeTime) -> None:
    fire(make(**HOOK_SETTINGS))

    wanted = {name: HOOK_SETTINGS[name] for name in ("aws_conn_id", "region_name", "verify")}
    for hook in (module.RekognitionHook, module.S3ObjectStoreHook):
        hook.assert_called_once_with(**wanted, config=HOOK_SETTINGS["botocore_config"])


def test_each_job_starts_when_another_has_ended(
    aws: FakeRekognition, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []
    start = aws._StartMediaAnalysisJob

    def start_and_count(request: dict[str, Any]) -> dict[str, Any]:
        answer = start(request)
        at_once.append(len(aws._running()))
        return answer

    monkeypatch.setattr(aws, "_StartMediaAnalysisJob", start_and_count)

    event = fire(make(jobs_at_once=1))

    assert event == {
        "status": "success",
        "message": None,
        "first_generations": first_generations(),
        "submitted": dict(zip(first_generations(), [(0, job_id) for job_id in aws.jobs], strict=True)),
    }
    assert at_once == [1, 1, 1]
    assert all(job["Status"] == "SUCCEEDED" for job in aws.jobs.values())


def test_it_never_fires_young(aws: FakeRekognition, clock: FakeTime) -> None:
    aws.script = ("SUCCEEDED",)
    began = clock.now
    fire(make())

    assert clock.now - began >= MINIMUM_AGE_SECONDS


def test_a_full_account_is_asked_again_after_a_minute(aws: FakeRekognition, clock: FakeTime) -> None:
    aws.faults["StartMediaAnalysisJob"] = ["LimitExceededException"] * 2
    began = clock.now
    event = fire(make(jobs_at_once=3))

    assert event["status"] == "success"
    assert len(aws.started) == 3
    assert clock.now - began >= 2 * RETRY_SECONDS
    assert aws.calls.count("StartMediaAnalysisJob") == 2 + 3


def test_an_own_job_that_ended_is_followed_at_once_in_a_full_account(
    aws: FakeRekognition, clock: FakeTime
) -> None:
    aws.slots = 1
    aws.script = ("IN_PROGRESS", "SUCCEEDED")
    began = clock.now
    fire(make())

    assert len(aws.started) == 3
    assert clock.now - began < 2 * RETRY_SECONDS


def test_weather_is_waited_out(aws: FakeRekognition, clock: FakeTime) -> None:
    aws.faults["StartMediaAnalysisJob"] = ["ThrottlingException"] * 5
    aws.faults["GetMediaAnalysisJob"] = ["InternalServerError"] * 5

    assert fire(make())["status"] == "success"
    assert len(aws.started) == 3


def test_the_deadline_wakes_the_task_and_tells_the_trouble(aws: FakeRekognition, clock: FakeTime) -> None:
    aws.slots = 0
    event = fire(make(deadline=datetime.now(UTC)))

    assert event["status"] == "waiting"
    assert "L-22FA69BA" in event["message"]


def test_a_job_that_failed_for_good_is_left_to_the_task(aws: FakeRekognition, clock: FakeTime) -> None:
    aws.scripts = [("FAILED:ACCESS_DENIED",)]
    event = fire(make(jobs_at_once=1))

    assert event["status"] == "error"
    assert "ACCESS_DENIED" in event["message"]
    # By these the task knows that the job is its own to judge.
    assert event["first_generations"] == first_generations()
    assert len(aws.started) == 1


def test_a_job_that_failed_for_a_passing_reason_is_followed_by_another(
    aws: FakeRekognition, clock: FakeTime
) -> None:
    aws.scripts = [("FAILED:INTERNAL_ERROR",)]

    assert fire(make(jobs_at_once=1))["status"] == "success"
    assert len(aws.started) == 4


def test_a_denial_is_left_to_the_task(aws: FakeRekognition, clock: FakeTime) -> None:
    aws.faults["StartMediaAnalysisJob"] = ["AccessDeniedException"]
    event = fire(make())

    assert event["status"] == "error"
    assert aws.started == []


def test_a_plan_that_is_gone_is_an_error_event(clock: FakeTime) -> None:
    event = fire(make(plan_uri="s3://work/gone/plan.json"))

    assert event["status"] == "error"
    assert "s3://work/gone/plan.json" in event["message"]


def test_a_trigger_that_was_moved_takes_up_what_the_other_had_started(
    aws: FakeRekognition, clock: FakeTime
) -> None:
    aws.script = ("IN_PROGRESS",) * 3 + ("SUCCEEDED",)
    fire(make(jobs_at_once=2, deadline=datetime.now(UTC)))
    assert len(aws.started) == 2

    event = fire(make(jobs_at_once=2))

    assert event["status"] == "success"
    assert len(aws.started) == 3


def test_two_triggers_at_once_start_nothing_twice(aws: FakeRekognition, clock: FakeTime) -> None:
    async def both() -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(first_event(make(jobs_at_once=2)) for _ in range(2))))

    assert [event["status"] for event in asyncio.run(both())] == ["success", "success"]
    assert len(aws.started) == 3


def test_a_cancelled_trigger_starts_nothing_more(
    aws: FakeRekognition, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.new_event_loop()
    trigger = make()
    start = aws._StartMediaAnalysisJob

    def start_slowly(request: dict[str, Any]) -> dict[str, Any]:
        answer = start(request)
        loop.call_soon_threadsafe(running.cancel)
        for _ in range(500):
            if not trigger._reconciler.may_start:  # type: ignore[union-attr]
                break
            time.sleep(0.01)
        return answer

    monkeypatch.setattr(aws, "_StartMediaAnalysisJob", start_slowly)
    running = loop.create_task(first_event(trigger))
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(running)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()

    assert len(aws.started) == 1


def test_a_kill_tells_that_the_jobs_run_on(
    aws: FakeRekognition,
    clock: FakeTime,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    aws.script = ("IN_PROGRESS",) * 9
    trigger = make(deadline=datetime.now(UTC))
    fire(trigger)
    asyncio.run(trigger.on_kill())

    said = caplog.text + capsys.readouterr().out
    assert all(job_id in said for job_id in aws.jobs)
    assert "can't stop" in said
