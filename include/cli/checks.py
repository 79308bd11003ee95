"""What `./modlake test` runs, and what CI therefore runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.console import out
from cli.settings import CHECKOUT

# Many tests wait for servers. Tests of one file share servers, so they stay together, and in their order.
SIDE_BY_SIDE = ["-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"]


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    command: list[str]


def stages(pytest_arguments: Sequence[str]) -> list[Stage]:
    """The stages in their order, the tests last."""
    programs = Path(sys.executable).parent
    return [
        Stage("format", [str(programs / "ruff"), "format", "--check", "."]),
        Stage("lint", [str(programs / "ruff"), "check", "."]),
        Stage("types", [str(programs / "mypy")]),
        Stage("imports", [str(programs / "lint-imports")]),
        Stage("tests", [sys.executable, "-m", "pytest", *SIDE_BY_SIDE, *pytest_arguments]),
    ]


def run(wanted: Sequence[Stage]) -> bool:
    """Runs every stage, also after one that failed, and sums up; whether all of them passed."""
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT / 'plugins'}{os.pathsep}{CHECKOUT / 'include'}"}
    outcomes = []
    for stage in wanted:
        out.rule(f"[bold]{stage.name}", align="left") if out.is_terminal else out.print(f"== {stage.name}")
        started = time.monotonic()
        # A relative root keeps the tools' output short; they find their settings in pyproject.toml there.
        passed = subprocess.run(stage.command, cwd=CHECKOUT, env=environment, check=False).returncode == 0
        outcomes.append((stage.name, passed, time.monotonic() - started))
    out.print()
    for name, passed, seconds in outcomes:
        out.print(f"{'[green]passed[/]' if passed else '[red]FAILED[/]'}  {name:<8} {seconds:6.1f} s")
    return all(passed for _, passed, _ in outcomes)
