"""Tests of how the shards of a day are spread over mapped tasks."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from modlake.pipeline.groups import cut_groups

NIGHTLY: dict[str, Any] = {"shards_per_group": 25, "jobs_at_once": 5, "groups_at_once": 4}


@pytest.mark.parametrize("count", [0, 1, 5, 6, 21, 99, 100, 101, 137, 1_000, 10_000])
def test_every_shard_is_in_one_group_in_order(count: int) -> None:
    groups = cut_groups(range(count), **NIGHTLY)

    assert list(chain.from_iterable(groups)) == list(range(count))
    assert all(0 < len(group) <= 25 for group in groups)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (4, [4]),
        (12, [5, 5, 2]),
        (20, [5, 5, 5, 5]),
        (100, [25, 25, 25, 25]),
        # Not 25, 25, 25, 25 and 10: the last one would run alone.
        (110, [10, 15, 15, 15, 10, 15, 15, 15]),
    ],
)
def test_the_quota_is_used_to_the_end(count: int, sizes: list[int]) -> None:
    assert [len(group) for group in cut_groups(range(count), **NIGHTLY)] == sizes


def test_shards_keep_their_numbers() -> None:
    assert cut_groups([3, 5, 8], shards_per_group=2) == [[3, 5], [8]]
