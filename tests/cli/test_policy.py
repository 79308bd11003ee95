"""`./modlake policy check` and `backtest` over days published in a lake on disk."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from typer.testing import CliRunner, Result

from cli import policy as policy_commands
from cli.app import app
from cli.policy import POLICIES
from modlake.lake.catalog import ensure_tables
from modlake.lake.publish import publish_day
from tests.lake.conftest import Lake
from tests.support.days import DAY

NEXT_DAY = DAY + timedelta(days=1)
UNPUBLISHED = NEXT_DAY + timedelta(days=1)
# Of each manifest, the first, third and so on smokes, with a confidence of 99.
KEYS = [f"{number}.jpg" for number in range(5)]
BLOCKS_SMOKING = """
name: candidate
status: draft
rules:
  - {name: smoking, verdict: block, when: {label: Smoking, at_least: 90}}
"""
REVIEWS_ALL_BUT_SMOKING = """
name: other
status: draft
rules:
  - {name: smoking, verdict: allow, when: {label: Smoking, at_least: 40}}
  - {name: rest, verdict: review, when: always}
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    catalog = lake.open()
    ensure_tables(catalog)
    for day in (DAY, NEXT_DAY):
        publish_day(catalog, *lake.audited(KEYS, day=day, images_per_manifest=3))
    return catalog


@pytest.fixture
def folder(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PYICEBERG_CATALOG__MODLAKE__TYPE", "sql")
    monkeypatch.setattr("modlake.lake.catalog.open_catalog", lambda: catalog)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "candidate.yaml").write_text(BLOCKS_SMOKING)
    (tmp_path / "other.yaml").write_text(REVIEWS_ALL_BUT_SMOKING)
    return tmp_path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["policy", *map(str, arguments)])


def backtest(*arguments: object, last: Any = NEXT_DAY) -> Result:
    return call("backtest", "candidate.yaml", "--from", DAY, "--to", last, *arguments)


def test_check_reads_the_shipped_policies_by_default() -> None:
    result = call("check")
    assert result.exit_code == 0, result.output
    assert f"{POLICIES.name}/default.yaml: default, live, version " in result.output


def test_check_fails_with_file_line_and_field(folder: Path) -> None:
    wrong = BLOCKS_SMOKING.replace("Smoking", "Smokin")
    (folder / "wrong.yaml").write_text(wrong)
    result = call("check", "candidate.yaml", "wrong.yaml")
    assert result.exit_code == 1
    assert 'error wrong.yaml:5:51: rules[0].when.label: "Smokin" is no label' in result.output
    assert "candidate.yaml: candidate, draft, version " in result.output


def test_schema_is_printed_as_it_is_shipped() -> None:
    result = call("schema")
    assert result.output == (POLICIES / "policy.schema.json").read_text(encoding="utf-8")


def test_backtest_counts_hits_and_differences(folder: Path) -> None:
    result = backtest("--against", "other.yaml", "--csv", "counts.csv")
    assert result.exit_code == 0, result.output
    # Images 0, 2 and 3 smoke: of the first manifest the first and third, of the second the first.
    by_day, by_rule, by_label = (part.splitlines()[1:] for part in result.stdout.split("# By ")[1:])
    assert by_day[0].split("\t") == [
        *("day", "images", "block", "review"),
        *("newly_hit", "released", "reclassified", "others_hits", "unanswerable"),
    ]
    assert by_day[1].split("\t") == [DAY.isoformat(), "5", "3", "0", "3", "2", "0", "2", "5"]
    assert by_day[3].split("\t") == ["all", "10", "6", "0", "6", "4", "0", "4", "10"]
    assert [line for line in by_rule[1:] if line] == [
        "candidate\tsmoking\tblock\t6\t6",
        "other\trest\treview\t4\t4",
    ]
    assert [line for line in by_label[1:] if line] == ["candidate\tSmoking\tblock\t6\t6"]
    with (folder / "counts.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    smoking = [row for row in rows if (row["by"], row["name"]) == ("rule", "smoking")]
    assert [(row["day"], row["images"]) for row in smoking] == [(str(DAY), "3"), (str(NEXT_DAY), "3")]


def test_backtest_tells_what_it_can_not_know(folder: Path) -> None:
    result = backtest("--against", "other.yaml", last=UNPUBLISHED)
    assert f"lowest threshold, 40: {DAY} (5 images), {NEXT_DAY} (5 images)" in " ".join(result.stderr.split())
    assert f"No published run: {UNPUBLISHED}" in result.stderr


def test_backtest_compares_with_the_live_policy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_commands, "POLICIES", folder)
    (folder / "other.yaml").write_text(REVIEWS_ALL_BUT_SMOKING.replace("draft", "live"))
    result = backtest("--format", "json")
    assert {row["policy"] for row in json.loads(result.stdout)} == {"candidate", "other"}

    (folder / "other.yaml").unlink()
    alone = csv.reader(io.StringIO(backtest("--format", "csv").stdout))
    assert {row[1] for row in alone} == {"policy", "candidate"}


@pytest.mark.parametrize("name", ["plot.png", "plot.html"])
def test_backtest_draws(folder: Path, name: str) -> None:
    assert backtest("--against", "other.yaml", "--plot", name).exit_code == 0
    drawn = (folder / name).read_bytes()
    assert drawn.startswith(b"\x89PNG") or (b"<svg" in drawn and b"smoking" in drawn)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plot", "plot.pdf"], "neither a .png nor a .html"),
        (["--against", "nobody"], "neither a file nor a policy"),
    ],
)
def test_backtest_refuses_what_it_can_not_do(folder: Path, arguments: list[str], words: str) -> None:
    result = backtest(*arguments)
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())


def test_backtest_of_days_without_a_run_is_empty(folder: Path) -> None:
    later = UNPUBLISHED + timedelta(days=1)
    result = call("backtest", "candidate.yaml", "--from", UNPUBLISHED, "--to", later, "--plot", "empty.png")
    assert result.exit_code == 0, result.output
    assert f"No published run: {UNPUBLISHED}, {later}" in result.stderr


def test_versions_of_one_policy_are_told_apart(folder: Path) -> None:
    (folder / "other.yaml").write_text(BLOCKS_SMOKING.replace("verdict: block", "verdict: review"))
    rows = json.loads(backtest("--against", "other.yaml", "--format", "json").stdout)
    hits = [row for row in rows if row["by"] == "rule" and row["name"] == "smoking"]
    assert {row["policy"] for row in hits} == {"candidate"}
    versions = {row["verdict"]: row["policy_version"] for row in hits}
    assert set(versions) == {"block", "review"}
    assert len(set(versions.values())) == 2
    table = backtest("--against", "other.yaml", "--plot", "new.html").output
    by_rule = table[table.index("# By rule") : table.index("# By label")]
    for verdict, version in versions.items():
        images = sum(row["images"] for row in hits if row["verdict"] == verdict)
        assert f"candidate {version}\tsmoking\t{verdict}\t{images}\t0" in by_rule
    assert "hit with another verdict" in (folder / "new.html").read_text()


def test_a_policy_is_not_compared_with_itself(folder: Path) -> None:
    alone = backtest("--against", "candidate.yaml")
    assert "newly_hit" not in alone.stdout
    rows = json.loads(backtest("--against", "candidate.yaml", "--format", "json").stdout)
    hit = sum(row["images"] for row in rows if row["by"] == "rule")
    assert hit == sum(row["images"] for row in rows if row["by"] == "verdict" and row["verdict"] == "block")


@pytest.mark.parametrize(
    "arguments",
    [
        ["policy", "backtest", "minors", "--from", "2026-11-20", "--to", "2026-11-21", "--plot", "a.png"],
        ["policy", "apply", "--from", "2026-11-20", "--to", "2026-11-21", "--decide-only"],
        ["undo", "--action", "act-1"],
        ["why", "s3://bucket/key"],
    ],
)
def test_the_lake_is_opened_before_pyiceberg_has_read_its_variables(arguments: list[str]) -> None:
    program = f"""
import sys
from cli import lake_catalog

def opened(_):
    sys.exit(7 if "pyiceberg.catalog" not in sys.modules else "pyiceberg was imported before")

lake_catalog.open_lake_catalog = opened
from cli.app import app
app({arguments})
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 7, ended.stderr
