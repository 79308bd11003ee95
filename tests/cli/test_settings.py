from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.lake_environment import lake_environment
from cli.settings import CHECKOUT, Settings, yesterday
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError


def test_state_lies_in_the_checkout_by_default() -> None:
    settings = Settings.from_environment({})

    assert settings.home == CHECKOUT / ".modlake"
    assert settings.airflow_url == "http://127.0.0.1:8080"


def test_environment_moves_state_and_port(tmp_path: Path) -> None:
    settings = Settings.from_environment({"MODLAKE_HOME": str(tmp_path), "MODLAKE_AIRFLOW_PORT": "9080"})

    assert settings.airflow_home == tmp_path / "airflow"
    assert settings.airflow_url == "http://127.0.0.1:9080"


@pytest.mark.parametrize("port", ["eighty", "0", "65536", "-1", "80.5"])
def test_unusable_port_is_named(port: str) -> None:
    with pytest.raises(ModlakeTerminalError, match="MODLAKE_AIRFLOW_PORT"):
        Settings.from_environment({"MODLAKE_AIRFLOW_PORT": port})


def test_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ModlakeTerminalError, match="MODLAKE_HOME"):
        Settings.from_environment({"MODLAKE_HOME": str(tmp_path / "file")})


def test_yesterday_is_the_day_before_in_utc() -> None:
    assert yesterday() in {
        (datetime.now(UTC) - timedelta(days=1, seconds=second)).date() for second in (0, 5)
    }


@pytest.fixture
def cloud(tmp_path: Path) -> CloudSettings:
    return CloudSettings(home=tmp_path, s3_port=18333, rekognition_port=18334, seaweedfs_port=19000)


def test_embedded_catalog_is_the_default(cloud: CloudSettings) -> None:
    variables = lake_environment(cloud, {"HOME": "/root"})

    assert variables["PYICEBERG_CATALOG__MODLAKE__TYPE"] == "sql"
    assert variables["PYICEBERG_CATALOG__MODLAKE__URI"] == f"sqlite:///{cloud.home}/catalog.db"
    assert variables["PYICEBERG_CATALOG__MODLAKE__S3__ENDPOINT"] == "http://127.0.0.1:18333"
    assert "HOME" not in variables


def test_catalog_in_postgresql_keeps_the_local_warehouse(cloud: CloudSettings) -> None:
    uri = "postgresql+psycopg2://lake@db/catalog"

    variables = lake_environment(cloud, {"PYICEBERG_CATALOG__MODLAKE__URI": uri})

    assert variables["PYICEBERG_CATALOG__MODLAKE__URI"] == uri
    assert variables["PYICEBERG_CATALOG__MODLAKE__WAREHOUSE"] == "s3://modlake-lake/warehouse"


def test_catalog_of_another_type_inherits_nothing_local(cloud: CloudSettings) -> None:
    given = {"PYICEBERG_CATALOG__MODLAKE__TYPE": "glue"}

    assert lake_environment(cloud, given) == given
