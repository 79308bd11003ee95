"""Room on the worker's disk for tables that are made in one order and needed in another."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pyarrow as pa
from pyarrow import ipc

Position = tuple[int, ...]


class TableScratch:
    """Keeps tables in a temporary file, compressed, and gives them back in the order of their positions."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = tempfile.TemporaryFile(prefix="modlake-")  # noqa: SIM115 closed by close()
        self._places: list[tuple[Position, int, int]] = []

    def close(self) -> None:
        """Give the room back."""
        self._file.close()

    def add(self, position: Position, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        with ipc.new_stream(sink, self._schema, options=ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_table(table)
        body = sink.getvalue()
        self._places.append((position, self._file.seek(0, 2), body.size))
        self._file.write(body)

    def parts(self, rows: int) -> Iterator[pa.Table]:
        """Yield all rows in order, that many at a time; the last part may have fewer."""
        held = self._schema.empty_table()
        for _, offset, size in sorted(self._places):
            self._file.seek(offset)
            held = pa.concat_tables([held, ipc.open_stream(self._file.read(size)).read_all()])
            whole = held.num_rows - held.num_rows % rows
            for first in range(0, whole, rows):
                yield held.slice(first, rows).combine_chunks()
            held = held.slice(whole)
        if held.num_rows:
            yield held.combine_chunks()
