from __future__ import annotations

import pyarrow as pa
import pytest

from modlake.pipeline.columns import (
    are_distinct,
    find_rows,
    in_order,
    is_constant,
    row_numbers,
    slices,
    taken,
)

NESTED = pa.array([{"n": [1]}, None, {"n": []}])


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 1, 0], [0, 1], [0, 1, 2, 2], [0, None, 2], [None] * 3, []])
def test_rows_are_taken(rows: list[int | None]) -> None:
    found = taken(NESTED, pa.array(rows, pa.int64()))
    assert found.to_pylist() == [None if row is None else NESTED[row].as_py() for row in rows]


def test_what_is_in_order_stays_as_it_is() -> None:
    assert taken(NESTED, row_numbers(3)) is NESTED


@pytest.mark.parametrize("keys", [[], ["a"], ["a", "b", "é"], ["b", "a"], ["a", "c", "b"], ["a", "a"]])
def test_tables_come_in_order_and_in_one_chunk(keys: list[str]) -> None:
    table = pa.table({"key": pa.array(keys, pa.string()), "row": pa.array(range(len(keys)), pa.int64())})
    halves = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    found = in_order(halves, "key")
    assert found["key"].to_pylist() == sorted(keys)
    assert found.column(0).num_chunks <= 1
    assert sorted(found["row"].to_pylist()) == list(range(len(keys)))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("wanted", "among", "expected"),
    [
        (["a", "b"], ["a", "b"], [0, 1]),
        (["a", "b"], ["b", "c", "a"], [2, 0]),
        (["a", "b"], ["a"], [0, None]),
        (["a", "b"], [], [None, None]),
        ([], [], []),
        ([], ["a"], []),
    ],
)
def test_rows_are_found(
    wanted: list[str], among: list[str], expected: list[int | None], *, chunked: bool
) -> None:
    texts = pa.array(among, pa.string())
    column = pa.chunked_array([texts[:1], texts[1:]]) if chunked else texts
    assert find_rows(pa.array(wanted, pa.string()), column).to_pylist() == expected


@pytest.mark.parametrize(
    "texts", [[], ["a"], ["a", "b"], ["b", "a"], ["b", "a", "b"], ["a", "a"], ["é", "z", "é"]]
)
def test_repeated_texts_are_seen_in_any_order(texts: list[str]) -> None:
    assert are_distinct(pa.array(texts, pa.string())) == (len(set(texts)) == len(texts))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], False),
        (["a"], True),
        (["a", "a"], True),
        (["a", "b"], False),
        (["a", "b", "a"], False),
        (["a", None], False),
        ([None], False),
    ],
)
def test_a_constant_column_has_one_value_and_no_null(values: list[str | None], *, expected: bool) -> None:
    assert is_constant(pa.array(values, pa.string())) is expected


def test_slices_keep_rows_of_one_text_together() -> None:
    rows = pa.table({"name": ["a", "a", "a", "b", "c", "c", "d"], "number": range(7)})
    found = [part["name"].to_pylist() for part in slices(rows, "name", 2)]
    assert found == [["a", "a", "a"], ["b", "c", "c"], ["d"]]
    assert list(slices(rows[:0], "name", 2)) == []
