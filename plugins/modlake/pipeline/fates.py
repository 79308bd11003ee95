"""The fates of a day's eligible images: judged before, or cut into manifests to be judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.inventory import ELIGIBLE, REUSED, etags, source_refs
from modlake.pipeline.labels import Column
from modlake.pipeline.landing import digest_rows
from modlake.pipeline.manifests import ManifestWriter
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.parquet import decode_parquet, encode_parquet
from modlake.pipeline.plan import ReusedBatch
from modlake.pipeline.reused_rows import reused_rows
from modlake.pipeline.run_folder import RunFolder

if TYPE_CHECKING:
    from modlake.pipeline.reuse import Lookup

PARTS_PER_BATCH = 50
"""Parts of the inventory that are looked up at once: half a million images in memory."""


@dataclass(frozen=True, slots=True)
class Fates:
    """What became of the eligible images: their batches that were judged before, by jobs of this day too."""

    batches: list[ReusedBatch]
    own_job_ids: set[str]


def write_fates(
    store: ObjectStore,
    folder: RunFolder,
    inventory_uris: list[str],
    manifests: ManifestWriter,
    *,
    lookup: Lookup | None,
    min_confidence: float,
) -> Fates:
    """Complete the parts of an inventory, batch by batch, and land the rows of what was judged before.

    Memory is bounded by a batch, its judgements and one manifest. The manifests come out closed.
    """
    batches: list[ReusedBatch] = []
    own_job_ids: set[str] = set()
    for numbers, parts in _read_batches(store, inventory_uris):
        reused = _Reused(pa.concat_tables(parts), lookup)
        for number, part in zip(numbers, parts, strict=True):
            store.write(inventory_uris[number], encode_parquet(_decide(part, number, reused, manifests)))
        if reused.listed.num_rows:
            batch = _land(store, folder, len(batches), numbers, reused, min_confidence)
            batches.append(batch)
            own_job_ids |= reused.job_ids_of(folder.day)
    manifests.close()
    return Fates(batches, own_job_ids)


class _Reused:
    """The images of a batch that were judged before."""

    def __init__(self, batch: pa.Table, lookup: Lookup | None) -> None:
        eligible = batch.filter(pc.equal(batch["fate"], pa.scalar(ELIGIBLE)))
        self.judgements = lookup(eligible) if lookup is not None and eligible.num_rows else None
        was_judged: Column = pc.is_valid(self.reused_from(eligible))
        self.listed = eligible.filter(was_judged)

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


def _read_batches(
    store: ObjectStore, inventory_uris: list[str]
) -> Iterator[tuple[list[int], list[pa.Table]]]:
    for first in range(0, len(inventory_uris), PARTS_PER_BATCH):
        numbers = list(range(first, min(first + PARTS_PER_BATCH, len(inventory_uris))))
        yield numbers, [decode_parquet(store.read(inventory_uris[number])) for number in numbers]


def _decide(part: pa.Table, number: int, reused: _Reused, manifests: ManifestWriter) -> pa.Table:
    reused_from = reused.reused_from(part)
    fate: Column = pc.if_else(pc.is_valid(reused_from), pa.scalar(REUSED), part["fate"])
    shards = [
        manifests.add(source_ref, etag, number) if one_fate == ELIGIBLE else None
        for source_ref, etag, one_fate in zip(source_refs(part), etags(part), fate.to_pylist(), strict=True)
    ]
    decided = {"fate": fate, "shard": pa.array(shards, pa.int64()), "reused_from": reused_from}
    columns: list[Column] = [decided.get(name, part[name]) for name in part.column_names]
    return pa.table(columns, schema=part.schema)


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
