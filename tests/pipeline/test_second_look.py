"""Answers are believed only when the image was the listed one all the while."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modlake.pipeline import second_look
from modlake.pipeline.image_retries import plan_retries
from modlake.pipeline.landing import land_shard
from modlake.pipeline.manifests import read_manifest
from modlake.pipeline.object_store import ListedObject, ListedPage
from modlake.pipeline.parquet import decode_parquet
from modlake.pipeline.plan import Plan
from tests.support.days import DAY, answer_line, finish_job, judge_day, plan_day, upload
from tests.support.memory_store import MemoryObjectStore

KEYS = ["a.jpg", "b/c.jpg", "b.jpg", "d.jpg"]
JOB_BEGAN = datetime(2026, 11, 22, 1, tzinfo=UTC)  # as finish_job has it
AFTERWARDS = datetime(2026, 11, 22, 1, 0, 1, tzinfo=UTC)
LATER_STILL = datetime(2026, 11, 22, 1, 30, tzinfo=UTC)


def by_utf8(key: str) -> str:
    """S3's order."""
    return key


def by_folder(key: str) -> str:
    """SeaweedFS's order."""
    return key.replace("/", "\0")


@dataclass
class DatedStore(MemoryObjectStore):
    """``written`` tells when objects were written last."""

    written: dict[str, datetime] = field(default_factory=dict)

    def rewrite(self, name: str, at: datetime, body: bytes | None = None) -> None:
        """Write an object again, by default with the same bytes."""
        key = f"uploads/{DAY}/{name}"
        if body is not None:
            self.write(f"s3://ugc/{key}", body)
        self.written[key] = at

    def _entry(self, uri: str) -> ListedObject:
        entry = super()._entry(uri)
        return replace(entry, last_modified=self.written.get(entry.key, entry.last_modified))


@dataclass
class PagedStore(DatedStore):
    """It can be listed from anywhere; ``calls`` counts how often it was, ``told`` the keys it told."""

    calls: int = 0
    told: int = 0
    order: Callable[[str], str] = by_utf8

    def list_page(
        self, bucket: str, prefix: str, *, after: str = "", continuation: str = "", limit: int = 1_000
    ) -> ListedPage:
        self.calls += 1
        found = [each for page in self.list_objects(bucket, prefix) for each in page]
        found.sort(key=lambda each: self.order(each.key))
        found = [each for each in found if not after or self.order(each.key) > self.order(after)]
        self.told += len(found[:limit])
        columns: list[pa.Array[Any]] = [
            pa.array([each.key for each in found[:limit]], pa.string()),
            pa.array([each.size_bytes for each in found[:limit]], pa.int64()),
            pa.array([each.etag for each in found[:limit]], pa.string()),
            pa.array([each.last_modified for each in found[:limit]], pa.timestamp("us", tz="UTC")),
        ]
        names = ["key", "size_bytes", "etag", "last_modified"]
        return ListedPage(pa.Table.from_arrays(columns, names=names), is_last=len(found) <= limit)


@pytest.fixture(params=[DatedStore, PagedStore])
def store(request: pytest.FixtureRequest) -> DatedStore:
    store: DatedStore = request.param()
    upload(store, KEYS)
    return store


def outcomes(store: DatedStore, plan: Plan, attempt: str = "1") -> dict[str, str]:
    rows = decode_parquet(store.read(land_shard(store, plan, 0, attempt).images_uri)).to_pylist()
    assert all((row["label_count"] is None) == (row["outcome"] == "failed") for row in rows)
    return {row["key"].rpartition(f"{DAY}/")[2]: row["error_code"] or row["outcome"] for row in rows}


def test_images_that_stayed_are_believed(store: DatedStore) -> None:
    store.rewrite("a.jpg", JOB_BEGAN - timedelta(seconds=1))
    plan = plan_day(store)
    judge_day(store, plan)
    assert outcomes(store, plan) == dict.fromkeys(KEYS, "judged")


@pytest.mark.parametrize("written", [JOB_BEGAN, AFTERWARDS])
def test_a_rerun_that_finds_the_job_of_a_swapped_image_believes_it_neither(
    store: DatedStore, written: datetime
) -> None:
    """The rerun lists what was put back: its time tells that the job may have judged another one."""
    store.rewrite("b.jpg", written)
    plan = plan_day(store)
    judge_day(store, plan)
    del store.objects[f"s3://ugc/uploads/{DAY}/b.jpg"]
    assert outcomes(store, plan)["b.jpg"] == "REWRITTEN"


def test_an_image_that_was_put_back_in_the_second_of_the_jobs_begin_is_not(store: DatedStore) -> None:
    plan = plan_day(store)
    judge_day(store, plan)
    store.rewrite("b.jpg", JOB_BEGAN)
    assert outcomes(store, plan)["b.jpg"] == "REWRITTEN"


def test_images_that_were_changed_are_not(store: DatedStore) -> None:
    plan = plan_day(store)
    judge_day(store, plan)
    store.rewrite("b.jpg", AFTERWARDS)
    store.rewrite("d.jpg", AFTERWARDS, b"another image")
    del store.objects[f"s3://ugc/uploads/{DAY}/a.jpg"]
    assert outcomes(store, plan) == {
        "a.jpg": "judged",  # gone since: nothing speaks against its answer
        "b/c.jpg": "judged",
        "b.jpg": "REWRITTEN",
        "d.jpg": "REPLACED",
    }


def test_the_first_look_counts(store: DatedStore) -> None:
    """What is landed again later is landed as before."""
    plan = plan_day(store)
    judge_day(store, plan)
    first = outcomes(store, plan)
    store.rewrite("b.jpg", LATER_STILL, b"a new avatar")
    assert outcomes(store, plan, "2") == first


def test_what_was_put_back_is_asked_for_again_and_what_was_replaced_is_not(store: DatedStore) -> None:
    plan = plan_day(store, image_retries=1)
    judge_day(store, plan)
    store.rewrite("b.jpg", AFTERWARDS)
    store.rewrite("d.jpg", AFTERWARDS, b"another image")
    (retry,) = plan_retries(store, plan, [0], 1)
    assert read_manifest(store, retry) == [f"s3://ugc/uploads/{DAY}/b.jpg"]
    answer = answer_line(f"s3://ugc/uploads/{DAY}/b.jpg")
    finish_job(store, plan, 0, answer, retry=1, CreationTimestamp=LATER_STILL.isoformat())
    assert outcomes(store, plan)["b.jpg"] == "judged"
    assert plan_retries(store, plan, [0], 1) == [retry]


def test_put_back_twice_it_is_another_analysis(store: DatedStore) -> None:
    identities = set()
    for run_id, at in (("first", AFTERWARDS), ("second", LATER_STILL), ("third", LATER_STILL)):
        plan = plan_day(store, image_retries=1, run_id=run_id)
        judge_day(store, plan)
        store.rewrite("b.jpg", at)
        (retry,) = plan_retries(store, plan, [0], 1)
        identities.add(retry.images_sha256)
    assert len(identities) == 2


@pytest.mark.parametrize(
    ("names", "calls", "keys"),
    [
        (KEYS[:2], 2, 2),  # no more images than it takes calls for all between them: one call each
        (KEYS, 1 + 1, 1 + 3),
        ([f"{number:05d}.jpg" for number in range(2_500)], 1 + 3, 2_500),
        # Where others lie between them, the first page does not reach the last one.
        ([f"{number:05d}.{'jpg' if number % 100 == 0 else 'txt'}" for number in range(2_001)], 1 + 3, 2_001),
    ],
)
def test_a_look_takes_the_fewest_calls(names: list[str], calls: int, keys: int) -> None:
    store = PagedStore()
    upload(store, names)
    plan = plan_day(store)
    judge_day(store, plan)
    store.calls = store.told = 0
    assert set(outcomes(store, plan).values()) == {"judged"}
    assert (store.calls, store.told) == (calls, keys)


def write_inventory(store: DatedStore) -> str:
    """Write what tells of the day's objects, in S3's order, whichever the store lists in."""
    objects = [each for page in store.list_objects("ugc", f"uploads/{DAY}/") for each in page]
    columns: dict[str, Any] = {
        "bucket": [each.bucket for each in objects],
        "key": [each.key for each in objects],
        "size": [each.size_bytes for each in objects],
        "etag": [each.etag for each in objects],
        "last_modified": pa.array([each.last_modified for each in objects], pa.timestamp("us", tz="UTC")),
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    store.write("s3://work/inventory.parquet", sink.getvalue())
    return "s3://work/inventory.parquet"


# Few characters, so that folders and images share beginnings, and stand where orders differ.
NAMES = st.sets(st.text(st.sampled_from("ab/-0"), min_size=1, max_size=5), min_size=3, max_size=30)


@settings(deadline=None, max_examples=50)
@given(order=st.sampled_from([by_utf8, by_folder]), names=NAMES, others=NAMES, data=st.data())
def test_in_either_order_nothing_that_was_replaced_counts_as_gone(
    order: Callable[[str], str], names: set[str], others: set[str], data: st.DataObject
) -> None:
    images = sorted({f"{name}.jpg" for name in names})
    gone = data.draw(st.sets(st.sampled_from(images)))
    store = PagedStore(order=order)
    upload(store, [*images, *(f"{name}x.txt" for name in others)])
    with mock.patch.object(second_look, "_KEYS_PER_PAGE", 4):
        plan = plan_day(store, inventory_uri=write_inventory(store))
        judge_day(store, plan)
        for name in images:
            store.rewrite(name, AFTERWARDS, b"another image")
            if name in gone:
                del store.objects[f"s3://ugc/uploads/{DAY}/{name}"]
        assert outcomes(store, plan) == {name: "judged" if name in gone else "REPLACED" for name in images}


@pytest.mark.parametrize(
    ("order", "calls"),
    [
        (by_utf8, 1 + 3 + 1),  # what is gone is asked for singly: SeaweedFS could have it before all others
        (by_folder, 1 + 2 + 1 + 3),  # what stands first is listed for itself
    ],
)
def test_a_look_in_the_other_order_takes_few_calls_more(order: Callable[[str], str], calls: int) -> None:
    store = PagedStore(order=order)
    upload(store, [f"a{between}{number:04d}.jpg" for between in "-/" for number in range(1_250)])
    plan = plan_day(store, inventory_uri=write_inventory(store))
    judge_day(store, plan)
    del store.objects[f"s3://ugc/uploads/{DAY}/a/0003.jpg"]
    store.calls = 0
    assert set(outcomes(store, plan).values()) == {"judged"}
    assert store.calls == calls


def test_a_job_without_a_time_is_compared_by_etag_alone(store: DatedStore) -> None:
    plan = plan_day(store)
    absent: dict[str, Any] = {"CreationTimestamp": None}
    finish_job(store, plan, 0, "\n".join(map(answer_line, read_manifest(store, plan.shards[0]))), **absent)
    store.rewrite("b.jpg", AFTERWARDS)
    assert outcomes(store, plan)["b.jpg"] == "judged"


def test_a_plan_is_made_when_the_second_of_the_last_upload_is_over(store: DatedStore) -> None:
    """So the job begins in a later one, and nothing that was listed is in doubt."""
    now = datetime.now(UTC).replace(microsecond=0)
    store.rewrite("b.jpg", now)
    assert plan_day(store).created_at >= now + timedelta(seconds=1)


def test_what_was_put_back_is_asked_for_again_when_that_second_is_over(store: DatedStore) -> None:
    plan = plan_day(store, image_retries=1)
    judge_day(store, plan)
    now = datetime.now(UTC).replace(microsecond=0)
    store.rewrite("b.jpg", now)
    assert plan_retries(store, plan, [0], 1)
    assert datetime.now(UTC) >= now + timedelta(seconds=1)


def test_a_plan_does_not_wait_for_clocks_that_are_ahead(store: DatedStore) -> None:
    began = datetime.now(UTC)
    store.rewrite("b.jpg", began + timedelta(days=1))
    assert plan_day(store).created_at < began + timedelta(seconds=30)
