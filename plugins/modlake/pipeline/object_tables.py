"""A day's objects told by tables instead of a listing: an S3 Inventory report, or files of somebody upstream.

Tables come in any order, a listing by key: so rows are sorted on the worker's disk, part by part. Then the
same objects give the same manifests, whoever tells of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

import pyarrow as pa
import pyarrow.compute as pc

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.columns import Column
from modlake.pipeline.listing import Stretch
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.parquet import decode_parquet
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri
from modlake.pipeline.scratch import SortScratch, cut_ranges

ROWS_PER_SORT = 500_000
"""About as many are in memory at once, some 60 MB."""

_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("key", pa.string()),
    ("size_bytes", pa.int64()),
    ("etag", pa.string()),
    ("last_modified", pa.timestamp("us", tz="UTC")),
]
OBJECTS = pa.schema(_COLUMNS)


def list_tables(tables: Iterable[pa.Table], source_uri: str, told_by: str) -> Iterator[Stretch]:
    """Yield the objects below ``source_uri`` that tables tell of, by key.

    Tables have the columns of ``OBJECTS`` and ``bucket``. ``told_by`` names them in errors. Raises
    ModlakeTerminalError when they tell of an object twice, or not all of it.
    """
    bucket, prefix = split_s3_uri(as_folder_uri(source_uri))
    with closing(SortScratch(OBJECTS, "key", rows_at_once=ROWS_PER_SORT)) as unsorted:
        for table in tables:
            is_ours: Column = pc.and_(
                pc.equal(table["bucket"], pa.scalar(bucket)), pc.starts_with(table["key"], prefix)
            )
            ours = table.filter(is_ours).select(OBJECTS.names).combine_chunks()
            _require_whole(ours, told_by)
            unsorted.add(ours)
        previous: str | None = None
        bounds = cut_ranges(unsorted.samples, -(-unsorted.rows // ROWS_PER_SORT))
        for number, ordered in enumerate(unsorted.ranges(bounds)):
            previous = _require_distinct(ordered["key"], previous, told_by)
            yield Stretch((number,), ordered)


def as_objects(table: pa.Table) -> pa.Table:
    """Return ``bucket`` and the columns of ``OBJECTS``, in their types."""
    columns: dict[str, Column] = {"bucket": table["bucket"].cast(pa.string())}
    for field in OBJECTS:
        columns[field.name] = table[field.name].cast(field.type)
    return pa.table(columns)


def read_object_files(store: ObjectStore, uri: str) -> Iterator[pa.Table]:
    """Yield the objects that a Parquet file tells of, or all those below a prefix, file by file.

    Columns: bucket, key, size or size_bytes, etag, last_modified. Raises ModlakeTerminalError when one is
    missing, or there is no file: a day without objects has one without rows.
    """
    uris = [uri]
    if uri.endswith("/"):
        pages = store.list_objects(*split_s3_uri(uri))
        uris = [each.source_ref for page in pages for each in page if each.key.endswith(".parquet")]
        # No retry: it could meet the first of several files that are still being written.
        if not uris:
            raise ModlakeTerminalError(
                f"There is no Parquet file below {uri}, so whoever writes them has not told of the day yet. "
                "Wait for it, or correct the prefix, then clear this task; a day without objects needs a "
                "file without rows."
            )
    for each in uris:
        table = decode_parquet(store.read(each))
        if "size" in table.column_names and "size_bytes" not in table.column_names:
            table = table.rename_columns({"size": "size_bytes"})
        if missing := sorted({"bucket", *OBJECTS.names} - set(table.column_names)):
            raise ModlakeTerminalError(
                f"{each} has no column {', '.join(missing)}: whoever writes it must add it."
            )
        etag: Column = pc.utf8_trim(table["etag"].cast(pa.string()), characters='"')
        yield as_objects(table.set_column(table.schema.get_field_index("etag"), "etag", etag))


def _require_whole(objects: pa.Table, told_by: str) -> None:
    missing = [name for name in objects.column_names if objects[name].null_count]
    if missing:
        raise ModlakeTerminalError(
            f"{told_by} has rows without {', '.join(missing)}: Modlake needs them to know an object again. "
            "Have them filled, or let the day be listed."
        )


def _require_distinct(
    keys: pa.ChunkedArray[pa.StringScalar], previous: str | None, told_by: str
) -> str | None:
    if not len(keys):
        return previous
    chunk = keys.combine_chunks()
    repeated: Column = chunk[1:].filter(pc.equal(chunk[1:], chunk[:-1]))
    if len(repeated) or str(chunk[0]) == previous:
        twice = str(repeated[0]) if len(repeated) else previous
        raise ModlakeTerminalError(
            f"{told_by} tells of {twice!r} more than once: an image must have one row. "
            "Remove the others, or let the day be listed."
        )
    return str(chunk[-1])
