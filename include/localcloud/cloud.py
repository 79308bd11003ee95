"""Start, stop and look at the local cloud."""

from __future__ import annotations

import fcntl
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localcloud import credentials, seaweedfs
from localcloud.faults import s3_proxy
from localcloud.processes import Daemon
from localcloud.rekognition import behaviour
from localcloud.settings import CHECKOUT, CloudSettings

Report = Callable[[str], None]
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One of the servers; `unresponsive` is a live process that does not answer."""

    name: str
    state: Literal["running", "unresponsive", "stopped"]
    endpoint: str
    pid: int | None
    log_file: Path


@dataclass(frozen=True, slots=True)
class CloudStatus:
    s3: ServerStatus
    rekognition: ServerStatus
    s3_fault_proxy: ServerStatus | None = None

    @property
    def running(self) -> bool:
        servers = filter(None, (self.s3, self.rekognition, self.s3_fault_proxy))
        return all(server.state == "running" for server in servers)


@dataclass(frozen=True, slots=True)
class _Server:
    daemon: Daemon
    endpoint: str
    answers: Callable[[], bool]

    def status(self) -> ServerStatus:
        process = self.daemon.find()
        state: Literal["running", "unresponsive", "stopped"] = "stopped"
        if process is not None and self.answers():
            state = "running"
        elif process := self.daemon.find():  # it may have ended while it was asked
            state = "unresponsive"
        return ServerStatus(
            name=self.daemon.name,
            state=state,
            endpoint=self.endpoint,
            pid=process.pid if process else None,
            log_file=self.daemon.log_file,
        )


def start(settings: CloudSettings, report: Report = lambda _: None) -> None:
    """Start what is not running, wait until all servers answer, and make the buckets.

    Starting a running cloud changes nothing; a half-dead one is healed, and one that runs with other
    ports or keys is restarted. Raises LocalCloudError: a port is taken, a setting is wrong, or a server
    does not come up.
    """
    with _exclusive(settings):
        for directory in (settings.s3_data_dir, settings.answers_dir, settings.logs_dir):
            directory.mkdir(parents=True, exist_ok=True)
        behaviour.write_template(settings.cloud_dir)
        behaviour.load(settings.cloud_dir)  # a mistake in it is better told here than in a log
        keys_changed = credentials.write_owner(
            settings.credentials_file, settings.access_key, settings.secret_key
        )
        s3, rekognition, proxy = _servers(settings)
        if keys_changed:
            s3.daemon.stop()
        servers = [s3, rekognition]
        if settings.s3_fault_proxy:
            servers.append(proxy)
        else:
            proxy.daemon.stop()  # one of an earlier start holds the port of S3
        missing = [server for server in servers if not _keeps_running(server, report)]
        for server in missing:
            server.daemon.require_free_ports()
        for server in missing:
            report(f"starting {server.daemon.name} at {server.endpoint}")
            server.daemon.spawn()
        for server in missing:
            server.daemon.wait_until(server.answers, _PATIENCE_SECONDS)
        if s3 in missing:
            seaweedfs.make_ready(settings)
        report(f"local cloud: S3 at {settings.s3_endpoint}, Rekognition at {settings.rekognition_endpoint}")


def stop(settings: CloudSettings, report: Report = lambda _: None) -> None:
    """Stop the servers; data, jobs and answers stay. Stopping a stopped cloud changes nothing."""
    with _exclusive(settings):
        for server in reversed(_servers(settings)):  # first the one that uses the other
            if server.daemon.stop():
                report(f"stopped {server.daemon.name}")
        seaweedfs.remove_sockets(settings)


def status(settings: CloudSettings) -> CloudStatus:
    """Ask the servers how they are."""
    s3, rekognition, proxy = _servers(settings)
    return CloudStatus(s3.status(), rekognition.status(), proxy.status() if settings.s3_fault_proxy else None)


def environment(settings: CloudSettings) -> dict[str, str]:
    """The variables with which boto3 and the `aws` CLI talk to the local cloud instead of AWS."""
    return {
        "AWS_ACCESS_KEY_ID": settings.access_key,
        "AWS_SECRET_ACCESS_KEY": settings.secret_key,
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_REGION": settings.region,
        "AWS_ENDPOINT_URL_S3": settings.s3_endpoint,
        "AWS_ENDPOINT_URL_REKOGNITION": settings.rekognition_endpoint,
    }


def _servers(settings: CloudSettings) -> tuple[_Server, _Server, _Server]:
    """SeaweedFS, the stand-in and the fault proxy, in the order in which they are started."""
    s3 = _Server(seaweedfs.daemon(settings), settings.seaweedfs_endpoint, lambda: seaweedfs.answers(settings))
    rekognition = _Server(
        _rekognition(settings),
        settings.rekognition_endpoint,
        lambda: _pings(f"{settings.rekognition_endpoint}/ping"),
    )
    proxy = _Server(
        _s3_fault_proxy(settings), settings.s3_endpoint, lambda: _pings(settings.s3_endpoint + s3_proxy.PING)
    )
    return s3, rekognition, proxy


def _rekognition(settings: CloudSettings) -> Daemon:
    module, home = "localcloud.rekognition", f"--home={settings.home}"
    return Daemon(
        name="Rekognition stand-in",
        command=[
            sys.executable,
            "-m",
            module,
            home,
            f"--bind-host={settings.bind_host}",
            f"--port={settings.rekognition_port}",
            f"--s3-port={settings.s3_port}",
            f"--seaweedfs-port={settings.seaweedfs_port}",
            *(["--s3-fault-proxy"] if settings.s3_fault_proxy else []),
            f"--region={settings.region}",
        ],
        identity=(module, home),
        env={
            **_python_environment(),
            "MALLOC_MMAP_THRESHOLD_": "1000000",  # or glibc keeps the memory of large images
        },
        ports={settings.rekognition_port: "MODLAKE_REKOGNITION_PORT"},
        pid_file=settings.cloud_dir / "rekognition.pid",
        log_file=settings.logs_dir / "rekognition.log",
    )


def _s3_fault_proxy(settings: CloudSettings) -> Daemon:
    module, home = "localcloud.faults.s3_proxy", f"--home={settings.home}"
    return Daemon(
        name="S3 fault proxy",
        command=[
            sys.executable,
            "-m",
            module,
            home,
            f"--bind-host={settings.bind_host}",
            f"--port={settings.s3_port}",
            f"--upstream-port={settings.seaweedfs_s3_port}",
        ],
        identity=(module, home),
        env=_python_environment(),
        ports={settings.s3_port: "MODLAKE_S3_PORT"},
        pid_file=settings.cloud_dir / "s3-fault-proxy.pid",
        log_file=settings.logs_dir / "s3-fault-proxy.log",
    )


def _python_environment() -> dict[str, str]:
    # A profile or endpoint meant for AWS must not reach the servers' own S3 clients.
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**own, "PYTHONPATH": str(CHECKOUT / "include")}


def _pings(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 our own server's address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _keeps_running(server: _Server, report: Report) -> bool:
    process = server.daemon.find()
    if process is None:
        return False
    if server.daemon.has_command(process) and server.answers():
        return True
    report(
        f"restarting {server.daemon.name} (pid {process.pid}): it does not answer, or its settings changed"
    )
    server.daemon.stop()
    return False


@contextmanager
def _exclusive(settings: CloudSettings) -> Iterator[None]:
    """One start or stop at a time; the lock dies with its holder."""
    settings.cloud_dir.mkdir(parents=True, exist_ok=True)
    with (settings.cloud_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
