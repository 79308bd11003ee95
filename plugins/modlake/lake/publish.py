"""Publishing: the commits that make a run the truth of its day."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, ValidationException
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction
from sqlalchemy.exc import OperationalError
from tenacity import RetryError, retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.lake.schemas import IMAGES_TABLE, JOBS_TABLE, LABELS_TABLE, RUNS_TABLE, TABLES
from modlake.pipeline.audit import Audit
from modlake.pipeline.plan import Plan

_ATTEMPTS = 8
_EPOCH = date(1970, 1, 1)
_COUNTS = ("listed", "judged", "reused", "ineligible", "failed", "incomplete", "labels")


class _OvertakenError(Exception):
    """Another run of the same day committed to a table in between."""


# None of these leaves a table half written, and to replace a day again is harmless.
_CONFLICTS = (
    CommitFailedException,
    CommitStateUnknownException,
    ValidationException,
    OperationalError,
    _OvertakenError,
)


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
    publish = retry(
        retry=retry_if_exception_type(_CONFLICTS),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.2, max=10),
    )(_publish_once)
    try:
        publication = publish(catalog, plan, audit)
    except RetryError as error:
        conflict = error.last_attempt.exception()
        raise ModlakeTransientError(
            f"{audit.day} could not be published: other writers were faster {_ATTEMPTS} times "
            f"({conflict!r}). Try again, and lower the slots of the pool modlake_publish if it happens often."
        ) from conflict
    # A commit whose reply was lost looks, the second time, as if somebody had made it before.
    is_own = publish.statistics["attempt_number"] > 1 and publication.run_id == audit.run_id
    return replace(publication, changed=publication.changed or is_own)


def _publish_once(catalog: Catalog, plan: Plan, audit: Audit) -> Publication:
    return _find_publication(catalog, audit) or _replace_day(catalog, plan, audit)


def _find_publication(catalog: Catalog, audit: Audit) -> Publication | None:
    """Return the day as published, if its content is this and the tables still hold that run whole."""
    runs = catalog.load_table(RUNS_TABLE.identifier).scan(_of_day(audit.day)).to_arrow().to_pylist()
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
        **{name: run[name] or 0 for name in _COUNTS},
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
    images, labels, jobs, runs = (catalog.load_table(table.identifier) for table in TABLES)
    image_files = _describe_files(images, audit.images_uris, audit.day, audit.listed)
    label_files = _describe_files(labels, audit.labels_uris, audit.day, audit.labels)
    snapshot_ids = {
        IMAGES_TABLE.name: _replace_with_files(images, audit.day, image_files, properties),
        LABELS_TABLE.name: _replace_with_files(labels, audit.day, label_files, properties),
        JOBS_TABLE.name: _replace_with_rows(jobs, audit.day, _job_rows(audit), properties),
    }
    _replace_with_rows(runs, audit.day, _run_rows(audit, snapshot_ids), properties)
    overtaken = _tables_without_run(catalog, audit, audit.run_id)
    if overtaken:
        raise _OvertakenError(f"another run of the day committed to {overtaken}")
    return Publication(
        **{name: getattr(audit, name) for name in _COUNTS},
        day=audit.day,
        run_id=audit.run_id,
        model_versions=audit.model_versions,
        snapshot_ids={
            name: snapshot_id for name, snapshot_id in snapshot_ids.items() if snapshot_id is not None
        },
        changed=True,
    )


def _describe_files(table: Table, uris: list[str], day: date, rows: int) -> list[DataFile]:
    """Return landed files as Iceberg knows them, with the statistics of their columns."""
    with ThreadPoolExecutor() as executor:
        files = list(executor.map(lambda uri: _describe_file(table, uri, day), uris))
    landed = sum(file.record_count for file in files)
    if landed != rows:
        raise ModlakeTerminalError(
            f"The files of {day} hold {landed} rows of {table.name()[-1]}, but {rows} were audited. "
            f"Clear the land tasks of {day} to write them anew."
        )
    return files


def _describe_file(table: Table, uri: str, day: date) -> DataFile:
    try:
        file = parquet_file_to_data_file(table.io, table.metadata, uri)
    except (ValueError, FileNotFoundError) as error:
        raise ModlakeTerminalError(
            f"{uri} can't become part of {table.name()[-1]}: {error}. "
            f"Clear the land tasks of {day} to write it anew."
        ) from error
    partition_day = _EPOCH + timedelta(days=file.partition[0])
    if partition_day != day:
        raise ModlakeTerminalError(
            f"{uri} holds rows of {partition_day}, not of {day}. "
            f"Clear the land tasks of {day} to write it anew."
        )
    return file


def _replace_with_files(
    table: Table, day: date, files: list[DataFile], properties: dict[str, str]
) -> int | None:
    """Let the day consist of these data files; return the snapshot, None when the table never had any."""
    with table.transaction() as transaction:
        _delete_day(transaction, day, properties)
        if files:
            # Not add_files(): it looks for the names in every file of the table, which attempt-unique names
            # spare, and sets a name mapping, which files with field ids don't need.
            with transaction.update_snapshot(snapshot_properties=properties).fast_append() as append:
                for file in files:
                    append.append_data_file(file)
    return _snapshot_id(table)


def _replace_with_rows(table: Table, day: date, rows: pa.Table, properties: dict[str, str]) -> int | None:
    """Let the day consist of these rows; return the snapshot, None when the table never had any."""
    with table.transaction() as transaction:
        _delete_day(transaction, day, properties)
        if rows.num_rows:
            transaction.append(rows, properties)
    return _snapshot_id(table)


def _delete_day(transaction: Transaction, day: date, properties: dict[str, str]) -> None:
    # Also where the day has no rows: the deletion makes pyiceberg check for rivals of the same day.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Delete operation did not match any records")
        transaction.delete(_of_day(day), properties)


def _snapshot_id(table: Table) -> int | None:
    snapshot = table.current_snapshot()
    return snapshot.snapshot_id if snapshot is not None else None


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
    tasks = list(table.scan(_of_day(day)).plan_files())
    bounds = [bound for task in tasks for bound in (task.file.lower_bounds, task.file.upper_bounds)]
    return (
        sum(task.file.record_count for task in tasks) == rows
        and all(bound.get(run_column) == run_id.encode() for bound in bounds)
        and not any(task.delete_files for task in tasks)
    )


def _of_day(day: date) -> str:
    return f"day = '{day.isoformat()}'"


def _job_rows(audit: Audit) -> pa.Table:
    times = ("started_at", "completed_at")
    rows = [
        job | {"day": audit.day} | {time: job[time] and datetime.fromisoformat(job[time]) for time in times}
        for job in audit.jobs
    ]
    return pa.Table.from_pylist(rows, JOBS_TABLE.row_schema)


def _run_rows(audit: Audit, snapshot_ids: dict[str, int | None]) -> pa.Table:
    row = {
        **{name: getattr(audit, name) for name in _COUNTS},
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
