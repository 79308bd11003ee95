"""Parquet as bytes: what an object store takes and gives."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq


def encode_parquet(table: pa.Table) -> bytes:
    """Return a table as a zstd-compressed Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def decode_parquet(body: bytes, columns: list[str] | None = None) -> pa.Table:
    """Return a Parquet file's table, or the asked columns of it."""
    return pq.ParquetFile(pa.BufferReader(body)).read(columns)


class ParquetEncoder:
    """Encodes tables that come one by one into one file; holds the compressed file and a row group."""

    _ROWS_PER_GROUP = 100_000

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
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
