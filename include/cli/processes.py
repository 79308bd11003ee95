"""Processes that one command starts and another stops: who they are, and that they are ours."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from localcloud.ports import why_taken
from modlake.exceptions import ModlakeTerminalError

# A descendant keeps it in its environment even when its parent has died and the tree is torn.
STARTED_BY = "MODLAKE_STARTED_BY"


@dataclass(frozen=True, slots=True)
class StartedProcess:
    """A process as it was started. A pid alone may belong to a stranger by now; with the time it cannot."""

    pid: int
    create_time: float
    token: str
    address: str

    @classmethod
    def read(cls, path: Path) -> StartedProcess | None:
        """The recorded process, or None when nothing (readable) is recorded."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    def leader(self) -> psutil.Process | None:
        """The process itself while it runs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.create_time) < 1 and _is_alive(process):
                return process
        return None

    def family(self) -> list[psutil.Process]:
        """The process and all its descendants that run, orphans included."""
        members = []
        leader = self.leader()
        if leader is not None:
            members = [leader, *_children(leader)]
        for process in psutil.process_iter():
            if process not in members and _carries(process, self.token):
                members.append(process)
        return members


def start(
    command: Sequence[str],
    *,
    address: str,
    environment: Mapping[str, str],
    log: Path,
    record: Path,
    directory: Path,
) -> StartedProcess:
    """Starts a server that outlives this process and records it; its output goes to `log`."""
    token = os.urandom(16).hex()
    # Airflow's processes retitle themselves, which would overwrite the environment that other processes see.
    marked = {**environment, STARTED_BY: token, "SPT_NOENV": "1"}
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                env=marked,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    finally:
        signal.signal(signal.SIGINT, previous)
    started = StartedProcess(child.pid, psutil.Process(child.pid).create_time(), token, address)
    started.write(record)
    return started


def stop(started: StartedProcess, *, grace_seconds: float) -> int:
    """Ends the whole family, by force what is left after the grace; answers how many ended.

    Raises ModlakeTerminalError when even SIGKILL leaves something behind.
    """
    ended = _end(started, signal.SIGTERM, grace_seconds) | _end(started, signal.SIGKILL, 5.0)
    if left := started.family():
        pids = ", ".join(str(process.pid) for process in left)
        raise ModlakeTerminalError(f"Processes {pids} do not end, not even by SIGKILL; look at them with ps.")
    return len(ended)


def _end(started: StartedProcess, signal_number: signal.Signals, seconds: float) -> set[int]:
    signalled: set[int] = set()
    deadline = time.monotonic() + seconds
    # They may be starting others at this moment: look again until nothing is left.
    while (members := started.family()) and time.monotonic() < deadline:
        for process in members:
            if process.pid not in signalled:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal_number)
        signalled.update(process.pid for process in members)
        psutil.wait_procs(members, timeout=1)
    return signalled


def require_free_port(port: int, variable: str, name: str) -> None:
    """Raises ModlakeTerminalError, naming the variable that changes it, when the port is taken."""
    if reason := why_taken(port):
        raise ModlakeTerminalError(
            f"{name} cannot listen on 127.0.0.1:{port} ({reason}). "
            f"Stop what listens there, or set {variable} to a free port."
        )


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children(recursive=True) if _is_alive(child)]
    except psutil.NoSuchProcess:
        return []


def _carries(process: psutil.Process, token: str) -> bool:
    try:
        return process.environ().get(STARTED_BY) == token and _is_alive(process)
    except (psutil.Error, OSError):
        return False
