"""From the command's options to its output and exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import asdict

from rich import box
from rich.table import Table
from rich.text import Text

from cli.console import err, out
from cli.doctor.findings import Finding, Status
from cli.doctor.installation import Installation
from cli.query import Rows
from cli.rows import Format, write

COLOURS = {Status.ok: "green", Status.warning: "yellow", Status.failed: "bold red", Status.skipped: "dim"}


def run(installation: Installation, *, as_json: bool) -> bool:
    """Examines the installation and prints the findings; whether none has failed."""
    # Airflow and pyiceberg read the environment when they are imported, as the checks do.
    os.environ.update(installation.environment)
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"  # the findings say what is wrong
    # What a library prints is no part of the answer, least of all of its JSON.
    with redirect_stdout(sys.stderr), err.status("Importing Airflow …") as status:
        from cli.doctor.examination import examine

        findings = list(examine(installation, lambda subject: status.update(f"Checking {subject} …")))
    _write(findings, as_json=as_json)
    return all(finding.status is not Status.failed for finding in findings)


def _write(findings: list[Finding], *, as_json: bool) -> None:
    if out.is_terminal and not as_json:
        out.print(_table(findings), soft_wrap=False)
        out.print(_summary(findings))
        return
    columns = ["subject", "status", "seen", "mend"]
    rows = [tuple(asdict(finding)[column] for column in columns) for finding in findings]
    write(Rows(columns, rows), Format.json if as_json else Format.table, out)


def _table(findings: Iterable[Finding]) -> Table:
    table = Table(
        "status", "subject", "what was seen, and → what mends it", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for finding in findings:
        seen = Text(finding.seen, overflow="fold")
        if finding.mend:
            seen.append(f"\n→ {finding.mend}", COLOURS[finding.status])
        table.add_row(Text(finding.status, COLOURS[finding.status]), Text(finding.subject), seen)
    return table


def _summary(findings: list[Finding]) -> str:
    counts = {status: sum(finding.status is status for finding in findings) for status in Status}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)
