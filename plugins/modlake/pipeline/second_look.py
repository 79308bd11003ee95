"""A second look at the images of a job that has ended: were they the listed ones while it judged them?

Rekognition does not say which bytes it judged, and whoever may upload could have one image listed, another
one judged, and the first one back in its place. An object that is seen after the job's end as it was listed,
and that was not written since the job began, is what the job has judged.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.columns import Column, find_rows, in_one_chunk, taken
from modlake.pipeline.inventory import ROWS_PER_PART
from modlake.pipeline.job_files import JobRecord
from modlake.pipeline.object_store import (
    ObjectExistsError,
    ObjectNotFoundError,
    ObjectStore,
    PagedListing,
)
from modlake.pipeline.plan import Plan
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri

_KEYS_PER_PAGE = 1_000
_PAGES_AT_ONCE = 16
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("key", pa.string()),
    ("etag", pa.string()),
    ("last_modified", pa.timestamp("us", tz="UTC")),
]
_SEEN = pa.schema(_COLUMNS)


@dataclass(frozen=True, slots=True)
class SecondLook:
    """What was not as listed, by source_ref; ``second-looks/<shard>.json`` holds it.

    ``replaced`` objects have another ETag now. ``rewritten`` ones have the listed one, but were written after
    the job ``job_id`` began: when, as ISO 8601 text. One that is gone is in neither.
    """

    job_id: str
    looked_at: str
    replaced: list[str] = field(default_factory=list)
    rewritten: dict[str, str] = field(default_factory=dict)


def look_again(store: ObjectStore, plan: Plan, record: JobRecord, listed: pa.Table) -> SecondLook:
    """Compare the objects that a job was asked about with ``listed``, their rows of the inventory.

    The first look after a job's end is the one that counts: later ones return it, so that what comes out
    does not depend on when the results are read.
    """
    uri = plan.folder.second_look_uri(record.shard, record.retry)
    known = _read(store, uri)
    if known is not None and known.job_id == record.job_id:
        return known
    look = _look(store, plan, record, listed)
    try:
        store.write(uri, json.dumps(asdict(look), indent=1).encode(), if_absent=known is None)
    except ObjectExistsError:
        return _read(store, uri) or look
    return look


def _read(store: ObjectStore, uri: str) -> SecondLook | None:
    try:
        return SecondLook(**json.loads(store.read(uri)))
    except ObjectNotFoundError:
        return None


def _look(store: ObjectStore, plan: Plan, record: JobRecord, listed: pa.Table) -> SecondLook:
    looked_at = datetime.now(UTC).isoformat()
    seen = _see(store, plan, listed)
    row = find_rows(listed["key"], seen["key"])
    etag, last_modified = taken(seen["etag"], row), taken(seen["last_modified"], row)
    is_other: Column = pc.not_equal(etag, listed["etag"])
    is_replaced: Column = pc.fill_null(is_other, False)
    written: Column = pc.coalesce(last_modified, listed["last_modified"])
    is_newer = _is_written_since(record.started_at, written)
    is_rewritten: Column = pc.and_(pc.invert(is_replaced), pc.fill_null(is_newer, False))
    rewritten = pa.table({"source_ref": listed["source_ref"], "written": written}).filter(is_rewritten)
    return SecondLook(
        job_id=record.job_id,
        looked_at=looked_at,
        replaced=list(map(str, listed["source_ref"].filter(is_replaced).to_pylist())),
        rewritten={row["source_ref"]: row["written"].isoformat() for row in rewritten.to_pylist()},
    )


def _is_written_since(began: datetime | None, written: Column) -> Column:
    """Tell what was written since a job began, as far as S3 tells it: in whole seconds, rounded down.

    What was written in the second of its begin counts as written since, whatever was listed before: it may
    have been written twice in that second.
    """
    start = pa.scalar(began, written.type)
    return pc.greater_equal(written, pc.floor_temporal(start, unit="second"))


def let_second_pass(written: datetime | None) -> None:
    """Return when the second of a write is over: what begins from now on has begun after it for certain."""
    if written is not None:
        over = written.replace(microsecond=0) + timedelta(seconds=1)
        time.sleep(min(1.0, max(0.0, (over - datetime.now(UTC)).total_seconds())))


def _see(store: ObjectStore, plan: Plan, listed: pa.Table) -> pa.Table:
    """Return the listed objects as they are now, in the fewest List calls."""
    bucket, prefix = split_s3_uri(as_folder_uri(plan.source_uri))
    if not listed.num_rows:
        return _SEEN.empty_table()
    keys = in_one_chunk(listed["key"])
    if not isinstance(store, PagedListing):
        return _those(keys, _list_all(store, bucket, prefix))
    few = 1 + _pages_between(plan, listed)
    seen = _SEEN.empty_table()
    if len(keys) > few:
        seen = _those(keys, _list_range(store, bucket, prefix, keys))
        keys = _perhaps_elsewhere(keys, seen["key"])
    if len(keys) > few:
        pages = _list_range(store, bucket, prefix, keys)
    else:
        pages = (store.list_page(bucket, key.as_py(), limit=1).objects for key in keys)
    return pa.concat_tables([seen, _those(keys, pages)])


def _those(keys: Column, pages: Iterator[pa.Table]) -> pa.Table:
    found = [_SEEN.empty_table()]
    while some := list(islice(pages, _PAGES_AT_ONCE)):
        objects = pa.concat_tables(page.select(_SEEN.names) for page in some)
        found.append(objects.filter(pc.is_in(objects["key"], value_set=keys)))
    return pa.concat_tables(found)


def _perhaps_elsewhere(keys: Column, seen: Column) -> Column:
    """Return which of the keys between the first and the last were not seen, yet need not be gone.

    An inventory is in S3's order. Where SeaweedFS's begins or ends with other keys than these two, it may
    have some before the first or after the last: they are returned in its order.
    """
    is_unseen: Column = pc.invert(pc.is_in(keys, value_set=in_one_chunk(seen)))
    if not pc.any(is_unseen).as_py():
        return keys[:0]
    slashes_first: Column = pc.replace_substring(keys, "/", "\0")
    order: Column = pc.sort_indices(slashes_first)
    if order[0].as_py() == 0 and order[-1].as_py() == len(keys) - 1:
        return keys[:0]
    return keys.take(order).filter(is_unseen.take(order))


def _pages_between(plan: Plan, listed: pa.Table) -> int:
    """Return about how many pages the objects between the first and the last of these fill."""
    shard = plan.shards[listed["shard"][0].as_py()]
    objects = min(len(shard.inventory_parts) * ROWS_PER_PART, plan.listed)
    return math.ceil(objects / _KEYS_PER_PAGE)


def _list_range(store: PagedListing, bucket: str, prefix: str, keys: Column) -> Iterator[pa.Table]:
    after = str(keys[0])
    yield store.list_page(bucket, after, limit=1).objects
    if _is_any_below(after, keys):
        # SeaweedFS leaves out what lies in a folder of the name that a listing begins after.
        yield from _list_from(store, bucket, f"{after}/", "", keys, _KEYS_PER_PAGE)
    # Most often nothing else lies between them.
    yield from _list_from(store, bucket, prefix, after, keys, min(len(keys), _KEYS_PER_PAGE))


def _list_from(
    store: PagedListing, bucket: str, prefix: str, after: str, keys: Column, limit: int
) -> Iterator[pa.Table]:
    continuation, last = "", str(keys[-1])
    while not _is_beyond(after, last):
        page = store.list_page(bucket, prefix, after=after, continuation=continuation, limit=limit)
        yield page.objects
        if page.is_last:
            if page.is_full and _is_any_below(page.last_key, keys):
                yield from _list_from(store, bucket, f"{page.last_key}/", "", keys, _KEYS_PER_PAGE)
            return
        after, continuation, limit = page.last_key, page.continuation, _KEYS_PER_PAGE


def _is_any_below(key: str, keys: Column) -> bool:
    is_below: Column = pc.starts_with(keys, f"{key}/")
    return bool(pc.any(is_below).as_py())


def _is_beyond(key: str, last: str) -> bool:
    """Tell whether nothing up to ``last`` is left in S3's order and SeaweedFS's, which puts ``/`` first."""
    return key >= last and key.replace("/", "\0") >= last.replace("/", "\0")


def _list_all(store: ObjectStore, bucket: str, prefix: str) -> Iterator[pa.Table]:
    for page in store.list_objects(bucket, prefix):
        columns = {
            "key": [each.key for each in page],
            "etag": [each.etag for each in page],
            "last_modified": [each.last_modified for each in page],
        }
        yield pa.table(columns, schema=_SEEN)
