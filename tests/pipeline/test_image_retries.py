from __future__ import annotations

import json
from typing import Any

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.audit import audit_day
from modlake.pipeline.image_retries import plan_retries
from modlake.pipeline.job_files import read_finished_jobs
from modlake.pipeline.landing import land_shard
from modlake.pipeline.manifests import read_manifest
from modlake.pipeline.object_store import ObjectNotFoundError
from modlake.pipeline.parquet import decode_parquet
from modlake.pipeline.plan import Plan
from modlake.pipeline.submissions import fingerprint, start_request
from tests.support.days import SMOKING, answer_line, finish_job, land_day, plan_day, upload
from tests.support.memory_store import MemoryObjectStore

KEYS = [f"{name}.jpg" for name in "abcdef"]


@pytest.fixture
def store() -> MemoryObjectStore:
    store = MemoryObjectStore()
    upload(store, KEYS)
    return store


def tried(store: MemoryObjectStore, **changes: Any) -> tuple[Plan, list[str]]:
    """A shard whose first job judged a, said nothing of b, no answer of c, and failed d, e and f."""
    plan = plan_day(store, **{"image_retries": 2, **changes})
    refs = read_manifest(store, plan.shards[0])
    a, _, c, d, e, f = refs
    errors = [
        {"source-ref": d, "code": "THROTTLED", "message": "slow down"},
        {"source-ref": e, "code": "INVALID_IMAGE", "message": "corrupt"},
        {"source-ref": f, "code": "SOMETHING_NEW", "message": "who knows"},
    ]
    finish_job(store, plan, 0, "\n".join([answer_line(a), json.dumps({"source-ref": c})]), errors)
    return plan, refs


def outcomes(store: MemoryObjectStore, plan: Plan) -> dict[str, tuple[str, str | None, str]]:
    rows = decode_parquet(store.read(land_shard(store, plan, 0, "1").images_uri)).to_pylist()
    return {row["key"][-5:-4]: (row["outcome"], row["error_code"], row["job_id"]) for row in rows}


def test_what_got_no_answer_is_asked_for_again(store: MemoryObjectStore) -> None:
    plan, (_, b, c, d, _, _) = tried(store)
    (retry,) = plan_retries(store, plan, [0], 1)
    assert (retry.shard, retry.retry, retry.image_count) == (0, 1, 3)
    assert retry.manifest_uri == f"{plan.run_uri}manifests/00000-r1.jsonl"
    assert read_manifest(store, retry) == [b, c, d]
    # Also when it has been answered since: a cleared task must find the same job again.
    finish_job(store, plan, 0, "\n".join(map(answer_line, [b, c, d])), retry=1)
    assert plan_retries(store, plan, [0], 1) == [retry]
    assert plan_retries(store, plan, [0], 2) == []


@pytest.mark.parametrize(("out_of_reach", "asked"), [(5, 0), (6, 6)])
def test_images_out_of_reach_are_asked_for_again_when_they_are_many(
    store: MemoryObjectStore, out_of_reach: int, asked: int
) -> None:
    plan = plan_day(store, image_retries=1)
    refs = read_manifest(store, plan.shards[0])
    errors = [{"source-ref": ref, "code": "ERROR_INVALID_S3_OBJECT"} for ref in refs[:out_of_reach]]
    finish_job(store, plan, 0, "\n".join(map(answer_line, refs[out_of_reach:])), errors)
    assert sum(retry.image_count for retry in plan_retries(store, plan, [0], 1)) == asked


def test_a_rerun_of_the_day_finds_the_same_retry(store: MemoryObjectStore) -> None:
    identities = []
    for run_id in ("first", "second"):
        plan, _ = tried(store, run_id=run_id)
        (retry,) = plan_retries(store, plan, [0], 1)
        identities.append(fingerprint(retry.sha256, plan.parameters, retry.retry))
    assert identities[0] == identities[1]


def test_the_same_images_tried_again_are_another_job(store: MemoryObjectStore) -> None:
    plan = plan_day(store, image_retries=2)
    finish_job(store, plan, 0, "")
    (first,) = plan_retries(store, plan, [0], 1)
    finish_job(store, plan, 0, "", retry=1)
    (second,) = plan_retries(store, plan, [0], 2)
    assert plan.shards[0].sha256 == first.sha256 == second.sha256
    identities = [fingerprint(first.sha256, plan.parameters, retry) for retry in (0, 1, 2)]
    assert len(set(identities)) == 3
    request = start_request(plan, second, identities[2], 0)
    assert request["Input"]["S3Object"]["Name"].endswith("manifests/00000-r2.jsonl")
    assert request["OutputConfig"]["S3KeyPrefix"].endswith("results/00000-r2/")
    assert request["JobName"] == f"modlake-2026-11-21-00000-r2-{identities[2][:16]}-g0"
    assert len(request["JobName"]) <= 64


def test_the_last_word_on_an_image_counts(store: MemoryObjectStore) -> None:
    plan, (_, b, c, _, _, _) = tried(store)
    plan_retries(store, plan, [0], 1)
    finish_job(store, plan, 0, answer_line(b, SMOKING), [{"line-numer": 3, "code": "INVALID_IMAGE"}], retry=1)
    assert outcomes(store, plan) == {
        "a": ("judged", None, "job-0"),
        "b": ("judged", None, "job-0-r1"),
        "c": ("failed", "UNACCOUNTED", "job-0-r1"),
        "d": ("failed", "INVALID_IMAGE", "job-0-r1"),
        "e": ("failed", "INVALID_IMAGE", "job-0"),
        "f": ("failed", "SOMETHING_NEW", "job-0"),
    }
    assert read_manifest(store, plan_retries(store, plan, [0], 2)[0]) == [c]


def test_every_image_of_a_retried_shard_has_one_outcome_and_its_jobs_are_told(
    store: MemoryObjectStore,
) -> None:
    plan, (_, b, c, d, _, _) = tried(store)
    plan_retries(store, plan, [0], 1)
    finish_job(store, plan, 0, "\n".join(answer_line(ref, SMOKING) for ref in (b, c, d)), retry=1)
    audit = audit_day(store, plan, land_day(store, plan), "1")
    assert (audit.listed, audit.judged, audit.failed, audit.incomplete, audit.labels) == (6, 4, 2, 0, 9)
    told = [
        (job["job_id"], job["retry"], job["image_count"], job["judged_count"], job["failed_count"])
        for job in audit.jobs
    ]
    assert told == [("job-0", 0, 6, 1, 5), ("job-0-r1", 1, 3, 3, 0)]
    assert sum(job["estimated_cost_usd"] for job in audit.jobs) == pytest.approx(0.004)


def test_no_retries_are_read_beyond_what_the_plan_allows(store: MemoryObjectStore) -> None:
    plan, _ = tried(store, image_retries=0)
    finish_job(store, plan, 0, "", retry=1)
    assert [record.job_id for record in read_finished_jobs(store, plan, 0)] == ["job-0"]


def test_a_retry_that_has_not_ended_is_not_landed(store: MemoryObjectStore) -> None:
    plan, _ = tried(store)
    plan_retries(store, plan, [0], 1)
    finish_job(store, plan, 0, "", retry=1, Status="IN_PROGRESS")
    with pytest.raises(ModlakeTerminalError, match="IN_PROGRESS"):
        land_shard(store, plan, 0, "1")


def test_a_retry_of_which_no_job_is_recorded_is_not_passed_over(store: MemoryObjectStore) -> None:
    plan, _ = tried(store)
    plan_retries(store, plan, [0], 1)
    with pytest.raises(ModlakeTerminalError, match=r"00000-r1\.jsonl asks again.*Clear the analyse task"):
        land_shard(store, plan, 0, "1")


def test_a_retry_answers_for_its_own_images_only(store: MemoryObjectStore) -> None:
    plan, (a, *_) = tried(store)
    plan_retries(store, plan, [0], 1)
    finish_job(store, plan, 0, answer_line(a, SMOKING), retry=1)
    with pytest.raises(ModlakeTerminalError, match=r"a\.jpg.*job-0-r1 does not name"):
        land_shard(store, plan, 0, "1")


def test_a_retry_manifest_of_foreign_images_is_refused(store: MemoryObjectStore) -> None:
    plan, _ = tried(store)
    (retry,) = plan_retries(store, plan, [0], 1)
    store.write(retry.manifest_uri, b'{"source-ref":"s3://elsewhere/x.jpg"}')
    finish_job(store, plan, 0, answer_line("s3://elsewhere/x.jpg"), retry=1)
    with pytest.raises(ModlakeTerminalError, match=r"s3://elsewhere/x\.jpg"):
        land_shard(store, plan, 0, "1")


def test_nothing_is_retried_before_the_first_job_has_ended(store: MemoryObjectStore) -> None:
    with pytest.raises(ObjectNotFoundError):
        plan_retries(store, plan_day(store, image_retries=1), [0], 1)
