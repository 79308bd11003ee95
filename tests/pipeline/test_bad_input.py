"""Input that is odd, broken or hostile, from listing to audit; docs/bad-input.md lists it all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.audit import Audit, audit_day
from modlake.pipeline.manifests import read_manifest
from modlake.pipeline.parquet import decode_parquet
from modlake.pipeline.plan import Plan
from tests.support.days import DAY, SMOKING, answer_line, finish_job, label, land_day, plan_day, upload
from tests.support.memory_store import MemoryObjectStore

PREFIX = f"s3://ugc/uploads/{DAY}/"


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore()


def run(
    store: MemoryObjectStore,
    results: Callable[[list[str]], str | bytes] = lambda refs: "\n".join(map(answer_line, refs)),
    **changes: Any,
) -> tuple[Plan, Audit]:
    """Plan the day, leave a results file made of each manifest's images, land and audit."""
    plan = plan_day(store, **{"allow_incomplete": 1.0, **changes})
    for shard in plan.shards:
        finish_job(store, plan, shard.shard, results(read_manifest(store, shard)))
    return plan, audit_day(store, plan, land_day(store, plan), "1")


def images_of(store: MemoryObjectStore, audit: Audit) -> dict[str, dict[str, Any]]:
    rows = [row for uri in audit.images_uris for row in decode_parquet(store.read(uri)).to_pylist()]
    return {row["source_ref"].removeprefix(PREFIX): row for row in rows}


def labels_of(store: MemoryObjectStore, audit: Audit) -> list[dict[str, Any]]:
    return [row for uri in audit.labels_uris for row in decode_parquet(store.read(uri)).to_pylist()]


@pytest.mark.parametrize("character", ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x85"])
def test_keys_with_control_characters_are_ineligible(store: MemoryObjectStore, character: str) -> None:
    upload(store, [f"a{character}b.jpg", "c.jpg"])
    plan, audit = run(store)
    assert (audit.judged, audit.ineligible, plan.ineligible_by_code) == (1, 1, {"UNSUPPORTED_KEY": 1})
    assert images_of(store, audit)[f"a{character}b.jpg"]["error_code"] == "UNSUPPORTED_KEY"


def test_line_separators_of_unicode_are_no_line_ends(store: MemoryObjectStore) -> None:
    upload(store, ["a\u2028b.jpg", "a\u2029b.jpg", "\ufeff.jpg"])
    _, audit = run(store)
    assert (audit.judged, audit.ineligible) == (3, 0)


@pytest.mark.parametrize("character", ["k", "é", "漢", "😀"])
def test_the_longest_keys_that_s3_allows(store: MemoryObjectStore, character: str) -> None:
    room = 1024 - len(f"uploads/{DAY}/") - len(".jpg")
    name = character * (room // len(character.encode()))
    name = name + "k" * (room - len(name.encode())) + ".jpg"
    assert len(f"uploads/{DAY}/{name}".encode()) == 1024
    upload(store, [name])
    _, audit = run(store, lambda refs: answer_line(refs[0], SMOKING))
    assert images_of(store, audit)[name]["label_count"] == 3
    assert len(labels_of(store, audit)) == 3


@pytest.mark.parametrize(("images", "shards"), [(0, []), (1, [1]), (10_001, [10_000, 1])])
def test_days_of_no_image_of_one_and_of_one_too_many_for_a_job(
    store: MemoryObjectStore, images: int, shards: list[int]
) -> None:
    upload(store, [f"{number:05d}.jpg" for number in range(images)])
    plan, audit = run(store)
    assert [shard.image_count for shard in plan.shards] == shards
    assert (audit.listed, audit.judged, len(audit.jobs)) == (images, images, len(shards))


def _lines(refs: list[str]) -> list[str]:
    return [answer_line(ref, SMOKING) for ref in refs]


@pytest.mark.parametrize(
    ("results", "judged", "failed_by_code"),
    [
        pytest.param(lambda refs: "\n".join(_lines(refs))[:-30], 2, {"UNACCOUNTED": 1}, id="truncated"),
        pytest.param(lambda refs: "\n".join(_lines(refs)[:2]) + "\n{", 2, {"UNACCOUNTED": 1}, id="one brace"),
        pytest.param(lambda refs: "\r\n".join(_lines(refs)) + "\r\n", 3, {}, id="CRLF"),
        pytest.param(lambda refs: "\ufeff" + "\n".join(_lines(refs)), 3, {}, id="BOM"),
        pytest.param(lambda refs: b"\xff\xfe".join(map(str.encode, _lines(refs))), 0, None, id="no text"),
        pytest.param(lambda refs: "\n".join(_lines(refs) * 2), 3, {}, id="doubled"),
        pytest.param(lambda refs: "\n".join(reversed(_lines(refs))), 3, {}, id="other order"),
        pytest.param(lambda refs: "", 0, {"UNACCOUNTED": 3}, id="empty"),
    ],
)
def test_result_files_that_are_not_as_they_should_be(
    store: MemoryObjectStore,
    results: Callable[[list[str]], str | bytes],
    judged: int,
    failed_by_code: dict[str, int] | None,
) -> None:
    upload(store, ["a.jpg", "b.jpg", "c.jpg"])
    _, audit = run(store, results)
    assert (audit.listed, audit.judged, audit.failed) == (3, judged, 3 - judged)
    assert failed_by_code is None or audit.failed_by_code == failed_by_code
    assert audit.labels == 3 * judged


def test_unknown_keys_are_passed_over(store: MemoryObjectStore) -> None:
    upload(store, ["a.jpg"])

    def results(refs: list[str]) -> str:
        line = json.loads(answer_line(refs[0], [{**SMOKING[2], "Severity": {"deep": [1]}}], New=[{"x": 1}]))
        return json.dumps({"new": None, **line})

    _, audit = run(store, results)
    assert (audit.judged, audit.labels) == (1, 1)


@pytest.mark.parametrize("number", ["NaN", "-NaN", "null"])
def test_a_confidence_that_is_no_number_is_null(store: MemoryObjectStore, number: str) -> None:
    upload(store, ["a.jpg"])

    def results(refs: list[str]) -> str:
        return answer_line(refs[0], [label("Violence", "", 1, 12345.0)]).replace("12345.0", number)

    _, audit = run(store, results)
    (row,) = labels_of(store, audit)
    assert (row["label"], row["confidence"]) == ("Violence", None)
    image = images_of(store, audit)["a.jpg"]
    assert (image["label_count"], image["top_label"], image["top_confidence"]) == (1, "Violence", None)


@pytest.mark.parametrize(
    ("told", "path"),
    [
        (label("Brand New", "", 1, 50.0), ("Brand New", None, None)),
        (label("Brand New", "Violence", 2, 50.0), ("Violence", "Brand New", None)),
        (label("Brand New", None, None, 50.0), (None, None, None)),
        (label("Deeper", "Smoking", 4, 50.0), None),
        (label("Explicit Nudity", "", 1, 50.0), ("Explicit Nudity", None, None)),
    ],
)
def test_labels_outside_the_taxonomy_are_kept(
    store: MemoryObjectStore, told: dict[str, Any], path: tuple[str | None, ...] | None
) -> None:
    upload(store, ["a.jpg"])
    _, audit = run(store, lambda refs: answer_line(refs[0], [told]))
    (row,) = labels_of(store, audit)
    assert (row["label"], row["taxonomy_level"]) == (told["Name"], told.get("TaxonomyLevel"))
    assert path is None or (row["l1"], row["l2"], row["l3"]) == path


@pytest.mark.parametrize(
    "foreign", ["s3://secret/x.jpg", f"{PREFIX}never-uploaded.jpg", f"{PREFIX}b.gif", "/etc/passwd", ""]
)
def test_a_line_of_an_image_that_was_not_asked_for_stops_the_shard(
    store: MemoryObjectStore, foreign: str
) -> None:
    upload(store, ["a.jpg", "b.gif"])
    with pytest.raises(ModlakeTerminalError, match="that the manifest of job job-0 does not name"):
        run(store, lambda refs: "\n".join(map(answer_line, [*refs, foreign])))


def test_a_summary_error_of_a_foreign_bucket_stops_the_shard(store: MemoryObjectStore) -> None:
    upload(store, ["a.jpg"])
    plan = plan_day(store)
    finish_job(store, plan, 0, "", [{"source-ref": "s3://secret/x.jpg", "code": "X"}])
    with pytest.raises(ModlakeTerminalError, match=r"s3://secret/x\.jpg"):
        land_day(store, plan)
