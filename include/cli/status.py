"""How each part of the development environment is at this moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import psutil

from cli import airflow_processes, postgres
from cli.airflow_api import ComponentHealth
from cli.settings import Settings
from localcloud import cloud
from localcloud.settings import CloudSettings

# Airflow's components: the name in its health report, and what their command line contains.
COMMANDS = {"scheduler": "scheduler", "triggerer": "triggerer", "dag_processor": "dag-processor"}
API_SERVER_COMMAND = "api_server"


@dataclass(frozen=True, slots=True)
class Component:
    """One line of `./modlake status`."""

    name: str
    state: str
    pid: int | None
    where: str

    @property
    def works(self) -> bool:
        return self.state in ("running", "healthy")


def components(settings: Settings, cloud_settings: CloudSettings) -> list[Component]:
    """The local cloud, PostgreSQL and Airflow with its four processes."""
    servers = cloud.status(cloud_settings)
    parts = [
        Component(server.name, server.state, server.pid, server.endpoint)
        for server in (servers.s3, servers.rekognition)
    ]
    database = postgres.status(settings)
    parts.append(
        Component("PostgreSQL", "running", database.pid, str(database.socket_directory))
        if database
        else Component("PostgreSQL", "stopped", None, "")
    )
    return parts + _airflow(settings)


def _airflow(settings: Settings) -> list[Component]:
    started = airflow_processes.find(settings)
    leader = started.leader() if started else None
    if leader is None:
        return [Component("Airflow", "stopped", None, "")]
    pids = _pids(leader)
    health = airflow_processes.api(settings).health()
    state = "healthy" if health else "not answering"
    parts = [
        Component("Airflow", "running", leader.pid, f"log {airflow_processes.log_file(settings)}"),
        Component("API server", state, pids.get(API_SERVER_COMMAND), airflow_processes.address(settings)),
    ]
    for name, command in COMMANDS.items() if health else ():
        part = (health or {}).get(name) or ComponentHealth(healthy=False, heartbeat=None)
        state = "healthy" if part.healthy else "unhealthy"
        title = name.replace("_", " ").capitalize()
        parts.append(Component(title, state, pids.get(command), _age(part.heartbeat)))
    return parts


def _pids(leader: psutil.Process) -> dict[str, int]:
    pids = {}
    for child in leader.children():
        title = " ".join(child.cmdline())
        for command in (API_SERVER_COMMAND, *COMMANDS.values()):
            if command in title:
                pids[command] = child.pid
    return pids


def _age(heartbeat: str | None) -> str:
    if heartbeat is None:
        return "no heartbeat yet"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(heartbeat)).total_seconds()
    return f"heartbeat {seconds:.0f} s ago"
