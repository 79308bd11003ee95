"""Room on the worker's disk: for tables that are made in one order and needed in another, and for files."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

from modlake.pipeline.columns import Column

Position = tuple[int, ...]

_SAMPLED = 1_000


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


class SortScratch:
    """Keeps rows that come in any order on disk, and gives them back in ranges of a column of texts.

    ``samples`` are some of its texts, by which ranges of about as many rows can be cut.
    """

    def __init__(self, schema: pa.Schema, column: str, *, rows_at_once: int) -> None:
        self._schema = schema
        self._column = column
        self._rows_at_once = rows_at_once
        self._unsorted = TableScratch(schema)
        self._tables = 0
        self.rows = 0
        self.samples: list[str] = []

    def close(self) -> None:
        """Give the room back."""
        self._unsorted.close()

    def add(self, rows: pa.Table) -> None:
        self._unsorted.add((self._tables,), rows.combine_chunks())
        self._tables += 1
        self.rows += rows.num_rows
        sampled = rows[self._column].take(pa.array(range(0, rows.num_rows, _SAMPLED), pa.int64()))
        self.samples += map(str, sampled.to_pylist())

    def parts(self) -> Iterator[pa.Table]:
        """Yield the rows as they came, some at a time."""
        return self._unsorted.parts(self._rows_at_once)

    def ranges(self, bounds: list[str]) -> Iterator[pa.Table]:
        """Yield the sorted rows before each bound, and then those from the last one on."""
        ranges = [TableScratch(self._schema) for _ in range(len(bounds) + 1)]
        for number, part in enumerate(self.parts()):
            rest = part.sort_by(self._column)
            for kept, bound in zip(ranges, bounds, strict=False):
                is_before: Column = pc.less(rest[self._column], pa.scalar(bound))
                count = pc.sum(is_before).as_py() or 0
                kept.add((number,), rest.slice(0, count))
                rest = rest.slice(count)
            ranges[-1].add((number,), rest)
        for kept in ranges:
            rows = pa.concat_tables([self._schema.empty_table(), *kept.parts(self._rows_at_once)])
            kept.close()
            yield rows.sort_by(self._column).combine_chunks()


def cut_ranges(samples: list[str], ranges: int) -> list[str]:
    """Return the bounds of about so many ranges with about as many samples each."""
    samples = sorted(samples)
    return [samples[len(samples) * number // ranges] for number in range(1, ranges)] if samples else []
