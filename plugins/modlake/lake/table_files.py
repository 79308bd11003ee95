"""Reading a table file by file: pyiceberg's own scans read every file at once, and keep what they read."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import date
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import BooleanExpression
from pyiceberg.expressions.visitors import (
    _InclusiveMetricsEvaluator,
    bind,
    extract_field_ids,
    inclusive_projection,
)
from pyiceberg.io.pyarrow import ArrowScan, expression_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.transforms import IdentityTransform

from modlake.lake.days import day_of
from modlake.lake.filters import all_of, between, equal_to
from modlake.pipeline.columns import Column
from modlake.pipeline.side_by_side import side_by_side
from modlake.pipeline.text_filter import TextFilter

Span = tuple[str, str]
"""First and last source_ref."""

_UNREPEATED = {"source_ref", "etag"}


class FileStatistics:
    """What the metadata tell of a data file, without a look into it."""

    def __init__(self, task: FileScanTask, schema: Schema) -> None:
        self._file = task.file
        self._schema = schema

    @property
    def day(self) -> date:
        """The day of its partition."""
        return day_of(self._file)

    def lowest(self, column: str) -> bytes:
        """The least text in it, as far as that is known."""
        return (self._file.lower_bounds or {}).get(self._schema.find_field(column).field_id, b"")

    def only(self, column: str) -> Any:
        """The value that a column has in every row; None when that isn't known."""
        field = self._schema.find_field(column)
        lowest = (self._file.lower_bounds or {}).get(field.field_id)
        highest = (self._file.upper_bounds or {}).get(field.field_id)
        has_nulls = (self._file.null_value_counts or {}).get(field.field_id) != 0
        # Of a text that was cut off the bounds differ.
        if lowest is None or lowest != highest or has_nulls:
            return None
        type_of: Any = field.field_type
        return from_bytes(type_of, lowest)

    def may_overlap(self, column: str, span: Span) -> bool:
        """Tell whether the file may hold a text from ``span[0]`` to ``span[1]``."""
        field_id = self._schema.find_field(column).field_id
        lowest = (self._file.lower_bounds or {}).get(field_id)
        highest = (self._file.upper_bounds or {}).get(field_id)
        # Without bounds anything may be in it.
        return (lowest is None or lowest <= span[1].encode()) and (
            highest is None or highest >= span[0].encode()
        )


class TableFiles:
    """The data files of a table that may hold certain rows: planned once, read often, a few at a time.

    :param columns: the columns to read, ``source_ref`` among them
    :param span: where every row that is asked for later lies
    :param may_hold: sets files aside by their statistics
    :param as_of: days that are read as of an earlier snapshot
    """

    def __init__(
        self,
        table: Table,
        row_filter: BooleanExpression,
        columns: pa.Schema,
        span: Span | None = None,
        may_hold: Callable[[FileStatistics], bool] = lambda _: True,
        as_of: Mapping[date, int] | None = None,
    ) -> None:
        self._table = table
        self._row_filter = row_filter
        self._columns = columns
        self._no_rows = columns.empty_table()
        bound = bind(table.schema(), row_filter, case_sensitive=True)
        self._is_kept = expression_to_pyarrow(bound)
        filtered_by = {str(table.schema().find_column_name(each)) for each in extract_field_ids(bound)}
        self._read_names = [*columns.names, *sorted(filtered_by - set(columns.names))]
        schema = table.schema()
        self._projection = schema.select(*self._read_names)
        within_span = _within(row_filter, span)
        may_match = _InclusiveMetricsEvaluator(schema, within_span).eval
        self._files = sorted(
            (
                (task, statistics)
                for task in self._plan_files(within_span, as_of or {})
                if may_match(task.file) and may_hold(statistics := FileStatistics(task, schema))
            ),
            key=lambda file: file[1].lowest("source_ref"),
        )

    def _plan_files(self, row_filter: BooleanExpression, as_of: Mapping[date, int]) -> Iterator[FileScanTask]:
        def planned(kept: BooleanExpression, snapshot_id: int | None) -> Iterable[FileScanTask]:
            # Of the whole filter pyiceberg would work out what is left for each file, which nobody asks.
            return self._table.scan(
                _of_partitions(self._table, kept),
                selected_fields=tuple(self._read_names),
                snapshot_id=snapshot_id,
            ).plan_files()

        def day_of(task: FileScanTask) -> date:
            return FileStatistics(task, self._table.schema()).day

        current = planned(row_filter, None)
        yield from (task for task in current if day_of(task) not in as_of) if as_of else current
        for day, snapshot_id in as_of.items():
            earlier = planned(all_of(row_filter, equal_to("day", day.isoformat())), snapshot_id)
            yield from (task for task in earlier if day_of(task) == day)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, span: Span | None = None) -> Iterator[pa.Table]:
        """Yield the rows, or those of a span, a file at a time, by the files' first ``source_ref``."""
        scan = self._scan(span)
        yield from side_by_side(partial(self._rows_of, scan), self._tasks(span))

    def find(
        self, column: str, sought: TextFilter, *, rows_at_once: int, days: Container[date] | None = None
    ) -> Iterator[pa.Table]:
        """Yield the rows (of some days) whose text in a column may be among those sought, so many at once.

        That column is read first, and the others only of row groups that may hold one.
        """
        tasks = [task for task, statistics in self._files if days is None or statistics.day in days]
        found = side_by_side(partial(self._rows_found, self._scan(), column, sought), tasks)
        yield from side_by_side(self._kept, gathered(found, rows_at_once))

    def _rows_found(self, scan: ArrowScan, column: str, sought: TextFilter, task: FileScanTask) -> pa.Table:
        """Return rows of a file before the filter, with the types that it was read with."""
        opened = self._open(task)
        if opened is None:
            rows = self._scanned(scan, task)
            return rows.filter(sought.may_hold(rows[column])) if rows.num_rows else rows
        source, file = opened
        texts = file.read([column], use_threads=False)[column]
        is_found = sought.may_hold(texts)
        groups = _row_groups_with_any(file, is_found)
        if not groups:
            return self._no_rows
        others = [name for name in self._read_names if name != column]
        rows = pq.ParquetFile(
            source,
            metadata=file.metadata,
            # Most texts repeat from row to row, and need not be spelled out before the rows are chosen.
            read_dictionary=[name for name in others if name not in _UNREPEATED],
            # Columns that lie together are fetched together.
            pre_buffer=True,
        ).read_row_groups(list(groups), others, use_threads=False)
        is_found, texts = (
            pa.chunked_array([each.slice(*groups[number]) for number in groups])
            for each in (is_found, texts.combine_chunks())
        )
        return rows.append_column(column, texts).filter(is_found)

    def _kept(self, rows: pa.Table) -> pa.Table:
        """Return the rows that pass the filter, with the columns and types that were asked for."""
        spelled_out = pa.table({name: _spelled_out(rows[name]) for name in rows.column_names})
        return spelled_out.filter(self._is_kept).select(self._columns.names).cast(self._columns)

    def _tasks(self, span: Span | None = None) -> list[FileScanTask]:
        return [
            task
            for task, statistics in self._files
            if span is None or statistics.may_overlap("source_ref", span)
        ]

    def _scan(self, span: Span | None = None) -> ArrowScan:
        row_filter = _within(self._row_filter, span)
        return ArrowScan(self._table.metadata, self._table.io, self._projection, row_filter)

    def _rows_of(self, scan: ArrowScan, task: FileScanTask) -> pa.Table:
        return self._scanned(scan, task).select(self._columns.names).cast(self._columns)

    def _scanned(self, scan: ArrowScan, task: FileScanTask) -> pa.Table:
        batches = list(scan.to_record_batches([task]))
        return pa.Table.from_batches(batches) if batches else self._no_rows

    def _open(self, task: FileScanTask) -> tuple[Any, pq.ParquetFile] | None:
        """Open a file, with a reader; None when it takes pyiceberg, for deletions or columns it lacks."""
        if task.delete_files:
            return None
        # pyiceberg's type of open files is narrower than what pyarrow takes, and what they are.
        source: Any = self._table.io.new_input(task.file.file_path).open()
        file = pq.ParquetFile(source)
        return (source, file) if set(self._read_names) <= set(file.schema.names) else None


def _row_groups_with_any(file: pq.ParquetFile, is_found: Column) -> dict[int, tuple[int, int]]:
    """Return the row groups in which anything is found, by number, with their first row and their length."""
    groups: dict[int, tuple[int, int]] = {}
    first = 0
    for number in range(file.num_row_groups):
        length = file.metadata.row_group(number).num_rows
        if pc.any(is_found.slice(first, length)).as_py():
            groups[number] = (first, length)
        first += length
    return groups


def _spelled_out(column: Column) -> Column:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def gathered(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Join small tables in a row that have the same columns to such of about that many rows."""
    pending: list[pa.Table] = []
    held = 0
    for table in tables:
        if not table.num_rows:
            continue
        if pending and not table.schema.equals(pending[0].schema):
            yield pa.concat_tables(pending)
            pending, held = [], 0
        pending.append(table)
        held += table.num_rows
        if held >= rows:
            yield pa.concat_tables(pending)
            pending, held = [], 0
    if pending:
        yield pa.concat_tables(pending)


def _of_partitions(table: Table, row_filter: BooleanExpression) -> BooleanExpression:
    """Return what a filter says of whole partitions, where these are named by columns' values."""
    for field in table.spec().fields:
        is_column = table.schema().find_column_name(field.source_id) == field.name
        if not (is_column and isinstance(field.transform, IdentityTransform)):
            return row_filter
    return inclusive_projection(table.schema(), table.spec())(row_filter)


def _within(row_filter: BooleanExpression, span: Span | None) -> BooleanExpression:
    if span is None:
        return row_filter
    return all_of(row_filter, between("source_ref", *span))
