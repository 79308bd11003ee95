"""The Iceberg catalog, tried with a table that is gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

from cli.doctor.findings import Finding, failed, ok, warning
from cli.doctor.installation import Installation
from modlake.exceptions import ModlakeError
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

SCRATCH = "modlake_doctor_"


def check(installation: Installation) -> Iterator[Finding]:
    """Opens the catalog; writes, reads and drops a scratch table in a scratch namespace."""
    from modlake.lake.catalog import open_catalog

    catalog = open_catalog()
    yield ok("catalog", f"{type(catalog).__name__}, warehouse {installation.warehouse}")
    yield _scratch_table(catalog, installation)


def _scratch_table(catalog: Catalog, installation: Installation) -> Finding:
    import pyarrow as pa

    subject = "scratch table"
    rows = pa.table({"value": ["modlake doctor"]})
    namespace = f"{SCRATCH}{uuid4().hex[:12]}"
    identifier = f"{namespace}.scratch"
    catalog.create_namespace(namespace)
    try:
        table = catalog.create_table(identifier, rows.schema)
        try:
            table.append(rows)
            read = catalog.load_table(identifier).scan().to_arrow()
        finally:
            catalog.purge_table(identifier)
            is_clean = _swept(table.location(), installation)
    finally:
        catalog.drop_namespace(namespace)
    if read.to_pylist() != rows.to_pylist():
        return failed(
            subject, f"{read.num_rows} rows were read instead of the 1 written", "look at the catalog"
        )
    if not is_clean:
        mend = "remove them by hand; allow s3:DeleteObject if maintain_lake is to act (docs/maintenance.md)"
        return warning(
            subject, f"was written, read and dropped; objects below {table.location()} are left", mend
        )
    return ok(subject, f"{identifier} was written, read and dropped")


def _swept(location: str, installation: Installation) -> bool:
    """Removes what dropped tables leave: Arrow writes an empty object for a folder whose files it deletes."""
    if not installation.warehouse.startswith("s3://"):
        return True  # a table bucket looks after its objects
    try:
        for page in installation.store.list_objects(*split_s3_uri(as_folder_uri(location))):
            installation.store.delete(each.source_ref for each in page)
    except ModlakeError:
        return False
    return True
