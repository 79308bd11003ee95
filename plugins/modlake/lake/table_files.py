"""Reading a table file by file: pyiceberg's own scans read every file at once, and keep what they read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date, timedelta

import pyarrow as pa
from pyiceberg.expressions import BooleanExpression
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table

from modlake.lake.filters import all_of, between

Span = tuple[str, str]
"""First and last source_ref."""

_FILES_AHEAD = 4


class FileStatistics:
    """What the metadata tell of a data file, without a look into it."""

    def __init__(self, task: FileScanTask, schema: Schema) -> None:
        self._file = task.file
        self._schema = schema

    @property
    def day(self) -> date:
        """The day of its partition."""
        value: int | date = self._file.partition[0]
        return value if isinstance(value, date) else date(1970, 1, 1) + timedelta(days=value)

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
    """

    def __init__(
        self,
        table: Table,
        row_filter: BooleanExpression,
        columns: pa.Schema,
        span: Span | None = None,
        may_hold: Callable[[FileStatistics], bool] = lambda _: True,
    ) -> None:
        self._table = table
        self._row_filter = row_filter
        self._columns = columns
        scan = table.scan(_within(row_filter, span), selected_fields=tuple(columns.names))
        self._projection = scan.projection()
        schema = table.schema()
        self._files = [
            (task, statistics)
            for task in scan.plan_files()
            if may_hold(statistics := FileStatistics(task, schema))
        ]

    def read(self, span: Span | None = None) -> Iterator[pa.Table]:
        """Yield the rows, or those of a span, a file at a time."""
        scan = ArrowScan(
            self._table.metadata, self._table.io, self._projection, _within(self._row_filter, span)
        )
        tasks = [
            task
            for task, statistics in self._files
            if span is None or statistics.may_overlap("source_ref", span)
        ]

        def rows_of(task: FileScanTask) -> pa.Table:
            batches = [
                pa.Table.from_batches([batch]).select(self._columns.names).cast(self._columns)
                for batch in scan.to_record_batches([task])
            ]
            return pa.concat_tables([self._columns.empty_table(), *batches])

        with ThreadPoolExecutor(_FILES_AHEAD) as executor:
            yield from _in_order(executor, rows_of, tasks)


def _in_order(
    executor: ThreadPoolExecutor, read: Callable[[FileScanTask], pa.Table], tasks: list[FileScanTask]
) -> Iterator[pa.Table]:
    """Read some files ahead of the one that is looked at, and never all of them."""
    pending: deque[Future[pa.Table]] = deque()
    for task in tasks:
        pending.append(executor.submit(read, task))
        if len(pending) > _FILES_AHEAD:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def gathered(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Join small tables to such of about that many rows."""
    pending: list[pa.Table] = []
    for table in tables:
        pending.append(table)
        if sum(each.num_rows for each in pending) >= rows:
            yield pa.concat_tables(pending)
            pending = []
    if pending:
        yield pa.concat_tables(pending)


def _within(row_filter: BooleanExpression, span: Span | None) -> BooleanExpression:
    if span is None:
        return row_filter
    return all_of(row_filter, between("source_ref", *span))
