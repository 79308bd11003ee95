"""`./modlake airflow …`: what reaches Airflow's own command line, and what comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import postgres
from cli.settings import CHECKOUT, Settings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory whose PostgreSQL runs."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), airflow_port=1)
    postgres.start(settings)
    yield settings.home
    postgres.stop(settings)


def airflow(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli", "airflow", *arguments],
        env={**os.environ, "MODLAKE_HOME": str(home), "PYTHONPATH": f"{CHECKOUT}/plugins:{CHECKOUT}/include"},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_sees_what_up_gives_airflow(home: Path) -> None:
    database = airflow(home, "config", "get-value", "database", "sql_alchemy_conn")
    assert database.returncode == 0, database.stderr
    running = postgres.status(Settings(home=home, airflow_port=1))
    assert running is not None
    assert database.stdout.strip() == running.sqlalchemy_url("psycopg2")


def test_options_and_exit_code_are_airflows_own(home: Path) -> None:
    explained = airflow(home, "dags", "trigger", "--help")
    assert explained.returncode == 0
    assert "Usage: airflow dags trigger" in explained.stdout
    refused = airflow(home, "dags", "nosuch")
    assert refused.returncode == 2
    assert "nosuch" in refused.stderr
