"""The fates of a day's eligible images: judged before, or cut into manifests to be judged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.columns import Column
from modlake.pipeline.inventory import ELIGIBLE, REUSED, InventoryDraft
from modlake.pipeline.landing import digest_rows
from modlake.pipeline.manifests import ManifestWriter
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.parquet import encode_parquet
from modlake.pipeline.plan import ManifestLimits, ReusedBatch, Shard
from modlake.pipeline.quarantined import QUARANTINED
from modlake.pipeline.reused_rows import reused_rows
from modlake.pipeline.run_folder import RunFolder
from modlake.pipeline.side_by_side import side_by_side
from modlake.pipeline.write_behind import WriteBehind

if TYPE_CHECKING:
    from modlake.pipeline.reuse import Find, Lookup

PARTS_PER_BATCH = 50
"""Parts of the inventory that are looked up at once: half a million images in memory."""

BATCHES_AT_ONCE = 2
"""Batches whose judgements are sought side by side, while what is to be judged of another is written."""


@dataclass(frozen=True, slots=True)
class Fates:
    """What became of the listed images: their inventory, the shards to be judged, and the batches that were
    judged before, by jobs of this day too; ``reused_in_quarantine`` of these lie in quarantine."""

    inventory_uris: list[str]
    shards: list[Shard]
    batches: list[ReusedBatch]
    own_job_ids: set[str]
    reused_in_quarantine: int


def write_fates(
    store: ObjectStore,
    folder: RunFolder,
    draft: InventoryDraft,
    limits: ManifestLimits,
    *,
    lookup: Lookup | None,
    min_confidence: float,
) -> Fates:
    """Write inventory and manifests, and land the rows of what was judged before.

    Memory is bounded by some batches of the inventory, their judgements, one manifest, and what is being
    written.
    """
    inventory_uris: list[str] = []
    batches: list[ReusedBatch] = []
    own_job_ids: set[str] = set()
    reused_in_quarantine = 0
    with WriteBehind(store) as writer, _looked_up(lookup, draft) as find:
        manifests = ManifestWriter(writer, folder.manifest_uri, limits)
        batches_of_parts = _in_batches(draft.parts(), PARTS_PER_BATCH if find is not None else 1)
        for parts, batch, reused in side_by_side(partial(_look_up, find), batches_of_parts, BATCHES_AT_ONCE):
            first = len(inventory_uris)
            for number, part in enumerate(_parts_like(parts, _decide(batch, reused)), start=first):
                uri = folder.inventory_uri(number)
                writer.write(uri, partial(encode_parquet, _cut(part, number, manifests)))
                inventory_uris.append(uri)
            if reused.listed.num_rows:
                numbers = list(range(first, len(inventory_uris)))
                batches.append(_land(store, folder, len(batches), numbers, reused, min_confidence))
                own_job_ids |= reused.job_ids_of(folder.day)
                reused_in_quarantine += reused.in_quarantine
        manifests.close()
    return Fates(inventory_uris, manifests.shards, batches, own_job_ids, reused_in_quarantine)


def _looked_up(lookup: Lookup | None, draft: InventoryDraft) -> AbstractContextManager[Find | None]:
    """Return what finds judgements batch by batch; None when nothing is to be looked up."""
    if lookup is None:
        return nullcontext(None)
    return lookup.over(
        lambda: (_sought(pa.concat_tables(parts)) for parts in _in_batches(draft.parts(), PARTS_PER_BATCH)),
        draft.listed,
    )


def _look_up(find: Find | None, parts: list[pa.Table]) -> tuple[list[pa.Table], pa.Table, _Reused]:
    batch = pa.concat_tables(parts)
    return parts, batch, _Reused(batch, find)


def _sought(listed: pa.Table) -> pa.Table:
    """Return the images that a judgement may be found for: eligible ones, and those in quarantine."""
    has_code: Column = pc.equal(listed["error_code"], pa.scalar(QUARANTINED))
    is_away: Column = pc.fill_null(has_code, False)
    is_sought: Column = pc.or_(pc.equal(listed["fate"], pa.scalar(ELIGIBLE)), is_away)
    return listed.filter(is_sought)


class _Reused:
    """The images of a batch that were judged before."""

    def __init__(self, batch: pa.Table, find: Find | None) -> None:
        sought = _sought(batch)
        self.judgements = find(sought) if find is not None and sought.num_rows else None
        was_judged: Column = pc.is_valid(self.reused_from(sought))
        self.listed = sought.filter(was_judged)
        self.in_quarantine = self.listed.num_rows - self.listed["error_code"].null_count

    def reused_from(self, rows: pa.Table) -> Column:
        """Return for each row the day that its judgement is of, null where there is none."""
        if self.judgements is None:
            return pa.nulls(rows.num_rows, pa.string())
        images = self.judgements.images
        return images["reused_from"].take(pc.index_in(rows["source_ref"], value_set=images["source_ref"]))

    def job_ids_of(self, day: date) -> set[str]:
        """Return the jobs of that day that these judgements are of."""
        assert self.judgements is not None
        images = self.judgements.images
        own = images.filter(pc.equal(images["reused_from"], pa.scalar(day.isoformat())))
        return set(map(str, own["job_id"].drop_null().unique().to_pylist()))


def _in_batches(parts: Iterator[pa.Table], size: int) -> Iterator[list[pa.Table]]:
    while batch := list(islice(parts, size)):
        yield batch


def _parts_like(parts: list[pa.Table], batch: pa.Table) -> Iterator[pa.Table]:
    """Cut a batch as it was before."""
    first = 0
    for part in parts:
        yield batch.slice(first, part.num_rows)
        first += part.num_rows


def _decide(batch: pa.Table, reused: _Reused) -> pa.Table:
    """Tell what was judged before."""
    if reused.judgements is None:
        return batch
    reused_from = reused.reused_from(batch)
    is_reused: Column = pc.is_valid(reused_from)
    nothing = pa.scalar(None, pa.string())
    changed = {
        "fate": pc.if_else(is_reused, pa.scalar(REUSED), batch["fate"]),
        "reused_from": reused_from,
        "error_code": pc.if_else(is_reused, nothing, batch["error_code"]),
        "error_message": pc.if_else(is_reused, nothing, batch["error_message"]),
    }
    return _with_columns(batch, changed)


def _cut(part: pa.Table, number: int, manifests: ManifestWriter) -> pa.Table:
    """Put what is to be judged into manifests."""
    is_eligible: Column = pc.equal(part["fate"].combine_chunks(), pa.scalar(ELIGIBLE))
    eligible = part.filter(is_eligible)
    shards = manifests.add(eligible["source_ref"].combine_chunks(), eligible["etag"].combine_chunks(), number)
    return _with_columns(
        part, {"shard": pc.replace_with_mask(part["shard"].combine_chunks(), is_eligible, shards)}
    )


def _with_columns(rows: pa.Table, changed: dict[str, Column]) -> pa.Table:
    columns: list[Column] = [changed.get(name, rows[name]) for name in rows.column_names]
    return pa.table(columns, schema=rows.schema)


def _land(
    store: ObjectStore,
    folder: RunFolder,
    number: int,
    parts: list[int],
    reused: _Reused,
    min_confidence: float,
) -> ReusedBatch:
    assert reused.judgements is not None
    images, labels = reused_rows(folder.day, folder.run_id, min_confidence, reused.listed, reused.judgements)
    # The run's plan writes once, so that one attempt's name is enough.
    images_uri = folder.landed_uri("images", f"reused-{number:05d}", "plan")
    store.write(images_uri, encode_parquet(images))
    labels_uri = None
    if labels.num_rows:
        labels_uri = folder.landed_uri("labels", f"reused-{number:05d}", "plan")
        store.write(labels_uri, encode_parquet(labels))
    return ReusedBatch(
        images_uri=images_uri,
        labels_uri=labels_uri,
        image_count=images.num_rows,
        labels=labels.num_rows,
        inventory_parts=parts,
        content_sha256=digest_rows(images, labels),
    )
