"""The commands as a person calls them: help, exit codes, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app

CHECKOUT = Path(__file__).parents[2]
COMMANDS = (
    "demo", "test", "up", "down", "status", "airflow", "doctor", "seed", "backfill", "query", "soak",
    "why", "undo", "policy", "policy check", "policy backtest", "policy apply", "policy schema",
    "cloud", "cloud start", "cloud stop", "cloud status", "cloud env",
)  # fmt: skip


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"MODLAKE_HOME": str(tmp_path / "home"), "MODLAKE_S3_PORT": "18333", "COLUMNS": "200"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])

    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize("command", [command for command in COMMANDS if " " not in command])
def test_help_gives_an_example(command: str) -> None:
    assert "Example: " in CliRunner().invoke(app, [command, "--help"]).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "SELECT 1"], "./modlake cloud start"),
        (["seed"], "./modlake cloud start"),
        (["airflow", "dags", "list"], "./modlake up"),
        (["backfill", "2026-11-20", "2026-11-21"], "./modlake up"),
        (["demo", "--day", (datetime.now(UTC) + timedelta(days=2)).date().isoformat()], "future"),
    ],
)
def test_known_error_is_one_message(arguments: list[str], message: str, environment: dict[str, str]) -> None:
    result = CliRunner().invoke(app, arguments, env=environment)

    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_debug_shows_where_an_error_comes_from(environment: dict[str, str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "seed"],
        env={
            **os.environ,
            **environment,
            "MODLAKE_DEBUG": "1",
            "PYTHONPATH": f"{CHECKOUT}/plugins:{CHECKOUT}/include",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_bad_day_is_a_usage_error(environment: dict[str, str]) -> None:
    result = CliRunner().invoke(app, ["demo", "--day", "yesterday"], env=environment)

    assert result.exit_code == 2


def test_status_of_nothing_is_a_failure_that_shows_every_part(environment: dict[str, str]) -> None:
    result = CliRunner().invoke(app, ["status"], env=environment)

    assert result.exit_code == 1
    for name in ("SeaweedFS", "Rekognition", "PostgreSQL", "Airflow"):
        assert name in result.stdout


def test_down_of_nothing_is_a_success(environment: dict[str, str]) -> None:
    assert CliRunner().invoke(app, ["down"], env=environment).exit_code == 0


def test_cloud_env_survives_the_shell(environment: dict[str, str]) -> None:
    secret = "it's a $secret"
    printed = CliRunner().invoke(app, ["cloud", "env"], env={**environment, "MODLAKE_SECRET_KEY": secret})

    read = subprocess.run(
        ["sh", "-c", f'{printed.stdout}\nprintf %s "$AWS_SECRET_ACCESS_KEY $AWS_ENDPOINT_URL_S3"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert read.stdout == f"{secret} http://127.0.0.1:18333"
