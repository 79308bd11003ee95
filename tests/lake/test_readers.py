"""The lake is read by tools that know nothing of Modlake."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import duckdb
import duckdb_extensions
import polars as pl
import pytest
from pyiceberg.catalog import Catalog

from modlake.lake.catalog import ensure_tables
from modlake.lake.decisions import DayDecisions, read_published
from modlake.lake.publish import publish_day
from modlake.lake.schemas import PUBLISHED_TABLES
from tests.lake.conftest import Lake
from tests.support.days import DAY, SMOKING
from tests.support.labelled_days import policy, publish_labels

Reader = Callable[[Catalog, str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    for extension in ("avro", "iceberg"):
        duckdb_extensions.import_extension(extension)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; LOAD avro; LOAD iceberg")
    return connection


@pytest.fixture(params=["pyiceberg", "duckdb", "polars"])
def read(request: pytest.FixtureRequest, connection: duckdb.DuckDBPyConnection) -> Reader:
    def with_pyiceberg(catalog: Catalog, name: str) -> list[dict[str, Any]]:
        return catalog.load_table(f"moderation.{name}").scan().to_arrow().to_pylist()

    def with_duckdb(catalog: Catalog, name: str) -> list[dict[str, Any]]:
        location = catalog.load_table(f"moderation.{name}").metadata_location
        return connection.execute("SELECT * FROM iceberg_scan(?)", [location]).to_arrow_table().to_pylist()

    def with_polars(catalog: Catalog, name: str) -> list[dict[str, Any]]:
        return pl.scan_iceberg(catalog.load_table(f"moderation.{name}")).collect().to_dicts()

    return {"pyiceberg": with_pyiceberg, "duckdb": with_duckdb, "polars": with_polars}[request.param]


KEYS = ["a b.jpg", 'q"+%#?é😀.jpg', "c.jpg", "d.webp"]


def test_a_day_reads_the_same_everywhere(lake: Lake, catalog: Catalog, read: Reader) -> None:
    publish_day(catalog, *lake.audited(KEYS, images_per_manifest=2))
    images = {row["key"].removeprefix(f"uploads/{DAY}/"): row for row in read(catalog, "images")}
    assert set(images) == set(KEYS)
    assert {key: row["outcome"] for key, row in images.items()} == dict.fromkeys(KEYS, "judged") | {
        "d.webp": "ineligible"
    }
    assert all(row["day"] == DAY for row in images.values())
    assert images["d.webp"]["error_code"] == "UNSUPPORTED_FORMAT"
    assert images["a b.jpg"]["judged_at"].isoformat() == "2026-11-22T01:05:00.250000+00:00"
    labels = read(catalog, "labels")
    assert len(labels) == 6
    assert {(row["label"], row["l1"], row["l3"], row["confidence"]) for row in labels} == {
        (one["Name"], "Drugs & Tobacco", "Smoking" if one["TaxonomyLevel"] == 3 else None, 99.0)
        for one in SMOKING
    }
    assert [row["image_count"] for row in sorted(read(catalog, "jobs"), key=lambda job: job["shard"])] == [
        2,
        1,
    ]
    (run,) = read(catalog, "runs")
    assert (run["listed"], run["model_versions"]) == (4, ["7.0"])


def test_a_replaced_day_and_an_emptied_one_read_the_same_everywhere(
    lake: Lake, catalog: Catalog, read: Reader
) -> None:
    publish_day(catalog, *lake.audited(KEYS))
    publish_day(catalog, *lake.audited(["new.jpg"], run_id="run-2"))
    for table in PUBLISHED_TABLES:
        assert {row["run_id"] for row in read(catalog, table.name)} == {"run-2"}
    publish_day(catalog, *lake.audited([], run_id="run-3"))
    assert [len(read(catalog, table.name)) for table in PUBLISHED_TABLES] == [0, 0, 0, 1]


def test_a_table_that_never_had_rows_reads_empty(lake: Lake, catalog: Catalog, read: Reader) -> None:
    publish_day(catalog, *lake.audited([]))
    assert [len(read(catalog, table.name)) for table in PUBLISHED_TABLES] == [0, 0, 0, 1]


def test_files_of_before_a_change_of_columns_are_read_by_field_id(
    lake: Lake, catalog: Catalog, read: Reader
) -> None:
    publish_day(catalog, *lake.audited(KEYS))
    table = catalog.load_table("moderation.images")
    with table.update_schema() as update:
        update.rename_column("etag", "entity_tag")
    with table.update_schema() as update:
        update.add_column("etag", table.schema().find_type("source_ref"))
    rows = read(catalog, "images")
    assert len(rows) == 4
    assert all(row["entity_tag"] and row["etag"] is None for row in rows)


def test_reasons_of_before_and_after_their_confidence_may_be_null_are_read_alike(
    catalog: Catalog, read: Reader
) -> None:
    with catalog.load_table("moderation.decisions").update_schema(allow_incompatible_changes=True) as update:
        update.update_column("reasons.element.confidence", required=True)
    for day, confidence in ((DAY, 95.0), (DAY + timedelta(days=1), None)):
        publish_labels(catalog, day, {"a.jpg": {"Explicit": confidence}, "d.jpg": {}})
        deciding = DayDecisions(catalog, read_published(catalog, day), [policy(block_at=None)])
        list(deciding.batches())
        deciding.commit("enf-1")
        ensure_tables(catalog)
    reasons = {(row["day"], row["verdict"]): row["reasons"] for row in read(catalog, "decisions")}
    assert reasons == {
        (DAY, "block"): [{"label": "Explicit", "confidence": 95.0}],
        (DAY, "allow"): [],
        (DAY + timedelta(days=1), "block"): [{"label": "Explicit", "confidence": None}],
        (DAY + timedelta(days=1), "allow"): [],
    }
