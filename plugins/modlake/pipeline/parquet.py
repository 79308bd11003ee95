"""Parquet as bytes: what an object store takes and gives."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modlake.pipeline.columns import Column, is_constant

# Different in each row, or nearly, as confidences are: their dictionary is given up after it was built.
_DISTINCT_COLUMNS = frozenset({"source_ref", "key", "etag"})


def encode_parquet(table: pa.Table) -> bytes:
    """Return a table as a zstd-compressed Parquet file."""
    options = _format(table.schema)
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and is_constant(table[place]):
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


def _format(schema: pa.Schema) -> dict[str, Any]:
    repeated = [
        field.name
        for field in schema
        if field.name not in _DISTINCT_COLUMNS and not pa.types.is_floating(field.type)
    ]
    return {"compression": "zstd", "use_dictionary": repeated}


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
