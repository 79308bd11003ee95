"""Measuring ways of doing the same work, each in a process of its own, turn by turn.

A way is a function ``prepare(**arguments)`` that imports, opens and reads what is not to be measured, and
returns the work as a function without arguments. What the work returns is its answer; ways that are compared
must give the same one.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

CHECKOUT = Path(__file__).resolve().parents[2]
Prepare = Callable[..., Callable[[], Any]]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to do it: its name, what it does in a few words, and its ``prepare``, as ``module:function``."""

    name: str
    note: str
    prepare: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a way; memory is the process's peak, and what it held before the work."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    before_mb: float
    answer: Any


def compare(
    title: str,
    unit: str,
    size: int,
    ways: list[Way],
    arguments: Mapping[str, Any],
    *,
    yardstick: str,
    repeats: int = 3,
    isolated: bool = True,
) -> dict[str, Any]:
    """Return the median turn of each way, as ``{"title", "unit", "size", "yardstick", "ways": [{…}]}``.

    A way's ``times`` is how many times as fast as the yardstick it is. ``isolated=False`` saves the
    processes, for tests. Raises AssertionError when the answers differ.
    """
    turns: dict[str, list[Turn]] = {way.name: [] for way in ways}
    for repeat in range(repeats):
        for way in ways:
            own = {**arguments, "turn": f"{way.name.replace(' ', '-')}-{repeat}"}
            turns[way.name].append(_run_apart(way, own) if isolated else take_turn(way.prepare, own))
    answers = {name: [turn.answer for turn in taken] for name, taken in turns.items()}
    expected = answers[yardstick][0]
    assert all(answer == expected for given in answers.values() for answer in given), answers
    medians = {
        name: min(taken, key=lambda turn: abs(turn.seconds - _median_seconds(taken)))
        for name, taken in turns.items()
    }
    return {
        "title": title,
        "unit": unit,
        "size": size,
        "yardstick": yardstick,
        "answer": expected,
        "repeats": repeats,
        "ways": [
            {
                "way": way.name,
                "note": way.note,
                "seconds": round(medians[way.name].seconds, 3),
                "cpu_seconds": round(medians[way.name].cpu_seconds, 3),
                "per_second": round(size / medians[way.name].seconds),
                "peak_mb": round(max(turn.peak_mb for turn in turns[way.name])),
                "before_mb": round(medians[way.name].before_mb),
                "times": round(medians[yardstick].seconds / medians[way.name].seconds, 2),
                "all_seconds": [round(turn.seconds, 3) for turn in turns[way.name]],
            }
            for way in ways
        ],
    }


def take_turn(prepare: str, arguments: Mapping[str, Any]) -> Turn:
    """Take a turn in this process."""
    module, _, function = prepare.partition(":")
    work = getattr(importlib.import_module(module), function)(**arguments)
    # What the turn before has written must not be written to the disk during this one.
    os.sync()
    with _peak_memory() as memory:
        cpu_before, started = time.process_time(), time.perf_counter()
        answer = work()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_before
    check = getattr(work, "check", None)
    return Turn(seconds, cpu, memory["peak_mb"], memory["before_mb"], check(answer) if check else answer)


def taken(arguments: Mapping[str, Any], prepare: str, *, isolated: bool = True) -> Turn:
    """Take one turn, in a process of its own or in this one."""
    if not isolated:
        return take_turn(prepare, arguments)
    return _run_apart(Way(prepare, "", prepare), arguments)


def _run_apart(way: Way, arguments: Mapping[str, Any]) -> Turn:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.harness", way.prepare, json.dumps(arguments)],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": f"plugins{os.pathsep}include{os.pathsep}."},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{way.name} failed with {done.returncode}:\n{done.stderr[-3000:]}")
    return Turn(**json.loads(done.stdout.splitlines()[-1]))


@contextmanager
def _peak_memory() -> Iterator[dict[str, float]]:
    told = {"before_mb": psutil.Process().memory_info().rss / 2**20}
    yield told
    told["peak_mb"] = _peak_mb()


def _peak_mb() -> float:
    """Return the most that this process ever held; getrusage's would count the parent before exec, too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(each for each in status.read_text().splitlines() if each.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def _median_seconds(turns: list[Turn]) -> float:
    return statistics.median_low(turn.seconds for turn in turns)


def main() -> None:
    logging.disable(logging.WARNING)
    out, sys.stdout = sys.stdout, sys.stderr  # Airflow logs to stdout
    turn = take_turn(sys.argv[1], json.loads(sys.argv[2]))
    out.write(json.dumps(asdict(turn)) + "\n")
    out.flush()
    # Threads of libraries need not be waited for.
    os._exit(0 if threading.current_thread() is threading.main_thread() else 1)


if __name__ == "__main__":
    main()
