"""Expiring snapshots: after it the tables can't be read as of then, and their old files are nobody's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from modlake.lake.days import until_committed
from modlake.lake.maintenance.findings import SAMPLES, Finding
from modlake.lake.maintenance.policy import MaintenancePolicy
from modlake.lake.maintenance.references import load_tables, table_name
from modlake.lake.schemas import RUNS_TABLE

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def expired_snapshots(metadata: TableMetadata, policy: MaintenancePolicy, now: datetime) -> list[Snapshot]:
    """Return the snapshots past retention, oldest first.

    Not among them: the newest ``min_snapshots``, and what branches (so the current one) and tags point at.
    That a row of ``runs`` names a snapshot does not keep it: nothing would ever expire.
    """
    horizon_ms = _horizon_ms(metadata, policy, now)
    kept = {ref.snapshot_id for ref in metadata.refs.values()}
    return sorted(
        (
            snapshot
            for snapshot in metadata.snapshots
            if snapshot.timestamp_ms < horizon_ms and snapshot.snapshot_id not in kept
        ),
        key=lambda snapshot: snapshot.timestamp_ms,
    )


def _horizon_ms(metadata: TableMetadata, policy: MaintenancePolicy, now: datetime) -> int:
    """Return the time before which snapshots expire: that of retention, or of the oldest that are too few."""
    newest = sorted(snapshot.timestamp_ms for snapshot in metadata.snapshots)[-policy.min_snapshots :]
    return min([(now - policy.snapshot_retention - _EPOCH) // _MILLISECOND, *newest[:1]])


def expire_snapshots(
    catalog: Catalog, policy: MaintenancePolicy, now: datetime, report: Callable[[str], None]
) -> list[Finding]:
    """Expire the old snapshots of every table, one commit a table; no file is deleted by it.

    Raises ModlakeTransientError when others kept committing to the same table.
    """
    tables = load_tables(catalog)
    published = _snapshots_named_by_runs(catalog)
    findings = []
    for table in tables:
        finding = _expire(catalog, table, policy, now, published)
        report(str(finding))
        findings.append(finding)
    return findings


def _expire(
    catalog: Catalog, table: Table, policy: MaintenancePolicy, now: datetime, published: set[int]
) -> Finding:
    expired, _ = until_committed(
        lambda: _commit(catalog, table, policy, now),
        f"The snapshots of {table_name(table)} could not be expired",
    )
    named = len(published.intersection(snapshot.snapshot_id for snapshot in expired))
    return Finding(
        scope=table_name(table),
        kind="snapshots",
        total=len(table.metadata.snapshots),
        found=len(expired),
        oldest=_EPOCH + expired[0].timestamp_ms * _MILLISECOND if expired else None,
        samples=[str(snapshot.snapshot_id) for snapshot in expired[:SAMPLES]],
        done=0 if policy.dry_run else len(expired),
        notes=[f"{named:,} of them are named by rows of runs, which stay"] if named else [],
    )


def _commit(catalog: Catalog, table: Table, policy: MaintenancePolicy, now: datetime) -> list[Snapshot]:
    fresh = catalog.load_table(table.name())
    expired = expired_snapshots(fresh.metadata, policy, now)
    if expired and not policy.dry_run:
        # Not by_ids(), which copies the table's metadata for each. The same, by the same metadata:
        horizon = _EPOCH + _horizon_ms(fresh.metadata, policy, now) * _MILLISECOND
        fresh.maintenance.expire_snapshots().older_than(horizon).commit()
    return expired


def _snapshots_named_by_runs(catalog: Catalog) -> set[int]:
    columns = ("images_snapshot_id", "labels_snapshot_id", "jobs_snapshot_id")
    runs = catalog.load_table(RUNS_TABLE.identifier).scan(selected_fields=columns).to_arrow()
    return {value for name in columns for value in runs[name].to_pylist() if value is not None}
