from __future__ import annotations

import threading

import pytest

from modlake.pipeline.side_by_side import AT_ONCE, side_by_side


def test_results_come_in_the_order_of_the_items_and_some_are_worked_on_at_once() -> None:
    met = threading.Barrier(2, timeout=10)

    def work(number: int) -> int:
        if number < 2:
            met.wait()
        return number * 2

    assert list(side_by_side(work, range(20))) == [number * 2 for number in range(20)]


def test_no_more_are_begun_than_are_worked_on_at_once() -> None:
    begun: list[int] = []
    results = side_by_side(begun.append, range(100))
    next(results)
    assert len(begun) <= AT_ONCE + 1
    results.close()
    assert len(begun) <= AT_ONCE + 1


def test_an_error_is_raised_and_the_rest_let_be() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise ValueError(number)
        done.append(number)

    with pytest.raises(ValueError, match="3"):
        list(side_by_side(work, range(1_000)))
    assert len(done) < 50
