"""Columns that often are in order already: to put nested ones in order takes as long as to parse them."""

from __future__ import annotations

from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

# A column of rows: pyarrow's stubs can't tell what most kernels make of one.
Column: TypeAlias = Any


def row_numbers(rows: int) -> Column:
    """Return 0, 1, 2 and so on."""
    arrow: Any = pa  # whose stubs don't know arange yet
    return arrow.arange(0, rows)


def taken(column: Column, rows: Column) -> Column:
    """Return the values of these rows, null where a row is null."""
    if len(column) == len(rows) and pc.all(pc.equal(rows, row_numbers(len(rows))), skip_nulls=False).as_py():
        return column
    return column.take(rows)


def find_rows(wanted: Column, among: Column) -> Column:
    """Return where each of ``wanted`` stands among texts, null where it does not."""
    wanted, among = _in_one_chunk(wanted), _in_one_chunk(among)
    return row_numbers(len(wanted)) if wanted.equals(among) else pc.index_in(wanted, value_set=among)


def are_distinct(texts: Column) -> bool:
    """Tell whether no text stands there twice."""
    texts = _in_one_chunk(texts)
    are_ascending: bool = pc.all(pc.less(texts[:-1], texts[1:]), min_count=0).as_py()
    return are_ascending or len(pc.unique(texts)) == len(texts)


def is_constant(column: Column) -> bool:
    """Tell whether a column holds one value, and no null."""
    return len(column) > 0 and not column.null_count and pc.all(pc.equal(column, column[0])).as_py()


def _in_one_chunk(column: Column) -> Column:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def in_order(table: pa.Table, name: str) -> pa.Table:
    """Return a table sorted by a column of texts, in one chunk."""
    column = table[name].combine_chunks()
    if len(column) > 1 and not pc.all(pc.less_equal(column[:-1], column[1:])).as_py():
        table = table.sort_by(name)
    return table.combine_chunks()
