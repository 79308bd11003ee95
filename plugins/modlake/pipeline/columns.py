"""Columns of rows: fields of theirs, some of their rows, and their order.

Often they are in order already, and to put nested ones in order takes as long as to parse them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

# A column of rows: pyarrow's stubs can't tell what most kernels make of one.
Column: TypeAlias = Any

Numbers: TypeAlias = npt.NDArray[np.int64]


def row_numbers(rows: int) -> Column:
    """Return 0, 1, 2 and so on."""
    arrow: Any = pa  # whose stubs don't know arange yet
    return arrow.arange(0, rows)


def field_of(structs: Column, name: str) -> Column:
    """Return a field of structs, null where the struct is."""
    # A kernel lets go of Python's lock, and has to wait for it again.
    return pc.struct_field(structs, name) if structs.null_count else structs.field(name)


def taken(column: Column, rows: Column) -> Column:
    """Return these rows of a column or a table, null where a row number is null."""
    return column if len(column) == len(rows) and are_all_in_order(rows) else column.take(rows)


def are_all_in_order(rows: Column) -> bool:
    """Tell whether row numbers are 0, 1, 2 and so on."""
    return not rows.null_count and bool(in_one_chunk(rows).equals(row_numbers(len(rows))))


def find_rows(wanted: Column, among: Column) -> Column:
    """Return where each of ``wanted`` stands among texts, null where it does not."""
    wanted, among = in_one_chunk(wanted), in_one_chunk(among)
    return row_numbers(len(wanted)) if wanted.equals(among) else pc.index_in(wanted, value_set=among)


def places_of(numbers: Column, count: int) -> Column:
    """Return where each number below ``count`` stands among distinct ``numbers``, null where it does not."""
    kernels: Any = pc  # whose stubs don't know it yet
    return kernels.inverse_permutation(numbers, max_index=count - 1)


def are_distinct(texts: Column) -> bool:
    """Tell whether no text stands there twice."""
    texts = in_one_chunk(texts)
    are_ascending: bool = pc.all(pc.less(texts[:-1], texts[1:]), min_count=0).as_py()
    return are_ascending or len(pc.unique(texts)) == len(texts)


def is_constant(column: Column) -> bool:
    """Tell whether a column holds one value, and no null."""
    if not len(column) or column.null_count or column[0] != column[-1]:
        return False
    are_all_equal: bool = pc.all(pc.equal(column, column[0])).as_py()
    return are_all_equal


def in_one_chunk(column: Column) -> Column:
    """Return a column as one array, without a copy when it is one already."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def in_order(table: pa.Table, name: str) -> pa.Table:
    """Return a table sorted by a column of texts, in one chunk."""
    column = table[name].combine_chunks()
    if len(column) > 1 and not pc.all(pc.less_equal(column[:-1], column[1:])).as_py():
        table = table.sort_by(name)
    return table.combine_chunks()


def slices(rows: pa.Table, name: str, at_least: int) -> Iterator[pa.Table]:
    """Yield rows sorted by a column of texts, so many at a time, and those of one text together."""
    texts = rows[name]
    first = 0
    while first < rows.num_rows:
        end = min(first + at_least, rows.num_rows)
        while end < rows.num_rows and texts[end] == texts[end - 1]:
            end += 1
        yield rows.slice(first, end - first)
        first = end
