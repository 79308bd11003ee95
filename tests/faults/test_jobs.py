"""Jobs that fail, crawl or never end, and tokens that answer in ways which AWS leaves open."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import Any

import pytest

from localcloud.faults.plan import FAILURE_CODES
from tests.faults.conftest import Scene
from tests.support.faults import wait_for
from tests.support.faults_oracle import Bill

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PASSING = ("INTERNAL_ERROR", "RESOURCE_NOT_READY", "THROTTLED")


LASTING = tuple(code for code in FAILURE_CODES if code not in PASSING)


@pytest.mark.parametrize("token", ["old", "new"], ids=lambda token: f"token answers the {token} job")
def test_jobs_that_fail_for_passing_reasons_are_started_again(scene: Scene, token: str) -> None:
    fail = [{"fail": code, "nth": [number]} for number, code in enumerate(PASSING, start=1)]
    scene.world.misbehave(jobs=fail, tokens={"after_failed": token})
    run = scene.new_run()
    ended = run.proceed()
    assert ended.ending == "success", ended.error
    scene.assert_as_undisturbed(run.day)


@pytest.mark.parametrize("token", ["old", "new"], ids=lambda token: f"token answers the {token} job")
def test_jobs_that_fail_for_lasting_reasons_say_what_to_mend(scene: Scene, token: str) -> None:
    fail = [{"fail": code, "nth": [number]} for number, code in enumerate(LASTING, start=1)]
    scene.world.misbehave(jobs=fail, tokens={"after_failed": token})
    run = scene.new_run()
    told = []
    while (ended := run.proceed()).ending == "terminal":
        assert "Mend: " in ended.error
        told += [code for code in LASTING if f"FAILED: {code} " in ended.error]
        assert run.tries["analyse[0]"] == len(told)  # no retries; each time somebody cleared the task
    assert ended.ending == "success", ended.error
    assert set(told) <= set(LASTING)
    assert len(told) >= len(LASTING) / 2  # two jobs at a time, the first failure ends the try
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


def test_a_token_that_expires_after_lost_replies_pays_nothing_twice(scene: Scene) -> None:
    """The try goes on by itself: it looks for the job before it starts one again."""
    run = scene.new_run()
    assert run.proceed(until="analyse[0]").ending == "success"
    seen = len(scene.world.ledger.recorded())
    scene.world.misbehave(calls=[{"operation": "StartMediaAnalysisJob", "cut": "reply", "times": 3}])
    attempt = run.start()
    wait_for(lambda: len(scene.world.ledger.recorded()) >= seen + 3)  # all tries of one call
    scene.world.misbehave(tokens={"lifetime_seconds": 0})
    assert run.finish(attempt).ending == "success"
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


def test_a_start_under_way_that_outlives_its_worker_pays_nothing_twice(scene: Scene) -> None:
    """No search finds its job yet, so another is started; what arrives late is what the token is for."""
    run = scene.new_run()
    run.killed_at("analyse[0]", operation="StartMediaAnalysisJob", delay_seconds=4, detached=True)
    arrives = time.monotonic() + 4
    scene.world.misbehave(tokens={"lifetime_seconds": 20})
    assert run.proceed(until="land[0]").ending == "success"
    assert time.monotonic() < arrives
    time.sleep(arrives + 0.5 - time.monotonic())
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
    for task in ("land[0]", "analyse[0]", "plan"):
        run.clear(task)
        assert run.proceed().ending == "success"
        scene.assert_as_undisturbed(run.day)
