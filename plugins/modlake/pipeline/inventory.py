"""The inventory: every listed object of a run and its fate, in listing order, as Parquet parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from sys import maxsize

import pyarrow as pa
import pyarrow.compute as pc

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.columns import Column
from modlake.pipeline.digests import TableDigest
from modlake.pipeline.eligibility import find_ineligibilities
from modlake.pipeline.listing import Stretch
from modlake.pipeline.manifests import manifest_body_of, read_manifest_body
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.parquet import decode_parquet
from modlake.pipeline.plan import Plan
from modlake.pipeline.quarantined import QUARANTINED, QUARANTINED_MESSAGE, Quarantine
from modlake.pipeline.scratch import TableScratch
from modlake.pipeline.set_aside import NOTHING, SetAside

ROWS_PER_PART = 10_000

ELIGIBLE = "eligible"
INELIGIBLE = "ineligible"
REUSED = "reused"

_DRAFT_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("key", pa.string()),
    ("size_bytes", pa.int64()),
    ("etag", pa.string()),
    ("last_modified", pa.timestamp("us", tz="UTC")),
    ("error_code", pa.string()),
    ("error_message", pa.string()),
]
_DRAFT = pa.schema(_DRAFT_COLUMNS)
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("bucket", pa.string()),
    ("key", pa.string()),
    ("source_ref", pa.string()),
    ("size_bytes", pa.int64()),
    ("etag", pa.string()),
    ("last_modified", pa.timestamp("us", tz="UTC")),
    ("fate", pa.string()),
    ("error_code", pa.string()),
    ("error_message", pa.string()),
    ("shard", pa.int64()),
    ("reused_from", pa.string()),
]
SCHEMA = pa.schema(_COLUMNS)


@dataclass(frozen=True, slots=True)
class ListingSummary:
    """What tells one listing from another: ``sha256`` digests keys, ETags, sizes, and what can't be judged.

    ``span`` is the first and last source_ref, ``last_modified`` the time of the newest object's upload; of an
    empty day both are None.
    """

    sha256: str
    span: tuple[str, str] | None
    last_modified: datetime | None


class InventoryDraft:
    """Every listed object and whether it can be judged, kept on disk until its fate is known.

    Which shard an eligible object goes into, or which day's judgement it carries over, is for
    :func:`~modlake.pipeline.fates.write_fates` to add, when the whole listing is known.
    """

    def __init__(self, bucket: str, *, set_aside: SetAside = NOTHING) -> None:
        self._bucket = bucket
        self._set_aside = set_aside
        self._scratch = TableScratch(_DRAFT)
        self.listed = 0
        self.ineligible_by_code: Counter[str] = Counter()

    def close(self) -> None:
        """Give the disk's room back."""
        self._scratch.close()

    def add(self, stretch: Stretch) -> None:
        """Record listed objects."""
        objects = stretch.objects
        codes, messages = find_ineligibilities(objects)
        self._record(stretch.position, objects, codes, messages)

    def add_quarantined(self, quarantine: Quarantine) -> None:
        """Record, after all that was listed, what lies in quarantine and has no successor in its place."""
        unlisted = self._unlisted(quarantine.candidates())
        if not len(unlisted):
            return
        objects = quarantine.objects(unlisted)
        is_here: Column = pc.equal(objects["bucket"], pa.scalar(self._bucket))
        away = objects.filter(is_here)
        codes = pa.repeat(QUARANTINED, away.num_rows)
        self._record((maxsize,), away, codes, pa.repeat(QUARANTINED_MESSAGE, away.num_rows))

    def _unlisted(self, source_refs: Column) -> Column:
        for part in self._scratch.parts(ROWS_PER_PART):
            if not len(source_refs):
                break
            is_listed: Column = pc.is_in(source_refs, value_set=self._source_refs(part["key"]))
            source_refs = source_refs.filter(pc.invert(is_listed))
        return source_refs

    def _record(self, position: tuple[int, ...], objects: pa.Table, codes: Column, messages: Column) -> None:
        if not objects.num_rows:
            return
        if len(self._set_aside):
            codes, messages = self._set_aside.mark(self._source_refs(objects["key"]), codes, messages)
        columns = [*objects.select(_DRAFT.names[:-2]).columns, codes, messages]
        self._scratch.add(position, pa.table(columns, schema=_DRAFT))
        self.listed += objects.num_rows
        self.ineligible_by_code.update(map(str, codes.drop_null().to_pylist()))

    def _source_refs(self, keys: Column) -> Column:
        return pc.binary_join_element_wise(pa.scalar(f"s3://{self._bucket}/"), keys, pa.scalar(""))

    def parts(self) -> Iterator[pa.Table]:
        """Yield the inventory part by part in listing order, as it is before the fates are known."""
        for part in self._scratch.parts(ROWS_PER_PART):
            rows = part.num_rows
            key: Column = part["key"]
            is_eligible = pc.is_null(part["error_code"])
            nothing = pa.nulls(rows, pa.string())
            made: dict[str, Column] = {
                "bucket": pa.repeat(self._bucket, rows),
                "source_ref": self._source_refs(key),
                "fate": pc.if_else(is_eligible, pa.scalar(ELIGIBLE), pa.scalar(INELIGIBLE)),
                "shard": pa.nulls(rows, pa.int64()),
                "reused_from": nothing,
            }
            columns: list[Column] = [made[name] if name in made else part[name] for name in SCHEMA.names]
            yield pa.table(columns, schema=SCHEMA)

    def sum_up(self) -> ListingSummary:
        """Return what tells one listing from another."""
        digest = TableDigest()
        span: tuple[str, str] | None = None
        newest: datetime | None = None
        for part in self.parts():
            digest.update(part.select(["source_ref", "etag", "size_bytes", "error_code"]))
            # Not every store lists in the order of the keys.
            bounds: Column = pc.min_max(part["source_ref"]).as_py()
            first, last = bounds["min"], bounds["max"]
            span = (min(first, span[0]), max(last, span[1])) if span else (first, last)
            written = pc.max(part["last_modified"]).as_py()
            newest = max(filter(None, (newest, written)), default=None)
        return ListingSummary(digest.hexdigest(), span, newest)


def read_shard_inventory(store: ObjectStore, plan: Plan, shard: int) -> pa.Table:
    """Return the inventory rows of a shard, in the order of its manifest.

    Raises ModlakeTerminalError when they are not the images of the manifest, one row each.
    """
    planned = plan.shards[shard]
    # Part by part: few images of a shard may be spread over all the parts of a day.
    parts = [
        _of_shard(decode_parquet(store.read(plan.inventory_uris[part])), shard)
        for part in planned.inventory_parts
    ]
    rows = pa.concat_tables(parts) if parts else SCHEMA.empty_table()
    if manifest_body_of(rows["source_ref"]) != read_manifest_body(store, planned):
        raise ModlakeTerminalError(
            f"Shard {shard} of {plan.run_uri}: the {planned.image_count} images of its manifest are not the "
            f"{rows.num_rows} of the inventory. Clear the plan task of that day to plan it anew."
        )
    return rows


def _of_shard(rows: pa.Table, shard: int) -> pa.Table:
    is_of_shard: Column = pc.equal(rows["shard"], pa.scalar(shard))
    return rows if pc.all(is_of_shard, skip_nulls=False).as_py() else rows.filter(is_of_shard)
