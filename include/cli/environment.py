"""The development environment as a whole: local cloud, PostgreSQL, Airflow."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from cli import airflow_database, airflow_processes, postgres
from cli.airflow_environment import airflow_environment
from cli.console import Steps
from cli.settings import Settings
from localcloud import cloud
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Keeps a second command from starting or stopping things; the lock ends with its holder."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ModlakeTerminalError(
                f"Another command is starting or stopping things in {settings.home}; wait until it has ended."
            ) from error
        yield


def up(settings: Settings, cloud_settings: CloudSettings) -> None:
    """Starts whatever does not run and waits until all of it works."""
    with alone(settings), Steps() as steps:
        environment = start_services(settings, cloud_settings, steps)
        with steps.step("Airflow") as step:
            airflow_processes.start(settings, environment)
            airflow_processes.wait_until_ready(settings, step.report)
            step.result = airflow_processes.address(settings)


def down(settings: Settings, cloud_settings: CloudSettings) -> None:
    """Stops everything of this state directory; the data stays."""
    with alone(settings), Steps() as steps:
        with steps.step("Airflow") as step:
            step.result = f"{airflow_processes.stop(settings)} processes ended"
        with steps.step("PostgreSQL") as step:
            step.result = "stopped" if postgres.stop(settings) else "was not running"
        with steps.step("Local cloud") as step:
            cloud.stop(cloud_settings, step.report)
            step.result = "stopped"


def start_services(
    settings: Settings,
    cloud_settings: CloudSettings,
    steps: Steps,
    when_cloud_runs: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Starts the cloud and the prepared database side by side; answers the environment for Airflow."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        cloud_started = pool.submit(_start_cloud, cloud_settings, steps, when_cloud_runs)
        environment = pool.submit(_prepare_database, settings, cloud_settings, steps)
        cloud_started.result()
        return environment.result()


def _start_cloud(settings: CloudSettings, steps: Steps, when_it_runs: Callable[[], None]) -> None:
    with steps.step("Local cloud") as step:
        cloud.start(settings, step.report)
        step.result = f"S3 {settings.s3_endpoint}, Rekognition {settings.rekognition_endpoint}"
    when_it_runs()


def _prepare_database(settings: Settings, cloud_settings: CloudSettings, steps: Steps) -> dict[str, str]:
    with steps.step("PostgreSQL") as step:
        database = postgres.start(settings)
        step.result = f"unix socket in {database.socket_directory}"
    environment = airflow_environment(settings, cloud_settings, database)
    with steps.step("Airflow database") as step:
        changed = airflow_database.prepare(settings, cloud_settings, database, environment)
        step.result = "schema, connection, variables, pools " + ("put in place" if changed else "in place")
    return environment
