"""Calls that fail, are throttled or lose their answers: the day ends as an undisturbed one, paid for once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.conftest import Scene

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

START, GET = "StartMediaAnalysisJob", "GetMediaAnalysisJob"


@pytest.mark.parametrize("error", ["ThrottlingException", "InternalServerError"])
def test_throttling_and_server_errors_on_every_second_call(scene: Scene, error: str) -> None:
    scene.world.misbehave(calls=[{"operation": "*", "error": error, "every": 2}])
    run = scene.new_run()
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


def test_throttling_that_outlasts_the_retries_of_a_call(scene: Scene) -> None:
    error = "ProvisionedThroughputExceededException"
    scene.world.misbehave(calls=[{"operation": START, "error": error, "times": 7}])
    run = scene.new_run()
    assert run.proceed(retries=0).ending == "success"  # waited out within one try
    scene.assert_as_undisturbed(run.day)


def test_a_full_account_is_waited_for(scene: Scene) -> None:
    scene.world.misbehave(calls=[{"operation": START, "error": "LimitExceededException", "times": 8}])
    run = scene.new_run()
    assert run.proceed(retries=0).ending == "success"
    scene.assert_as_undisturbed(run.day)


@pytest.mark.parametrize("cut", ["request", "reply"])
def test_lost_answers_of_rekognition(scene: Scene, cut: str) -> None:
    lost = [{"operation": operation, "cut": cut, "times": 4} for operation in (START, GET)]
    scene.world.misbehave(calls=lost)
    run = scene.new_run()
    ended = run.proceed()
    assert ended.ending == "success", ended.error
    scene.assert_as_undisturbed(run.day)


@pytest.mark.parametrize("operation", [START, GET])
def test_an_answer_of_rekognition_that_ends_too_soon(scene: Scene, operation: str) -> None:
    """botocore takes it for an empty one."""
    scene.world.misbehave(calls=[{"operation": operation, "cut": "body", "times": 1}])
    run = scene.new_run()
    assert run.proceed(until="analyse[0]").ending == "success"
    ended = run.finish(run.start())
    assert ended.ending in ("success", "transient"), ended.error
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


S3_TROUBLE: dict[str, list[dict[str, Any]]] = {
    "errors": [
        {"operation": "*", "error": "SlowDown", "every": 29},
        {"operation": "*", "error": "InternalError", "every": 31},
    ],
    "requests lost": [{"operation": "*", "cut": "request", "every": 9}],
    "replies lost": [{"operation": "*", "cut": "reply", "every": 9}],
    "bodies lost": [{"operation": "GetObject", "cut": "body", "every": 7, "times": 4}],
}


@pytest.mark.parametrize("rules", S3_TROUBLE.values(), ids=S3_TROUBLE)
def test_trouble_with_s3(scene: Scene, rules: list[dict[str, Any]]) -> None:
    run = scene.new_run()
    scene.world.misbehave(calls=[{"service": "s3", **rule} for rule in rules])
    ended = run.proceed()
    assert ended.ending == "success", ended.error
    scene.assert_as_undisturbed(run.day)


@pytest.mark.parametrize("match", ["00.json", "00.job.json"])
def test_a_lost_reply_to_the_record_of_a_submission(scene: Scene, match: str) -> None:
    """The conditional write meets its own object when it is repeated."""
    rule = {"service": "s3", "operation": "PutObject", "match": f"submissions/.*/{match}", "cut": "reply"}
    scene.world.misbehave(calls=[rule | {"times": 2}])
    run = scene.new_run()
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


def test_denied_access_fails_at_once_and_says_what_to_do(scene: Scene) -> None:
    scene.world.misbehave(calls=[{"operation": START, "error": "AccessDeniedException"}])
    run = scene.new_run()
    ended = run.proceed()
    assert ended.ending == "terminal"
    assert "AccessDeniedException" in ended.error
    assert "include/iam/modlake-policy.json" in ended.error
    assert sum(run.tries.values()) == 2  # of plan and analyse, one each
    scene.world.behave()
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)
