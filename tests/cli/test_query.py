"""SQL over tables that pyiceberg has made, in a catalog and a warehouse on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog

from cli import query
from cli.query import Lake, open_lake
from cli.settings import Settings
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError

IMAGES = pa.table(
    {
        "day": pa.array([date(2026, 11, 21), date(2026, 11, 22)]),
        "source_ref": ['s3://b/it\'s 100% "odd".jpg', "s3://b/漢字.png"],
        "judged_at": pa.array([datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
    }
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, CloudSettings]:
    home = tmp_path_factory.mktemp("it's a home")
    cloud = CloudSettings(home=home, s3_port=18333, rekognition_port=18334, seaweedfs_port=19000)
    return Settings(home=home, airflow_port=1), cloud


@contextmanager
def _configured(catalog: Catalog) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYICEBERG_CATALOG__MODLAKE__TYPE", "sql")
        # pyiceberg has read the environment when it was imported, long before this test.
        patch.setattr("modlake.lake.catalog.open_catalog", lambda: catalog)
        yield


@pytest.fixture(scope="module")
def lake(settings: tuple[Settings, CloudSettings]) -> Iterator[Lake]:
    home = settings[0].home
    catalog = SqlCatalog("modlake", uri=f"sqlite:///{home}/catalog.db", warehouse=f"file://{home}/warehouse")
    catalog.create_namespace("moderation")
    catalog.create_table("moderation.images", IMAGES.schema).append(IMAGES)
    catalog.create_table("moderation.labels", IMAGES.schema)
    with _configured(catalog), open_lake(*settings) as opened:
        yield opened


def test_tables_are_there_by_their_names(lake: Lake) -> None:
    assert lake.query("SELECT * FROM images ORDER BY day").records() == IMAGES.to_pylist()


def test_table_without_a_snapshot_is_empty(lake: Lake) -> None:
    rows = lake.query("FROM labels")

    assert rows.columns == IMAGES.column_names
    assert rows.rows == []


def test_parameters_stand_for_values(lake: Lake) -> None:
    rows = lake.query("SELECT source_ref FROM images WHERE day = $day", day=date(2026, 11, 22))

    assert rows.rows == [("s3://b/漢字.png",)]


def test_columns_lists_every_table(lake: Lake) -> None:
    assert lake.columns().rows[:3] == [
        ("images", "day", "DATE"),
        ("images", "source_ref", "VARCHAR"),
        ("images", "judged_at", "TIMESTAMP WITH TIME ZONE"),
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP VIEW images",
        "CREATE TABLE t AS FROM images",
        "COPY images TO 'stolen.csv'",
        "EXPLAIN ANALYZE COPY images TO 'stolen.csv'",
        "SELECT 1; SELECT 2",
        "SET autoinstall_known_extensions = true",
        "",
    ],
)
def test_anything_but_one_select_is_refused(
    sql: str, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModlakeTerminalError, match="read only"):
        lake.query(sql)

    assert not (tmp_path / "stolen.csv").exists()


def test_errors_are_duckdbs_words(lake: Lake) -> None:
    with pytest.raises(ModlakeTerminalError, match='column "colour" not found'):
        lake.query("SELECT colour FROM images")


def test_unknown_table_lists_the_known_ones(lake: Lake) -> None:
    with pytest.raises(ModlakeTerminalError, match="The tables are images, labels"):
        lake.query("SELECT * FROM decisions")


def test_empty_lake_says_what_to_run(settings: tuple[Settings, CloudSettings]) -> None:
    with (
        _configured(SqlCatalog("modlake", uri="sqlite:///:memory:", warehouse="file:///nowhere")),
        open_lake(*settings) as lake,
        pytest.raises(ModlakeTerminalError, match=r"\./modlake demo"),
    ):
        lake.query("SELECT * FROM images")


def test_stopped_cloud_says_what_to_run(
    settings: tuple[Settings, CloudSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYICEBERG_CATALOG__MODLAKE__TYPE", raising=False)
    with pytest.raises(ModlakeTerminalError, match=r"\./modlake cloud start"), open_lake(*settings):
        pass


def test_extensions_come_from_the_wheels(settings: tuple[Settings, CloudSettings]) -> None:
    with query._duckdb(settings[0]) as connection:
        loaded = connection.execute(
            "SELECT extension_name, installed_from FROM duckdb_extensions() WHERE loaded"
        ).fetchall()
        from_wheels = {name: source for name, source in loaded if name in query.EXTENSIONS}
        autoinstall = connection.execute("SELECT current_setting('autoinstall_known_extensions')").fetchone()

    assert set(from_wheels) == set(query.EXTENSIONS)
    assert all("site-packages" in source for source in from_wheels.values())
    assert autoinstall == (False,)
