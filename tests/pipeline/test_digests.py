from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from modlake.pipeline.digests import TableDigest

ROWS: dict[str, list[Any]] = {
    "text": ["a", None, "", "é", "bc"],
    "number": [1, 2, None, 4, 5],
    "share": [0.5, None, 2.0, 3.0, 4.0],
    "day": [date(2026, 11, 21)] * 5,
    "time": [datetime(2026, 11, 21, tzinfo=UTC)] * 5,
    "nothing": [None] * 5,
}
TYPES = {
    "text": pa.string(),
    "number": pa.int64(),
    "share": pa.float64(),
    "day": pa.date32(),
    "time": pa.timestamp("us", "UTC"),
    "nothing": pa.string(),
}


def digest(*tables: pa.Table) -> str:
    sha256 = TableDigest()
    for table in tables:
        sha256.update(table)
    return sha256.hexdigest()


def table(**changes: list[Any]) -> pa.Table:
    return pa.table({name: pa.array(values, TYPES[name]) for name, values in (ROWS | changes).items()})


def test_chunks_and_slices_do_not_matter() -> None:
    whole = table()
    chunked = pa.concat_tables([whole.slice(0, 2), whole.slice(2)])
    longer = pa.concat_tables([whole.slice(3), whole, whole]).combine_chunks()
    assert digest(whole) == digest(chunked) == digest(longer.slice(2, 5))


@pytest.mark.parametrize(
    "changes",
    [
        {"text": ["a", "", "", "é", "bc"]},
        {"text": ["a", None, "é", "", "bc"]},
        {"text": ["a", None, "", "éb", "c"]},
        {"number": [1, 2, 0, 4, 5]},
        {"number": [1, None, 2, 4, 5]},
        {"share": [0.5, None, 2.0, 3.0, 4.5]},
        {"day": [date(2026, 11, 22)] * 5},
        {"nothing": [None, None, None, None, ""]},
    ],
)
def test_every_value_matters(changes: dict[str, list[Any]]) -> None:
    assert digest(table(**changes)) != digest(table())


def test_tables_do_not_run_into_each_other() -> None:
    assert digest(table().slice(0, 2), table().slice(2)) != digest(table())
    assert digest(table().rename_columns(["name", *TYPES][:6])) != digest(table())


def test_the_digest_of_some_rows_stays() -> None:
    assert digest(table()) == "5977842f68970e347fc4a5cc692368437e1ad3fc9287a1e868e333e1f99ed41a"
