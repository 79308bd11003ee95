"""Digests of tables that depend on their values alone, not on a file format or the version of a library."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.columns import Column


class TableDigest:
    """SHA-256 of tables, one after another: of the columns' names, lengths, nulls and values."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def update(self, table: pa.Table) -> None:
        """Add a table of texts, numbers, dates and times."""
        for name, column in zip(table.column_names, table.columns, strict=True):
            array = column.combine_chunks()
            self._sha256.update(f"{name}\0{len(array)}\0{array.null_count}\0".encode())
            if array.null_count:
                self._sha256.update(_values(pc.cast(pc.is_valid(array), pa.uint8())))
            if array.null_count < len(array):
                self._add(array.drop_null())

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()

    def _add(self, array: Column) -> None:
        if pa.types.is_string(array.type):
            lengths: Column = pc.binary_length(array)
            self._sha256.update(_values(lengths))
            self._sha256.update(_text(array))
        else:
            self._sha256.update(_values(array))


def _values(array: pa.Array[Any]) -> memoryview:
    width = array.type.bit_width // 8
    buffer = array.buffers()[1]
    assert buffer is not None
    return memoryview(buffer)[array.offset * width : (array.offset + len(array)) * width]


def _text(array: pa.Array[Any]) -> memoryview:
    _, offsets, data = array.buffers()
    assert offsets is not None
    bounds = memoryview(offsets).cast("B").cast("i")
    return memoryview(data or b"")[bounds[array.offset] : bounds[array.offset + len(array)]]
