"""Retention below the work bucket: landed files, folders of runs, and submissions."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime

from pyiceberg.catalog import Catalog

from modlake.lake.maintenance.analyses import SubmissionsFound, find_submissions
from modlake.lake.maintenance.findings import SAMPLES, Finding, MaintenanceRefusedError, check_share
from modlake.lake.maintenance.orphans import expiring
from modlake.lake.maintenance.policy import MaintenancePolicy
from modlake.lake.maintenance.references import files_needed, load_tables, normalised
from modlake.lake.maintenance.removal import Batch, Removal, remove
from modlake.lake.maintenance.run_folders import (
    RunContents,
    list_run_folders,
    list_whole,
    read_story,
    renew,
    retire,
)
from modlake.lake.maintenance.store import DeletableStore
from modlake.lake.schemas import IMAGES_TABLE, JOBS_TABLE, LABELS_TABLE, RUNS_TABLE
from modlake.pipeline.object_store import ListedObject
from modlake.pipeline.s3_uri import as_folder_uri, s3_object_uri

_LANDED_TABLES = (IMAGES_TABLE.name, LABELS_TABLE.name)
_POINTERS = ("manifest_uri", "results_uri", "summary_uri")
# The same, as GetMediaAnalysisJob names them.
_PLACES = ("Input", "Results", "ManifestSummary")

IsGoing = Callable[[str], bool]
"""Tells whether the Airflow run of that id is queued or running."""


@dataclass(frozen=True, slots=True)
class _Runs:
    """Every run's folder, by what maintenance may do with it."""

    published: list[RunContents]
    kept: list[RunContents]
    due: list[RunContents]
    retired: list[RunContents]

    @property
    def unretired(self) -> list[RunContents]:
        return [*self.published, *self.kept, *self.due]

    @property
    def all(self) -> list[RunContents]:
        return [*self.unretired, *self.retired]


def sweep_runs(
    catalog: Catalog,
    store: DeletableStore,
    work_uri: str,
    *,
    policy: MaintenancePolicy,
    now: datetime,
    is_going: IsGoing,
    report: Callable[[str], None],
) -> list[Finding]:
    """Free what runs leave behind below the work bucket.

    A published run keeps its folder, but for landed files that no snapshot needs any more. Another run is
    retired when nothing happened in it for ``run_retention`` and its Airflow run has ended; one grace time
    later its files go, except landed files that a snapshot needs, files that ``jobs`` names, and manifests
    and results that a submission points at. A submission goes after ``analysis_retention``, and one grace
    time after it what it pointed at.

    Raises MaintenanceRefusedError when too large a share of runs or files would go, or when the catalog
    knows none of the runs.
    """
    listed_as_published = _published_runs(catalog)
    contents = list(list_run_folders(store, work_uri, listed_as_published, report))
    listed = _sort(contents, listed_as_published, policy, now)
    before_grace = now - policy.grace
    freed = {run.folder.uri for run in listed.retired if run.files and _is_past_grace(run, before_grace)}
    submissions = find_submissions(
        store,
        work_uri,
        horizon=now - policy.analysis_retention,
        kept={run.folder.uri for run in listed.unretired},
        freed=freed,
        report=report,
    )
    # In this order: who is published meanwhile isn't in `published` yet, or has its files in `needed`.
    published = _published_runs(catalog)
    runs = _sort(_whole_if_superseded(store, contents, published), published, policy, now)
    _check_acquaintance(catalog, work_uri, runs)
    kept = {run.folder.uri for run in runs.unretired}
    expired = [each for each in submissions.expired if each.folders.isdisjoint(kept)]
    needed = files_needed(load_tables(catalog), report, expiring(policy, now))
    if freed:
        needed |= _named_by_jobs(catalog, freed)
        needed |= _named_by_records(store, [*runs.kept, *runs.due])
    due = [run for run in runs.due if not _is_going(store, run, is_going)]
    retiring = _retiring(due, runs)
    removals = [
        *_landed(store, runs, needed, before_grace, is_going),
        _files_of_retired(runs, freed, needed, submissions, before_grace),
        Removal(
            "runs",
            "records of submissions",
            submissions.records,
            [Batch(each.records) for each in expired],
        ),
    ]
    check_share([retiring, *(removal.finding for removal in removals)], policy.max_removed_percent, report)
    if not policy.dry_run:
        # Once more, as all this took its time.
        published = _published_runs(catalog)
        retired = [run for run in due if _retire(store, run, published, now, is_going, report)]
        retiring = replace(retiring, done=len(retired))
        # Their parts stay for another grace time: somebody may just have read the submission.
        holders = {uri for each in expired for uri in each.folders}
        for run in runs.retired:
            if run.folder.uri in holders:
                renew(store, run)
    return [retiring, *remove(store, removals, policy, report)]


def _whole_if_superseded(
    store: DeletableStore, contents: Iterable[RunContents], published: dict[date, str]
) -> Iterator[RunContents]:
    """List those anew that have ceased to be the published ones of their days since they were listed."""
    for run in contents:
        is_superseded = run.is_abridged and published.get(run.folder.day) != run.folder.run_id
        yield list_whole(store, run) if is_superseded else run


def _is_past_grace(run: RunContents, before_grace: datetime) -> bool:
    return run.marker is not None and run.marker.last_modified < before_grace


def _published_runs(catalog: Catalog) -> dict[date, str]:
    rows = catalog.load_table(RUNS_TABLE.identifier).scan(selected_fields=("day", "run_id")).to_arrow()
    return {row["day"]: row["run_id"] for row in rows.to_pylist()}


def _sort(
    contents: Iterable[RunContents], published: dict[date, str], policy: MaintenancePolicy, now: datetime
) -> _Runs:
    runs = _Runs([], [], [], [])
    for run in contents:
        if published.get(run.folder.day) == run.folder.run_id:
            runs.published.append(run)
        elif run.is_retired:
            runs.retired.append(run)
        elif run.last_activity < now - policy.run_retention:
            runs.due.append(run)
        else:
            runs.kept.append(run)
    return runs


def _check_acquaintance(catalog: Catalog, work_uri: str, runs: _Runs) -> None:
    if (runs.due or runs.retired) and not runs.published:
        raise MaintenanceRefusedError(
            f"The table runs of the catalog {catalog.name} names none of the {len(runs.all)} runs below "
            f"{as_folder_uri(work_uri)}runs/, so it can't tell which of them are needed. Check that catalog "
            "and work bucket belong together."
        )


def _named_by_jobs(catalog: Catalog, folder_uris: Collection[str]) -> set[str]:
    """Return what ``jobs`` names in those folders."""
    beginnings = tuple(folder_uris)
    named: set[str] = set()
    scan = catalog.load_table(JOBS_TABLE.identifier).scan(selected_fields=_POINTERS)
    for rows in scan.to_arrow_batch_reader():
        for name in _POINTERS:
            uris = (normalised(str(uri)) for uri in rows[name].drop_null().to_pylist())
            named.update(uri for uri in uris if uri.startswith(beginnings))
    return named


def _named_by_records(store: DeletableStore, runs: Iterable[RunContents]) -> set[str]:
    """Return where the results lie that runs which may still be published have found, maybe elsewhere."""
    named: set[str] = set()
    for run in runs:
        for each in run.objects:
            if each.source_ref.startswith(f"{run.folder.uri}jobs/"):
                job = json.loads(store.read(each.source_ref)).get("job") or {}
                named |= {uri for name in _PLACES if (uri := s3_object_uri(job.get(name)))}
    return named


def _is_going(store: DeletableStore, run: RunContents, is_going: IsGoing) -> bool:
    plan = read_story(store, run)["plan"]
    return plan is not None and is_going(plan["airflow_run_id"])


def _retire(
    store: DeletableStore,
    run: RunContents,
    published: dict[date, str],
    now: datetime,
    is_going: IsGoing,
    report: Callable[[str], None],
) -> bool:
    if published.get(run.folder.day) == run.folder.run_id or _is_going(store, run, is_going):
        return False
    newer = published.get(run.folder.day)
    reason = f"{newer} is the day's published run" if newer else "it was never published"
    report(f"Retiring {run.folder.uri}: {reason}")
    retire(store, run, reason, now)
    return True


def _retiring(due: list[RunContents], runs: _Runs) -> Finding:
    objects = [each for run in due for each in run.objects]
    return Finding(
        scope="runs",
        kind="runs to retire",
        total=len(runs.unretired),
        found=len(due),
        size_bytes=sum(each.size_bytes for each in objects),
        oldest=min((run.last_activity for run in due), default=None),
        samples=[run.folder.uri for run in due[:SAMPLES]],
    )


def _landed(
    store: DeletableStore, runs: _Runs, needed: set[str], horizon: datetime, is_going: IsGoing
) -> list[Removal]:
    """Return the landed files of published runs that compaction has replaced, or that never came to use."""

    def freed(run: RunContents, table: str) -> Batch:
        objects = [each for each in run.landed(table) if each.source_ref not in needed]
        return Batch(objects, is_free=lambda: not _is_going(store, run, is_going))

    ended = [run for run in runs.published if run.last_activity < horizon]
    return [
        Removal(
            table,
            "landed files",
            sum(len(run.landed(table)) for run in runs.all),
            [batch for batch in (freed(run, table) for run in ended) if batch.objects],
        )
        for table in _LANDED_TABLES
    ]


def _files_of_retired(
    runs: _Runs,
    freed: Collection[str],
    needed: set[str],
    submissions: SubmissionsFound,
    before_grace: datetime,
) -> Removal:
    batches = [
        Batch(_unneeded(run, needed, tuple(submissions.parts.get(run.folder.uri, ())), before_grace))
        for run in runs.retired
        if _is_past_grace(run, before_grace) and (run.folder.uri in freed or not run.files)
    ]
    return Removal("runs", "files of retired runs", sum(run.count for run in runs.all), batches)


def _unneeded(
    run: RunContents, needed: set[str], kept: tuple[str, ...], horizon: datetime
) -> list[ListedObject]:
    if not run.files:
        # The marker goes alone and last: it tells that nobody works in the folder any more.
        return run.objects
    return [
        each
        for each in run.files
        if each.last_modified < horizon
        and each.source_ref not in needed
        and not each.source_ref.startswith(kept)
    ]
