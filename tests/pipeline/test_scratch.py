from __future__ import annotations

from contextlib import closing

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modlake.pipeline import scratch
from modlake.pipeline.scratch import SortScratch, cut_ranges

ROWS = pa.schema([("name", pa.string()), ("number", pa.int64())])


@pytest.fixture(autouse=True, scope="module")
def every_row_is_a_sample() -> object:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(scratch, "_SAMPLED", 1)
        yield


@given(st.lists(st.lists(st.text("abcé", max_size=3), max_size=8), max_size=6), st.integers(1, 5))
def test_ranges_hold_all_rows_in_order_and_none_twice(tables: list[list[str]], ranges: int) -> None:
    names = [name for table in tables for name in table]
    with closing(SortScratch(ROWS, "name", rows_at_once=3)) as unsorted:
        number = 0
        for table in tables:
            unsorted.add(pa.table({"name": table, "number": range(number, number + len(table))}, schema=ROWS))
            number += len(table)
        bounds = cut_ranges(unsorted.samples, ranges)
        found = [rows.to_pylist() for rows in unsorted.ranges(bounds)]
        again = [rows.to_pylist() for rows in unsorted.ranges(bounds)]
    assert found == again
    assert len(found) == len(bounds) + 1
    # Of one name they stay in the order in which they came.
    expected = sorted(range(len(names)), key=lambda place: (names[place].encode(), place))
    assert [row["number"] for rows in found for row in rows] == expected
    held = [{row["name"] for row in rows} for rows in found]
    assert sum(map(len, held)) == len(set(names))


def test_no_rows_are_one_range_without_any() -> None:
    with closing(SortScratch(ROWS, "name", rows_at_once=3)) as unsorted:
        assert [rows.num_rows for rows in unsorted.ranges(cut_ranges(unsorted.samples, 4))] == [0]
