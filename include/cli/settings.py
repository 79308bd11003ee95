"""Where a checkout keeps its state and which port Airflow listens on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from modlake.exceptions import ModlakeTerminalError

CHECKOUT = Path(__file__).resolve().parents[2]
POLICIES = CHECKOUT / "include" / "policies"
DAG_ID = "moderate_images"
DAY_FORMAT = ["%Y-%m-%d"]
"""How days are written on the command line, as typer wants it."""

# Airflow's four components and the local cloud share the machine with the tasks.
TASKS_PER_CPU = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one checkout; everything the commands write lies under `home`."""

    home: Path
    airflow_port: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Reads MODLAKE_HOME and MODLAKE_AIRFLOW_PORT; raises ModlakeTerminalError when one is unusable."""
        values = os.environ if environment is None else environment
        home = Path(values.get("MODLAKE_HOME") or CHECKOUT / ".modlake").expanduser().resolve()
        if home.exists() and not home.is_dir():
            raise ModlakeTerminalError(
                f"MODLAKE_HOME={home} is not a directory; set it to a directory that may be created."
            )
        return cls(home=home, airflow_port=_port(values, "MODLAKE_AIRFLOW_PORT", default=8080))

    @property
    def airflow_home(self) -> Path:
        return self.home / "airflow"

    @property
    def postgres_home(self) -> Path:
        return self.home / "postgres"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def airflow_url(self) -> str:
        return f"http://127.0.0.1:{self.airflow_port}"

    @property
    def parallel_tasks(self) -> int:
        return TASKS_PER_CPU * max(2, os.cpu_count() or 1)


def _port(values: Mapping[str, str], name: str, *, default: int) -> int:
    text = values.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ModlakeTerminalError(f"{name}={text!r} is not a port; set it to a number from 1 to 65535.")
    return int(text)


def yesterday() -> date:
    """The newest day that is complete, in UTC."""
    return (datetime.now(UTC) - timedelta(days=1)).date()
