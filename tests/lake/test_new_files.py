from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
from pyiceberg.catalog import Catalog

from modlake.lake.data_files import describe_files
from modlake.lake.new_files import NewFiles
from modlake.lake.schemas import ENFORCEMENTS_TABLE
from tests.support.days import DAY

ROW = {
    "day": DAY,
    "enforcement_id": "enf-1",
    "run_id": "run-1",
    "policy": "house",
    "policy_version": "1",
    "mode": "live",
    "verdict": "allow",
    "images": 1,
    "share": 1.0,
    "decided_at": datetime(2026, 11, 22, tzinfo=UTC),
    "newly_hit": 0,
    "released": 0,
    "unchanged": 1,
}


def test_rows_are_cut_into_files_and_none_is_without_any(catalog: Catalog) -> None:
    table = catalog.load_table(ENFORCEMENTS_TABLE.identifier)
    files = NewFiles(table, DAY, "made-up", 2)
    for rows in (0, 2, 0, 1, 0, 1, 0):
        files.add(pa.Table.from_pylist([ROW] * rows, ENFORCEMENTS_TABLE.row_schema))
    described = describe_files(table, files.finish(), DAY, "Look.")
    assert [file.record_count for file in described] == [2, 2]
    assert files.rows == 4


def test_what_is_discarded_is_gone(catalog: Catalog) -> None:
    table = catalog.load_table(ENFORCEMENTS_TABLE.identifier)
    files = NewFiles(table, DAY, "made-up", 1)
    files.add(pa.Table.from_pylist([ROW], ENFORCEMENTS_TABLE.row_schema))
    (uri,) = list(files.finish())
    files.discard()
    assert not table.io.new_input(uri).exists()
    assert files.finish() == []
