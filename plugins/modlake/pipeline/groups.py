"""Cutting the shards of a plan into the groups that mapped tasks carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise


def cut_groups(
    shards: Sequence[int], *, shards_per_group: int, jobs_at_once: int | None = None, groups_at_once: int = 1
) -> list[list[int]]:
    """
    Return groups of consecutive shards, as even as whole batches of ``jobs_at_once`` allow.

    :param shards_per_group: how many a group has at most
    :param jobs_at_once: how many jobs of a group run at a time; by default all
    :param groups_at_once: how many groups the account's quota of jobs has room for. There are groups for all
        of it, in multiples of it, so that it is used to the end
    """
    batch = min(jobs_at_once or shards_per_group, shards_per_group)
    batches = math.ceil(len(shards) / batch)
    least = math.ceil(batches / (shards_per_group // batch))
    count = min(batches, math.ceil(least / groups_at_once) * groups_at_once)
    ends = [batch * (batches * number // count) for number in range(count + 1)] if count else []
    return [list(shards[first:end]) for first, end in pairwise(ends)]
