"""The inventory: every listed object of a run and its fate, in listing order, as Parquet parts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.eligibility import Ineligibility
from modlake.pipeline.manifests import read_manifest
from modlake.pipeline.object_store import ListedObject, ObjectStore
from modlake.pipeline.parquet import decode_parquet, encode_parquet
from modlake.pipeline.plan import Plan

ROWS_PER_PART = 10_000

ELIGIBLE = "eligible"
INELIGIBLE = "ineligible"
REUSED = "reused"

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


class InventoryWriter:
    """Records listed objects and writes each part as it fills; holds one in memory.

    Which shard an eligible object goes into, or which day's judgement it carries over, is for
    :func:`write_fates` to add, when the whole listing is known.
    """

    def __init__(self, store: ObjectStore, inventory_uri: Callable[[int], str]) -> None:
        self._store = store
        self._inventory_uri = inventory_uri
        self._rows: list[tuple[object, ...]] = []
        self._digest = hashlib.sha256()
        self.uris: list[str] = []
        self.listed = 0
        self.ineligible_by_code: Counter[str] = Counter()
        self.span: tuple[str, str] | None = None

    @property
    def listing_sha256(self) -> str:
        """The digest of keys, ETags and sizes."""
        return self._digest.hexdigest()

    def add(self, listed: ListedObject, ineligibility: Ineligibility | None) -> None:
        """Record an object."""
        fate, code, message = ELIGIBLE, None, None
        if ineligibility is not None:
            fate, code, message = INELIGIBLE, str(ineligibility.code), ineligibility.message
            self.ineligible_by_code[code] += 1
        self._rows.append(
            (
                listed.bucket,
                listed.key,
                listed.source_ref,
                listed.size_bytes,
                listed.etag,
                listed.last_modified,
                fate,
                code,
                message,
                None,
                None,
            )
        )
        self._digest.update(f"{listed.source_ref}\0{listed.etag}\0{listed.size_bytes}\0".encode())
        self.span = (self.span[0] if self.span else listed.source_ref, listed.source_ref)
        self.listed += 1
        if len(self._rows) >= ROWS_PER_PART:
            self.close()

    def close(self) -> None:
        """Write the part begun, if there is one."""
        if not self._rows:
            return
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*self._rows, strict=True), SCHEMA, strict=True)
        ]
        uri = self._inventory_uri(len(self.uris))
        self._store.write(uri, encode_parquet(pa.Table.from_arrays(columns, schema=SCHEMA)))
        self.uris.append(uri)
        self._rows = []


def read_shard_inventory(store: ObjectStore, plan: Plan, shard: int) -> pa.Table:
    """Return the inventory rows of a shard, in the order of its manifest.

    Raises ModlakeTerminalError when they are not the images of the manifest, one row each.
    """
    planned = plan.shards[shard]
    parts = [decode_parquet(store.read(plan.inventory_uris[part])) for part in planned.inventory_parts]
    rows = pa.concat_tables(parts) if parts else SCHEMA.empty_table()
    rows = rows.filter(pc.equal(rows["shard"], pa.scalar(shard)))
    manifest = read_manifest(store, planned)
    if source_refs(rows) != manifest:
        raise ModlakeTerminalError(
            f"Shard {shard} of {plan.run_uri}: the {len(manifest)} images of its manifest are not the "
            f"{rows.num_rows} of the inventory. Clear the plan task of that day to plan it anew."
        )
    return rows


def etags(rows: pa.Table) -> list[str]:
    """Return the ETags that an inventory lists."""
    return cast("list[str]", rows["etag"].to_pylist())


def source_refs(rows: pa.Table) -> list[str]:
    """Return the images that rows of an inventory, or of landed images, are about."""
    return cast("list[str]", rows["source_ref"].to_pylist())
