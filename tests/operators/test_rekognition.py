"""Tests of the media analysis operators: what they start, how they wait, and what they take up again."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from airflow.sdk import DAG, RetryAction
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.hooks.rekognition import InvalidRequestError
from modlake.operators import rekognition as module
from modlake.operators.rekognition import (
    WORKER_WAIT_SECONDS,
    AnalyseManifestsOperator,
    MediaAnalysisDeadlineError,
    StartMediaAnalysisJobOperator,
)
from modlake.pipeline.manifests import manifest_images
from modlake.pipeline.media_analysis import (
    MediaAnalysisJobFailedError,
    MediaAnalysisJobInterruptedError,
    TokenParametersMismatchError,
)
from modlake.pipeline.plan import Plan
from modlake.pipeline.submissions import client_request_token, fingerprint
from tests.pipeline.test_media_analysis import SHAS, make_plan
from tests.support.days import answer_line, land_day, plan_day, upload
from tests.support.fake_rekognition import LOST, FakeRekognition, FakeTime
from tests.support.memory_store import MemoryObjectStore

HOOK_SETTINGS: dict[str, Any] = {
    "aws_conn_id": "elsewhere",
    "region_name": "eu-west-1",
    "verify": False,
    "botocore_config": {"retries": {"total_max_attempts": 1}},
}
MANIFEST = {"manifest_bucket": "work", "manifest_key": "manifests/0.jsonl", "output_bucket": "results"}
PLAN = make_plan()
GROUP = {"plan_uri": PLAN.folder.plan_uri, "group": 0, "shards": [0, 1, 2]}
SLOW = ("IN_PROGRESS",) * 50 + ("SUCCEEDED",)
QUICK = ("IN_PROGRESS", "SUCCEEDED")


class TaskStateStore(dict[str, Any]):
    """Airflow's task state store, which keeps JSON."""

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        assert retention is NEVER_EXPIRE
        self[key] = json.loads(json.dumps(value))


class Store(MemoryObjectStore):
    """S3 as both operators use it: the pipeline's object store, and a manifest's ETag."""

    etag = '"etag-1"'

    @property
    def conn(self) -> Any:
        return SimpleNamespace(get_object=lambda **request: {"ETag": self.etag, "Body": mock.Mock()})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    store.write(PLAN.folder.plan_uri, PLAN.to_json().encode())
    hook = mock.Mock(return_value=store)
    monkeypatch.setattr(module, "S3ObjectStoreHook", hook)
    yield_settings = {**HOOK_SETTINGS, "config": HOOK_SETTINGS["botocore_config"]}
    del yield_settings["botocore_config"]
    store.expected_settings = yield_settings  # type: ignore[attr-defined]
    store.hook_class = hook  # type: ignore[attr-defined]
    return store


@pytest.fixture
def context() -> Any:
    return {"ti": mock.Mock(), "task_state_store": TaskStateStore()}


def analyse(**arguments: Any) -> AnalyseManifestsOperator:
    settings = {"task_id": "analyse", "manifest_group": GROUP, **HOOK_SETTINGS, "deferrable": False}
    return AnalyseManifestsOperator(**{**settings, **arguments})


def start(**arguments: Any) -> StartMediaAnalysisJobOperator:
    settings = {"task_id": "start", **MANIFEST, **HOOK_SETTINGS, "deferrable": False}
    return StartMediaAnalysisJobOperator(**{**settings, **arguments})


Make = Callable[..., Any]
both = pytest.mark.parametrize("make", [analyse, start])


def jobs_of(make: Make) -> int:
    return 3 if make is analyse else 1


def resume(make: Make, context: Any, deferred: TaskDeferred, event: dict[str, Any] | None = None) -> Any:
    """Go on as another process would, with what Airflow kept of the deferral."""
    kwargs = json.loads(json.dumps(deferred.kwargs))
    operator = make(deferrable=True)
    return getattr(operator, deferred.method_name)(
        context, event=event or {"status": "success", "jobs": {}, "message": None}, **kwargs
    )


@both
@pytest.mark.parametrize("deferrable", [False, True])
def test_quick_jobs_are_awaited_in_the_worker(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make, deferrable: bool
) -> None:
    aws.script = QUICK
    make(deferrable=deferrable).execute(context)

    assert len(aws.started) == jobs_of(make)
    assert sum(clock.slept) < WORKER_WAIT_SECONDS


@both
def test_slow_jobs_are_awaited_in_the_worker_when_not_deferrable(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make
) -> None:
    aws.script = SLOW
    make(deferrable=False).execute(context)

    assert len(aws.started) == jobs_of(make)
    assert sum(clock.slept) > 1_800


@both
def test_slow_jobs_are_deferred_with_every_setting(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make
) -> None:
    aws.script = SLOW
    before = datetime.now(UTC)
    with pytest.raises(TaskDeferred) as deferred:
        make(deferrable=True).execute(context)

    assert sum(clock.slept) >= WORKER_WAIT_SECONDS
    path, arguments = deferred.value.trigger.serialize()
    assert path == "modlake.triggers.rekognition.MediaAnalysisJobCompletedTrigger"
    assert arguments.pop("wake_at") >= before + timedelta(hours=23, minutes=59)
    assert arguments == {
        "job_ids": list(aws.jobs),
        "poll_interval": 60,
        **HOOK_SETTINGS,
    }
    assert deferred.value.timeout is not None
    assert timedelta(hours=24) < deferred.value.timeout < timedelta(hours=25)


@both
def test_the_resumed_task_takes_up_its_jobs(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make
) -> None:
    aws.script = SLOW
    with pytest.raises(TaskDeferred) as deferred:
        make(deferrable=True).execute(context)
    for job_id in aws.jobs:
        aws._left[job_id] = ["SUCCEEDED"]

    assert resume(make, context, deferred.value)
    assert len(aws.started) == jobs_of(make)


@both
def test_the_resumed_task_may_defer_again_after_waiting_again(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make
) -> None:
    aws.script = SLOW
    with pytest.raises(TaskDeferred) as first:
        make(deferrable=True).execute(context)
    clock.slept.clear()
    with pytest.raises(TaskDeferred) as second:
        resume(make, context, first.value, {"status": "waiting", "jobs": {}, "message": None})

    assert sum(clock.slept) >= WORKER_WAIT_SECONDS
    assert second.value.kwargs is not None
    assert first.value.kwargs is not None
    assert second.value.kwargs["deadline"] == first.value.kwargs["deadline"]


@both
@pytest.mark.parametrize("code", ["ACCESS_DENIED", "INVALID_MANIFEST"])
def test_a_lasting_failure_while_deferred_is_terminal(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make, code: str
) -> None:
    aws.script = SLOW
    with pytest.raises(TaskDeferred) as deferred:
        make(deferrable=True).execute(context)
    for job_id in aws.jobs:
        aws._left[job_id] = [f"FAILED:{code}"]
    with pytest.raises(MediaAnalysisJobFailedError, match=code):
        resume(make, context, deferred.value)

    assert len(aws.started) == jobs_of(make)


@both
def test_a_passing_failure_while_deferred_starts_another_job(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make
) -> None:
    aws.script = SLOW
    with pytest.raises(TaskDeferred) as deferred:
        make(deferrable=True).execute(context)
    for job_id in aws.jobs:
        aws._left[job_id] = ["FAILED:INTERNAL_ERROR"]
    aws.script = QUICK
    resume(make, context, deferred.value)

    assert len(aws.started) == 2 * jobs_of(make)


@both
def test_no_event_is_an_error(aws: FakeRekognition, store: Store, context: Any, make: Make) -> None:
    with pytest.raises(Exception, match="event is None"):
        make().execute_complete(context, None, deadline=datetime.now(UTC).isoformat(), first_generations={})


@both
def test_a_refusal_in_the_triggerer_is_read_again(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make
) -> None:
    aws.script = SLOW
    with pytest.raises(TaskDeferred) as deferred:
        make(deferrable=True).execute(context)
    aws.faults["GetMediaAnalysisJob"] = ["AccessDeniedException"]
    with pytest.raises(ModlakeTerminalError, match="2026-04-30"):
        resume(make, context, deferred.value, {"status": "error", "jobs": {}, "message": "denied"})


@both
@pytest.mark.parametrize(
    "memory",
    [lambda kept: kept, lambda kept: TaskStateStore(), lambda kept: None],
    ids=["retry or clear", "new task instance", "no task state store"],
)
@pytest.mark.parametrize("script", [SLOW, QUICK])
def test_another_attempt_starts_nothing(
    aws: FakeRekognition,
    clock: FakeTime,
    store: Store,
    context: Any,
    make: Make,
    memory: Callable[[Any], Any],
    script: tuple[str, ...],
) -> None:
    aws.script = script
    make().execute(context)
    make().execute({**context, "task_state_store": memory(context["task_state_store"])})

    assert len(aws.started) == jobs_of(make)


@both
def test_a_crash_between_start_and_persisting_starts_nothing_twice(
    aws: FakeRekognition,
    clock: FakeTime,
    store: Store,
    context: Any,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = TaskStateStore()
    monkeypatch.setattr(broken, "set", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make().execute({**context, "task_state_store": broken})
    make().execute(context)

    assert len(aws.started) == jobs_of(make)


@both
def test_a_lost_reply_starts_nothing_twice(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make
) -> None:
    aws.faults["StartMediaAnalysisJob"] = [LOST]
    make().execute(context)

    assert len(aws.started) == jobs_of(make)


@both
def test_two_attempts_at_once_make_one_job(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make
) -> None:
    aws.script = SLOW
    for memory in (TaskStateStore(), TaskStateStore()):
        with pytest.raises(TaskDeferred):
            make(deferrable=True).execute({**context, "task_state_store": memory})

    assert len(aws.started) == jobs_of(make)


@both
def test_a_full_account_is_waited_out_in_the_worker(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make
) -> None:
    aws.faults["StartMediaAnalysisJob"] = ["LimitExceededException"] * 30
    make(deferrable=False).execute(context)

    assert len(aws.started) == jobs_of(make)


def test_a_full_account_is_waited_out_in_the_triggerer(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    aws.slots = 0
    with pytest.raises(TaskDeferred) as deferred:
        start(deferrable=True).execute(context)
    trigger = deferred.value.trigger

    assert trigger.job_ids == []
    assert timedelta(seconds=59) < trigger.wake_at - datetime.now(UTC) <= timedelta(seconds=120)
    aws.slots = None
    with suppress(TaskDeferred):  # the fake's jobs take 100 s by its clock, which is worth a deferral
        resume(start, context, deferred.value, {"status": "waiting", "jobs": {}, "message": None})
    assert len(aws.started) == 1


@pytest.mark.parametrize(
    ("jobs_at_once", "slots", "faults", "expected"),
    [
        pytest.param(2, None, [], 2, id="more jobs than run at once"),
        pytest.param(None, 2, [], 2, id="an account with two slots"),
        pytest.param(None, 0, [], 0, id="a full account"),
        # The first manifest has to wait, and the two after it get a job.
        pytest.param(2, None, ["ThrottlingException"], 2, id="full in spite of a refusal"),
    ],
)
def test_what_waits_for_its_start_is_started_in_the_triggerer(
    aws: FakeRekognition,
    clock: FakeTime,
    store: Store,
    context: Any,
    jobs_at_once: int | None,
    slots: int | None,
    faults: list[str | None],
    expected: int,
) -> None:
    aws.script = SLOW
    aws.slots = slots
    aws.faults["StartMediaAnalysisJob"] = faults
    with pytest.raises(TaskDeferred) as deferred:
        analyse(deferrable=True, jobs_at_once=jobs_at_once).execute(context)

    assert (clock.slept, len(aws.started)) == ([], expected)
    path, arguments = deferred.value.trigger.serialize()
    assert path == "modlake.triggers.rekognition.ManifestGroupAnalysedTrigger"
    deadline = arguments.pop("deadline")
    assert deadline > datetime.now(UTC) + timedelta(hours=23, minutes=59)
    assert deadline.isoformat() == (deferred.value.kwargs or {})["deadline"]
    first_generations = arguments.pop("first_generations")
    assert first_generations == {fingerprint(sha, PLAN.parameters): 0 for sha in SHAS}
    assert arguments == {
        "plan_uri": PLAN.folder.plan_uri,
        "shards": [asdict(shard) for shard in PLAN.shards],
        "jobs_at_once": jobs_at_once,
        "poll_interval": 60,
        **HOOK_SETTINGS,
    }


def test_what_the_trigger_has_started_is_the_attempts_to_judge(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    aws.script = SLOW
    one_by_one = functools.partial(analyse, jobs_at_once=1)
    with pytest.raises(TaskDeferred) as deferred:
        one_by_one(deferrable=True).execute(context)
    aws._left[next(iter(aws.jobs))] = ["FAILED:ACCESS_DENIED"]
    started_there = {fingerprint(SHAS[0], PLAN.parameters): 0}
    news = {"status": "error", "message": "a job FAILED", "first_generations": started_there}
    kept = {"deadline": deferred.value.kwargs["deadline"], "first_generations": {}}
    with pytest.raises(MediaAnalysisJobFailedError, match="ACCESS_DENIED"):
        one_by_one(deferrable=True).execute_complete(context, news, **kept)

    assert len(aws.started) == 1


def test_the_task_remembers_what_its_trigger_has_started(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    aws.script = SLOW
    one_by_one = functools.partial(analyse, jobs_at_once=1)
    with pytest.raises(TaskDeferred) as deferred:
        one_by_one(deferrable=True).execute(context)
    shard, job_id = fingerprint(SHAS[1], PLAN.parameters), "f" * 64
    news = {"status": "waiting", "message": None, "submitted": {shard: [0, job_id]}}
    with suppress(ModlakeTerminalError):  # the fake does not know that job
        one_by_one(deferrable=True).execute_complete(context, news, **(deferred.value.kwargs or {}))

    assert context["task_state_store"]["media_analysis_jobs"][shard] == {"generation": 0, "job_id": job_id}


@both
def test_the_deadline_ends_a_wait_and_says_why(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make
) -> None:
    aws.slots = 0
    with pytest.raises(MediaAnalysisDeadlineError, match="L-22FA69BA") as caught:
        make(timeout=timedelta(microseconds=1)).execute(context)

    assert isinstance(caught.value, ModlakeTransientError)
    assert aws.started == []


@both
@pytest.mark.parametrize(
    ("code", "quota"),
    [
        ("ThrottlingException", "Service Quotas .*transactions per second"),
        ("ProvisionedThroughputExceededException", "Service Quotas .*transactions per second"),
        ("LimitExceededException", "Service Quotas .*Concurrent Media Analysis jobs, L-22FA69BA"),
    ],
)
def test_weather_that_never_clears_ends_in_the_name_of_the_quota(
    aws: FakeRekognition,
    clock: FakeTime,
    store: Store,
    context: Any,
    make: Make,
    code: str,
    quota: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws.faults["StartMediaAnalysisJob"] = [code] * 10_000
    with pytest.raises(TaskDeferred) as deferred:
        make(deferrable=True).execute(context)
    assert len({round(slept, 3) for slept in clock.slept}) == len(clock.slept)  # jitter
    late = {**(deferred.value.kwargs or {}), "deadline": datetime.now(UTC).isoformat()}
    monkeypatch.setattr(deferred.value, "kwargs", late)
    with pytest.raises(MediaAnalysisDeadlineError, match=quota):
        resume(make, context, deferred.value, {"status": "waiting", "jobs": {}, "message": code})
    assert aws.started == []


class AnsweringStore(Store):
    """A store in which the jobs of the fake leave results; they are silent on some images, by retry."""

    aws: FakeRekognition
    silent: tuple[str, ...] = ()

    def read(self, uri: str) -> bytes:
        if not uri.endswith(("/r.jsonl", "/r.jsonl.summary")):
            return super().read(uri)
        if uri.endswith(".summary"):
            return b"{}"
        (job,) = (job for job in self.aws.jobs.values() if f"/{job['JobId']}/" in uri)
        place = job["Input"]["S3Object"]
        retry = int(found[1]) if (found := re.search(r"-r(\d)\.jsonl", place["Name"])) else 0
        silent = self.silent[retry] if retry < len(self.silent) else ""
        images = manifest_images(super().read(f"s3://{place['Bucket']}/{place['Name']}"))
        return "\n".join(answer_line(ref) for ref in images if ref[-5] not in silent).encode()


class TestRetriesOfImages:
    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch, aws: FakeRekognition) -> AnsweringStore:
        store = AnsweringStore()
        store.aws = aws
        monkeypatch.setattr(module, "S3ObjectStoreHook", mock.Mock(return_value=store))
        upload(store, [f"{name}.jpg" for name in "abcdef"])
        aws.script = QUICK
        return store

    @staticmethod
    def group(plan: Plan) -> dict[str, Any]:
        return {"plan_uri": plan.folder.plan_uri, "group": 0, "shards": plan.groups[0]}

    def names(self, aws: FakeRekognition) -> list[str]:
        return [re.sub(r"-[0-9a-f]{16}-", "-", request["JobName"])[19:] for request in aws.started]

    def test_images_without_an_answer_get_a_job_of_their_own(
        self, aws: FakeRekognition, clock: FakeTime, store: AnsweringStore, context: Any
    ) -> None:
        store.silent = ("be", "e")
        plan = plan_day(store, images_per_manifest=3, image_retries=3)
        analyse(manifest_group=self.group(plan)).execute(context)
        assert self.names(aws) == ["00000-g0", "00001-g0", "00000-r1-g0", "00001-r1-g0", "00001-r2-g0"]
        landed = land_day(store, plan)
        assert [(shard.judged, shard.failed_by_code) for shard in landed] == [(3, {}), (3, {})]
        record = json.loads(store.read(plan.folder.job_uri(1, 2)))
        assert (record["shard"], record["retry"], record["job"]["Status"]) == (1, 2, "SUCCEEDED")

    def test_what_they_were_answered_is_not_lost_with_a_write(
        self, aws: FakeRekognition, clock: FakeTime, store: AnsweringStore, context: Any
    ) -> None:
        store.silent = ("b",)
        aws.scripts = [QUICK, ("SUCCEEDED",)]
        store.refused = ["jobs/00000-r1.json"]
        plan = plan_day(store, image_retries=1)
        analyse(manifest_group=self.group(plan)).execute(context)
        assert self.names(aws) == ["00000-g0", "00000-r1-g0"]
        assert land_day(store, plan)[0].judged == 6

    def test_retries_end_with_the_tries(
        self, aws: FakeRekognition, clock: FakeTime, store: AnsweringStore, context: Any
    ) -> None:
        store.silent = ("b", "b", "b")
        plan = plan_day(store, image_retries=1)
        analyse(manifest_group=self.group(plan)).execute(context)
        assert self.names(aws) == ["00000-g0", "00000-r1-g0"]
        (shard,) = land_day(store, plan)
        assert (shard.judged, shard.failed_by_code) == (5, {"UNACCOUNTED": 1})

    @pytest.mark.parametrize("again", ["retry", "clear", "rerun of the day"])
    def test_they_are_paid_for_once(
        self, aws: FakeRekognition, clock: FakeTime, store: AnsweringStore, context: Any, again: str
    ) -> None:
        store.silent = ("bc", "c")
        plan = plan_day(store, image_retries=2)
        analyse(manifest_group=self.group(plan)).execute(context)
        if again == "clear":
            context = {**context, "task_state_store": TaskStateStore()}
        if again == "rerun of the day":
            plan = plan_day(store, run_id="run-2", image_retries=2)
            context = {**context, "task_state_store": TaskStateStore()}
        analyse(manifest_group=self.group(plan)).execute(context)
        assert len(aws.started) == 3
        assert land_day(store, plan)[0].judged == 6

    def test_more_tries_later_ask_only_for_what_is_missing(
        self, aws: FakeRekognition, clock: FakeTime, store: AnsweringStore, context: Any
    ) -> None:
        store.silent = ("bc", "c")
        for tries in (1, 2):
            plan = plan_day(store, run_id=f"run-{tries}", image_retries=tries)
            context = {**context, "task_state_store": TaskStateStore()}
            analyse(manifest_group=self.group(plan)).execute(context)
        assert self.names(aws) == ["00000-g0", "00000-r1-g0", "00000-r2-g0"]
        assert land_day(store, plan)[0].judged == 6

    def test_slow_retries_are_deferred_and_taken_up(
        self, aws: FakeRekognition, clock: FakeTime, store: AnsweringStore, context: Any
    ) -> None:
        store.silent = ("b",)
        plan = plan_day(store, image_retries=1)
        aws.scripts = [QUICK, SLOW]
        make = functools.partial(analyse, manifest_group=self.group(plan))
        with pytest.raises(TaskDeferred) as deferred:
            make(deferrable=True).execute(context)
        _, second = aws.jobs
        assert deferred.value.trigger.job_ids == [second]
        aws._left[second] = ["SUCCEEDED"]
        assert resume(make, context, deferred.value) == self.group(plan)
        assert len(aws.started) == 2


def test_the_deadline_of_a_single_job_is_its_looks(aws: FakeRekognition) -> None:
    assert start(waiter_delay=30, waiter_max_attempts=10).timeout == timedelta(minutes=5)
    assert start(waiter_delay=30, waiter_max_attempts=10, timeout=timedelta(hours=1)).timeout == timedelta(
        hours=1
    )


@pytest.mark.parametrize("deferrable", [False, True])
def test_without_waiting_the_accepted_job_is_enough(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, deferrable: bool
) -> None:
    aws.script = SLOW
    pointers = start(wait_for_completion=False, deferrable=deferrable).execute(context)

    assert pointers["job_id"] == next(iter(aws.jobs))
    assert pointers["results_uri"] is None
    assert clock.slept == []


def test_without_waiting_a_full_account_is_still_waited_out(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    aws.faults["StartMediaAnalysisJob"] = ["LimitExceededException"]
    start(wait_for_completion=False).execute(context)

    assert len(aws.started) == 1


def test_the_group_is_returned_and_told_in_the_run_folder(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    assert analyse().execute(context) == GROUP
    for shard in GROUP["shards"]:  # type: ignore[attr-defined]
        assert json.loads(store.read(PLAN.folder.job_uri(shard)))["job"]["Status"] == "SUCCEEDED"


def test_the_task_state_store_keeps_fingerprints(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    analyse().execute(context)

    kept = context["task_state_store"]["media_analysis_jobs"]
    assert set(kept) == {fingerprint(sha, PLAN.parameters) for sha in SHAS}
    assert {entry["job_id"] for entry in kept.values()} == set(aws.jobs)


def test_pointers_come_from_the_job(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    pointers = start(output_prefix="out/").execute(context)
    job_id = next(iter(aws.jobs))

    assert pointers == {
        "job_id": job_id,
        "status": "SUCCEEDED",
        "manifest_uri": "s3://work/manifests/0.jsonl",
        "results_uri": f"s3://results/out/{job_id}/r.jsonl",
        "summary_uri": f"s3://results/out/{job_id}/r.jsonl.summary",
        "model_version": "7.0",
    }


def test_a_single_job_is_asked_for_as_written(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    arn = "arn:aws:rekognition:us-east-1:123456789012:project/p/version/v/1"
    start(
        manifest_version="v1",
        output_prefix="out/",
        min_confidence="60",
        project_version=arn,
        kms_key_id="alias/k",
        job_name="mine",
        client_request_token="my-token",
    ).execute(context)

    assert aws.started == [
        {
            "OperationsConfig": {"DetectModerationLabels": {"MinConfidence": 60.0, "ProjectVersion": arn}},
            "Input": {"S3Object": {"Bucket": "work", "Name": "manifests/0.jsonl", "Version": "v1"}},
            "OutputConfig": {"S3Bucket": "results", "S3KeyPrefix": "out/"},
            "KmsKeyId": "alias/k",
            "JobName": "mine",
            "ClientRequestToken": "my-token",
        }
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"min_confidence": 51},
        {"manifest_key": "manifests/1.jsonl"},
        {"manifest_version": "v2"},
        {"output_prefix": "elsewhere/"},
        {"output_bucket": "elsewhere"},
        {"project_version": "arn:aws:rekognition:us-east-1:123456789012:project/p/version/v/1"},
        {"kms_key_id": "alias/k"},
    ],
)
def test_another_analysis_is_another_job(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, changes: dict[str, Any]
) -> None:
    start().execute(context)
    start(**changes).execute(context)

    assert len({request["ClientRequestToken"] for request in aws.started}) == 2


def test_a_rewritten_manifest_is_another_job(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    start().execute(context)
    store.etag = '"etag-2"'
    start().execute(context)

    assert len(aws.started) == 2


def test_an_own_job_name_is_no_identity(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    """Somebody who names each night's job "nightly" must not be given last night's."""
    start(job_name="nightly").execute(context)
    store.etag = '"etag-2"'
    start(job_name="nightly").execute({**context, "task_state_store": TaskStateStore()})

    assert len(aws.started) == 2


def test_an_own_token_moves_on_after_a_failure(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    aws.scripts = [("FAILED:THROTTLED",)]
    start(client_request_token="mine").execute(context)

    assert [request["ClientRequestToken"] for request in aws.started] == [
        "mine",
        client_request_token("mine", 1),
    ]


def test_an_own_token_used_for_something_else(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    start(client_request_token="mine", job_name="a").execute(context)
    with pytest.raises(TokenParametersMismatchError, match="client_request_token"):
        start(client_request_token="mine", job_name="a", min_confidence=1).execute(context)


@both
def test_a_failed_job_is_followed_by_another_on_the_next_attempt(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make
) -> None:
    aws.script = ("FAILED:INVALID_KMS_KEY",)
    with pytest.raises(MediaAnalysisJobFailedError):
        make().execute(context)
    started = len(aws.started)
    aws.script = QUICK
    make().execute(context)

    assert len(aws.started) - started == jobs_of(make)


@both
def test_transient_failures_are_retried_and_terminal_ones_are_not(make: Make) -> None:
    policy = make(retries=3).retry_policy
    terminal = MediaAnalysisJobFailedError("x", job_id="j", code="ACCESS_DENIED")
    transient = MediaAnalysisJobInterruptedError("x", job_id="j", code="THROTTLED")

    assert policy.evaluate(terminal, try_number=1, max_tries=3).action == RetryAction.FAIL
    assert policy.evaluate(InvalidRequestError("x"), try_number=1, max_tries=3).action == RetryAction.FAIL
    assert policy.evaluate(transient, try_number=1, max_tries=3).action == RetryAction.DEFAULT


@both
def test_the_object_store_gets_every_setting(
    aws: FakeRekognition, clock: FakeTime, store: Any, context: Any, make: Make
) -> None:
    make().execute(context)

    store.hook_class.assert_called_with(**store.expected_settings)


@both
def test_links_are_pushed_once_the_jobs_are_known(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any, make: Make
) -> None:
    aws.script = SLOW
    with pytest.raises(TaskDeferred):
        make(deferrable=True).execute(context)
    pushed = {call.kwargs["key"]: call.kwargs["value"] for call in context["ti"].xcom_push.call_args_list}

    place = {"region_name": "eu-west-1", "aws_domain": "aws.amazon.com"}
    folder = PLAN.folder.uri.removeprefix("s3://work/")
    results = {"bucket": "work", "prefix": folder} if make is analyse else {"bucket": "results", "prefix": ""}
    assert pushed == {"rekognition_media_analysis_job": place, "media_analysis_result": {**place, **results}}


def test_links_are_addresses() -> None:
    job_link, result_link = StartMediaAnalysisJobOperator.operator_extra_links
    place = {"region_name": "eu-west-1", "aws_domain": "aws.amazon.com"}

    assert (
        job_link.format_link(**place) == "https://console.aws.amazon.com/rekognition/home?region=eu-west-1#/"
    )
    assert result_link.format_link(**place, bucket="work", prefix="runs/day=2026-11-21/a b/") == (
        "https://console.aws.amazon.com/s3/buckets/work?region=eu-west-1&prefix=runs/day%3D2026-11-21/a%20b/"
    )


@both
def test_a_kill_tells_that_the_jobs_run_on(
    aws: FakeRekognition,
    clock: FakeTime,
    store: Store,
    context: Any,
    make: Make,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    aws.script = SLOW
    operator = make(deferrable=True)
    operator.on_kill()
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    operator.on_kill()

    said = caplog.text + capsys.readouterr().out
    assert "can't stop" in said
    assert all(job_id in said for job_id in aws.jobs)


def test_progress_can_be_followed(
    aws: FakeRekognition,
    clock: FakeTime,
    store: Store,
    context: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    aws.scripts = [QUICK, QUICK, ("IN_PROGRESS",) * 3 + ("SUCCEEDED",)]
    analyse().execute(context)

    said = caplog.text + capsys.readouterr().out
    assert "2 of 3 jobs done, 1 running, 200 of 300 images, 1.0 images/s, about 2 min left" in said
    assert "Analysed group 0 of 2026-11-21: 300 images in 3 jobs" in said


@both
def test_template_fields_are_arguments(make: Make) -> None:
    operator = make()
    arguments = inspect.signature(type(operator).__init__).parameters
    inherited = {"aws_conn_id", "region_name", "verify"}

    assert inherited < set(operator.template_fields)
    for name in operator.template_fields:
        assert hasattr(operator, name)
        assert name in arguments or name in inherited


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"job_name": "a:b"}, "job_name is 'a:b'.*Write 1 to 64"),
        ({"client_request_token": "a+b"}, "client_request_token"),
        ({"min_confidence": 101}, "min_confidence"),
        ({"min_confidence": "much"}, "min_confidence is 'much'.*Write a number"),
        ({"min_confidence": None}, "min_confidence is None.*Write a number"),
        ({"output_prefix": "a b"}, "output_prefix"),
        ({"output_bucket": "s3://results"}, "output_bucket.*without 's3://'"),
        ({"manifest_bucket": "s3://work"}, "manifest_bucket"),
        ({"manifest_key": ""}, "manifest_key"),
        ({"project_version": "my-adapter"}, "project_version.*arn:aws:rekognition"),
        ({"kms_key_id": "a b"}, "kms_key_id"),
        ({"timeout": timedelta(0)}, "timeout"),
        ({"waiter_delay": 0}, "waiter_delay"),
        ({"waiter_max_attempts": 0}, "waiter_max_attempts"),
    ],
)
def test_impossible_arguments_are_refused_at_construction(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"Task 'start'.*{told}"):
        start(**arguments)


@pytest.mark.parametrize("arguments", [{"timeout": timedelta(0)}, {"poll_interval": 0}])
def test_impossible_waits_are_refused_at_construction(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        analyse(**arguments)


def test_templates_are_checked_when_they_are_rendered(
    aws: FakeRekognition, clock: FakeTime, store: Store, context: Any
) -> None:
    operator = start(job_name="{{ run_id }}", min_confidence="{{ params.min_confidence }}")
    operator.job_name = "scheduled__2026-11-21T00:00:00+00:00"
    operator.min_confidence = "50"
    with pytest.raises(InvalidRequestError, match="job_name"):
        operator.execute(context)


@pytest.mark.parametrize("group", ["{'plan_uri': 's3://work/plan.json'}", {"shards": [0]}, None])
def test_what_is_no_group_is_refused(aws: FakeRekognition, store: Store, context: Any, group: Any) -> None:
    with pytest.raises(InvalidRequestError, match="BuildManifestsOperator"):
        analyse(manifest_group=group).execute(context)


def test_a_group_may_come_from_another_task() -> None:
    with DAG("analysis"):
        mapped = AnalyseManifestsOperator.partial(task_id="analyse", poll_interval=5, retries=2).expand(
            manifest_group=[GROUP]
        )
    operator = mapped.unmap({"manifest_group": GROUP})

    assert operator.poll_interval == 5
    assert operator.retry_policy is not None
