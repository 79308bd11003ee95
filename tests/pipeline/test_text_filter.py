"""A filter of texts never misses one that it holds, however the column is cut."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from modlake.pipeline.text_filter import TextFilter

TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=30)


@given(held=TEXTS, others=TEXTS, cut=st.integers(0, 30))
def test_no_held_text_is_missed(held: list[str | None], others: list[str | None], cut: int) -> None:
    held_filter = TextFilter(len(held))
    held_filter.add(pa.array(held, pa.string()))
    # The same texts among others, from the middle of a column, and in chunks.
    column = pa.chunked_array(
        [pa.array(others + held, pa.string()).slice(len(others)), pa.array(held[cut:] + others, pa.string())]
    )

    may_be_held = held_filter.may_hold(column).to_pylist()

    assert len(may_be_held) == len(column)
    assert all(may_be_held[: len(held) + len(held[cut:])])


def test_texts_of_one_length_and_of_many_are_told_alike() -> None:
    held = TextFilter(1)
    held.add(pa.array(["s3://ugc/uploads/2026-11-21/image.jpg"]))

    same = held.may_hold(pa.array(["short", "s3://ugc/uploads/2026-11-21/image.jpg", "", "x" * 1100]))

    assert same.to_pylist() == [False, True, False, False]


def test_few_texts_are_taken_for_one_that_is_held() -> None:
    held = TextFilter(10_000)
    held.add(pa.array([f"s3://ugc/uploads/{number:07d}.jpg" for number in range(10_000)]))

    strange = held.may_hold(
        pa.array([f"s3://ugc/uploads/{number:07d}.jpg" for number in range(10_000, 60_000)])
    )

    assert strange.true_count == 0


def test_a_filter_without_texts_holds_none() -> None:
    empty = TextFilter(0)
    empty.add(pa.array([], pa.string()))

    assert empty.is_empty
    assert empty.may_hold(pa.array(["a", None])).true_count == 0
