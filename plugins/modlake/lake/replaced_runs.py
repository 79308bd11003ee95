"""Where the rows of published runs are, once another run has replaced them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot


def last_snapshots(table: Table, published: Mapping[date, str]) -> dict[date, int]:
    """Return, of days in which another run has replaced the published one, the last snapshot before.

    That other run is just being published, or its publish was cut short before ``runs``. Snapshots tell it
    by their properties: no file is read. Days whose snapshots have expired are left out.

    :param published: the ids of published runs
    """
    run_ids = {day.isoformat(): run_id for day, run_id in published.items()}
    lasts: dict[date, int] = {}
    for snapshot in _lineage(table):
        properties = snapshot.summary.additional_properties if snapshot.summary else {}
        day, run_id = properties.get("modlake.day"), properties.get("modlake.run_id")
        if day not in run_ids or run_id is None:
            continue
        if run_id == run_ids[day]:
            # What came after it is known by now, and what came before doesn't matter.
            del run_ids[day]
        elif snapshot.parent_snapshot_id is not None:
            lasts[date.fromisoformat(day)] = snapshot.parent_snapshot_id
    there = {snapshot.snapshot_id for snapshot in table.metadata.snapshots}
    return {day: snapshot_id for day, snapshot_id in lasts.items() if snapshot_id in there}


def _lineage(table: Table) -> Iterator[Snapshot]:
    """Yield the current snapshot and those before it, as far as they are there, the newest first."""
    # pyiceberg's own way looks through all of them for each.
    by_id = {snapshot.snapshot_id: snapshot for snapshot in table.metadata.snapshots}
    snapshot = table.current_snapshot()
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = by_id.get(parent) if parent is not None else None
