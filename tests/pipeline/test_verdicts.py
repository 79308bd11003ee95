from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from modlake.pipeline.audit import Audit, audit_day
from modlake.pipeline.manifests import read_manifest
from modlake.pipeline.plan import Plan
from modlake.pipeline.verdicts import IncompleteDayError, ModelDriftError, check_complete
from tests.support.days import PROJECT_VERSION, answer_line, finish_job, land_day, plan_day, upload
from tests.support.memory_store import MemoryObjectStore


@pytest.fixture
def store() -> MemoryObjectStore:
    store = MemoryObjectStore()
    upload(store, [f"{number}.jpg" for number in range(4)])
    return store


def audited(store: MemoryObjectStore, answers: list[dict[str, Any] | None], **changes: Any) -> Audit:
    """Audit a day of two shards whose images are answered so, or not at all."""
    plan = plan_day(store, images_per_manifest=2, **changes)
    left = iter(answers)
    for shard in plan.shards:
        said = zip(read_manifest(store, shard), left, strict=False)
        lines = [answer_line(ref, **answer) for ref, answer in said if answer is not None]
        finish_job(store, plan, shard.shard, "\n".join(lines))
    return audit_day(store, plan, land_day(store, plan), "1")


def test_one_model_and_the_adapter_that_was_asked_for(store: MemoryObjectStore) -> None:
    assert audited(store, [{}] * 4).model_versions == ["7.0"]
    adapted = audited(store, [{"ProjectVersion": PROJECT_VERSION}] * 4, adapter_arn=PROJECT_VERSION)
    assert adapted.judged == 4


def test_a_mix_of_model_versions_stops_the_day_with_the_counts(store: MemoryObjectStore) -> None:
    answers: list[dict[str, Any] | None] = [{}, {"ModerationModelVersion": "7.1"}, {}, {}]
    with pytest.raises(ModelDriftError, match=r"3 images by 7\.0 .*1 images by 7\.1 .*fresh=true") as caught:
        audited(store, answers)
    assert [(model["model_version"], model["images"]) for model in caught.value.models] == [
        ("7.0", 3),
        ("7.1", 1),
    ]
    assert not any(uri.endswith("audit.json") for uri in store.objects)


@pytest.mark.parametrize("lost", [1, 4])
def test_a_silent_fall_back_to_the_base_model_stops_the_day(store: MemoryObjectStore, lost: int) -> None:
    by_adapter = {"ProjectVersion": PROJECT_VERSION}
    answers: list[dict[str, Any] | None] = [{}] * lost + [by_adapter] * (4 - lost)
    with pytest.raises(
        ModelDriftError, match=f"{PROJECT_VERSION} was asked for.*{lost} images by 7.0 with no adapter"
    ):
        audited(store, answers, adapter_arn=PROJECT_VERSION)


def test_an_adapter_that_nobody_asked_for_stops_the_day(store: MemoryObjectStore) -> None:
    with pytest.raises(ModelDriftError, match="no adapter was asked for"):
        audited(store, [{"ProjectVersion": PROJECT_VERSION}, {}, {}, {}])


def test_a_model_without_a_version_is_a_model_of_its_own(store: MemoryObjectStore) -> None:
    with pytest.raises(ModelDriftError, match="1 images by a model that gave no version"):
        audited(store, [{"ModerationModelVersion": None}, {}, {}, {}])


def test_a_day_without_all_answers_is_not_published(store: MemoryObjectStore) -> None:
    with pytest.raises(IncompleteDayError) as caught:
        audited(store, [{}, None, {}, {}], image_retries=1)
    message = str(caught.value)
    assert caught.value.incomplete == 1
    for part in (
        "2026-11-21 is not published: 1 of 4 images have no answer after 1 retries (1 UNACCOUNTED)",
        "s3://ugc/uploads/2026-11-21/1.jpg",
        "/run-1/incomplete/",
        "image_retries=2",
        "allow_incomplete=0.25 to publish",
    ):
        assert part in message
    (line,) = store.read("s3://work/runs/day=2026-11-21/run-1/incomplete/00000.jsonl").splitlines()
    missing = json.loads(line)
    assert (missing["source_ref"], missing["error_code"], missing["job_id"]) == (
        "s3://ugc/uploads/2026-11-21/1.jpg",
        "UNACCOUNTED",
        "job-0",
    )


@pytest.mark.parametrize(("allowed", "published"), [(0.24, False), (0.25, True), (1.0, True)])
def test_as_many_as_allowed_may_be_missing(store: MemoryObjectStore, allowed: float, published: bool) -> None:
    upload(store, ["not-counted.gif", "not-counted.txt"])
    answers: list[dict[str, Any] | None] = [{}, None, {}, {}]
    if not published:
        with pytest.raises(IncompleteDayError):
            audited(store, answers, allow_incomplete=allowed)
        return
    audit = audited(store, answers, allow_incomplete=allowed)
    assert (audit.judged, audit.failed, audit.incomplete, audit.ineligible) == (3, 1, 1, 2)


def test_the_share_that_is_advised_suffices(store: MemoryObjectStore) -> None:
    upload(store, [f"{number}.jpg" for number in range(4, 7)])
    with pytest.raises(IncompleteDayError, match=r"allow_incomplete=0\.142858 "):
        audited(store, [None, *[{}] * 6])
    assert audited(store, [None, *[{}] * 6], allow_incomplete=0.142858).incomplete == 1


def test_images_with_a_lasting_error_leave_a_day_complete(store: MemoryObjectStore) -> None:
    plan = plan_day(store)
    _fail_all(store, plan, "ERROR_INVALID_IMAGE")
    audit = audit_day(store, plan, land_day(store, plan), "1")
    assert (audit.failed, audit.incomplete) == (4, 0)


def test_passing_trouble_of_single_images_leaves_a_day_incomplete(store: MemoryObjectStore) -> None:
    plan = plan_day(store)
    _fail_all(store, plan, "THROTTLED")
    with pytest.raises(IncompleteDayError, match="4 THROTTLED"):
        audit_day(store, plan, land_day(store, plan), "1")


@pytest.mark.parametrize("code", ["ERROR_ACCESS_DENIED", "ERROR_INVALID_S3_OBJECT"])
def test_a_day_that_jobs_could_not_read_is_incomplete(store: MemoryObjectStore, code: str) -> None:
    plan = plan_day(store)
    _fail_all(store, plan, code)
    with pytest.raises(IncompleteDayError, match=f"4 {code}.*Rekognition can read them"):
        audit_day(store, plan, land_day(store, plan), "1")
    listed = store.read("s3://work/runs/day=2026-11-21/run-1/incomplete/00000.jsonl").splitlines()
    assert len(listed) == 4


def test_few_images_out_of_reach_stop_no_day_that_is_reused_else(store: MemoryObjectStore) -> None:
    plan = replace(plan_day(store), listed=46, reused=40)
    _fail_all(store, plan, "ERROR_INVALID_S3_OBJECT")
    assert check_complete(store, plan, land_day(store, plan)) == 0


@pytest.mark.parametrize(("failing", "is_lost"), [(range(11), True), (range(10), False)])
def test_a_manifest_that_could_not_be_read_makes_its_day_incomplete(failing: range, is_lost: bool) -> None:
    store = MemoryObjectStore()
    upload(store, [f"{number:03d}.jpg" for number in range(2 * 11)])
    plan = plan_day(store, images_per_manifest=11)
    plan = replace(plan, listed=5_022, reused=5_000)
    for shard in plan.shards:
        errors = [{"line-number": each + 1, "code": "ERROR_ACCESS_DENIED"} for each in failing]
        answered = [ref for each, ref in enumerate(read_manifest(store, shard)) if each not in failing]
        if shard.shard:
            errors, answered = [], read_manifest(store, shard)
        finish_job(store, plan, shard.shard, "\n".join(map(answer_line, answered)), errors)
    landed = land_day(store, plan)
    if is_lost:
        with pytest.raises(IncompleteDayError, match="11 of 5,022 images"):
            check_complete(store, plan, landed)
    else:
        assert check_complete(store, plan, landed) == 0


def _fail_all(store: MemoryObjectStore, plan: Plan, code: str) -> None:
    errors = [{"line-number": number, "code": code} for number in range(1, 5)]
    finish_job(store, plan, 0, "", errors)
