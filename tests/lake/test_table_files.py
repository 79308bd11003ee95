"""Which data files of a table are read at all: by their partition and by their statistics."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import ManifestFile
from pyiceberg.transforms import BucketTransform

from modlake.lake.filters import all_of, equal_to
from modlake.lake.publish import publish_day
from modlake.lake.table_files import TableFiles
from tests.lake.conftest import Lake
from tests.support.days import DAY

NEXT_DAY = DAY + timedelta(days=1)
COLUMNS = pa.schema([("source_ref", pa.string())])
OF_NEXT_DAY = equal_to("day", NEXT_DAY.isoformat())


@pytest.fixture
def published(lake: Lake, catalog: Catalog) -> Catalog:
    """Two days of a file an image."""
    for day, run_id in ((DAY, "run-1"), (NEXT_DAY, "run-2")):
        publish_day(
            catalog, *lake.audited(["a.jpg", "b.jpg", "c.jpg"], day=day, run_id=run_id, images_per_manifest=1)
        )
    return catalog


def images(catalog: Catalog, *arguments: Any) -> TableFiles:
    return TableFiles(catalog.load_table("moderation.images"), *arguments)


def keys(files: TableFiles) -> list[str]:
    return [ref[-5:] for rows in files.read() for ref in rows["source_ref"].to_pylist()]


def test_files_whose_statistics_rule_a_match_out_are_set_aside(published: Catalog) -> None:
    b = f"s3://ugc/uploads/{NEXT_DAY}/b.jpg"
    assert len(images(published, equal_to("run_id", "run-2"), COLUMNS)) == 3
    assert len(images(published, equal_to("run_id", "run-3"), COLUMNS)) == 0
    assert keys(images(published, all_of(), COLUMNS, (b, b))) == ["b.jpg"]


def test_manifests_of_other_days_are_not_read(published: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    fetch = ManifestFile.fetch_manifest_entry

    def count(self: ManifestFile, *arguments: Any, **options: Any) -> Any:
        read.append(self.manifest_path)
        return fetch(self, *arguments, **options)

    monkeypatch.setattr(ManifestFile, "fetch_manifest_entry", count)
    assert len(images(published, all_of(), COLUMNS)) == 6
    assert len(read) == 2
    read.clear()
    assert len(images(published, OF_NEXT_DAY, COLUMNS)) == 3
    assert len(read) == 1


def test_a_table_that_somebody_partitions_otherwise_is_read_the_same(published: Catalog) -> None:
    with published.load_table("moderation.images").update_spec() as update:
        update.add_field("run_id", BucketTransform(4), "run_id_bucket")
    assert keys(images(published, OF_NEXT_DAY, COLUMNS)) == ["a.jpg", "b.jpg", "c.jpg"]
