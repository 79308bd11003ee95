"""`./modlake why` for an image of each fate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from pyiceberg.catalog import Catalog
from typer.testing import CliRunner, Result

from cli.app import app
from cli.console import out
from modlake.lake.actions import add_intents, read_actions, record_results
from modlake.lake.schemas import DECISIONS_TABLE, IMAGES_TABLE, JOBS_TABLE, RUNS_TABLE
from modlake.policy.intents import ActionResult, undo_of
from tests.support.actions import intent
from tests.support.story_lake import DAY, PREFIX, append, configured, decision, fill, image, make_lake


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("why")


@pytest.fixture(scope="module")
def catalog(home: Path) -> Iterator[Catalog]:
    catalog = make_lake(home / "lake")
    with configured(catalog):
        fill(catalog)
        _act(catalog)
        yield catalog


def _act(catalog: Catalog) -> None:
    """Quarantine an image, and take it back."""
    source_ref = f"{PREFIX}judged %.jpg"
    approved = {"approved_by": "grace"}
    todo = intent(source_ref, "e", "quarantine", "s3://modlake-quarantine/", rule="weapons", detail=approved)
    ended = datetime(2026, 11, 22, 3, 0, tzinfo=UTC).isoformat()
    add_intents(catalog, DAY, [todo])
    quarantined = {"quarantined_as": "s3://modlake-quarantine/x"}
    record_results(catalog, DAY, [ActionResult(todo.action_id, "completed", quarantined, ended)])
    (row,) = read_actions(catalog).to_pylist()
    undo = undo_of(row, enforcement_id="undo-1", actor="ada", reason="a toy")
    add_intents(catalog, DAY, [undo])
    record_results(catalog, DAY, [ActionResult(undo.action_id, "completed", {}, ended, todo.action_id)])


def why(catalog: Catalog, home: Path, *arguments: str) -> Result:
    # A console that was made before keeps the width it found then.
    with mock.patch.object(out, "_width", 160):
        return CliRunner().invoke(app, ["why", *arguments], env={"MODLAKE_HOME": str(home)})


def told(catalog: Catalog, home: Path, name: str) -> str:
    result = why(catalog, home, PREFIX + name)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_judged_image_from_listing_to_undo(catalog: Catalog, home: Path) -> None:
    output = told(catalog, home, "judged %.jpg")
    story = [
        "2026-11-21",
        "1,234,567 bytes, ETag 398533d48111e9f664b1f64cb10c4b63, last modified 2026-11-21 12:30:00",
        "by bulk, job job-1, 2026-11-22 01:00:00 to 2026-11-22 01:00:00, about $0.0010",
        "7.0, labels from 50 %",
        "Illustrated 71.2 %",
        "98.4 %  Violence / Weapons",
        "block by default 0123456789ab, rule weapons, 2026-11-22 02:00:00",
        "because of Weapons 98.4 %",
        "because of Violence ?",
        "review by next 0123456789ab, rule all, 2026-11-22 02:00:00 (shadow: nothing is done)",
        "quarantine, 2026-11-22 03:00:00 by modlake, approved by grace: undone",
        "s3://modlake-quarantine/x",
        "2026-11-22 03:00:00 by ada: a toy",
    ]
    places = [output.find(line) for line in story]
    assert -1 not in places, story[places.index(-1)]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("clean.jpg", "none: Rekognition found nothing above the confidence asked for"),
        ("clean.jpg", "allow by default 0123456789ab, no rule"),
        ("reused.jpg", "from 2026-11-20: judged before, nothing was paid again"),
        ("reused.jpg", "none yet: enforce_policy has not run for this day"),
        ("wave.gif", "FORMAT: GIF is not judged"),
        ("lost.jpg", "INTERNAL_ERROR: No answer came"),
        ("lost.jpg", "asked again when the day is run with another listing, or with fresh=true"),
    ],
)
def test_every_fate(catalog: Catalog, home: Path, name: str, line: str) -> None:
    assert line in told(catalog, home, name)


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        ([PREFIX + "never.jpg"], "Check the spelling of the key"),
        ([PREFIX + "clean.jpg", "--day", "2026-11-20"], "2026-11-20 is not published: run moderate_images"),
        (["uploads/a.jpg"], "Write it as s3://bucket/key"),
        (["s3://modlake-ugc/"], "name one image"),
    ],
)
def test_what_was_never_listed(catalog: Catalog, home: Path, arguments: list[str], mend: str) -> None:
    result = why(catalog, home, *arguments)
    assert result.exit_code == 1
    assert mend in " ".join(result.output.split())


def test_json_has_the_rows(catalog: Catalog, home: Path) -> None:
    (day,) = json.loads(why(catalog, home, f"{PREFIX}judged %.jpg", "--json").output)
    assert day["day"] == "2026-11-21"
    assert day["image"]["etag"] == "398533d48111e9f664b1f64cb10c4b63"
    assert [label["label"] for label in day["labels"]] == ["Violence", "Weapons"]
    assert [action["status"] for action in day["actions"]] == ["undone", "completed"]
    assert day["actions"][1]["reason"] == "a toy"


def test_of_one_day_no_file_of_another_is_read(tmp_path: Path) -> None:
    catalog = make_lake(tmp_path)
    fill(catalog)
    source_ref = f"{PREFIX}clean.jpg"
    others = {
        "images": image(source_ref, "judged"),
        "runs": catalog.load_table(RUNS_TABLE.identifier).scan().to_arrow().to_pylist()[0],
        "decisions": decision(source_ref, "allow"),
    }
    for table in (IMAGES_TABLE, RUNS_TABLE, DECISIONS_TABLE):
        append(catalog, table, [others[table.name] | {"day": DAY + timedelta(days=1)}])
        for file in (tmp_path / "warehouse").rglob(f"{table.name}/data/day={DAY + timedelta(days=1)}/*"):
            file.unlink()
    with configured(catalog):
        found = why(catalog, tmp_path, source_ref, "--day", str(DAY), "--json")
    assert found.exit_code == 0, found.output
    (day,) = json.loads(found.output)
    assert (day["day"], len(day["decisions"])) == (str(DAY), 1)


def test_jobs_and_runs_of_days_without_the_image_are_not_read(tmp_path: Path) -> None:
    catalog = make_lake(tmp_path)
    fill(catalog)
    for table in (JOBS_TABLE, RUNS_TABLE):
        (row,) = catalog.load_table(table.identifier).scan().to_arrow().to_pylist()
        append(catalog, table, [row | {"day": DAY + timedelta(days=1)}])
        for file in (tmp_path / "warehouse").rglob(f"{table.name}/data/day={DAY + timedelta(days=1)}/*"):
            file.unlink()
    with configured(catalog):
        found = why(catalog, tmp_path, f"{PREFIX}clean.jpg", "--json")
    assert found.exit_code == 0, found.output
    (day,) = json.loads(found.output)
    assert (day["image"]["job_name"], day["day"]) == ("modlake-1", str(DAY))


def test_an_empty_lake_says_what_to_run_first(tmp_path: Path) -> None:
    empty = make_lake(tmp_path)
    with configured(empty):
        result = why(empty, tmp_path, PREFIX + "clean.jpg")
    assert result.exit_code == 1
    assert "run ./modlake demo" in result.output
