"""Publishing: the commits that make a run the truth of its day."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.data_files import describe_files
from modlake.lake.days import (
    OvertakenError,
    of_day,
    replace_with_files,
    replace_with_rows,
    until_committed,
)
from modlake.lake.schemas import (
    IMAGES_TABLE,
    JOBS_TABLE,
    LABELS_TABLE,
    PUBLISHED_TABLES,
    RUNS_TABLE,
)
from modlake.pipeline.audit import COUNTS, Audit
from modlake.pipeline.plan import Plan


@dataclass(frozen=True, slots=True)
class Publication:
    """What a day's tables hold.

    ``snapshot_ids`` are those of images, labels and jobs that hold the day; a table that never had a row has
    none. ``changed`` is False when the tables held the same content already, and nothing was committed.
    """

    day: date
    run_id: str
    listed: int
    judged: int
    reused: int
    ineligible: int
    failed: int
    incomplete: int
    labels: int
    model_versions: list[str]
    snapshot_ids: dict[str, int]
    changed: bool


def publish_day(catalog: Catalog, plan: Plan, audit: Audit) -> Publication:
    """Replace a day in ``images``, ``labels`` and ``jobs``, one transaction each, then its row in ``runs``.

    Readers who join on the row in ``runs`` see the old day or the new one. Days may be published at once; of
    two runs of one day, one ends as a whole. An empty day clears the rows of an older run. When the tables
    hold a run of equal content already, nothing is committed.

    Raises ModlakeTerminalError when a file holds rows of another day, ModlakeTransientError when others kept
    committing to the same tables.
    """
    if audit.run_id != plan.run_id:
        raise ModlakeTerminalError(
            f"{audit.audit_uri} audits the run {audit.run_id}, not {plan.run_id}. "
            f"Clear the audit task of {plan.day}."
        )
    publication, attempt = until_committed(
        lambda: _publish_once(catalog, plan, audit), f"{audit.day} could not be published"
    )
    # A commit whose reply was lost looks, the second time, as if somebody had made it before.
    is_own = attempt > 1 and publication.run_id == audit.run_id
    return replace(publication, changed=publication.changed or is_own)


def _publish_once(catalog: Catalog, plan: Plan, audit: Audit) -> Publication:
    return _find_publication(catalog, audit) or _replace_day(catalog, plan, audit)


def _find_publication(catalog: Catalog, audit: Audit) -> Publication | None:
    """Return the day as published, if its content is this and the tables still hold that run whole."""
    runs = catalog.load_table(RUNS_TABLE.identifier).scan(of_day(audit.day)).to_arrow().to_pylist()
    if len(runs) != 1 or runs[0]["content_digest"] != audit.content_digest:
        return None
    run = runs[0]
    if _tables_without_run(catalog, audit, run["run_id"]):
        return None
    snapshot_ids = {
        table.name: run[_snapshot_column(table.name)] for table in (IMAGES_TABLE, LABELS_TABLE, JOBS_TABLE)
    }
    return Publication(
        # A run of before the column counted none.
        **{name: run[name] or 0 for name in COUNTS},
        day=run["day"],
        run_id=run["run_id"],
        model_versions=run["model_versions"],
        snapshot_ids={
            name: snapshot_id for name, snapshot_id in snapshot_ids.items() if snapshot_id is not None
        },
        changed=False,
    )


def _replace_day(catalog: Catalog, plan: Plan, audit: Audit) -> Publication:
    properties = {
        "modlake.day": audit.day.isoformat(),
        "modlake.run_id": audit.run_id,
        "modlake.airflow_run_id": plan.airflow_run_id,
    }
    images, labels, jobs, runs = (catalog.load_table(table.identifier) for table in PUBLISHED_TABLES)
    image_files = _describe_files(images, audit.images_uris, audit.day, audit.listed)
    label_files = _describe_files(labels, audit.labels_uris, audit.day, audit.labels)
    snapshot_ids = {
        IMAGES_TABLE.name: replace_with_files(images, audit.day, image_files, properties),
        LABELS_TABLE.name: replace_with_files(labels, audit.day, label_files, properties),
        JOBS_TABLE.name: replace_with_rows(jobs, audit.day, _job_rows(audit), properties),
    }
    replace_with_rows(runs, audit.day, _run_rows(audit, snapshot_ids), properties)
    overtaken = _tables_without_run(catalog, audit, audit.run_id)
    if overtaken:
        raise OvertakenError(f"another run of the day committed to {overtaken}")
    return Publication(
        **audit.counts,
        day=audit.day,
        run_id=audit.run_id,
        model_versions=audit.model_versions,
        snapshot_ids={
            name: snapshot_id for name, snapshot_id in snapshot_ids.items() if snapshot_id is not None
        },
        changed=True,
    )


def _describe_files(table: Table, uris: list[str], day: date, rows: int) -> list[DataFile]:
    """Return landed files as Iceberg knows them; refuse them when they don't hold so many rows."""
    files = describe_files(table, uris, day, f"Clear the land tasks of {day} to write it anew.")
    landed = sum(file.record_count for file in files)
    if landed != rows:
        raise ModlakeTerminalError(
            f"The files of {day} hold {landed} rows of {table.name()[-1]}, but {rows} were audited. "
            f"Clear the land tasks of {day} to write them anew."
        )
    return files


def _tables_without_run(catalog: Catalog, audit: Audit, run_id: str) -> list[str]:
    """Return the tables whose rows of the day are not exactly that run's, by their number."""
    expected = {
        IMAGES_TABLE: audit.listed,
        LABELS_TABLE: audit.labels,
        JOBS_TABLE: len(audit.jobs),
        RUNS_TABLE: 1,
    }
    return [
        lake_table.name
        for lake_table, rows in expected.items()
        if not _holds_run(catalog.load_table(lake_table.identifier), audit.day, run_id, rows)
    ]


def _holds_run(table: Table, day: date, run_id: str, rows: int) -> bool:
    """Tell by the statistics of the day's files alone, which lie in the metadata."""
    run_column = table.schema().find_field("run_id").field_id
    tasks = list(table.scan(of_day(day)).plan_files())
    bounds = [bound for task in tasks for bound in (task.file.lower_bounds, task.file.upper_bounds)]
    return (
        sum(task.file.record_count for task in tasks) == rows
        and all(bound.get(run_column) == run_id.encode() for bound in bounds)
        and not any(task.delete_files for task in tasks)
    )


def _job_rows(audit: Audit) -> pa.Table:
    times = ("started_at", "completed_at")
    rows = [
        job | {"day": audit.day} | {time: job[time] and datetime.fromisoformat(job[time]) for time in times}
        for job in audit.jobs
    ]
    return pa.Table.from_pylist(rows, JOBS_TABLE.row_schema)


def _run_rows(audit: Audit, snapshot_ids: dict[str, int | None]) -> pa.Table:
    row = {
        **audit.counts,
        **{_snapshot_column(name): snapshot_id for name, snapshot_id in snapshot_ids.items()},
        "day": audit.day,
        "run_id": audit.run_id,
        "model_versions": audit.model_versions,
        "published_at": datetime.now(UTC),
        "content_digest": audit.content_digest,
    }
    return pa.Table.from_pylist([row], RUNS_TABLE.row_schema)


def _snapshot_column(table_name: str) -> str:
    return f"{table_name}_snapshot_id"
