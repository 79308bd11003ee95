"""The choice of engines: pure estimates."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from modlake.pipeline.engines import (
    BulkAccess,
    Engine,
    EngineChoice,
    EnginePlan,
    Pace,
    RecordedPaces,
    plan_engines,
    recorded_paces,
)
from modlake.pipeline.plan import Shard
from modlake.pipeline.quotas import Quotas, default_quotas

OPEN = BulkAccess(True, "answers")
CLOSED = BulkAccess(False, "denied")
QUOTAS = Quotas(
    concurrent_jobs=4, requests_per_second=50, concurrent_jobs_source="x", requests_per_second_source="y"
)
PACES = RecordedPaces(bulk=Pace(10, "median of 9 jobs"), sync=Pace(40, "median of 3 runs"))
BEGUN = datetime(2026, 11, 20, 1, tzinfo=UTC)


def shards(*counts: int) -> list[Shard]:
    return [Shard(number, f"m{number}", count, 1, "", "") for number, count in enumerate(counts)]


def planned(*counts: int, asked: str = "auto", **changes: Any) -> tuple[EnginePlan, dict[int, Engine]]:
    arguments: dict[str, Any] = {
        "claims": {},
        "access": OPEN,
        "quotas": QUOTAS,
        "recorded": PACES,
        "deadline_minutes": None,
        "price_per_image_usd": 0.001,
    }
    return plan_engines(EngineChoice(asked), shards(*counts), **arguments | changes)


TWENTY = (6_000,) * 20  # 10 min a job: 50 min by 4 jobs at once, and 50 min by 40 images/s


class TestChoice:
    def test_an_open_account_judges_in_bulk(self) -> None:
        plan, engines = planned(*TWENTY)
        assert plan.chosen == "bulk"
        assert set(engines.values()) == {Engine.BULK}
        assert [(each.way, each.minutes, each.cost_usd) for each in plan.estimates] == [
            ("bulk", 50, 120),
            ("sync", 50, 120),
            ("split", 30, 120),
        ]

    def test_a_closed_one_by_single_calls(self) -> None:
        plan, engines = planned(*TWENTY, access=CLOSED, deadline_minutes=5)
        assert set(engines.values()) == {Engine.SYNC}
        assert plan.reason == "bulk analysis is closed, but 45.0 min after the deadline"
        assert plan.bulk_access == "denied"

    @pytest.mark.parametrize(("minutes", "way"), [(50, "bulk"), (49, "split"), (20, "split")])
    def test_a_deadline_that_bulk_misses_splits_the_day(self, minutes: float, way: str) -> None:
        plan, engines = planned(*TWENTY, deadline_minutes=minutes)
        assert plan.chosen == way
        by_sync = [number for number, engine in engines.items() if engine is Engine.SYNC]
        assert by_sync == ([] if way == "bulk" else list(range(20 - len(by_sync), 20)))
        assert ("after the deadline" in plan.reason) == (minutes < 30)

    def test_both_engines_of_a_split_end_at_about_the_same_time(self) -> None:
        plan, engines = planned(*(10_000,) * 97, deadline_minutes=1)
        by_sync = sum(engine is Engine.SYNC for engine in engines.values())
        sync_minutes = by_sync * 10_000 / 40 / 60
        bulk_minutes = -(-(97 - by_sync) // 4) * 10_000 / 10 / 60
        assert abs(sync_minutes - bulk_minutes) <= 10_000 / 10 / 60
        assert plan.estimates[-1].minutes == round(max(sync_minutes, bulk_minutes), 1)

    def test_when_single_calls_alone_are_fastest_they_get_all(self) -> None:
        plan, _ = planned(10_000, deadline_minutes=5)
        assert plan.chosen == "sync"
        assert [each.way for each in plan.estimates] == ["bulk", "sync"]

    def test_single_calls_that_do_not_help_are_not_made(self) -> None:
        slow = Quotas(20, 1, "x", "y")
        plan, _ = planned(*TWENTY, quotas=slow, deadline_minutes=5)
        assert plan.chosen == "bulk"
        assert plan.reason.startswith("nothing else is faster")

    @pytest.mark.parametrize("asked", ["bulk", "sync"])
    def test_what_is_asked_for_is_done(self, asked: str) -> None:
        plan, engines = planned(*TWENTY, asked=asked, access=CLOSED, deadline_minutes=1)
        assert (plan.chosen, plan.asked) == (asked, asked)
        assert set(engines.values()) == {Engine(asked)}
        assert "49.0 min after the deadline" in plan.reason

    def test_a_kms_key_needs_bulk(self) -> None:
        plan, engines = planned(*TWENTY, access=CLOSED, needs_bulk="single calls take no KMS key")
        assert set(engines.values()) == {Engine.BULK}
        assert "KMS" in plan.reason

    def test_what_was_submitted_before_stays_where_it_is_and_costs_nothing(self) -> None:
        plan, engines = planned(6_000, 6_000, 6_000, access=CLOSED, claims={0: Engine.BULK, 1: Engine.SYNC})
        assert engines == {0: Engine.BULK, 1: Engine.SYNC, 2: Engine.SYNC}
        assert plan.claimed == {"bulk": 1, "sync": 1}
        assert plan.estimates[0].cost_usd == 6

    def test_a_hundred_million_images_are_planned_at_once(self) -> None:
        plan, engines = planned(*(10_000,) * 10_000, deadline_minutes=60)
        assert plan.chosen == "split"
        assert len(engines) == 10_000


class TestTable:
    def test_it_tells_all_that_was_weighed(self) -> None:
        text = "\n".join(planned(*TWENTY, deadline_minutes=40, claims={3: Engine.SYNC})[0].table())
        for told in ("deadline: 40 min", "answers", "median of 9 jobs", "50 calls/s (y)", "* split"):
            assert told in text
        assert "1 shards were submitted to sync before" in text

    def test_without_records_the_assumption_is_said(self) -> None:
        plan, _ = planned(*TWENTY, recorded=RecordedPaces(), quotas=default_quotas("eu-central-1"))
        assert "assumed" in "\n".join(plan.table())
        assert (plan.concurrent_jobs, plan.requests_per_second) == (5, 5)
        assert plan.sync_images_per_second == pytest.approx(4.85)

    def test_a_rate_that_was_lowered_since_counts(self) -> None:
        plan, _ = planned(*TWENTY, quotas=Quotas(4, 5, "x", "y"))
        assert plan.sync_images_per_second == 5


def job(engine: str, begin: float, seconds: float, images: int, run: str = "r") -> dict[str, Any]:
    started = BEGUN + timedelta(seconds=begin)
    return {
        "day": date(2026, 11, 20),
        "run_id": run,
        "engine": engine,
        "image_count": images,
        "started_at": started,
        "completed_at": started + timedelta(seconds=seconds),
    }


class TestRecords:
    def test_bulk_jobs_count_each(self) -> None:
        paces = recorded_paces([job("bulk", 0, 1_000, n) for n in (10_000, 5_000, 4_000, 10)])
        assert paces.bulk == Pace(5, "median of 3 jobs")
        assert paces.sync is None

    def test_shards_of_single_calls_count_together_without_the_time_between_them(self) -> None:
        together = [job("sync", 0, 200, 4_000), job("sync", 100, 100, 4_000), job("sync", 900, 100, 4_000)]
        assert recorded_paces(together).sync == Pace(40, "median of 1 runs")

    def test_jobs_without_times_tell_nothing(self) -> None:
        lost = job("bulk", 0, 10, 10_000) | {"completed_at": None}
        assert recorded_paces([lost]) == RecordedPaces()
