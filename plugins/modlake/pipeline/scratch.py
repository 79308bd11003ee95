"""Room on the worker's disk: for tables that are made in one order and needed in another, and for files."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import ipc

Position = tuple[int, ...]


@contextmanager
def on_disk(body: bytes) -> Iterator[Path]:
    """Keep a body in a temporary file."""
    with tempfile.NamedTemporaryFile(prefix="modlake-") as file:
        file.write(body)
        file.flush()
        yield Path(file.name)


class TableScratch:
    """Keeps tables in a temporary file, compressed, and gives them back in the order of their positions.

    Threads may add at the same time.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = tempfile.TemporaryFile(prefix="modlake-")  # noqa: SIM115 closed by close()
        self._places: list[tuple[Position, int, int]] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the room back."""
        self._file.close()

    def add(self, position: Position, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        with ipc.new_stream(sink, self._schema, options=ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_table(table)
        body = sink.getvalue()
        with self._lock:
            self._places.append((position, self._file.seek(0, 2), body.size))
            self._file.write(body)

    def tables(self, first: int) -> Iterator[pa.Table]:
        """Yield the tables whose position begins with that number."""
        for position, offset, size in sorted(self._places):
            if position[0] == first:
                yield self._read(offset, size)

    def parts(self, rows: int) -> Iterator[pa.Table]:
        """Yield all rows in order, that many at a time; the last part may have fewer."""
        held = self._schema.empty_table()
        for _, offset, size in sorted(self._places):
            held = pa.concat_tables([held, self._read(offset, size)])
            whole = held.num_rows - held.num_rows % rows
            for first in range(0, whole, rows):
                yield held.slice(first, rows).combine_chunks()
            held = held.slice(whole)
        if held.num_rows:
            yield held.combine_chunks()

    def _read(self, offset: int, size: int) -> pa.Table:
        with self._lock:
            self._file.seek(offset)
            body = self._file.read(size)
        return ipc.open_stream(body).read_all()
