"""Parquet as bytes: what an object store takes and gives."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modlake.pipeline.columns import Column, is_constant

# Different in each row, or nearly, as confidences are: a dictionary takes longer to build, and more room.
_DISTINCT_COLUMNS = frozenset({"source_ref", "key", "etag", "size_bytes", "last_modified"})

_ROWS_AT_ONCE = 1 << 14
"""More than a shard has images, so that the writer goes through a column once; pages are cut between."""


def encode_parquet(table: pa.Table) -> bytes:
    """Return a table as a zstd-compressed Parquet file."""
    columns = dict(zip(table.column_names, table.columns, strict=True))
    constant = {
        name
        for name, column in columns.items()
        if not pa.types.is_nested(column.type) and is_constant(column)
    }
    empty = {name for name, column in columns.items() if column.null_count == len(column)}
    options = _format(table.schema, constant | empty)
    for place, field in enumerate(table.schema):
        if field.name in constant and pa.types.is_string(field.type):
            once = _written_once(table[place])
            table = table.set_column(place, field.with_type(once.type), once)
    sink = pa.BufferOutputStream()
    # A file's own schema says text, whatever the columns were written from.
    pq.write_table(table, sink, store_schema=False, **options)
    return sink.getvalue().to_pybytes()


def _written_once(column: Column) -> Column:
    """Spare the writer to look up the same text in its dictionary, row by row."""
    rows = pa.repeat(pa.scalar(0, pa.int32()), len(column))
    return pa.DictionaryArray.from_arrays(rows, pa.array([column[0].as_py()], column.type))


def decode_parquet(body: bytes, columns: list[str] | None = None) -> pa.Table:
    """Return a Parquet file's table, or the asked columns of it."""
    return pq.ParquetFile(pa.BufferReader(body)).read(columns)


def _format(schema: pa.Schema, of_one_value: Collection[str] = ()) -> dict[str, Any]:
    """Return how to write columns; to set compression up takes longer than to write a column of one value."""
    leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
    return {
        "compression": {path: "none" if path in of_one_value else "zstd" for path, _ in leaves},
        "use_dictionary": [
            path
            for path, arrow_type in leaves
            if path in of_one_value or not (path in _DISTINCT_COLUMNS or pa.types.is_floating(arrow_type))
        ],
        "write_batch_size": _ROWS_AT_ONCE,
    }


def _leaves(path: str, arrow_type: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Yield what Parquet keeps of a column, by the path that names it, and its type."""
    if isinstance(arrow_type, pa.StructType):
        for field in arrow_type:
            yield from _leaves(f"{path}.{field.name}", field.type)
    elif isinstance(arrow_type, pa.ListType):
        yield from _leaves(f"{path}.list.element", arrow_type.value_type)
    else:
        yield path, arrow_type


class ParquetEncoder:
    """Encodes tables that come one by one into one file; holds the compressed file and a row group."""

    _ROWS_PER_GROUP = 100_000

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(self._sink, schema, **_format(schema))
        self._pending: list[pa.Table] = []
        self._written = 0

    @property
    def rows(self) -> int:
        """How many rows were added."""
        return self._written + self._pending_rows

    @property
    def _pending_rows(self) -> int:
        return sum(table.num_rows for table in self._pending)

    def add(self, table: pa.Table) -> None:
        self._pending.append(table)
        if self._pending_rows >= self._ROWS_PER_GROUP:
            self._write_group()

    def finish(self) -> bytes:
        """Return the whole file."""
        if self._pending_rows:
            self._write_group()
        self._writer.close()
        return self._sink.getvalue().to_pybytes()

    def _write_group(self) -> None:
        self._writer.write_table(pa.concat_tables(self._pending))
        self._written += self._pending_rows
        self._pending = []
