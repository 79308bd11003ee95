"""Estimates stand on how fast the engines were lately, whatever day is planned."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
from pyiceberg.catalog import Catalog

from modlake.lake.engine_history import read_recorded_paces
from modlake.lake.schemas import JOBS_TABLE
from modlake.pipeline.engines import Pace, RecordedPaces

LAST_DAY = date(2026, 11, 21)


def add_job(catalog: Catalog, day: date, images_per_second: int) -> None:
    started = datetime(2026, 11, 22, 1, tzinfo=UTC)
    row = dict.fromkeys(JOBS_TABLE.row_schema.names) | {
        "day": day,
        "run_id": f"run-{day}",
        "job_id": f"job-{day}",
        "job_name": f"job-{day}",
        "shard": 0,
        "engine": "bulk",
        "status": "SUCCEEDED",
        "image_count": 10_000,
        "judged_count": 10_000,
        "failed_count": 0,
        "started_at": started,
        "completed_at": started + timedelta(seconds=10_000 // images_per_second),
    }
    rows = pa.Table.from_pylist([row], JOBS_TABLE.row_schema)
    catalog.load_table(JOBS_TABLE.identifier).append(rows)


def test_paces_are_those_of_the_newest_days(catalog: Catalog) -> None:
    for days_ago, pace in ((400, 1), (31, 1), (30, 20), (0, 40)):
        add_job(catalog, LAST_DAY - timedelta(days=days_ago), pace)

    assert read_recorded_paces(catalog).bulk == Pace(30, "median of 2 jobs")


def test_before_the_first_job_nothing_is_known(catalog: Catalog) -> None:
    assert read_recorded_paces(catalog) == RecordedPaces()
