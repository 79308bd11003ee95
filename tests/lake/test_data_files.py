from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.table import Table

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.data_files import describe_files
from modlake.pipeline import landed_schemas
from modlake.pipeline.parquet import encode_parquet
from tests.support.days import DAY

MEND = "Write them anew."


@pytest.fixture
def labels(catalog: Catalog) -> Table:
    return catalog.load_table("moderation.labels")


def label_file(folder: Path, name: str, schema: pa.Schema = landed_schemas.LABELS, **changes: object) -> str:
    told = {
        "day": DAY,
        "source_ref": f"s3://ugc/{name}.jpg",
        "label": "Smoking",
        "confidence": 98.5,
        "run_id": "run-1",
    }
    rows = landed_schemas.assemble(schema, 3, told | changes)
    path = folder / f"{name}.parquet"
    path.write_bytes(encode_parquet(rows))
    return f"file://{path}"


def test_files_are_described_as_pyiceberg_does_one_by_one(labels: Table, tmp_path: Path) -> None:
    other_order = pa.schema(list(landed_schemas.LABELS)[::-1])
    uris = [label_file(tmp_path, name, label=name) for name in "abc"]
    uris += [label_file(tmp_path, name, other_order, confidence=None) for name in "de"]
    described = describe_files(labels, uris, DAY, MEND)
    assert list(map(str, described)) == [
        str(parquet_file_to_data_file(labels.io, labels.metadata, uri)) for uri in uris
    ]
    assert described[1].record_count == 3
    assert described[1].lower_bounds[3] == b"b"


def test_a_file_of_another_schema_behind_fitting_ones_is_refused(labels: Table, tmp_path: Path) -> None:
    fields = list(landed_schemas.LABELS)
    fields[2] = landed_schemas.required(3, "label", pa.int64())
    uris = [label_file(tmp_path, name) for name in "ab"]
    uris.append(label_file(tmp_path, "c", pa.schema(fields), label=1))
    with pytest.raises(
        ModlakeTerminalError, match=r"(?s)c\.parquet can't become part of labels: .*Write them anew"
    ):
        describe_files(labels, uris, DAY, MEND)


def test_a_file_of_another_day_behind_fitting_ones_is_refused(labels: Table, tmp_path: Path) -> None:
    uris = [label_file(tmp_path, name) for name in "ab"]
    uris.append(label_file(tmp_path, "c", day=DAY.replace(day=1)))
    with pytest.raises(ModlakeTerminalError, match=r"c\.parquet holds rows of 2026-11-01, not of 2026-11-21"):
        describe_files(labels, uris, DAY, MEND)
