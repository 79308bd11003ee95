"""Deadlines are held against what is estimated, not against what a log shows of it."""

from __future__ import annotations

from collections import Counter

import pytest

from modlake.pipeline.engines import (
    BulkAccess,
    Engine,
    EngineChoice,
    EnginePlan,
    Pace,
    RecordedPaces,
    plan_engines,
)
from modlake.pipeline.plan import Shard
from modlake.pipeline.quotas import Quotas


def planned(
    *counts: int, deadline_minutes: float, asked: str = "auto", bulk_pace: float = 10
) -> tuple[EnginePlan, Counter[Engine]]:
    plan, engines = plan_engines(
        EngineChoice(asked),
        [Shard(number, f"m{number}", count, 1, "", "") for number, count in enumerate(counts)],
        claims={},
        access=BulkAccess(True, "answers"),
        quotas=Quotas(4, 50, "x", "y"),
        recorded=RecordedPaces(bulk=Pace(bulk_pace, "x"), sync=Pace(40, "y")),
        deadline_minutes=deadline_minutes,
        price_per_image_usd=0.001,
    )
    return plan, Counter(engines.values())


@pytest.mark.parametrize(
    ("images", "deadline_minutes", "way"),
    [(600, 2.0, "bulk"), (612, 2.0, "split"), (621, 2.08, "bulk")],
    ids=["in time", "2.4 s late, shown as in time", "in time, shown as late"],
)
def test_seconds_decide(images: int, deadline_minutes: float, way: str) -> None:
    """Eight jobs, four at once: they take a fifth of a second an image."""
    assert planned(*(images,) * 8, deadline_minutes=deadline_minutes)[0].chosen == way


def test_a_day_of_seconds_is_split_like_one_of_hours() -> None:
    """2.4 s by jobs, 2 s by calls, 1.2 s by both: all of it is shown as 0.0 min."""
    plan, by_engine = planned(*(12,) * 8, deadline_minutes=0.03)
    assert plan.chosen == "split"
    assert {each.way: each.minutes for each in plan.estimates} == {"bulk": 0.0, "sync": 0.0, "split": 0.0}
    assert by_engine[Engine.BULK] == by_engine[Engine.SYNC] == 4
    assert plan.reason.endswith(", in time")


def test_seconds_after_the_deadline_are_not_called_none() -> None:
    plan, _ = planned(600, asked="bulk", deadline_minutes=0.99)
    assert plan.reason == "asked for, but seconds after the deadline"
    assert planned(600, asked="bulk", deadline_minutes=0.9)[0].reason.endswith("0.1 min after the deadline")
