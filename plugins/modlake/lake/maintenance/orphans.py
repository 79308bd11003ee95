"""Orphans: files below the tables' locations that no table leads to, of crashes and expired snapshots."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pyiceberg.catalog import Catalog
from pyiceberg.table.metadata import TableMetadata

from modlake.lake.maintenance.findings import Finding, check_share
from modlake.lake.maintenance.policy import MaintenancePolicy
from modlake.lake.maintenance.references import files_needed, load_tables, table_name
from modlake.lake.maintenance.removal import Batch, Removal, remove
from modlake.lake.maintenance.snapshots import expired_snapshots
from modlake.lake.maintenance.store import DeletableStore
from modlake.pipeline.object_store import ListedObject
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri


def sweep_orphans(
    catalog: Catalog,
    store: DeletableStore,
    policy: MaintenancePolicy,
    now: datetime,
    report: Callable[[str], None],
) -> list[Finding]:
    """Delete data and metadata files of the tables that are past the grace time and needed by no snapshot.

    A dry run counts the snapshots that would have expired as expired.

    Raises MaintenanceRefusedError when too large a share of a table's files would go.
    """
    listed = [
        (table_name(table), kind, _list(store, uri, report))
        for table in load_tables(catalog)
        for kind, uri in (
            ("data files", table.location_provider().data_path),
            ("metadata files", table.location_provider().metadata_path),
        )
    ]
    # Only now: what was committed since the listing is needed, too.
    needed = files_needed(load_tables(catalog), report, expiring(policy, now))
    horizon = now - policy.grace
    removals = [
        Removal(name, kind, len(objects), [Batch(_orphans(objects, needed, horizon))])
        for name, kind, objects in listed
    ]
    check_share([removal.finding for removal in removals], policy.max_removed_percent, report)
    return remove(store, removals, policy, report)


def expiring(policy: MaintenancePolicy, now: datetime) -> Callable[[TableMetadata], set[int]]:
    """Return which snapshots to leave out of what is needed: in a dry run those that would have expired."""

    def of(metadata: TableMetadata) -> set[int]:
        # A real run has expired them: what it finds in the metadata is there to stay.
        return (
            {each.snapshot_id for each in expired_snapshots(metadata, policy, now)}
            if policy.dry_run
            else set()
        )

    return of


def _list(store: DeletableStore, uri: str, report: Callable[[str], None]) -> list[ListedObject]:
    bucket, prefix = split_s3_uri(as_folder_uri(uri))
    objects = [each for page in store.list_objects(bucket, prefix) for each in page]
    report(f"{uri}: {len(objects):,} objects")
    return objects


def _orphans(objects: list[ListedObject], needed: set[str], horizon: datetime) -> list[ListedObject]:
    orphans = [each for each in objects if each.last_modified < horizon and each.source_ref not in needed]
    return sorted(orphans, key=lambda each: each.last_modified)
