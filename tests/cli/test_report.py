from __future__ import annotations

import io
from datetime import date

import pytest
from rich.console import Console

from cli.query import Rows
from cli.report import Report, show

DAY = date(2026, 11, 21)
JOB_COLUMNS = ["job", "engine", "status", "images", "judged", "failed", "seconds", "cost_usd"]


def _report(**changes: Rows) -> Report:
    parts = {
        "outcomes": Rows(
            ["outcome", "reason", "images"],
            [("judged", None, 50), ("failed", "ERROR_INVALID_IMAGE", 3), ("ineligible", "NOT_AN_IMAGE", 2)],
        ),
        "labels": Rows(
            ["level", "label", "images", "lowest", "mean", "highest"], [(1, "Violence", 3, 54.2, 58.6, 63.9)]
        ),
        "content_types": Rows(["content_type", "images", "mean_confidence"], [("Animated", 5, 94.8)]),
        "verdicts": Rows(
            ["policy", "mode", "verdict", "rule", "images"], [("default", "live", "block", "explicit", 4)]
        ),
        "jobs": Rows(
            JOB_COLUMNS,
            [
                ("one", "bulk", "SUCCEEDED", 30, 30, 0, 1.2, 0.03),
                ("two", "bulk", "SUCCEEDED", 23, 20, 3, 0.9, None),
            ],
        ),
    }
    return Report(day=DAY, locations={"images": "s3://lake/[v1].metadata.json"}, **(parts | changes))


def _shown(report: Report) -> str:
    stream = io.StringIO()
    show(report, Console(file=stream, soft_wrap=True))
    return stream.getvalue()


def test_report_shows_every_part() -> None:
    lines = _shown(_report()).splitlines()

    assert "2026-11-21: 55 images" in lines
    assert "failed\tERROR_INVALID_IMAGE\t3" in lines
    assert "1\tViolence\t3\t54.2\t58.6\t63.9" in lines
    assert "Animated\t5\t94.8" in lines
    assert "one\tbulk\tSUCCEEDED\t30\t30\t0\t1.2\t0.03" in lines
    assert "default\tlive\tblock\texplicit\t4" in lines
    assert "images       s3://lake/[v1].metadata.json" in lines


@pytest.mark.parametrize("word", ["0.030 USD", './modlake query "SELECT'])
def test_report_names_the_cost_and_the_way_on(word: str) -> None:
    assert word in _shown(_report())


def test_day_without_jobs_costs_nothing() -> None:
    text = _shown(_report(jobs=Rows(JOB_COLUMNS, [])))

    assert "Jobs: none" in text
    assert "0.000 USD" in text
