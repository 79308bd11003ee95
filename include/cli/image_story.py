"""What the tables know of one image, day by day."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cli.query import Lake, Rows

# The cost is of the images that were judged; failed ones are free.
# Rows of one day belong together by their run, which only a published run has in the table runs.
_IMAGES = """SELECT i.*, j.job_name, j.engine AS job_engine, j.status AS job_status, j.started_at,
    j.completed_at, j.estimated_cost_usd / nullif(j.judged_count, 0) AS cost_usd, r.published_at
FROM images i
LEFT JOIN (FROM runs WHERE {of_days}) r ON r.day = i.day AND r.run_id = i.run_id
LEFT JOIN (FROM jobs WHERE {of_days}) j ON j.day = i.day AND j.run_id = i.run_id AND j.job_id = i.job_id
WHERE i.source_ref = $ref AND i.{of_days} ORDER BY i.day"""
_DAYS = "SELECT DISTINCT day FROM images i WHERE source_ref = $ref {of_day}"
_BY_DAY = {
    "labels": """SELECT * FROM labels i WHERE source_ref = $ref {of_day}
ORDER BY confidence DESC, taxonomy_level""",
    "decisions": "SELECT * FROM decisions i WHERE source_ref = $ref {of_day} ORDER BY mode, policy",
    "actions": "SELECT * FROM actions i WHERE source_ref = $ref {of_day} ORDER BY requested_at, action_id",
}


@dataclass(frozen=True, slots=True)
class ImageDay:
    """One day's rows of an image, as in the tables; ``image`` is None when only something else is known.

    Each row of ``actions`` has its ``detail`` as read from JSON.
    """

    day: str
    image: dict[str, Any] | None
    labels: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    actions: list[dict[str, Any]]


def read_story(lake: Lake, source_ref: str, day: str | None = None) -> list[ImageDay]:
    """Return what is known of an image, the oldest day first; nothing when it was never listed.

    With a day only the files of that day are opened.
    """
    listed = [f"DATE '{row['day']}'" for row in _read(lake, "images", _DAYS, source_ref, day)]
    # Runs and jobs can't be told by an image: those of all days would be read.
    images = _IMAGES.format(of_days=f"day IN ({', '.join(listed)})")
    rows = {"images": lake.query(images, ref=source_ref).records() if listed else []}
    rows |= {table: _read(lake, table, sql, source_ref, day) for table, sql in _BY_DAY.items()}
    for action in rows["actions"]:
        action["detail"] = json.loads(action["detail"])
    days = sorted({str(row["day"]) for found in rows.values() for row in found})
    of = {
        (table, each): [row for row in found if str(row["day"]) == each]
        for table, found in rows.items()
        for each in days
    }
    return [
        ImageDay(
            each,
            next(iter(of["images", each]), None),
            *(of[table, each] for table in _BY_DAY),
        )
        for each in days
    ]


def published_days(lake: Lake) -> list[str]:
    """Return the days that are published, the oldest first."""
    if "runs" not in lake.locations:
        return []
    found: Rows = lake.query("SELECT DISTINCT day FROM runs ORDER BY day")
    return [str(row[0]) for row in found.rows]


def _read(lake: Lake, table: str, sql: str, source_ref: str, day: str | None) -> list[dict[str, Any]]:
    # A lake of an earlier version has no decisions and actions yet.
    if table not in lake.locations:
        return []
    if day is None:
        return lake.query(sql.format(of_day=""), ref=source_ref).records()
    of_day = "AND i.day = CAST($day AS DATE)"
    return lake.query(sql.format(of_day=of_day), ref=source_ref, day=day).records()
