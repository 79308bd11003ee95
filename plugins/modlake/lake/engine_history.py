"""How fast the engines were: what the lake's table ``jobs`` has recorded."""

from __future__ import annotations

from datetime import timedelta

from pyiceberg.catalog import Catalog

from modlake.lake.days import day_of
from modlake.lake.filters import between
from modlake.lake.schemas import JOBS_TABLE
from modlake.pipeline.engines import RecordedPaces, recorded_paces

DAYS_BACK = 30
_COLUMNS = ("day", "run_id", "engine", "image_count", "started_at", "completed_at")


def read_recorded_paces(catalog: Catalog) -> RecordedPaces:
    """Return the paces of the jobs of the newest day that has any, and of the thirty days before."""
    jobs = catalog.load_table(JOBS_TABLE.identifier)
    newest = max((day_of(task.file) for task in jobs.scan().plan_files()), default=None)
    if newest is None:
        return RecordedPaces()
    since = (newest - timedelta(days=DAYS_BACK)).isoformat()
    return recorded_paces(jobs.scan(between("day", since), selected_fields=_COLUMNS).to_arrow().to_pylist())
