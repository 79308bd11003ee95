"""An index of rows finds exactly what a Python dict of them would."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modlake.pipeline import row_index as module
from modlake.pipeline.row_index import RowIndex

ROWS = st.lists(
    st.tuples(
        st.text("aé\n雪", max_size=9),
        st.integers(-2, 2),
        st.integers(0, 2).map(lambda n: date(2026, 1, 1 + n)),
    ),
    max_size=20,
)


def columns(rows: list[tuple[Any, ...]]) -> list[Any]:
    types = (pa.string(), pa.int64(), pa.date32())
    return [pa.array([row[place] for row in rows], type_) for place, type_ in enumerate(types)]


@given(held=ROWS, asked=ROWS)
def test_it_finds_the_first_of_equal_rows_and_no_other(
    held: list[tuple[Any, ...]], asked: list[tuple[Any, ...]]
) -> None:
    asked = asked + held
    first: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(held):
        first.setdefault(row, number)
    index = RowIndex(columns(held))

    assert index.rows_of(columns(asked)).to_pylist() == [first.get(row) for row in asked]
    assert index.may_hold(columns(asked)).to_pylist() == [row in first for row in asked]
    assert index.has_repeated_hashes == (len(first) < len(held))


def test_equal_hashes_are_not_taken_for_equal_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_row_hashes", lambda columns: np.zeros(len(columns[0]), np.uint64))
    index = RowIndex([pa.array(["a", "b"])])

    assert index.rows_of([pa.array(["a", "b", "c", None])]).to_pylist() == [0, None, None, None]
    assert index.has_repeated_hashes


def test_values_that_move_between_columns_are_told_apart() -> None:
    index = RowIndex([pa.array(["ab", "x"]), pa.array(["c", ""])])

    asked = [pa.array(["a", "", "ab", "x"]), pa.array(["bc", "x", "c", ""])]
    assert index.rows_of(asked).to_pylist() == [None, None, 0, 1]
