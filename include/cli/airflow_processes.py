"""Airflow's processes: `airflow standalone`, detached, with the four components it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cli import processes
from cli.airflow_api import AirflowApi
from cli.credentials import Credentials
from cli.log_files import last_lines
from cli.settings import DAG_ID, Settings
from modlake.exceptions import ModlakeTerminalError

COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
READY_WITHIN_SECONDS = 300.0
# Tasks may be in the middle of a call; longer than Airflow's own grace for them.
STOP_GRACE_SECONDS = 20.0


def log_file(settings: Settings) -> Path:
    return settings.logs / "airflow.log"


def find(settings: Settings) -> processes.StartedProcess | None:
    """What was started for this state directory, running or not."""
    return processes.StartedProcess.read(_record(settings))


def is_running(settings: Settings) -> bool:
    started = find(settings)
    return started is not None and started.leader() is not None


def address(settings: Settings) -> str:
    """Where Airflow listens: it keeps its port until it is stopped, whatever the setting says by then."""
    started = find(settings)
    return started.address if started else settings.airflow_url


def api(settings: Settings) -> AirflowApi:
    return AirflowApi(address(settings), Credentials.of(settings).admin_password)


def start(settings: Settings, environment: Mapping[str, str]) -> None:
    """Starts Airflow unless it runs; raises ModlakeTerminalError when its port is taken."""
    started = find(settings)
    if started is not None:
        if started.leader() is not None:
            return
        processes.stop(started, grace_seconds=STOP_GRACE_SECONDS)  # what a crash has left over
    processes.require_free_port(settings.airflow_port, "MODLAKE_AIRFLOW_PORT", "Airflow")
    settings.logs.mkdir(parents=True, exist_ok=True)
    processes.start(
        [sys.executable, "-m", "airflow", "standalone"],
        address=settings.airflow_url,
        environment=environment,
        log=log_file(settings),
        record=_record(settings),
        directory=settings.airflow_home,
    )


def wait_until_ready(settings: Settings, report: Callable[[str], None]) -> None:
    """Waits until every component is healthy and the DAG is there.

    Raises ModlakeTerminalError when Airflow ends, the DAG cannot be imported, or it takes too long.
    """
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    client = api(settings)
    started_at = _started_at(settings)
    while (missing := _missing(client, started_at)) is not None:
        report(f"waiting for the {missing}")
        if not is_running(settings):
            raise ModlakeTerminalError(
                f"Airflow ended while starting. Its log ends in:\n{last_lines(log_file(settings), 20)}\n"
                f"The whole log is {log_file(settings)}; run ./modlake up again when mended."
            )
        if time.monotonic() > deadline:
            raise ModlakeTerminalError(
                f"Airflow is still waiting for the {missing} after {READY_WITHIN_SECONDS:.0f} s. "
                f"Look into {log_file(settings)}, then run ./modlake down and ./modlake up."
            )
        time.sleep(0.5)


def stop(settings: Settings) -> int:
    """Ends Airflow's processes of this state directory and no others; answers how many."""
    started = find(settings)
    if started is None:
        return 0
    ended = processes.stop(started, grace_seconds=STOP_GRACE_SECONDS)
    _record(settings).unlink(missing_ok=True)
    return ended


def _started_at(settings: Settings) -> datetime:
    started = find(settings)
    return datetime.fromtimestamp(started.create_time if started else 0, UTC)


def _record(settings: Settings) -> Path:
    return settings.airflow_home / "process.json"


def _missing(client: AirflowApi, started_at: datetime) -> str | None:
    health = client.health()
    if health is None:
        return "API server"
    for name in COMPONENTS:
        component = health.get(name)
        if component is None or not component.healthy or not _is_since(started_at, component.heartbeat):
            return name.replace("_", " ")
    errors = client.get("importErrors")["import_errors"]
    if news := [error for error in errors if _is_since(started_at, error["timestamp"])]:
        raise ModlakeTerminalError(
            "Airflow cannot import "
            + "\n".join(f"{error['filename']}:\n{error['stack_trace'].rstrip()}" for error in news)
            + "\nMend it; Airflow reads the file again within half a minute."
        )
    dag = client.find(f"dags/{DAG_ID}")
    if dag is None or not _is_since(started_at, dag["last_parsed_time"]):
        return f"DAG {DAG_ID}"
    return None


def _is_since(started_at: datetime, timestamp: str | None) -> bool:
    """Whether it tells of this Airflow: the database remembers the ones before, too."""
    return timestamp is None or datetime.fromisoformat(timestamp) >= started_at
