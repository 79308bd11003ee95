from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.landed_schemas import IMAGES, LABELS
from modlake.pipeline.landing import LandedShard, digest_rows, land_shard
from modlake.pipeline.manifests import read_manifest
from modlake.pipeline.object_store import ObjectNotFoundError
from modlake.pipeline.parquet import decode_parquet
from modlake.pipeline.plan import Plan
from tests.support.days import (
    DAY,
    PROJECT_VERSION,
    SMOKING,
    answer_line,
    finish_job,
    judge_day,
    label,
    land_day,
    plan_day,
    upload,
)
from tests.support.memory_store import LAST_MODIFIED, MemoryObjectStore

KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(
    # Names that eligibility sets aside are tested with it.
    lambda key: not key.endswith("/") and not key.rpartition("/")[2].startswith("_") and "." not in key
)


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore()


def planned(store: MemoryObjectStore, keys: str = "abcd", **changes: Any) -> tuple[Plan, list[str]]:
    upload(store, [f"{key}.jpg" for key in keys])
    plan = plan_day(store, **changes)
    return plan, read_manifest(store, plan.shards[0])


def images_of(store: MemoryObjectStore, landed: LandedShard) -> dict[str, dict[str, Any]]:
    return {row["source_ref"]: row for row in decode_parquet(store.read(landed.images_uri)).to_pylist()}


def labels_of(store: MemoryObjectStore, landed: LandedShard) -> list[dict[str, Any]]:
    return decode_parquet(store.read(landed.labels_uri)).to_pylist() if landed.labels_uri else []


def test_each_way_an_image_can_come_out(store: MemoryObjectStore) -> None:
    plan, (judged, reported, unanswered, missing) = planned(store)
    results = "\n".join([json.dumps({"source-ref": unanswered}), answer_line(judged, SMOKING)])
    errors = [{"line-numer": 2, "code": "INVALID_IMAGE", "message": "corrupt"}]
    finish_job(store, plan, 0, results, errors)
    landed = land_shard(store, plan, 0, "a1")
    images = images_of(store, landed)
    told = {
        ref: (image["outcome"], image["error_code"], image["label_count"]) for ref, image in images.items()
    }
    assert told == {
        judged: ("judged", None, 3),
        reported: ("failed", "INVALID_IMAGE", None),
        unanswered: ("failed", "NO_ANSWER", None),
        missing: ("failed", "UNACCOUNTED", None),
    }
    assert images[reported]["error_message"] == "corrupt"
    assert all(images[ref]["error_message"] for ref in (unanswered, missing))
    assert landed == LandedShard(
        shard=0,
        images_uri=f"s3://work/runs/day={DAY}/run-1/landed/images-00000-a1.parquet",
        labels_uri=f"s3://work/runs/day={DAY}/run-1/landed/labels-00000-a1.parquet",
        image_count=4,
        judged=1,
        failed=3,
        labels=3,
        models=[{"model_version": "7.0", "adapter_arn": None, "images": 1}],
        failed_by_code={"INVALID_IMAGE": 1, "NO_ANSWER": 1, "UNACCOUNTED": 1},
        jobs=[{"retry": 0, "image_count": 4, "judged": 1}],
        bad_lines=0,
        content_sha256=landed.content_sha256,
    )


def test_an_image_row_holds_all_that_is_known(store: MemoryObjectStore) -> None:
    plan, (first, second) = planned(store, "ab", adapter_arn=PROJECT_VERSION)
    types = [{"Name": "Animated", "Confidence": 72.5}, {"Name": "Illustrated", "Confidence": 60.0}]
    lines = [
        answer_line(first, SMOKING, ContentTypes=types, ProjectVersion=PROJECT_VERSION),
        answer_line(second),
    ]
    finish_job(store, plan, 0, "\n".join(lines))
    images = images_of(store, land_shard(store, plan, 0, "a1"))
    assert images[first] == {
        "day": DAY,
        "source_ref": first,
        "bucket": "ugc",
        "key": f"uploads/{DAY}/a.jpg",
        "size_bytes": 9,
        "etag": images[first]["etag"],
        "last_modified": LAST_MODIFIED,
        "outcome": "judged",
        "error_code": None,
        "error_message": None,
        "reused_from": None,
        "label_count": 3,
        "top_label": "Smoking",
        "top_confidence": 99.0,
        "animated_confidence": 72.5,
        "illustrated_confidence": 60.0,
        "model_version": "7.0",
        "adapter_arn": PROJECT_VERSION,
        "min_confidence": 50.0,
        "engine": "bulk",
        "job_id": "job-0",
        "run_id": "run-1",
        "judged_at": datetime(2026, 11, 22, 1, 5, 0, 250_000, tzinfo=UTC),
    }
    # The second line has no ProjectVersion although an adapter was asked for: the base model answered.
    clean = images[second]
    assert (clean["label_count"], clean["top_label"], clean["adapter_arn"]) == (0, None, None)


def test_a_label_row_holds_path_and_origin(store: MemoryObjectStore) -> None:
    plan, (ref,) = planned(store, "a")
    finish_job(store, plan, 0, answer_line(ref, SMOKING, ProjectVersion=PROJECT_VERSION))
    smoking, middle, top = labels_of(store, land_shard(store, plan, 0, "a1"))
    assert smoking == {
        "day": DAY,
        "source_ref": ref,
        "label": "Smoking",
        "parent_label": "Drugs & Tobacco Paraphernalia & Use",
        "taxonomy_level": 3,
        "l1": "Drugs & Tobacco",
        "l2": "Drugs & Tobacco Paraphernalia & Use",
        "l3": "Smoking",
        "confidence": 99.0,
        "model_version": "7.0",
        "adapter_arn": PROJECT_VERSION,
        "job_id": "job-0",
        "run_id": "run-1",
    }
    assert (middle["l3"], top["l2"], top["l3"], top["parent_label"]) == (None, None, None, None)


def test_files_carry_the_columns_and_field_ids_of_the_lake(store: MemoryObjectStore) -> None:
    plan, (ref, *_) = planned(store)
    finish_job(store, plan, 0, answer_line(ref, SMOKING))
    landed = land_shard(store, plan, 0, "a1")
    assert landed.labels_uri is not None
    for uri, schema in ((landed.images_uri, IMAGES), (landed.labels_uri, LABELS)):
        file = pq.ParquetFile(pa.BufferReader(store.read(uri)))
        assert file.schema_arrow.equals(schema, check_metadata=True)
        assert file.read(["source_ref"])["source_ref"].to_pylist() == sorted(
            file.read()["source_ref"].to_pylist()
        )
    images = pq.read_metadata(pa.BufferReader(store.read(landed.images_uri)))
    assert images.row_group(0).column(IMAGES.names.index("source_ref")).compression == "ZSTD"


def test_images_without_labels_leave_no_labels_file(store: MemoryObjectStore) -> None:
    plan, refs = planned(store)
    finish_job(store, plan, 0, "\n".join(map(answer_line, refs)))
    landed = land_shard(store, plan, 0, "a1")
    assert (landed.labels_uri, landed.labels, landed.judged, landed.failed_by_code) == (None, 0, 4, {})


def test_unknown_labels_and_model_versions_are_kept(store: MemoryObjectStore) -> None:
    plan, (first, second, *_) = planned(store)
    lines = [
        answer_line(first, [label("Brand New", None, None, 80.0)], ModerationModelVersion="9.1"),
        answer_line(second, SMOKING),
    ]
    finish_job(store, plan, 0, "\n".join(lines))
    landed = land_shard(store, plan, 0, "a1")
    assert landed.model_versions == ["7.0", "9.1"]
    kept = next(row for row in labels_of(store, landed) if row["label"] == "Brand New")
    assert (kept["taxonomy_level"], kept["model_version"]) == (None, "9.1")


def test_a_truncated_last_line_fails_its_image_only(store: MemoryObjectStore) -> None:
    plan, refs = planned(store)
    finish_job(store, plan, 0, "\n".join(answer_line(ref, SMOKING) for ref in refs)[:-9])
    landed = land_shard(store, plan, 0, "a1")
    assert (landed.judged, landed.failed_by_code, landed.bad_lines) == (3, {"UNACCOUNTED": 1}, 1)


def test_a_doubled_line_does_not_double_its_image(store: MemoryObjectStore) -> None:
    plan, refs = planned(store)
    lines = [answer_line(ref, SMOKING) for ref in refs]
    finish_job(store, plan, 0, "\n".join([*lines, lines[0], lines[0]]))
    landed = land_shard(store, plan, 0, "a1")
    assert (landed.image_count, landed.judged, landed.labels, len(labels_of(store, landed))) == (4, 4, 12, 12)


def test_contradicting_lines_stop_the_shard(store: MemoryObjectStore) -> None:
    plan, refs = planned(store)
    finish_job(store, plan, 0, "\n".join([answer_line(refs[0]), answer_line(refs[0], SMOKING)]))
    with pytest.raises(ModlakeTerminalError, match=r"a\.jpg"):
        land_shard(store, plan, 0, "a1")


def test_a_foreign_line_stops_the_shard(store: MemoryObjectStore) -> None:
    plan, refs = planned(store)
    finish_job(store, plan, 0, "\n".join([answer_line(refs[0]), answer_line("s3://elsewhere/x.jpg")]))
    with pytest.raises(ModlakeTerminalError, match=r"s3://elsewhere/x\.jpg"):
        land_shard(store, plan, 0, "a1")
    assert not any("landed" in uri for uri in store.objects)


def test_an_answer_counts_more_than_a_reported_error(store: MemoryObjectStore) -> None:
    plan, refs = planned(store)
    finish_job(store, plan, 0, "\n".join(map(answer_line, refs)), [{"line-number": 1, "code": "X"}])
    assert land_shard(store, plan, 0, "a1").judged == 4


def test_a_job_without_summary_leaves_reasons_open(store: MemoryObjectStore) -> None:
    plan, refs = planned(store)
    finish_job(store, plan, 0, answer_line(refs[0]), errors=None)
    assert land_shard(store, plan, 0, "a1").failed_by_code == {"UNACCOUNTED": 3}


def test_an_empty_results_file_fails_every_image(store: MemoryObjectStore) -> None:
    plan, _ = planned(store)
    finish_job(store, plan, 0, "")
    landed = land_shard(store, plan, 0, "a1")
    assert (landed.judged, landed.failed, landed.labels_uri, landed.model_versions) == (0, 4, None, [])


@pytest.mark.parametrize("status", ["IN_PROGRESS", "FAILED"])
def test_a_job_that_has_not_succeeded_is_not_landed(store: MemoryObjectStore, status: str) -> None:
    plan, _ = planned(store)
    finish_job(store, plan, 0, "", Status=status)
    with pytest.raises(ModlakeTerminalError, match=status):
        land_shard(store, plan, 0, "a1")


def test_a_shard_without_job_or_results_is_not_landed(store: MemoryObjectStore) -> None:
    plan, _ = planned(store)
    with pytest.raises(ObjectNotFoundError):
        land_shard(store, plan, 0, "a1")
    finish_job(store, plan, 0, "", Results=None)
    with pytest.raises(ModlakeTerminalError, match="job-0"):
        land_shard(store, plan, 0, "a1")


def test_rows_that_are_alike_are_digested_by_value_and_number() -> None:
    def digest(*codes: str | None) -> str:
        return digest_rows(
            pa.table({"error_code": pa.array(codes, pa.string()), "run_id": ["run"] * len(codes)})
        )

    tables = [("A",), ("A", "A"), ("B", "B"), ("A", "B"), ("B", "A"), (None, None), (None,), ()]
    assert len({digest(*codes) for codes in tables}) == len(tables)
    assert digest("A", "A") == digest("A", "A")


def test_content_digest_sees_rows_and_not_names(store: MemoryObjectStore) -> None:
    upload(store, ["a.jpg", "b.jpg"])
    digests = []
    for run_id, confidence in (("first", 99.0), ("second", 99.0), ("third", 99.5)):
        plan = plan_day(store, run_id=run_id)
        judge_day(store, plan, [label("Violence", "", 1, confidence)])
        digests.append(land_shard(store, plan, 0, run_id).content_sha256)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(("images", "shards"), [(0, 0), (1, 1), (10, 1), (11, 2)])
def test_days_of_every_size_land_whole(store: MemoryObjectStore, images: int, shards: int) -> None:
    upload(store, [f"{number:02d}.jpg" for number in range(images)])
    plan = plan_day(store, images_per_manifest=10)
    judge_day(store, plan)
    landed = land_day(store, plan)
    assert (len(landed), sum(shard.judged for shard in landed)) == (shards, images)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), keys=st.lists(KEYS, min_size=1, max_size=12, unique=True))
def test_odd_keys_survive_from_listing_to_lake(data: st.DataObject, keys: list[str]) -> None:
    """Whatever the keys, the order of the answers and the JSON escapes: each answer reaches its image."""
    store = MemoryObjectStore(page_size=3)
    upload(store, keys)
    plan = plan_day(store, images_per_manifest=data.draw(st.integers(1, 5)))
    expected = {f"s3://ugc/uploads/{DAY}/{key}": None for key in keys}
    for shard in plan.shards:
        refs = read_manifest(store, shard)
        fates = data.draw(
            st.lists(st.sampled_from(["labels", "clean", "lost"]), min_size=len(refs), max_size=len(refs))
        )
        lines = []
        for ref, fate in zip(refs, fates, strict=True):
            labels = [label("Violence", "", 1, float(len(ref)))] if fate == "labels" else []
            line = answer_line(ref, labels)
            escaped = json.dumps(json.loads(line))
            if fate != "lost":
                lines.append(data.draw(st.sampled_from([line, escaped])))
            expected[ref] = (fate != "lost", [float(len(ref))] if labels else [])
        end = data.draw(st.sampled_from(["\n", "\r\n"]))
        finish_job(store, plan, shard.shard, end.join(data.draw(st.permutations(lines))))
    found: dict[str, tuple[bool, list[float]]] = {}
    for landed in land_day(store, plan):
        images = images_of(store, landed)
        assert not found.keys() & images.keys()
        confidences: dict[str, list[float]] = {}
        for row in labels_of(store, landed):
            confidences.setdefault(row["source_ref"], []).append(row["confidence"])
        found |= {
            ref: (image["outcome"] == "judged", confidences.pop(ref, [])) for ref, image in images.items()
        }
        assert not confidences
        assert all(f"s3://{image['bucket']}/{image['key']}" == ref for ref, image in images.items())
    assert found == expected
