"""Which files the lake's tables need: everything that their metadata, with all its snapshots, leads to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchNamespaceError
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.schemas import NAMESPACE, RUNS_TABLE

_READERS = 8


def load_tables(catalog: Catalog) -> list[Table]:
    """Return every table of the namespace, as it is now.

    Raises ModlakeTerminalError when this is no catalog of a lake that was published to.
    """
    try:
        identifiers = catalog.list_tables(NAMESPACE)
    except NoSuchNamespaceError:
        identifiers = []
    if RUNS_TABLE.identifier not in identifiers:
        raise ModlakeTerminalError(
            f"The catalog {catalog.name} has no table {'.'.join(RUNS_TABLE.identifier)}, so it can't tell "
            "what is published. Point PYICEBERG_CATALOG__MODLAKE__* at the catalog of the published days."
        )
    return [catalog.load_table(identifier) for identifier in identifiers]


def table_name(table: Table) -> str:
    return table.name()[-1]


def normalised(uri: str) -> str:
    """Return the URI with the scheme that listings have: other engines write s3a and s3n for the same."""
    scheme, separator, rest = uri.partition("://")
    return f"s3{separator}{rest}" if scheme in {"s3a", "s3n"} else uri


def files_needed(
    tables: Iterable[Table],
    report: Callable[[str], None],
    without: Callable[[TableMetadata], Collection[int]] = lambda _: (),
) -> set[str]:
    """Return the URIs of all metadata, manifest and data files that the tables lead to.

    ``without`` names snapshots to leave out, as if they had expired. A file that can't be read is an error,
    never a file that needs nothing.
    """
    needed: set[str] = set()
    for table in tables:
        needed |= _files_of(table, without(table.metadata))
        report(f"{table_name(table)}: its snapshots need {len(needed):,} files, with the tables before")
    return needed


def _files_of(table: Table, without: Collection[int]) -> set[str]:
    metadata = table.metadata
    needed = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    needed |= {each.statistics_path for each in (*metadata.statistics, *metadata.partition_statistics)}
    snapshots = [each for each in metadata.snapshots if each.snapshot_id not in without]
    needed |= {snapshot.manifest_list for snapshot in snapshots}

    def data_files(manifest: ManifestFile) -> list[str]:
        entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        return [entry.data_file.file_path for entry in entries]

    with ThreadPoolExecutor(_READERS) as executor:
        manifests = {
            manifest.manifest_path: manifest
            for listed in executor.map(lambda snapshot: snapshot.manifests(table.io), snapshots)
            for manifest in listed
        }
        needed |= manifests.keys()
        for files in executor.map(data_files, manifests.values()):
            needed.update(files)
    return {normalised(uri) for uri in needed}
