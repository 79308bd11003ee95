"""Background processes that outlive the command which started them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from localcloud.errors import LocalCloudError
from localcloud.ports import why_taken

_LOG_LIMIT_BYTES = 20_000_000
_LOG_TAIL_LINES = 15
_CREATE_TIME_TOLERANCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """A detached process, recognised by its pid file or, when that was lost, by its command line.

    `identity` are the arguments that no other process carries (program and state directory).
    `ports` maps each port it listens on to the environment variable that changes it.
    """

    name: str
    command: list[str]
    identity: tuple[str, ...]
    env: Mapping[str, str]
    ports: Mapping[int, str]
    pid_file: Path
    log_file: Path

    def find(self) -> psutil.Process | None:
        """The running process, or None."""
        return self._recorded() or self._orphan()

    def has_command(self, process: psutil.Process) -> bool:
        """Whether the process runs with exactly this command (ports may have changed since)."""
        try:
            return list(process.cmdline()) == self.command
        except psutil.Error:
            return False

    def require_free_ports(self) -> None:
        """Raise LocalCloudError, naming the variable to set, when one of its ports is taken."""
        for port, variable in self.ports.items():
            if reason := why_taken(port):
                raise LocalCloudError(
                    f"{self.name} can't listen on port {port} ({reason}): "
                    f"set {variable} to a free port, or stop what uses it"
                )

    def spawn(self) -> psutil.Process:
        """Start the process in a session of its own and record it."""
        _rotate(self.log_file)
        with self.log_file.open("ab") as log:
            child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.env),
                cwd=self.pid_file.parent,
                start_new_session=True,
            )
        process = psutil.Process(child.pid)
        child.returncode = 0  # it outlives us on purpose: keeps Popen from warning and from waiting
        self._record(process)
        return process

    def stop(self, patience_seconds: float = 15.0) -> bool:
        """SIGTERM, then SIGKILL after the patience; True if it was running."""
        process = self.find()
        if process is not None:
            _end(process, patience_seconds)
        self.pid_file.unlink(missing_ok=True)
        return process is not None

    def wait_until(self, answers: Callable[[], bool], patience_seconds: float) -> None:
        """Wait until the process answers.

        Raises LocalCloudError when it ends or stays silent, with the end of its log.
        """
        deadline = time.monotonic() + patience_seconds
        while not answers():
            if self.find() is None:
                raise LocalCloudError(
                    f"{self.name} ended while starting: see {self.log_file}\n{self._log_tail()}"
                )
            if time.monotonic() > deadline:
                raise LocalCloudError(
                    f"{self.name} did not answer within {patience_seconds:.0f} s: see {self.log_file}, "
                    f"then start again\n{self._log_tail()}"
                )
            time.sleep(0.05)

    def _recorded(self) -> psutil.Process | None:
        try:
            record = json.loads(self.pid_file.read_text(encoding="utf-8"))
            process = psutil.Process(record["pid"])
            age = abs(process.create_time() - record["create_time"])
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None
        return process if age < _CREATE_TIME_TOLERANCE_SECONDS and _alive(process) else None

    def _orphan(self) -> psutil.Process | None:
        """A process of ours that was started but never recorded (the start was interrupted)."""
        for process in psutil.process_iter(["cmdline", "uids"]):
            command = process.info["cmdline"] or []
            uids = process.info["uids"]
            if uids and uids.real == os.getuid() and set(self.identity) <= set(command) and _alive(process):
                self._record(process)
                return process
        return None

    def _record(self, process: psutil.Process) -> None:
        draft = self.pid_file.with_suffix(".tmp")
        draft.write_text(
            json.dumps({"pid": process.pid, "create_time": process.create_time()}), encoding="utf-8"
        )
        draft.replace(self.pid_file)

    def _log_tail(self) -> str:
        text = self.log_file.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-_LOG_TAIL_LINES:])


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _end(process: psutil.Process, patience_seconds: float) -> None:
    """Does not wait for a zombie: its parent takes it away in its own time."""
    deadline = time.monotonic() + patience_seconds
    with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        process.terminate()
        while _alive(process):
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(0.02)
        process.wait(0)  # if the zombie is our own child


def _rotate(log_file: Path) -> None:
    if log_file.exists() and log_file.stat().st_size > _LOG_LIMIT_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))
