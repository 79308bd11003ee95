"""An index of rows finds exactly what a Python dict of them would."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from modlake.pipeline.row_index import NONE, RowIndex

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


def first_found(held: list[Any], asked: list[Any]) -> list[int]:
    """Return for each asked row the first held one, the index being over the asked."""
    index = RowIndex(asked)
    return index.first_at(index.places_of(held)).tolist()


@given(held=ROWS, asked=ROWS)
def test_it_finds_the_first_of_equal_rows_and_no_other(
    held: list[tuple[Any, ...]], asked: list[tuple[Any, ...]]
) -> None:
    asked = asked + held
    first: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(held):
        first.setdefault(row, number)

    assert first_found(columns(held), columns(asked)) == [first.get(row, NONE) for row in asked]


@given(held=ROWS, asked=ROWS)
def test_equal_rows_share_a_place_and_others_have_none(
    held: list[tuple[Any, ...]], asked: list[tuple[Any, ...]]
) -> None:
    places = RowIndex(columns(held)).places_of(columns(asked))
    of_row: dict[tuple[Any, ...], int] = {}
    for row, place in zip(asked, places.tolist(), strict=True):
        assert (place != NONE) == (row in held)
        assert of_row.setdefault(row, place) == place
    known = [place for place in of_row.values() if place != NONE]
    assert len(set(known)) == len(known)


def test_values_that_move_between_columns_are_told_apart() -> None:
    held = [pa.array(["ab", "x"]), pa.array(["c", ""])]
    asked = [pa.array(["a", "", "ab", "x"]), pa.array(["bc", "x", "c", ""])]
    assert first_found(held, asked) == [NONE, NONE, 0, 1]
