"""Jobs that fail, crawl or never end, and tokens that answer in ways which AWS leaves open."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from localcloud.faults.plan import FAILURE_CODES
from tests.faults.conftest import Scene
from tests.support.faults_oracle import Bill

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PASSING = ("INTERNAL_ERROR", "RESOURCE_NOT_READY", "THROTTLED")


CASES = [(code, "old") for code in FAILURE_CODES] + [("THROTTLED", "new"), ("ACCESS_DENIED", "new")]


@pytest.mark.parametrize(("code", "token"), CASES, ids=lambda value: str(value))
def test_a_job_that_failed(scene: Scene, code: str, token: str) -> None:
    scene.world.misbehave(jobs=[{"fail": code, "nth": [1]}], tokens={"after_failed": token})
    run = scene.new_run()
    ended = run.proceed()
    if code in PASSING:
        assert ended.ending == "success", ended.error
    else:
        assert ended.ending == "terminal"
        assert code in ended.error
        assert "Mend: " in ended.error
        assert run.tries["analyse[0]"] == 1
        assert run.proceed().ending == "success"  # somebody mended it and cleared the task
    scene.assert_as_undisturbed(run.day)


def test_jobs_that_keep_failing_end_the_try(scene: Scene) -> None:
    scene.world.misbehave(jobs=[{"fail": "INTERNAL_ERROR"}])
    run = scene.new_run()
    ended = run.proceed(retries=1)
    assert ended.ending == "transient"
    assert "INTERNAL_ERROR" in ended.error
    scene.world.behave()
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"jobs": [{"stuck": True}]}, "1 of 2 jobs done, 1 running|0 of 2 jobs done, 2 running"),
        (
            {"calls": [{"operation": "StartMediaAnalysisJob", "error": "LimitExceededException"}]},
            r"Service Quotas.*L-22FA69BA",
        ),
        (
            {"calls": [{"operation": "StartMediaAnalysisJob", "error": "ThrottlingException"}]},
            r"Service Quotas.*transactions per second",
        ),
    ],
    ids=["stuck", "full", "throttled"],
)
def test_a_wait_without_end_ends_at_the_deadline(scene: Scene, rules: dict[str, Any], told: str) -> None:
    scene.world.misbehave(**rules)
    run = scene.new_run(deadline=timedelta(seconds=3))
    ended = run.proceed(retries=0)
    assert ended.ending == "transient"
    assert "MediaAnalysisDeadlineError" in ended.error
    assert re.search(told, ended.error), ended.error
    scene.world.behave()
    run.deadline = None
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


def test_a_token_that_has_expired_pays_nothing_twice(scene: Scene) -> None:
    """Every way to find the job again comes before the token."""
    run = scene.new_run()
    run.killed_at("analyse[0]", operation="StartMediaAnalysisJob", after_effect=True)
    scene.world.misbehave(tokens={"lifetime_seconds": 0})
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


def test_fresh_is_the_one_way_to_pay_again(scene: Scene) -> None:
    first = scene.new_run()
    assert first.proceed().ending == "success"
    again = scene.new_run(first.day)
    assert again.proceed().ending == "success"
    scene.assert_as_undisturbed(first.day)
    fresh = scene.new_run(first.day, fresh=True)
    assert fresh.proceed().ending == "success"
    fresh.clear("analyse[0]")
    assert fresh.proceed().ending == "success"
    assert set(Bill.read(scene.world.settings).of_day(first.day).values()) == {2}


def test_clearing_pays_nothing(scene: Scene) -> None:
    run = scene.new_run()
    assert run.proceed().ending == "success"
    for task in ("publish", "audit", "land[0]", "analyse[0]", "plan"):
        run.clear(task)
        assert run.proceed().ending == "success"
        scene.assert_as_undisturbed(run.day)
