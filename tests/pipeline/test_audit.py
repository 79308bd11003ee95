from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.audit import Audit, audit_day, read_audit
from modlake.pipeline.landing import LandedShard
from modlake.pipeline.parquet import decode_parquet, encode_parquet
from modlake.pipeline.plan import Plan
from tests.support.days import (
    DAY,
    PROJECT_VERSION,
    answer_line,
    audited_day,
    finish_job,
    judge_day,
    land_day,
    plan_day,
    upload,
)
from tests.support.memory_store import MemoryObjectStore

KEYS = ["a.jpg", "b.jpg", "c.jpg", "d.webp", "e.txt"]


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore()


def landed_day(store: MemoryObjectStore, **changes: Any) -> tuple[Plan, list[LandedShard]]:
    upload(store, KEYS)
    plan = plan_day(store, images_per_manifest=2, **changes)
    judge_day(store, plan)
    return plan, land_day(store, plan)


def test_the_audit_accounts_for_every_listed_image(store: MemoryObjectStore) -> None:
    plan, landed = landed_day(store)
    audit = audit_day(store, plan, list(reversed(landed)), "a1")
    assert (audit.listed, audit.judged, audit.reused, audit.ineligible, audit.failed) == (5, 3, 0, 2, 0)
    assert (audit.labels, audit.model_versions, audit.failed_by_code) == (6, ["7.0"], {})
    refs = [
        ref for uri in audit.images_uris for ref in decode_parquet(store.read(uri))["source_ref"].to_pylist()
    ]
    assert sorted(refs) == [f"s3://ugc/uploads/{DAY}/{key}" for key in KEYS]
    assert audit.labels_uris == [shard.labels_uri for shard in landed]
    assert read_audit(store, plan.folder.audit_uri) == audit == Audit.from_json(audit.to_json())


def test_ineligible_images_become_rows(store: MemoryObjectStore) -> None:
    plan, landed = landed_day(store)
    audit = audit_day(store, plan, landed, "a1")
    assert audit.images_uris[-1] == plan.folder.landed_uri("images", "ineligible", "a1")
    webp, text = decode_parquet(store.read(audit.images_uris[-1])).to_pylist()
    assert (webp["outcome"], webp["error_code"], webp["key"]) == (
        "ineligible",
        "UNSUPPORTED_FORMAT",
        f"uploads/{DAY}/d.webp",
    )
    assert (webp["day"], webp["run_id"], webp["job_id"], webp["label_count"]) == (DAY, "run-1", None, None)
    assert (text["error_code"], bool(text["error_message"])) == ("NOT_AN_IMAGE", True)


def test_a_day_of_ineligible_images_only(store: MemoryObjectStore) -> None:
    _, audit = audited_day(store, ["a.gif"])
    assert (audit.listed, audit.ineligible, len(audit.images_uris), audit.jobs) == (1, 1, 1, [])


def test_an_empty_day_is_audited_as_zeros(store: MemoryObjectStore) -> None:
    _, audit = audited_day(store, [])
    assert (audit.listed, audit.judged, audit.images_uris, audit.labels_uris, audit.jobs) == (
        0,
        0,
        [],
        [],
        [],
    )


def test_failures_are_added_up_by_code(store: MemoryObjectStore) -> None:
    upload(store, ["a.jpg", "b.jpg", "c.jpg"])
    plan = plan_day(store, images_per_manifest=2, allow_incomplete=1.0)
    finish_job(store, plan, 0, "", [{"line-number": 1, "code": "X"}])
    finish_job(store, plan, 1, "")
    audit = audit_day(store, plan, land_day(store, plan), "a1")
    assert (audit.judged, audit.failed, audit.failed_by_code) == (0, 3, {"UNACCOUNTED": 2, "X": 1})


def test_job_rows_tell_what_ran_and_what_it_cost(store: MemoryObjectStore) -> None:
    upload(store, ["a.jpg", "b.jpg"])
    plan = plan_day(store, adapter_arn=PROJECT_VERSION, allow_incomplete=0.5)
    asked = {"DetectModerationLabels": {"MinConfidence": 50.0, "ProjectVersion": PROJECT_VERSION}}
    line = answer_line(f"s3://ugc/uploads/{DAY}/a.jpg", ProjectVersion=PROJECT_VERSION)
    finish_job(store, plan, 0, line, OperationsConfig=asked)
    (job,) = audit_day(store, plan, land_day(store, plan), "a1").jobs
    assert job == {
        "day": "2026-11-21",
        "run_id": "run-1",
        "shard": 0,
        "job_id": "job-0",
        "job_name": "name-0",
        "engine": "bulk",
        "status": "SUCCEEDED",
        "failure_code": None,
        "failure_message": None,
        "manifest_uri": plan.shards[0].manifest_uri,
        "results_uri": f"s3://work/out/run-1/{DAY}/0/r",
        "summary_uri": f"s3://work/out/run-1/{DAY}/0/s",
        "image_count": 2,
        "judged_count": 1,
        "failed_count": 1,
        "model_version": "7.0",
        "adapter_arn": PROJECT_VERSION,
        "min_confidence": 50.0,
        "started_at": "2026-11-22T01:00:00+00:00",
        "completed_at": "2026-11-22T01:05:00.250000+00:00",
        "estimated_cost_usd": 0.001,
        "retry": 0,
    }


@pytest.mark.parametrize("change", ["missing", "doubled", "foreign"])
def test_shards_must_land_once_each(store: MemoryObjectStore, change: str) -> None:
    plan, landed = landed_day(store)
    changed = {
        "missing": landed[:1],
        "doubled": [*landed, landed[0]],
        "foreign": [landed[0], replace(landed[1], shard=7)],
    }[change]
    with pytest.raises(ModlakeTerminalError, match="shards"):
        audit_day(store, plan, changed, "a1")


@pytest.mark.parametrize("change", ["row lost", "row doubled", "row of another shard", "outcome", "labels"])
def test_landed_files_must_hold_the_planned_images(store: MemoryObjectStore, change: str) -> None:
    plan, landed = landed_day(store)
    first, second = landed
    images = decode_parquet(store.read(first.images_uri))
    others = decode_parquet(store.read(second.images_uri))
    changed = {
        "row lost": images[:1],
        "row doubled": images.take([0, 0]),
        "row of another shard": pa.concat_tables([images[:1], others]),
        "outcome": images.set_column(7, images.schema.field("outcome"), [["judged", "failed"]]),
        "labels": images.set_column(11, images.schema.field("label_count"), [[3, 1]]),
    }[change]
    store.write(first.images_uri, encode_parquet(changed))
    with pytest.raises(ModlakeTerminalError, match="Shard 0"):
        audit_day(store, plan, landed, "a1")
    assert not store.exists(plan.folder.audit_uri)


def test_an_object_listed_twice_has_no_two_outcomes(
    store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = store.list_objects
    monkeypatch.setattr(store, "list_objects", lambda *of: (page + page[:1] for page in listing(*of)))
    upload(store, ["a.jpg", "b.jpg"])
    plan = plan_day(store)
    judge_day(store, plan, labels=[])
    with pytest.raises(ModlakeTerminalError, match="3 images were planned, 2 of them different"):
        audit_day(store, plan, land_day(store, plan), "a1")


@pytest.mark.parametrize("change", [{"judged": 1, "failed": 1}, {"labels": 2}])
def test_reports_must_agree_with_their_files(store: MemoryObjectStore, change: dict[str, int]) -> None:
    plan, landed = landed_day(store)
    with pytest.raises(ModlakeTerminalError, match="Shard 0"):
        audit_day(store, plan, [replace(landed[0], **change), landed[1]], "a1")


@pytest.mark.parametrize("change", [{"listed": 6}, {"ineligible": 1}])
def test_the_inventory_must_agree_with_the_plan(store: MemoryObjectStore, change: dict[str, int]) -> None:
    plan, landed = landed_day(store)
    with pytest.raises(ModlakeTerminalError, match="inventory"):
        audit_day(store, replace(plan, **change), landed, "a1")


def test_the_sum_of_outcomes_must_be_what_was_listed(store: MemoryObjectStore) -> None:
    plan, landed = landed_day(store)
    with pytest.raises(ModlakeTerminalError, match="5 images were listed"):
        audit_day(store, replace(plan, reused=1, model_version="7.0"), landed, "a1")


def test_content_digest_is_of_content(store: MemoryObjectStore) -> None:
    digests = []
    for run_id in ("first", "second"):
        plan, landed = landed_day(store, run_id=run_id)
        digests.append(audit_day(store, plan, landed, run_id).content_digest)
    upload(store, ["f.gif"])
    plan, landed = landed_day(store, run_id="third")
    digests.append(audit_day(store, plan, landed, "a1").content_digest)
    assert digests[0] == digests[1] != digests[2]
