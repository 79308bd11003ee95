"""Brings Airflow's database into the state the pipeline needs: schema, connection, variables, pools."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from psycopg import sql

from cli import airflow_environment
from cli.log_files import last_lines
from cli.postgres import DATABASE, Postgres
from cli.settings import CHECKOUT, Settings
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError


def prepare(
    settings: Settings, cloud: CloudSettings, database: Postgres, environment: Mapping[str, str]
) -> bool:
    """Migrates and fills the database unless it is in that state; whether there was something to do.

    Variables that exist keep their values; the connection follows the local cloud's ports.
    """
    contents: dict[str, dict[str, Any]] = {
        "connections": airflow_environment.connections(cloud),
        "variables": airflow_environment.variables(),
        "pools": airflow_environment.pools(),
    }
    wanted = _fingerprint(contents)
    if _recorded(database) == wanted:
        return False
    settings.logs.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, content in contents.items():
        files[name] = settings.airflow_home / f"{name}.json"
        files[name].touch(mode=0o600)
        files[name].write_text(json.dumps(content, indent=2))
    _run(
        [
            ["db", "migrate"],
            ["connections", "import", "--overwrite", str(files["connections"])],
            ["variables", "import", "--action-on-existing-key", "skip", str(files["variables"])],
            ["pools", "import", str(files["pools"])],
        ],
        environment=environment,
        log=settings.logs / "airflow-database.log",
    )
    _record(database, wanted)
    return True


def _run(commands: list[list[str]], *, environment: Mapping[str, str], log: Path) -> None:
    with log.open("wb") as output:
        ended = subprocess.run(
            [sys.executable, "-m", "cli.airflow_commands", *map(json.dumps, commands)],
            env={**environment, "PYTHONPATH": str(CHECKOUT / "include")},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if ended.returncode != 0:
        raise ModlakeTerminalError(
            f"Preparing Airflow's database failed (exit code {ended.returncode}). Its log ends in:\n"
            f"{last_lines(log, 15)}\nThe whole log is {log}."
        )


def _fingerprint(contents: Mapping[str, Any]) -> str:
    state = json.dumps([version("apache-airflow-core"), contents], sort_keys=True)
    return hashlib.sha256(state.encode()).hexdigest()


def _recorded(database: Postgres) -> str | None:
    # Kept in the database itself, so that it goes where the database goes.
    with database.connect() as connection:
        row = connection.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (DATABASE,)
        ).fetchone()
    return row[0] if row else None


def _record(database: Postgres, fingerprint: str) -> None:
    with database.connect() as connection:
        connection.execute(
            sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(DATABASE), sql.Literal(fingerprint))
        )
