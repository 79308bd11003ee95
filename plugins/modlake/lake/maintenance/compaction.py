"""Compaction: the many small files that a day landed as become few, sorted, with the same rows."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from time import monotonic
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.expressions.parser import parse
from pyiceberg.io.pyarrow import ArrowScan, parquet_file_to_data_file, schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Identifier

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.lake.days import day_of, of_day, until_committed
from modlake.lake.maintenance.findings import SAMPLES, Finding
from modlake.lake.maintenance.policy import MaintenancePolicy
from modlake.lake.maintenance.references import load_tables, table_name
from modlake.lake.transactions import LakeTransaction
from modlake.pipeline.parquet import ParquetEncoder, encode_parquet

# As Iceberg's own rewriteDataFiles decides by default ("min-file-size-bytes", "min-input-files").
_SMALL = 0.75
_MIN_SMALL_FILES = 5

# Only these promise that a commit did not land; after others the sweep judges the new files.
_NOT_COMMITTED = (CommitFailedException, ValidationException)

_SORT_COLUMN = "source_ref"
_ROWS_PER_SLICE = 100_000


@dataclass(frozen=True, slots=True)
class _DayRewrite:
    """A day's small files, in groups that become one file each."""

    day: date
    groups: list[list[FileScanTask]]

    @property
    def files(self) -> list[DataFile]:
        return [task.file for group in self.groups for task in group]


class _DayLeftError(Exception):
    """A day stays as it is; the text tells why."""


def compact_tables(
    catalog: Catalog, policy: MaintenancePolicy, report: Callable[[str], None]
) -> list[Finding]:
    """Rewrite the days of each table that have many small files, one transaction a day.

    Rows are compared before the commit, by number and digest. A day that is published meanwhile is left as
    published. Memory holds the rows of one new file, several times.

    Raises ModlakeTerminalError when a new file does not hold the rows of the old ones.
    """
    findings = []
    for table in load_tables(catalog):
        if _is_compactable(table):
            findings.append(_compact_table(catalog, table, policy, report))
            report(str(findings[-1]))
    return findings


def _is_compactable(table: Table) -> bool:
    """Tell whether a table has days that consist of files sorted by image; the others hold a file a day."""
    fields = table.spec().fields
    by_day = len(fields) == 1 and isinstance(fields[0].transform, IdentityTransform)
    return by_day and fields[0].name == "day" and _SORT_COLUMN in table.schema().column_names


def _compact_table(
    catalog: Catalog, table: Table, policy: MaintenancePolicy, report: Callable[[str], None]
) -> Finding:
    name = table_name(table)
    tasks = list(table.scan().plan_files())
    rewrites = _plan(tasks, policy.target_file_size_bytes)
    done, notes = 0, [f"{len(rewrites):,} days, into {sum(len(each.groups) for each in rewrites):,} files"]
    started = monotonic()
    for number, planned in enumerate(rewrites if not policy.dry_run else (), start=1):
        try:
            done += _compact_day(catalog, table.name(), planned.day, policy.target_file_size_bytes)
        except _DayLeftError as left:
            notes.append(str(left))
        minutes_left = (monotonic() - started) / number * (len(rewrites) - number) / 60
        report(f"{name} {planned.day}: day {number} of {len(rewrites)}, {minutes_left:.1f} min left")
    files = [file for rewrite in rewrites for file in rewrite.files]
    return Finding(
        scope=name,
        kind="small files",
        total=len(tasks),
        found=len(files),
        size_bytes=sum(file.file_size_in_bytes for file in files),
        oldest=datetime.combine(rewrites[0].day, datetime.min.time(), UTC) if rewrites else None,
        samples=[file.file_path for file in files[:SAMPLES]],
        done=done,
        notes=notes if rewrites else [],
    )


def _plan(tasks: list[FileScanTask], target_bytes: int) -> list[_DayRewrite]:
    """Return the rewrites that days with many small files need, by day."""
    by_day: dict[date, list[FileScanTask]] = defaultdict(list)
    for task in tasks:
        # What has row-level deletes was not written by Modlake: it is left to the engine that did.
        if task.file.file_size_in_bytes < target_bytes * _SMALL and not task.delete_files:
            by_day[day_of(task.file)].append(task)
    rewrites = [
        _DayRewrite(day, list(_pack(small, target_bytes)))
        for day, small in sorted(by_day.items())
        if len(small) >= _MIN_SMALL_FILES
    ]
    return [rewrite for rewrite in rewrites if rewrite.groups]


def _pack(tasks: list[FileScanTask], target_bytes: int) -> Iterator[list[FileScanTask]]:
    """Group files up to the target size; by name, as landed files are numbered in the order of keys."""
    group: list[FileScanTask] = []
    size = 0
    for task in sorted(tasks, key=lambda task: task.file.file_path.rpartition("/")[2]):
        if group and size + task.file.file_size_in_bytes > target_bytes:
            if len(group) > 1:
                yield group
            group, size = [], 0
        group.append(task)
        size += task.file.file_size_in_bytes
    if len(group) > 1:
        yield group


def _compact_day(catalog: Catalog, table_id: Identifier, day: date, target_bytes: int) -> int:
    """Replace a day's small files; return how many."""
    table = catalog.load_table(table_id)
    rewrites = _plan(list(table.scan(of_day(day)).plan_files()), target_bytes)
    if not rewrites:
        raise _DayLeftError(f"{day} gave way to a run that was published meanwhile")
    written: list[DataFile] = []
    try:
        written.extend(_rewrite(table, day, group) for group in rewrites[0].groups)
        until_committed(
            lambda: _replace(catalog, table_id, rewrites[0], written),
            f"{day} could not be compacted",
            _NOT_COMMITTED,
        )
    except (_DayLeftError, ModlakeTransientError) as error:
        for file in written:
            table.io.delete(file.file_path)
        raise _DayLeftError(str(error)) from error
    return len(rewrites[0].files)


def _replace(catalog: Catalog, table_id: Identifier, rewrite: _DayRewrite, written: list[DataFile]) -> None:
    """Commit the new files in place of the old, if the day still consists of these.

    It may fail without a rival: pyiceberg looks for the files to delete in threads that share a visitor with
    state, and so overlooks some at times ("Missing required files to delete").
    """
    table = catalog.load_table(table_id)
    there = {task.file.file_path for task in table.scan(of_day(rewrite.day)).plan_files()}
    if not there.issuperset(file.file_path for file in rewrite.files):
        raise _DayLeftError(f"{rewrite.day} gave way to a run that was published meanwhile")
    with LakeTransaction(table) as transaction:
        properties = {"modlake.day": rewrite.day.isoformat(), "modlake.maintenance": "compaction"}
        with transaction.update_snapshot(snapshot_properties=properties).overwrite() as overwrite:
            # Deletes nothing: it bounds the search for rivals, who publish other days all the time.
            overwrite.delete_by_predicate(parse(of_day(rewrite.day)))
            for file in rewrite.files:
                overwrite.delete_data_file(file)
            for file in written:
                overwrite.append_data_file(file)


def _rewrite(table: Table, day: date, group: list[FileScanTask]) -> DataFile:
    """Write the rows of some files as one, sorted by image, and read it back to compare."""
    expected = sum(task.file.record_count for task in group)
    rows = _read(table, group)
    digest = _digest(rows)
    encoder = ParquetEncoder(rows.schema)
    for part in _in_order(rows, [_SORT_COLUMN]):
        encoder.add(part)
    counts = [expected, rows.num_rows]
    del rows
    location = table.location_provider().new_data_location(f"day={day}/compacted-{uuid4()}.parquet")
    with table.io.new_output(location).create() as stream:
        stream.write(encoder.finish())
    file = parquet_file_to_data_file(table.io, table.metadata, location)
    # pyiceberg knows it only of files that it read from a manifest.
    file.spec_id = table.metadata.default_spec_id
    rewritten = _read(table, [FileScanTask(file)])
    counts.append(rewritten.num_rows)
    if len(set(counts)) > 1 or _digest(rewritten) != digest:
        table.io.delete(location)
        raise ModlakeTerminalError(
            f"Compacting {day} of {table_name(table)} would change it: {counts[0]} rows by the manifests, "
            f"{counts[1]} read, {counts[2]} rewritten, or unlike content. Nothing was committed: if "
            f"{group[0].file.file_path} or its neighbours are damaged, run the day again."
        )
    return file


def _read(table: Table, tasks: list[FileScanTask]) -> pa.Table:
    """Return the rows of files in the table's schema, a chunk a column; column by column, to spare memory."""
    rows = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue()).to_table(tasks)
    # With field ids, by which readers find a file's columns.
    rows = rows.cast(schema_to_pyarrow(table.schema()))
    for number, field in enumerate(rows.schema):
        rows = rows.set_column(number, field, rows.column(number).combine_chunks())
    return rows


def _in_order(rows: pa.Table, columns: list[str]) -> Iterator[pa.Table]:
    """Yield slices of the rows sorted, so that there is never a second copy of all."""
    indices = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in columns])
    for first in range(0, rows.num_rows, _ROWS_PER_SLICE):
        yield rows.take(indices.slice(first, _ROWS_PER_SLICE))


def _digest(rows: pa.Table) -> str:
    """Digest rows as a multiset: their order, and the files they are in, don't matter."""
    sortable = [field.name for field in rows.schema if not pa.types.is_nested(field.type)]
    digest = hashlib.sha256()
    for part in _in_order(rows, sortable):
        digest.update(encode_parquet(part))
    return digest.hexdigest()
