"""The report of a soak, as a person reads it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli import soak as soaking
from cli.settings import Settings
from cli.soak import Soak, show
from modlake.exceptions import ModlakeTerminalError

REPORT: dict[str, Any] = {
    "minutes": 30.2,
    "examples": 40,
    "runs": 400,
    "endings": {"killed": 120, "success": 1300},
    "faults": 2100,
    "faults_by_kind": {"s3 error SlowDown": 2100},
    "kills": 240,
    "kills_by_process": {"SeaweedFS": 240},
    "duplicates": 0,
    "losses": 0,
    "untyped_errors": 0,
    "violations": ["2020-01-02 (seed 8): paid twice: [image]"],
    "seeds": [7, 8],
}


def shown(*, held: bool) -> str:
    console = Console(file=io.StringIO(), width=120)
    show(Soak(REPORT, Path("report.json"), Path("soak.log"), held), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_counts_everything() -> None:
    text = shown(held=True)
    for line in ("faults", "kills", "duplicates", "losses", "SeaweedFS", "s3 error SlowDown"):
        assert line in text
    assert "2,100" in text
    assert "did not hold" not in text


def test_what_did_not_hold_is_told_and_can_be_repeated() -> None:
    text = shown(held=False)
    assert "2020-01-02 (seed 8): paid twice: [image]" in text
    assert "./modlake soak --minutes 1 --seed 8" in text


def test_a_soak_that_never_began_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soaking, "_MACHINE", "tests/faults/no_such_file.py")
    with pytest.raises(ModlakeTerminalError, match=r"ended before it began: read .*soak\.log"):
        soaking.soak(Settings(home=tmp_path, airflow_port=8080), 0.1, None, kill_airflow=False)
