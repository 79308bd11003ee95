"""SIGKILL of workers and servers at the worst moments: the day ends as an undisturbed one, paid for once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.conftest import Scene
from tests.support.faults import Server, wait_for
from tests.support.faults_oracle import Bill

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

START = "StartMediaAnalysisJob"
SUBMISSION = r"submissions/.*/00\.json"


def s3(operation: str, match: str, *, after: bool = False, **more: Any) -> dict[str, Any]:
    return {"service": "s3", "operation": operation, "match": match, "after_effect": after, **more}


def commit(table: str, *, after: bool = False) -> dict[str, Any]:
    """The last write of a commit; what then makes it is a row in the catalog's database."""
    return s3("CompleteMultipartUpload", rf"{table}/metadata/.*\.metadata\.json", after=after)


def rekognition(operation: str, *, after: bool = False, **more: Any) -> dict[str, Any]:
    return {"operation": operation, "after_effect": after, **more}


# Where workers are killed: the task, and the calls in which they are caught, a try each.
POINTS = {
    "plan": (
        "plan",
        [s3("PutObject", "manifests/00001"), s3("PutObject", r"plan\.json", after=True)],
    ),
    "submit, around its record": (
        "analyse[0]",
        [s3("PutObject", SUBMISSION), s3("PutObject", SUBMISSION, after=True)],
    ),
    "submit, before the call": ("analyse[0]", [rekognition(START)]),
    "submit, before the answer": ("analyse[0]", [rekognition(START, after=True)]),
    "submit, second job before the answer": ("analyse[0]", [rekognition(START, after=True, nth=[2])]),
    "persist": (
        "analyse[0]",
        [s3("PutObject", r"00\.job\.json"), s3("PutObject", r"00\.job\.json", after=True)],
    ),
    "poll": ("analyse[0]", [rekognition("GetMediaAnalysisJob"), s3("PutObject", r"/jobs/00001.*\.json")]),
    "land": (
        "land[0]",
        [
            s3("GetObject", r"results\.jsonl"),
            s3("PutObject", "landed/labels-00000"),
            s3("PutObject", "landed/labels-00001", after=True),
        ],
    ),
    "audit": ("audit", [s3("PutObject", r"audit.*\.json", after=True)]),
    "commit of images, before": ("publish", [commit("images")]),
    "commit of images, written but not made": ("publish", [commit("images", after=True)]),
    "commit of images, made": ("publish", [s3("HeadObject", "labels/metadata/snap")]),
    "commit of labels": ("publish", [commit("labels", after=True)]),
    "commit of jobs": ("publish", [commit("jobs")]),
    "commit of runs": ("publish", [commit("runs"), commit("runs", after=True)]),
    "commit of runs, made": ("publish", [s3("GetObject", "images/metadata/snap", nth=[2])]),
}


@pytest.mark.parametrize(("task", "calls"), POINTS.values(), ids=POINTS)
def test_workers_killed(scene: Scene, task: str, calls: list[dict[str, Any]]) -> None:
    run = scene.new_run()
    for call in calls:
        run.killed_at(task, **call)
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


# The first job of a group is started by its worker, the second by its trigger.
POINTS_IN_TRIGGERER = {
    "submit, around its record": s3("PutObject", SUBMISSION, nth=[2]),
    "submit, after its record": s3("PutObject", SUBMISSION, after=True, nth=[2]),
    "submit, before the call": rekognition(START, nth=[2]),
    "submit, before the answer": rekognition(START, after=True, nth=[2]),
    "persist": s3("PutObject", r"00\.job\.json", after=True, nth=[2]),
    "poll": s3("PutObject", r"/jobs/00001.*\.json"),
}


@pytest.mark.parametrize("call", POINTS_IN_TRIGGERER.values(), ids=POINTS_IN_TRIGGERER)
def test_triggers_killed(scene: Scene, call: dict[str, Any]) -> None:
    run = scene.new_run(in_triggerer=True)
    run.killed_at("analyse[0]", **call)
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


@pytest.mark.parametrize("point", ["submit, before the answer", "commit of labels"])
def test_a_new_run_after_a_kill(scene: Scene, point: str) -> None:
    """Nobody retries the killed run: the next one of the day takes up what it left."""
    task, (call,) = POINTS[point]
    killed = scene.new_run()
    killed.killed_at(task, **call)
    run = scene.new_run(killed.day)
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


@pytest.mark.parametrize("server", ["rekognition", "s3"])
def test_a_server_killed_in_the_middle_of_jobs(scene: Scene, server: Server) -> None:
    run = scene.new_run()
    assert run.proceed(until="analyse[0]").ending == "success"
    scene.world.misbehave(jobs=[{"seconds": 4}])
    attempt = run.start()
    wait_for(lambda: Bill.read(scene.world.settings).of_day(run.day))
    scene.world.kill_server(server)
    scene.world.heal()
    run.finish(attempt)
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


@pytest.mark.parametrize("server", ["s3", "s3_fault_proxy"])
def test_storage_killed_in_the_middle_of_a_commit(scene: Scene, server: Server) -> None:
    run = scene.new_run()
    assert run.proceed(until="publish").ending == "success"
    seen = scene.world.ledger.recorded()[-1:]
    scene.world.misbehave(calls=[{"delay_seconds": 5, "times": 1} | commit("labels")])
    attempt = run.start()
    scene.world.wait_for_fault(seen[0][0] if seen else 0)
    scene.world.kill_server(server)
    scene.world.behave()
    scene.world.heal()
    run.finish(attempt)
    ended = run.proceed()
    assert ended.ending == "success", ended.error
    scene.assert_as_undisturbed(run.day)


@pytest.mark.parametrize("in_triggerer", [False, True])
def test_two_attempts_alive_at_once(scene: Scene, in_triggerer: bool) -> None:
    """As after a lost heartbeat: the old worker, or trigger, lives on beside the new one."""
    run = scene.new_run(in_triggerer=in_triggerer)
    assert run.proceed(until="analyse[0]").ending == "success"
    attempts = [run.start() for _ in range(2)]
    outcomes = [attempt.wait() for attempt in attempts]
    assert [each.ending for each in outcomes] == ["success", "success"], [each.error for each in outcomes]
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


def test_two_runs_of_a_day_at_once(scene: Scene) -> None:
    runs = [scene.new_run()]
    runs.append(scene.new_run(runs[0].day))
    while any(run.next_task() for run in runs):
        attempts = [(run, run.start()) for run in runs if run.next_task()]
        for run, attempt in attempts:
            outcome = run.finish(attempt)
            assert outcome.ending in ("success", "transient"), outcome.error
    scene.assert_as_undisturbed(runs[0].day)
