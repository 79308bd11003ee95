from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from localcloud.errors import LocalCloudError
from localcloud.processes import Daemon

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


@pytest.fixture
def daemon_of(tmp_path: Path) -> Iterator[Callable[[str], Daemon]]:
    made: list[Daemon] = []

    def make(code: str) -> Daemon:
        marker = f"--marker={tmp_path}"
        made.append(
            Daemon(
                name="Sleeper",
                command=[sys.executable, "-c", code, marker],
                identity=(sys.executable, marker),
                env=os.environ,
                ports={},
                pid_file=tmp_path / "sleeper.pid",
                log_file=tmp_path / "sleeper.log",
            )
        )
        return made[-1]

    yield make
    for daemon in made:
        daemon.stop(patience_seconds=0)


def up(daemon: Daemon) -> bool:
    return "up" in daemon.log_file.read_text()


def test_a_detached_process_is_found_and_stopped(daemon_of: Callable[[str], Daemon]) -> None:
    daemon = daemon_of(SLEEP)
    process = daemon.spawn()
    assert daemon.find() == process
    daemon.wait_until(lambda: up(daemon), 10)  # a process that only just begins has no command line yet
    assert daemon.has_command(process)
    assert os.getsid(process.pid) == process.pid
    assert daemon.stop()
    assert not psutil.pid_exists(process.pid)
    assert daemon.find() is None
    assert not daemon.pid_file.exists()
    assert not daemon.stop()


def test_what_ignores_sigterm_is_killed(daemon_of: Callable[[str], Daemon]) -> None:
    daemon = daemon_of(STUBBORN)
    process = daemon.spawn()
    daemon.wait_until(lambda: up(daemon), 10)
    daemon.stop(patience_seconds=0.3)
    assert not psutil.pid_exists(process.pid)


def test_an_unrecorded_process_is_found_by_its_command(daemon_of: Callable[[str], Daemon]) -> None:
    daemon = daemon_of(SLEEP)
    process = daemon.spawn()
    daemon.wait_until(lambda: up(daemon), 10)
    daemon.pid_file.unlink()
    assert daemon.find() == process
    assert json.loads(daemon.pid_file.read_text())["pid"] == process.pid


def test_a_process_that_ends_while_starting_tells_its_log(daemon_of: Callable[[str], Daemon]) -> None:
    daemon = daemon_of("raise SystemExit('no disk left')")
    daemon.spawn()
    with pytest.raises(
        LocalCloudError, match=r"Sleeper ended while starting: see .*sleeper\.log\nno disk left"
    ):
        daemon.wait_until(lambda: False, 10)


def test_a_process_that_stays_silent_is_told(daemon_of: Callable[[str], Daemon]) -> None:
    daemon = daemon_of(SLEEP)
    daemon.spawn()
    with pytest.raises(LocalCloudError, match="did not answer within 0 s"):
        daemon.wait_until(lambda: False, 0)
