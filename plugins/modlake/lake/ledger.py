"""The ledger of judgements: the lake's own tables, looked up without loading them."""

from __future__ import annotations

from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask

from modlake.lake.filters import all_of, between, equal_to, one_of
from modlake.lake.judgement_lookup import SAME_CONTENT, SAME_OBJECT, JudgementLookup
from modlake.lake.replaced_runs import last_snapshots
from modlake.lake.schemas import IMAGES_TABLE, JOBS_TABLE, LABELS_TABLE, RUNS_TABLE
from modlake.lake.table_files import FileStatistics
from modlake.pipeline.outcomes import Outcome
from modlake.pipeline.reuse import PublishedRun, Wanted

if TYPE_CHECKING:
    from modlake.pipeline.reuse import Lookup


class LakeLedger:
    """A :class:`~modlake.pipeline.reuse.JudgementLedger` over ``images``, ``labels``, ``jobs`` and ``runs``.

    It sees which runs are published when it is first asked, and counts no row of any other.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def published_run(self, day: date) -> PublishedRun | None:
        """Return the run that is published for a day."""
        return self._runs.get(day)

    def judgements(self, wanted: Wanted, span: tuple[str, str]) -> Lookup:
        """Return what finds the judgements for listed images, all of which lie in ``span`` (first, last)."""
        model = all_of(
            equal_to("model_version", wanted.model_version), equal_to("adapter_arn", wanted.adapter_arn)
        )
        filters = {
            "images_filter": all_of(
                model,
                one_of("outcome", [Outcome.JUDGED, Outcome.REUSED]),
                between("min_confidence", highest=wanted.min_confidence),
            ),
            "labels_filter": model,
        }
        if wanted.by_content:
            return self._lookup(keys=(SAME_OBJECT, SAME_CONTENT), span=None, originals=True, **filters)
        return self._lookup(keys=(SAME_OBJECT,), span=span, originals=True, **filters)

    def carried_over(self, day: date, run_id: str, span: tuple[str, str]) -> Lookup:
        """Return what finds the judgements that a published run has carried over already."""
        of_run = all_of(equal_to("day", day.isoformat()), equal_to("run_id", run_id))
        return self._lookup(
            images_filter=all_of(of_run, equal_to("outcome", Outcome.REUSED)),
            labels_filter=of_run,
            keys=(SAME_OBJECT,),
            span=span,
            originals=False,
        )

    def jobs(self, day: date, job_ids: set[str]) -> list[dict[str, Any]]:
        """Return the rows of ``jobs`` of a day for those ids, times as ISO 8601 texts."""
        table = self._catalog.load_table(JOBS_TABLE.identifier)
        as_of = last_snapshots(table, self._run_ids).get(day)
        rows = table.scan(equal_to("day", day.isoformat()), snapshot_id=as_of).to_arrow().to_pylist()
        return [
            {name: value.isoformat() if isinstance(value, date) else value for name, value in row.items()}
            for row in sorted(rows, key=lambda row: (row["shard"], row["job_id"]))
            if row["job_id"] in job_ids
        ]

    @cached_property
    def _runs(self) -> dict[date, PublishedRun]:
        table = self._catalog.load_table(RUNS_TABLE.identifier)
        scan = table.scan(selected_fields=("day", "run_id", "reused"))
        # A day has a file of one row, of which the metadata tell all that is asked: no file is opened.
        told = [_told_run(task, table.schema()) for task in scan.plan_files()]
        if all(told):
            return dict(filter(None, told))
        rows = scan.to_arrow().to_pylist()
        return {row["day"]: PublishedRun(row["run_id"], row["reused"]) for row in rows}

    def _lookup(self, **arguments: Any) -> JudgementLookup:
        return JudgementLookup(
            self._catalog.load_table(IMAGES_TABLE.identifier),
            self._catalog.load_table(LABELS_TABLE.identifier),
            self._run_ids,
            **arguments,
        )

    @property
    def _run_ids(self) -> dict[date, str]:
        return {day: run.run_id for day, run in self._runs.items()}


def _told_run(task: FileScanTask, schema: Schema) -> tuple[date, PublishedRun] | None:
    """Return what the statistics of a file of one row say; None when it has more, or they don't tell."""
    statistics = FileStatistics(task, schema)
    run_id, reused = statistics.only("run_id"), statistics.only("reused")
    if task.file.record_count != 1 or task.delete_files or None in (run_id, reused):
        return None
    return statistics.day, PublishedRun(run_id, reused)
