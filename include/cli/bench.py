"""Measuring Modlake against what people use: the benches of tests/bench."""

from __future__ import annotations

import os
import subprocess
import sys

from cli.settings import CHECKOUT, Settings


def bench(settings: Settings, names: list[str], size: int | None, *, smoke: bool) -> int:
    """Run benches; tables go to the terminal, JSON and plots to `bench/` of the installation's home."""
    command = [sys.executable, "-m", "tests.bench", *names, f"--home={settings.home / 'bench'}"]
    if size is not None:
        command.append(f"--size={size}")
    if smoke:
        command.append("--smoke")
    path = os.pathsep.join(["plugins", "include", "."])
    return subprocess.call(command, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": path})
