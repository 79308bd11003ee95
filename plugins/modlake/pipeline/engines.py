"""Which engine judges which manifest of a day: bulk analysis, single calls, or both side by side."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Any

from modlake.pipeline.cost import estimate_cost_usd

if TYPE_CHECKING:
    from modlake.pipeline.plan import Shard
    from modlake.pipeline.quotas import Quotas


class Engine(StrEnum):
    """Who judges a manifest: a media analysis job, or a DetectModerationLabels call for each image."""

    BULK = "bulk"
    SYNC = "sync"


class EngineChoice(StrEnum):
    """What a run is asked for: one of the engines, or what fits the account and the deadline."""

    AUTO = "auto"
    BULK = "bulk"
    SYNC = "sync"


# AWS publishes no throughput of bulk jobs: an assumption until the lake has recorded some.
ASSUMED_IMAGES_PER_SECOND_OF_A_JOB = 5.0
# What the synchronous engine was measured to use of its rate.
USED_SHARE_OF_RATE = 0.97
# Smaller jobs tell of starting and ending rather than of judging.
LEAST_IMAGES_OF_A_RECORD = 1_000


@dataclass(frozen=True, slots=True)
class Pace:
    """Images a second: of one bulk job, or of all single calls together; ``source`` says how it is known."""

    images_per_second: float
    source: str


@dataclass(frozen=True, slots=True)
class RecordedPaces:
    """Medians of what the lake has recorded; None where it has no record yet."""

    bulk: Pace | None = None
    sync: Pace | None = None


@dataclass(frozen=True, slots=True)
class BulkAccess:
    """Whether the account may start media analysis jobs, as far as is known; ``seen`` is what says so."""

    is_open: bool
    seen: str


@dataclass(frozen=True, slots=True)
class EngineEstimate:
    """What a way of judging takes: ``bulk``, ``sync`` or ``split``; first call to last answer."""

    way: str
    bulk_images: int
    sync_images: int
    minutes: float
    cost_usd: float


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """Why a day is judged as it is, as plan.json holds it. ``chosen`` is the way of one of ``estimates``.

    ``claimed`` shards were submitted before, and stay with the engine that they were submitted to; the
    estimates leave them out.
    """

    asked: str
    chosen: str
    reason: str
    bulk_access: str
    deadline_minutes: float | None
    concurrent_jobs: int
    concurrent_jobs_source: str
    requests_per_second: float
    requests_per_second_source: str
    bulk_images_per_second: float
    bulk_pace_source: str
    sync_images_per_second: float
    sync_pace_source: str
    claimed: dict[str, int] = field(default_factory=dict)
    estimates: list[EngineEstimate] = field(default_factory=list)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> EnginePlan:
        estimates = [EngineEstimate(**estimate) for estimate in fields["estimates"]]
        return cls(**{**fields, "estimates": estimates})

    def table(self) -> list[str]:
        """Return the lines that a log shows."""
        deadline = "no deadline" if self.deadline_minutes is None else f"{self.deadline_minutes:g} min"
        lines = [
            f"engine {self.asked}, deadline: {deadline}; bulk analysis: {self.bulk_access}",
            f"bulk: {self.concurrent_jobs} jobs at once ({self.concurrent_jobs_source}), "
            f"{self.bulk_images_per_second:,.1f} images/s a job ({self.bulk_pace_source})",
            f"sync: {self.requests_per_second:g} calls/s ({self.requests_per_second_source}), "
            f"{self.sync_images_per_second:,.1f} images/s ({self.sync_pace_source})",
            f"  {'way':<6} {'bulk images':>12} {'sync images':>12} {'minutes':>9} {'USD':>12}",
        ]
        for each in self.estimates:
            mark = "*" if each.way == self.chosen else " "
            lines.append(
                f"{mark} {each.way:<6} {each.bulk_images:>12,} {each.sync_images:>12,} "
                f"{each.minutes:>9,.1f} {each.cost_usd:>12,.2f}"
            )
        lines += [
            f"{count} shards were submitted to {engine} before and stay there"
            for engine, count in sorted(self.claimed.items())
        ]
        return [*lines, f"{self.chosen}: {self.reason}"]


def plan_engines(
    asked: EngineChoice,
    shards: Sequence[Shard],
    *,
    claims: Mapping[int, Engine],
    access: BulkAccess,
    quotas: Quotas,
    recorded: RecordedPaces,
    deadline_minutes: float | None,
    price_per_image_usd: float,
    needs_bulk: str | None = None,
) -> tuple[EnginePlan, dict[int, Engine]]:
    """Decide who judges each shard; return the plan and the engine by number of the shard.

    ``claims`` are shards that an engine has taken before, which keeps them; ``needs_bulk`` is why single
    calls can't do what is asked, if so. A split gives the last shards to single calls, as many as let both
    engines end at about the same time. Prices are the same for both: no source that could be checked tells
    them apart.
    """
    bulk = recorded.bulk or Pace(ASSUMED_IMAGES_PER_SECOND_OF_A_JOB, "assumed: none is recorded yet")
    sync = recorded.sync or Pace(
        quotas.requests_per_second * USED_SHARE_OF_RATE, f"{USED_SHARE_OF_RATE:.0%} of the rate"
    )
    # A rate that was lowered since says more than a record.
    sync = min(sync, Pace(quotas.requests_per_second, "the rate"), key=lambda pace: pace.images_per_second)
    free = [shard for shard in shards if shard.shard not in claims]
    images = [shard.image_count for shard in free]

    def estimate(way: str, by_sync: int) -> EngineEstimate:
        cut = len(images) - by_sync
        seconds = max(
            _bulk_seconds(images[:cut], quotas.concurrent_jobs, bulk.images_per_second),
            sum(images[cut:]) / sync.images_per_second,
        )
        return EngineEstimate(
            way,
            sum(images[:cut]),
            sum(images[cut:]),
            seconds / 60,
            estimate_cost_usd(sum(images), price_per_image_usd),
        )

    split = _even_split(images, quotas.concurrent_jobs, bulk.images_per_second, sync.images_per_second)
    ways = {"bulk": 0, "sync": len(free)}
    if 0 < split < len(free):
        ways["split"] = split
    estimates = {way: estimate(way, by_sync) for way, by_sync in ways.items()}
    chosen, reason = _choose(asked, estimates, access, deadline_minutes, needs_bulk)
    to_sync = ways[chosen]
    engines = dict(claims)
    for number, shard in enumerate(free):
        engines[shard.shard] = Engine.SYNC if number >= len(free) - to_sync else Engine.BULK
    claimed: dict[str, int] = defaultdict(int)
    for engine in claims.values():
        claimed[engine.value] += 1
    plan = EnginePlan(
        asked=asked.value,
        chosen=chosen,
        reason=reason,
        bulk_access=access.seen,
        deadline_minutes=deadline_minutes,
        concurrent_jobs=quotas.concurrent_jobs,
        concurrent_jobs_source=quotas.concurrent_jobs_source,
        requests_per_second=quotas.requests_per_second,
        requests_per_second_source=quotas.requests_per_second_source,
        bulk_images_per_second=bulk.images_per_second,
        bulk_pace_source=bulk.source,
        sync_images_per_second=sync.images_per_second,
        sync_pace_source=sync.source,
        claimed=dict(claimed),
        estimates=[replace(each, minutes=round(each.minutes, 1)) for each in estimates.values()],
    )
    return plan, engines


def _choose(
    asked: EngineChoice,
    estimates: Mapping[str, EngineEstimate],
    access: BulkAccess,
    deadline_minutes: float | None,
    needs_bulk: str | None,
) -> tuple[str, str]:
    if asked is not EngineChoice.AUTO:
        return asked.value, "asked for" + _lateness(estimates[asked.value], deadline_minutes)
    if needs_bulk is not None:
        return "bulk", needs_bulk + _lateness(estimates["bulk"], deadline_minutes)
    if not access.is_open:
        return "sync", "bulk analysis is closed" + _lateness(estimates["sync"], deadline_minutes)
    if deadline_minutes is None or estimates["bulk"].minutes <= deadline_minutes:
        return "bulk", "bulk analysis is open" + ("" if deadline_minutes is None else ", and in time")
    fastest = min(estimates.values(), key=lambda each: each.minutes)
    if fastest.minutes >= estimates["bulk"].minutes:
        return "bulk", "nothing else is faster" + _lateness(fastest, deadline_minutes)
    late = f"bulk alone would take {estimates['bulk'].minutes:,.1f} min"
    return fastest.way, late + _lateness(fastest, deadline_minutes)


def _lateness(estimate: EngineEstimate, deadline_minutes: float | None) -> str:
    if deadline_minutes is None:
        return ""
    if estimate.minutes <= deadline_minutes:
        return ", in time"
    late = estimate.minutes - deadline_minutes
    return f", but {late:,.1f} min after the deadline" if late >= 0.05 else ", but seconds after the deadline"


def _bulk_seconds(images: Sequence[int], jobs_at_once: int, images_per_second: float) -> float:
    """Return how long jobs take that start in order, each as soon as a slot is free."""
    ends = [0.0] * max(1, min(jobs_at_once, len(images)))
    for count in images:
        heapq.heapreplace(ends, ends[0] + count / images_per_second)
    return max(ends)


def _even_split(images: Sequence[int], jobs_at_once: int, bulk_pace: float, sync_pace: float) -> int:
    """Return how many of the last shards single calls get for the day to end soonest."""

    def sync_seconds(by_sync: int) -> float:
        return sum(images[len(images) - by_sync :]) / sync_pace

    def bulk_seconds(by_sync: int) -> float:
        return _bulk_seconds(images[: len(images) - by_sync], jobs_at_once, bulk_pace)

    # Single calls take longer with each shard and bulk does not: the best lies where the two meet.
    low, high = 0, len(images)
    while low < high:
        middle = (low + high) // 2
        if sync_seconds(middle) < bulk_seconds(middle):
            low = middle + 1
        else:
            high = middle
    return min((low, max(low - 1, 0)), key=lambda each: (max(sync_seconds(each), bulk_seconds(each)), each))


def recorded_paces(jobs: Iterable[Mapping[str, Any]]) -> RecordedPaces:
    """Return the medians of rows of the lake's table ``jobs``.

    A bulk job counts by itself. Shards of single calls share one rate, so they count together, by run: their
    images over the time in which at least one of them was judged.
    """
    bulk: list[float] = []
    sync: dict[tuple[Any, Any], list[tuple[datetime, datetime, int]]] = defaultdict(list)
    for job in jobs:
        started, ended, images = job["started_at"], job["completed_at"], job["image_count"]
        if not (started and ended and images) or ended <= started:
            continue
        if job["engine"] == Engine.SYNC:
            sync[job["day"], job["run_id"]].append((started, ended, images))
        elif images >= LEAST_IMAGES_OF_A_RECORD:
            bulk.append(images / (ended - started).total_seconds())
    runs = [
        sum(images for _, _, images in shards) / _seconds_covered(shards)
        for shards in sync.values()
        if sum(images for _, _, images in shards) >= LEAST_IMAGES_OF_A_RECORD
    ]
    return RecordedPaces(
        bulk=Pace(median(bulk), f"median of {len(bulk)} jobs") if bulk else None,
        sync=Pace(median(runs), f"median of {len(runs)} runs") if runs else None,
    )


def _seconds_covered(spans: Iterable[tuple[datetime, datetime, int]]) -> float:
    seconds, covered_to = 0.0, None
    for started, ended, _ in sorted(spans):
        begin = started if covered_to is None else max(started, covered_to)
        seconds += max(0.0, (ended - begin).total_seconds())
        covered_to = ended if covered_to is None else max(covered_to, ended)
    return max(seconds, 0.001)
