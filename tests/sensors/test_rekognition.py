"""Tests of the sensor of a media analysis job."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import TaskDeferred

from modlake.exceptions import ModlakeTransientError
from modlake.pipeline.media_analysis import MediaAnalysisJobFailedError, MediaAnalysisJobNotFoundError
from modlake.sensors import rekognition as module
from modlake.sensors.rekognition import WORKER_WAIT_SECONDS, MediaAnalysisJobSensor
from tests.support.fake_rekognition import FakeRekognition, FakeTime

HOOK_SETTINGS: dict[str, Any] = {
    "aws_conn_id": "elsewhere",
    "region_name": "eu-west-1",
    "verify": False,
    "botocore_config": {"retries": {"total_max_attempts": 1}},
}
EVENT: dict[str, Any] = {"status": "success", "jobs": {}, "message": None}
CONTEXT: Any = {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(module, "time", clock)
    return clock


def sensor(aws: FakeRekognition, *script: str, **arguments: Any) -> MediaAnalysisJobSensor:
    aws.script = script
    job_id = aws.start_media_analysis_job(ClientRequestToken="t", OutputConfig={"S3Bucket": "results"})
    settings = {"task_id": "wait", "job_id": job_id, "poke_interval": 60, "deferrable": False}
    return MediaAnalysisJobSensor(**{**settings, **HOOK_SETTINGS, **arguments})


@pytest.mark.parametrize(
    ("status", "done"), [("CREATED", False), ("QUEUED", False), ("IN_PROGRESS", False), ("SUCCEEDED", True)]
)
def test_a_look_tells_whether_the_job_has_succeeded(aws: FakeRekognition, status: str, done: bool) -> None:
    assert sensor(aws, status).poke(CONTEXT) is done


@pytest.mark.parametrize("code", ["ACCESS_DENIED", "INTERNAL_ERROR"])
def test_a_failed_job_is_final_whatever_the_code(aws: FakeRekognition, code: str) -> None:
    waiting = sensor(aws, f"FAILED:{code}", retries=3)
    with pytest.raises(MediaAnalysisJobFailedError, match=code) as caught:
        waiting.poke(CONTEXT)

    assert caught.value.code == code
    decision = waiting.retry_policy.evaluate(caught.value, try_number=1, max_tries=3)
    assert decision.action == RetryAction.FAIL


def test_an_unknown_job(aws: FakeRekognition) -> None:
    with pytest.raises(MediaAnalysisJobNotFoundError):
        sensor(aws, job_id="f00").poke(CONTEXT)


def test_not_deferrable_it_waits_in_the_worker(aws: FakeRekognition) -> None:
    sensor(aws, "IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED", poke_interval=0.001).execute(CONTEXT)

    assert aws.calls.count("GetMediaAnalysisJob") == 3


def test_a_job_that_ends_soon_is_not_deferred(aws: FakeRekognition, clock: FakeTime) -> None:
    sensor(aws, "IN_PROGRESS", "SUCCEEDED", deferrable=True).execute(CONTEXT)

    assert sum(clock.slept) < WORKER_WAIT_SECONDS


def test_it_defers_with_every_setting(aws: FakeRekognition, clock: FakeTime) -> None:
    waiting = sensor(aws, "IN_PROGRESS", deferrable=True, timeout=7_200)
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute(CONTEXT)

    assert sum(clock.slept) >= WORKER_WAIT_SECONDS
    assert deferred.value.timeout == timedelta(hours=2)
    assert deferred.value.method_name == "execute_complete"
    assert deferred.value.trigger.serialize()[1] == {
        "job_ids": [waiting.job_id],
        "poll_interval": 60,
        "wake_at": None,
        **HOOK_SETTINGS,
    }


def test_it_resumes_on_success(aws: FakeRekognition) -> None:
    sensor(aws, "SUCCEEDED").execute_complete(CONTEXT, EVENT)


def test_it_resumes_on_failure(aws: FakeRekognition) -> None:
    with pytest.raises(MediaAnalysisJobFailedError, match="INVALID_KMS_KEY"):
        sensor(aws, "FAILED:INVALID_KMS_KEY").execute_complete(CONTEXT, EVENT)


def test_a_wait_that_broke_off_can_be_retried(aws: FakeRekognition) -> None:
    event = {"status": "error", "jobs": {}, "message": "the trigger's words"}
    with pytest.raises(ModlakeTransientError, match="the trigger's words"):
        sensor(aws, "IN_PROGRESS").execute_complete(CONTEXT, event)


def test_no_event_is_an_error(aws: FakeRekognition) -> None:
    with pytest.raises(Exception, match="event is None"):
        sensor(aws, "SUCCEEDED").execute_complete(CONTEXT, None)  # type: ignore[arg-type]


def test_template_fields_are_arguments(aws: FakeRekognition) -> None:
    arguments = inspect.signature(MediaAnalysisJobSensor.__init__).parameters

    assert set(MediaAnalysisJobSensor.template_fields) == {"job_id", "aws_conn_id", "region_name", "verify"}
    assert "job_id" in arguments
