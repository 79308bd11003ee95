"""Whom `down` ends: what this state directory has started, and never a stranger."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cli import processes
from cli.processes import StartedProcess
from modlake.exceptions import ModlakeTerminalError

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# A parent that leaves a child behind, retitled as Airflow's workers are.
PARENT = """
import subprocess, sys, time
program = '''
import setproctitle, time
setproctitle.setproctitle("airflow worker")
print("ready", flush=True)
time.sleep(60)
'''
child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], StartedProcess]]:
    begun: list[StartedProcess] = []

    def _start(program: str) -> StartedProcess:
        begun.append(
            processes.start(
                [sys.executable, "-c", program],
                address="http://127.0.0.1:1",
                environment=os.environ,
                log=tmp_path / "log",
                record=tmp_path / "record.json",
                directory=tmp_path,
            )
        )
        return begun[-1]

    yield _start
    for process in begun:
        processes.stop(process, grace_seconds=0.1)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def _output(path: Path) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if text := path.read_text():
            return text
        time.sleep(0.02)
    raise AssertionError("the process has said nothing")


def _ends(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_started_process_is_recorded_and_found(
    start: Callable[[str], StartedProcess], tmp_path: Path
) -> None:
    started = start("import time; time.sleep(60)")

    read = StartedProcess.read(tmp_path / "record.json")

    assert read == started
    assert read is not None
    leader = read.leader()
    assert leader is not None
    assert leader.pid == started.pid
    assert os.getsid(started.pid) == started.pid  # Ctrl-C in our terminal does not reach it


def test_stop_ends_the_whole_tree(start: Callable[[str], StartedProcess], tmp_path: Path) -> None:
    started = start(PARENT)
    child = int(_output(tmp_path / "log"))

    assert processes.stop(started, grace_seconds=10) == 2

    assert _ends(started.pid)
    assert _ends(child)


def test_stop_finds_orphans(start: Callable[[str], StartedProcess], tmp_path: Path) -> None:
    started = start(PARENT)
    child = int(_output(tmp_path / "log"))
    psutil.Process(started.pid).kill()
    psutil.Process(started.pid).wait(5)

    processes.stop(started, grace_seconds=10)

    assert _ends(child)


def test_stop_kills_what_ignores_it(start: Callable[[str], StartedProcess], tmp_path: Path) -> None:
    started = start(STUBBORN)
    _output(tmp_path / "log")

    processes.stop(started, grace_seconds=0.2)

    assert _ends(started.pid)


def test_stranger_with_our_old_pid_is_left_alone(
    start: Callable[[str], StartedProcess], stranger: subprocess.Popen[bytes]
) -> None:
    started = start("pass")
    psutil.Process(started.pid).wait(20)
    ours_was_older = psutil.Process(stranger.pid).create_time() - 5
    reused = dataclasses.replace(started, pid=stranger.pid, create_time=ours_was_older)

    assert reused.leader() is None
    assert processes.stop(reused, grace_seconds=0.2) == 0
    assert stranger.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": 1, "create_time": 0, "unknown": 2}'])
def test_unreadable_record_is_no_record(text: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(text)

    assert StartedProcess.read(tmp_path / "record.json") is None


def test_taken_port_names_the_variable() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]

        with pytest.raises(ModlakeTerminalError, match=f"{port}.*MODLAKE_AIRFLOW_PORT"):
            processes.require_free_port(port, "MODLAKE_AIRFLOW_PORT", "Airflow")

    processes.require_free_port(port, "MODLAKE_AIRFLOW_PORT", "Airflow")
