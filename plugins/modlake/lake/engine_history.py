"""How fast the engines were: what the lake's table ``jobs`` has recorded."""

from __future__ import annotations

from datetime import date, timedelta

from pyiceberg.catalog import Catalog

from modlake.lake.filters import between
from modlake.lake.schemas import JOBS_TABLE
from modlake.pipeline.engines import RecordedPaces, recorded_paces

DAYS_BACK = 30
_COLUMNS = ("day", "run_id", "engine", "image_count", "started_at", "completed_at")


def read_recorded_paces(catalog: Catalog, day: date) -> RecordedPaces:
    """Return the paces of the jobs of the thirty days before ``day``, and of later ones."""
    since = (day - timedelta(days=DAYS_BACK)).isoformat()
    jobs = catalog.load_table(JOBS_TABLE.identifier).scan(between("day", since), selected_fields=_COLUMNS)
    return recorded_paces(jobs.to_arrow().to_pylist())
