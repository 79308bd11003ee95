"""The command `airflow`: Airflow's own command line on the database of this state directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cli import postgres
from cli.airflow_environment import airflow_environment
from cli.settings import Settings
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError


def run(settings: Settings, cloud: CloudSettings, arguments: Sequence[str]) -> NoReturn:
    """Becomes `airflow …`, so that exit code, signals and terminal are Airflow's own.

    Raises ModlakeTerminalError when the database is not running.
    """
    database = postgres.status(settings)
    if database is None:
        raise ModlakeTerminalError("Airflow's database is not running: start it with ./modlake up.")
    environment = airflow_environment(settings, cloud, database)
    command = [sys.executable, "-P", "-m", "airflow", *arguments]
    os.execve(sys.executable, command, environment)  # noqa: S606  no shell on purpose
