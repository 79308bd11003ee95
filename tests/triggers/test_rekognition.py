"""Tests of the wait for media analysis jobs in the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.models.trigger import Trigger

from modlake.hooks.rekognition import RekognitionHook
from modlake.triggers.aws import MINIMUM_AGE_SECONDS
from modlake.triggers.rekognition import MediaAnalysisJobCompletedTrigger
from tests.support.fake_rekognition import FakeRekognition, FakeTime, connection_to, served

HOOK_SETTINGS: dict[str, Any] = {
    "aws_conn_id": "elsewhere",
    "region_name": "eu-west-1",
    "verify": False,
    "botocore_config": {"read_timeout": 7, "retries": {"mode": "adaptive"}},
}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRekognition]:
    fake = FakeRekognition()
    with served(fake) as endpoint_url:
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", connection_to(endpoint_url))
        yield fake


def start(aws: FakeRekognition, *script: str) -> str:
    aws.scripts.append(script)
    token = f"token-{len(aws.jobs)}"
    return aws.start_media_analysis_job(ClientRequestToken=token, OutputConfig={"S3Bucket": "work"})


def fire(**arguments: Any) -> dict[str, Any]:
    """Run a trigger until it fires."""
    settings = {"botocore_config": {"retries": {"total_max_attempts": 1}}, "poll_interval": 30, **arguments}

    async def first_event() -> dict[str, Any]:
        async for event in MediaAnalysisJobCompletedTrigger(**settings).run():
            payload: dict[str, Any] = event.payload
            return payload
        raise AssertionError("ended without an event")

    return asyncio.run(first_event())


def test_the_serialised_trigger_is_rebuilt_with_every_setting() -> None:
    wake_at = datetime(2026, 11, 22, 4, 30, tzinfo=UTC)
    trigger = MediaAnalysisJobCompletedTrigger(
        job_ids=("a", "b"), poll_interval=12.5, wake_at=wake_at, **HOOK_SETTINGS
    )
    path, arguments = trigger.serialize()
    # As Airflow's database keeps them.
    stored = Trigger._decrypt_kwargs(Trigger.encrypt_kwargs(arguments))
    rebuilt = MediaAnalysisJobCompletedTrigger(**stored)

    assert path == "modlake.triggers.rekognition.MediaAnalysisJobCompletedTrigger"
    assert rebuilt.serialize() == trigger.serialize()
    assert arguments == {
        "job_ids": ["a", "b"],
        "poll_interval": 12.5,
        "wake_at": wake_at,
        **HOOK_SETTINGS,
    }


def test_the_hook_gets_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", connection_to("http://127.0.0.1:9"))
    hook = MediaAnalysisJobCompletedTrigger(job_ids=["a"], **HOOK_SETTINGS).hook()

    assert isinstance(hook, RekognitionHook)
    assert hook.conn.meta.endpoint_url == "http://127.0.0.1:9"
    assert hook.region_name == "eu-west-1"
    assert hook.verify is False
    assert hook.config.read_timeout == 7  # type: ignore[attr-defined]


def test_a_trigger_that_can_never_fire_is_refused() -> None:
    with pytest.raises(ValueError, match="job_ids"):
        MediaAnalysisJobCompletedTrigger(job_ids=[])


@pytest.mark.parametrize("last", ["SUCCEEDED", "FAILED:INTERNAL_ERROR"])
def test_every_end_fires(aws: FakeRekognition, clock: FakeTime, last: str) -> None:
    job_id = start(aws, "CREATED", "QUEUED", "IN_PROGRESS", last)
    event = fire(job_ids=[job_id])

    assert event == {"status": "success", "jobs": {job_id: last.partition(":")[0]}, "message": None}
    assert aws.calls.count("GetMediaAnalysisJob") == 4


def test_it_never_fires_young(aws: FakeRekognition, clock: FakeTime) -> None:
    began = clock.now
    fire(job_ids=[start(aws, "SUCCEEDED")])

    assert clock.now - began >= MINIMUM_AGE_SECONDS


@pytest.mark.parametrize(
    "arguments", [{"job_ids": ["unknown"]}, {"job_ids": [], "wake_at": datetime(2026, 1, 1, tzinfo=UTC)}]
)
def test_errors_and_wakes_are_no_younger(
    aws: FakeRekognition, clock: FakeTime, arguments: dict[str, Any]
) -> None:
    began = clock.now
    fire(**arguments)

    assert clock.now - began >= MINIMUM_AGE_SECONDS


def test_the_pauses_vary_around_the_poll_interval(aws: FakeRekognition, clock: FakeTime) -> None:
    fire(job_ids=[start(aws, *["IN_PROGRESS"] * 20, "SUCCEEDED")], poll_interval=100)
    pauses = clock.slept[:-1]

    assert len(pauses) == 20
    assert all(80 <= pause <= 120 for pause in pauses)
    assert len(set(pauses)) > 10


def test_all_waits_for_all(aws: FakeRekognition, clock: FakeTime) -> None:
    soon, late = start(aws, "SUCCEEDED"), start(aws, *["IN_PROGRESS"] * 3, "SUCCEEDED")
    event = fire(job_ids=[soon, late])

    assert event["jobs"] == {soon: "SUCCEEDED", late: "SUCCEEDED"}
    # A job that has ended is not looked at again.
    assert aws.calls.count("GetMediaAnalysisJob") == 5


def test_all_does_not_wait_when_one_failed(aws: FakeRekognition, clock: FakeTime) -> None:
    lost, late = start(aws, "FAILED:ACCESS_DENIED"), start(aws, *["IN_PROGRESS"] * 9, "SUCCEEDED")
    event = fire(job_ids=[lost, late])

    assert event["jobs"] == {lost: "FAILED", late: "IN_PROGRESS"}


def test_many_jobs_are_looked_at_by_one_list(aws: FakeRekognition, clock: FakeTime) -> None:
    job_ids = [start(aws, "IN_PROGRESS", "SUCCEEDED") for _ in range(8)]
    fire(job_ids=job_ids)

    assert aws.calls.count("ListMediaAnalysisJobs") == 2
    assert "GetMediaAnalysisJob" not in aws.calls


def test_jobs_beyond_the_list_are_looked_at_one_by_one(aws: FakeRekognition, clock: FakeTime) -> None:
    old = [start(aws, "SUCCEEDED") for _ in range(5)]
    for _ in range(100):
        start(aws, "IN_PROGRESS")
    event = fire(job_ids=old)

    assert event["status"] == "success"
    assert aws.calls.count("GetMediaAnalysisJob") == 5


@pytest.mark.parametrize(
    "fault", ["ThrottlingException", "ProvisionedThroughputExceededException", "InternalServerError"]
)
def test_weather_is_waited_out(aws: FakeRekognition, clock: FakeTime, fault: str) -> None:
    job_id = start(aws, "SUCCEEDED")
    aws.faults["GetMediaAnalysisJob"] = [fault] * 5

    assert fire(job_ids=[job_id])["status"] == "success"


def test_it_wakes_in_time_and_tells_the_trouble(aws: FakeRekognition, clock: FakeTime) -> None:
    job_id = start(aws, "IN_PROGRESS")
    aws.faults["GetMediaAnalysisJob"] = ["ThrottlingException"]
    event = fire(job_ids=[job_id], wake_at=datetime.now(UTC) - timedelta(seconds=1))

    assert event["status"] == "waiting"
    assert "ThrottlingException" in event["message"]


def test_no_pause_goes_beyond_the_time_to_wake(aws: FakeRekognition, clock: FakeTime) -> None:
    event = fire(job_ids=[], poll_interval=10_000, wake_at=datetime.now(UTC) + timedelta(seconds=0.2))

    assert event == {"status": "waiting", "jobs": {}, "message": None}
    assert all(pause <= MINIMUM_AGE_SECONDS for pause in clock.slept)


@pytest.mark.parametrize(
    ("fault", "told"), [("AccessDeniedException", "include/iam"), ("ResourceNotFoundException", "a year")]
)
def test_a_refusal_is_an_error_event(aws: FakeRekognition, clock: FakeTime, fault: str, told: str) -> None:
    job_id = start(aws, "IN_PROGRESS")
    aws.faults["GetMediaAnalysisJob"] = [fault]
    event = fire(job_ids=[job_id])

    assert event["status"] == "error"
    assert told in event["message"]


def test_an_unknown_status_is_an_error_event(aws: FakeRekognition, clock: FakeTime) -> None:
    event = fire(job_ids=[start(aws, "PAUSED")])

    assert event["status"] == "error"
    assert "PAUSED" in event["message"]


def test_a_kill_tells_that_the_jobs_run_on(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(MediaAnalysisJobCompletedTrigger(job_ids=["job-1"]).on_kill())

    said = caplog.text + capsys.readouterr().out
    assert "job-1" in said
    assert "can't stop" in said
