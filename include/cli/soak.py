"""Breaks things for as long as one likes: `./modlake soak`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.console import Step, Steps
from cli.settings import CHECKOUT, Settings
from modlake.exceptions import ModlakeTerminalError

_MACHINE = "tests/faults/test_state_machine.py"
_AIRFLOW = "tests/faults/test_airflow_killed.py"
_POLL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Soak:
    """What a soak left: its report, and whether everything held."""

    report: dict[str, Any]
    report_file: Path
    log_file: Path
    held: bool


def soak(settings: Settings, minutes: float, seed: int | None, *, kill_airflow: bool) -> Soak:
    """Drive days, crashes and faults over a local cloud of their own, and check after each step.

    Raises ModlakeTerminalError when it ended before it had anything to report.
    """
    folder = settings.home / "soak" / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    folder.mkdir(parents=True)
    report_file, log_file = folder / "report.json", folder / "soak.log"
    with Steps() as steps, steps.step("Soak") as step:
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", _MACHINE),
            *(f"--soak-minutes={minutes}", f"--soak-report={report_file}"),
            *([] if seed is None else [f"--faults-seed={seed}"]),
            *([_AIRFLOW, "--kill-airflow"] if kill_airflow else []),
        ]
        held = _run(command, report_file, log_file, step)
        step.result = f"log {log_file}"
    if not report_file.exists():
        raise ModlakeTerminalError(f"The soak ended before it began: read {log_file}, then start it again.")
    return Soak(json.loads(report_file.read_bytes()), report_file, log_file, held)


def show(result: Soak, console: Console) -> None:
    """Print the report as a table, and what to do when something did not hold."""
    report = result.report
    table = Table(box=None, pad_edge=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    for name in ("minutes", "examples", "runs", "faults", "kills", "duplicates", "losses", "untyped_errors"):
        table.add_row(name.replace("_", " "), f"{report[name]:,}")
    for group in ("kills_by_process", "faults_by_kind", "endings"):
        table.add_section()
        for name, count in report[group].items():
            table.add_row(f"{'task ended as ' if group == 'endings' else ''}{name}", f"{count:,}")
    console.print(table)
    for violation in report["violations"]:
        console.print(violation, style="red", markup=False)
    console.print(f"report {result.report_file}", markup=False)
    if not result.held:
        console.print(
            f"[red]Something did not hold.[/] It is told at the end of {result.log_file}; the same choices "
            f"again: ./modlake soak --minutes 1 --seed {report['seeds'][-1]}"
        )


def _run(command: list[str], report_file: Path, log_file: Path, step: Step) -> bool:
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
                if report_file.exists():
                    step.report(_progress(json.loads(report_file.read_bytes())))
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return process.returncode == 0


def _progress(report: dict[str, Any]) -> str:
    counts = ", ".join(
        f"{report[name]:,} {name}" for name in ("runs", "faults", "kills", "duplicates", "losses")
    )
    return f"{report['minutes']:.0f} min: {counts}"
