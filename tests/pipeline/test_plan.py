from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.inventory import read_shard_inventory
from modlake.pipeline.manifests import read_manifest
from modlake.pipeline.object_store import ObjectNotFoundError
from modlake.pipeline.parquet import decode_parquet
from modlake.pipeline.plan import Plan, read_plan
from tests.support.days import DAY, plan_day, upload
from tests.support.memory_store import LAST_MODIFIED, MemoryObjectStore

ODD_KEYS = [
    "a b.jpg",
    'q"q.jpg',
    "p+p.jpg",
    "50%25.jpg",
    "h#h.jpg",
    "w?w=1&x.jpg",
    "é/日本😀.png",
    "back\\slash.jpg",
    "'.jpg",
]
PREFIX = f"s3://ugc/uploads/{DAY}/"


def test_every_listed_object_has_one_inventory_row_with_its_fate() -> None:
    store = MemoryObjectStore(page_size=2)
    upload(store, [*ODD_KEYS, "x.webp", "_SUCCESS", "folder/", "new\nline.jpg"])
    plan = plan_day(store)
    inventory = decode_parquet(store.read(plan.inventory_uris[0])).to_pylist()
    rows = {row["key"]: row for row in inventory}
    assert len(inventory) == len(rows) == plan.listed == 13
    assert [row["source_ref"] for row in inventory] == sorted(
        (row["source_ref"] for row in inventory), key=str.encode
    )
    assert (plan.eligible, plan.ineligible, plan.reused) == (9, 4, 0)
    assert plan.ineligible_by_code == {
        "FOLDER_MARKER": 1,
        "NOT_AN_IMAGE": 1,
        "UNSUPPORTED_FORMAT": 1,
        "UNSUPPORTED_KEY": 1,
    }
    odd = rows[f"uploads/{DAY}/new\nline.jpg"]
    assert (odd["fate"], odd["error_code"], odd["shard"]) == ("ineligible", "UNSUPPORTED_KEY", None)
    good = rows[f"uploads/{DAY}/a b.jpg"]
    assert (good["fate"], good["error_code"], good["shard"]) == ("eligible", None, 0)
    assert (good["bucket"], good["size_bytes"], good["last_modified"]) == ("ugc", 11, LAST_MODIFIED)
    assert good["source_ref"] == f"{PREFIX}a b.jpg"


def test_manifests_hold_the_eligible_keys_in_listing_order() -> None:
    store = MemoryObjectStore()
    upload(store, [*ODD_KEYS, "x.webp"])
    plan = plan_day(store, images_per_manifest=4, shards_per_group=2)
    refs = [ref for shard in plan.shards for ref in read_manifest(store, shard)]
    assert refs == sorted((f"{PREFIX}{key}" for key in ODD_KEYS), key=str.encode)
    assert [shard.image_count for shard in plan.shards] == [4, 4, 1]
    assert plan.groups == [[0, 1], [2]]
    assert [
        read_shard_inventory(store, plan, shard.shard)["source_ref"].to_pylist() for shard in plan.shards
    ] == [read_manifest(store, shard) for shard in plan.shards]


def test_the_same_listing_gives_the_same_files() -> None:
    store = MemoryObjectStore()
    upload(store, [f"{number}.jpg" for number in range(25)])
    first = plan_day(store, run_id="first", images_per_manifest=10)
    second = plan_day(store, run_id="second", images_per_manifest=10)
    assert [shard.sha256 for shard in first.shards] == [shard.sha256 for shard in second.shards]
    for one, other in zip(first.inventory_uris, second.inventory_uris, strict=True):
        assert store.read(one) == store.read(other)
    assert not set(first.inventory_uris) & set(second.inventory_uris)


def test_parts_and_shards_are_written_as_they_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modlake.pipeline.inventory.ROWS_PER_PART", 4)
    store = MemoryObjectStore()
    upload(store, [f"{number:02d}.jpg" for number in range(10)])
    written: list[str] = []
    write = store.write
    monkeypatch.setattr(store, "write", lambda uri, body: (written.append(uri), write(uri, body)))
    plan = plan_day(store, images_per_manifest=3)
    names = [uri.removeprefix(plan.run_uri) for uri in written]
    assert names[-1] == "plan.json"
    assert sorted(names[:-1]) == [
        *(f"inventory/part-{number:05d}.parquet" for number in range(3)),
        *(f"manifests/{number:05d}.jsonl" for number in range(4)),
    ]
    assert [shard.inventory_parts for shard in plan.shards] == [[0], [0, 1], [1, 2], [2]]
    assert [
        read_shard_inventory(store, plan, shard.shard)["source_ref"].to_pylist() for shard in plan.shards
    ] == [read_manifest(store, shard) for shard in plan.shards]


def test_reading_a_shard_takes_no_more_memory_on_a_day_with_few_eligible_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modlake.pipeline.inventory.ROWS_PER_PART", 1_000)
    store = MemoryObjectStore()
    upload(store, [f"{number:05d}.{'gif' if number % 1_000 else 'jpg'}" for number in range(20_000)])
    plan = plan_day(store)
    assert len(plan.shards[0].inventory_parts) == 20
    part = decode_parquet(store.read(plan.inventory_uris[0])).nbytes
    allocated: list[int] = []
    read = store.read
    monkeypatch.setattr(
        store, "read", lambda uri: (allocated.append(pa.total_allocated_bytes()), read(uri))[1]
    )
    assert read_shard_inventory(store, plan, 0).num_rows == 20
    assert max(allocated) - allocated[0] < 2 * part


def test_an_empty_day_is_a_plan_without_shards() -> None:
    store = MemoryObjectStore()
    plan = plan_day(store)
    assert (plan.listed, plan.shards, plan.groups, plan.inventory_uris, plan.estimated_cost_usd) == (
        0,
        [],
        [],
        [],
        0.0,
    )
    assert list(store.objects) == [plan.folder.plan_uri]


def test_plan_json_reads_back_equal() -> None:
    store = MemoryObjectStore()
    upload(store, ["a.jpg", "b.gif"])
    plan = plan_day(store, adapter_arn="arn:x")
    assert read_plan(store, f"{plan.run_uri}plan.json") == plan == Plan.from_json(plan.to_json())
    assert plan.folder.uri == plan.run_uri == f"s3://work/runs/day={DAY}/run-1/"
    assert plan.created_at.utcoffset() is not None


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"day":"2026-11-21"}'])
def test_an_unreadable_plan_is_terminal(body: bytes) -> None:
    store = MemoryObjectStore({"s3://work/plan.json": body})
    with pytest.raises(ModlakeTerminalError, match="not a plan"):
        read_plan(store, "s3://work/plan.json")
    with pytest.raises(ObjectNotFoundError):
        read_plan(store, "s3://work/none.json")


def test_a_day_over_budget_has_no_plan() -> None:
    store = MemoryObjectStore()
    upload(store, ["a.jpg", "b.jpg", "c.gif"])
    with pytest.raises(ModlakeTerminalError, match="max_cost_usd"):
        plan_day(store, max_cost_usd=0.0019)
    assert not any(uri.endswith("plan.json") for uri in store.objects)
    assert plan_day(store, max_cost_usd=0.002).estimated_cost_usd == pytest.approx(0.002)


def test_a_source_outside_the_allow_list_is_not_listed() -> None:
    store = MemoryObjectStore({"s3://secret/a.jpg": b"x"})
    with pytest.raises(ModlakeTerminalError, match="s3://secret/"):
        plan_day(store, source_uri="s3://secret/")
    assert list(store.objects) == ["s3://secret/a.jpg"]


def test_an_inventory_that_disagrees_with_its_manifest_is_refused() -> None:
    store = MemoryObjectStore()
    upload(store, ["a.jpg", "b.jpg"])
    plan = plan_day(store)
    other = MemoryObjectStore()
    upload(other, ["a.jpg", "c.jpg"])
    store.write(plan.inventory_uris[0], other.read(plan_day(other).inventory_uris[0]))
    with pytest.raises(ModlakeTerminalError, match="Shard 0"):
        read_shard_inventory(store, plan, 0)


def test_what_operators_and_triggers_import_is_light() -> None:
    modules = "object_store s3_uri run_folder eligibility cost plan listing"
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        f"for name in {modules.split()!r}: __import__('modlake.pipeline.' + name)\n"
        "print(*{'pyarrow', 'pyiceberg', 'airflow', 'boto3'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
