"""How planning and landing grow with the day: time and peak memory, on made-up listings and results.

The listing and the results are made as they are read, which costs time of its own: ``making it up`` tells how
much. Manifests, inventory and landed files lie on a local disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.directory_store import MadeUpDay
from tests.bench.harness import taken

SIZES = (10_000, 100_000, 1_000_000)


def run(sizes: tuple[int, ...] = SIZES, *, home: Path, isolated: bool = True) -> dict[str, Any]:
    """Plan and land days of these sizes; return a way a step and size."""
    ways = []
    for step in ("plan", "land"):
        for size in sizes:
            arguments = {"home": str(home), "images": size}
            turn = taken(arguments, f"{__name__}:{step}", isolated=isolated)
            made_up = taken(arguments, f"{__name__}:make_up_{step}", isolated=isolated)
            assert turn.answer == size
            ways.append(
                {
                    "way": f"{step} {size:,}",
                    "step": step,
                    "images": size,
                    "seconds": round(turn.seconds, 2),
                    "making it up": round(made_up.seconds, 2),
                    "cpu_seconds": round(turn.cpu_seconds, 2),
                    "per_second": round(size / turn.seconds),
                    "peak_mb": round(turn.peak_mb),
                    "before_mb": round(turn.before_mb),
                }
            )
    return {"title": "Growth with the day", "unit": "images", "ways": ways}


def plan(home: str, images: int) -> Callable[[], int]:
    day = _day(home, images)
    return lambda: _plan(day).eligible


def make_up_plan(home: str, images: int) -> Callable[[], int]:
    from modlake.pipeline.listing import list_source

    day = _day(home, images)
    source = "s3://modlake-ugc/uploads/2026-11-21/"
    return lambda: sum(stretch.objects.num_rows for stretch in list_source(day, source, lambda _: None))


def land(home: str, images: int) -> Callable[[], int]:
    from modlake.pipeline.landing import land_shards

    day = _day(home, images)
    planned = _plan(day)
    day.finish_jobs(planned)

    def work() -> int:
        landed = land_shards(day, planned, range(len(planned.shards)), "1")
        return sum(shard.image_count for shard in landed)

    return work


def make_up_land(home: str, images: int) -> Callable[[], int]:
    day = _day(home, images)
    shards = range(-(-images // day.images_per_shard))
    return lambda: sum(day.read(f"s3://work/out/{shard}/r").count(b"\n") + 1 for shard in shards)


def _day(home: str, images: int) -> MadeUpDay:
    import pyarrow.acero  # noqa: F401 imported when first used

    import modlake.pipeline.fates  # noqa: F401 imported when first used

    root = Path(home, "growth")
    shutil.rmtree(root, ignore_errors=True)
    return MadeUpDay(root, images=images)


def _plan(day: MadeUpDay) -> Any:
    from tests.support.days import plan_day

    source = "s3://modlake-ugc/uploads/2026-11-21/"
    return plan_day(day, source_uri=source, allowed_uris=["s3://modlake-ugc/"])
