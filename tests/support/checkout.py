"""The commands of this checkout, with a state directory and ports of a test's own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from cli.processes import free_port
from localcloud.settings import CloudSettings
from tests.support.cloud import free_settings

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Checkout:
    """`./modlake` as a person calls it."""

    cloud: CloudSettings
    airflow_port: int

    @property
    def home(self) -> Path:
        return self.cloud.home

    def run(self, *arguments: str, timeout: float = 280) -> str:
        """Runs a command that has to succeed; answers what it printed."""
        ended = self.call(*arguments, timeout=timeout)
        assert ended.returncode == 0, f"{arguments}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def call(self, *arguments: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ROOT / "modlake"), *arguments],
            env={
                **os.environ,
                **self.cloud.to_environment(),
                "MODLAKE_AIRFLOW_PORT": str(self.airflow_port),
            },
            cwd=self.home.parent,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def query(self, sql: str) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = json.loads(self.run("query", sql, "--format", "json"))
        return records

    def processes(self) -> list[psutil.Process]:
        """Every process that names this state directory in its command line or environment."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [*process.cmdline(), *process.environ().values()]
            except (psutil.Error, OSError):
                continue
            if any(str(self.home) in word for word in words):
                found.append(process)
        return found


@contextmanager
def temporary_checkout() -> Iterator[Checkout]:
    """The commands with a home and free ports of their own; everything is down at the end."""
    # Not in pytest's directory, which each pytest closes to other users: PostgreSQL's, when root runs it.
    with TemporaryDirectory(prefix="modlake test ") as directory:
        made = Checkout(free_settings(Path(directory) / ".modlake"), free_port())
        try:
            yield made
        finally:
            made.run("down")
