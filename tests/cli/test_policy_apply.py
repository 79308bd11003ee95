"""Policies over days of history: which days, by whom, and what is shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from typer.testing import CliRunner

from cli.app import app
from modlake.exceptions import ModlakeTerminalError
from modlake.lake.catalog import ensure_tables
from modlake.lake.decisions import DayDecisions, read_published
from modlake.policy.policy_files import load_policies
from tests.support.days import DAY
from tests.support.labelled_days import publish_labels

DAYS = [DAY + timedelta(days=offset) for offset in (0, 1, 3)]
SPAN = ["--from", str(DAYS[0]), "--to", str(DAYS[-1])]

POLICY = """
name: house
status: live
match: most_severe
default: allow
actions: {{block: [tag]}}
rules: [{{name: nudity, verdict: block, when: {{label: Explicit, at_least: {block_at}}}}}]
"""


class FakeAirflow:
    """Runs end in the states given by day, after a look in which they were at work."""

    url = "http://127.0.0.1:1"

    def __init__(self, states: dict[str, str], *, is_paused: bool = False) -> None:
        self._states = states
        self._is_paused = is_paused
        self.looks: dict[str, int] = {}
        self.started: list[dict[str, Any]] = []
        self.most_at_work = 0
        self.requests = 0

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.requests += 1
        if path == "dags/~/dagRuns/~/taskInstances/list":
            assert body["dag_ids"] == ["enforce_policy"]
            assert (body["task_ids"], body["state"]) == (["brake"], ["awaiting_input"])
            waiting = [run_id for run_id in body["dag_run_ids"] if self._states[run_id[-10:]] == "waiting"]
            return {"task_instances": [{"dag_run_id": run_id} for run_id in waiting]}
        assert path == "dags/enforce_policy/dagRuns"
        assert body["dag_run_id"].endswith(f"__{body['partition_key']}")
        self.started.append(body)
        self.looks[body["dag_run_id"]] = 0
        self.most_at_work = max(self.most_at_work, sum(looks < 2 for looks in self.looks.values()))
        return {}

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        self.requests += 1
        if path == "dags/enforce_policy":
            return {"is_paused": self._is_paused}
        assert path == "dags/enforce_policy/dagRuns"
        assert all(run_id.startswith(parameters["run_id_prefix_pattern"]) for run_id in self.looks)
        page = list(self.looks)[parameters["offset"] :][: parameters["limit"]]
        for run_id in page:
            self.looks[run_id] += 1
        return {"dag_runs": [{"dag_run_id": run_id, "state": self._state(run_id)} for run_id in page]}

    def _state(self, run_id: str) -> str:
        state = self._states[run_id[-10:]] if self.looks[run_id] > 1 else "queued"
        return "running" if state == "waiting" else state

    def find(self, path: str) -> Any:
        self.requests += 1
        run_id = path.split("/")[3]
        if self._states[run_id[-10:]] == "failed":
            return None
        differences = {"policy": "house", "mode": "live", "block": 2, "review": 0}
        return {"value": {"policies": [differences | {"newly_hit": 1, "released": 0, "unchanged": 1}]}}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    catalog = SqlCatalog(
        "modlake", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse"
    )
    ensure_tables(catalog)
    for day in DAYS:
        publish_labels(catalog, day, {"a.jpg": {"Explicit": 95.0}, "b.jpg": {"Explicit": 70.0}, "c.jpg": {}})
    return catalog


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "house.yaml").write_text(POLICY.format(block_at=80))
    return folder


@pytest.fixture
def tried(tmp_path: Path) -> Path:
    path = tmp_path / "tried.yaml"
    path.write_text(POLICY.format(block_at=60))
    return path


@contextmanager
def installation(catalog: Catalog, policies: Path, airflow: FakeAirflow | None = None) -> Iterator[None]:
    with (
        mock.patch("cli.policy_apply.open_lake_catalog", return_value=catalog),
        mock.patch("cli.policy_apply.POLICIES", policies),
        mock.patch("cli.policy_apply.POLL_SECONDS", 0),
        mock.patch("cli.airflow_processes.is_running", return_value=airflow is not None),
        mock.patch("cli.airflow_processes.api", return_value=airflow),
    ):
        yield


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["policy", "apply", *arguments, "--format", "json"])


def decide_all(catalog: Catalog, policies: Path) -> None:
    for day in DAYS:
        decisions = DayDecisions(catalog, read_published(catalog, day), load_policies(None, str(policies)))
        list(decisions.batches())
        decisions.commit("enf-0")


def test_deciding_only_writes_decisions_and_shows_the_difference(
    catalog: Catalog, policies: Path, tried: Path
) -> None:
    decide_all(catalog, policies)
    with installation(catalog, policies):
        result = run(*SPAN, "--decide-only", "--policy", str(tried))
        again = run(*SPAN, "--decide-only", "--policy", str(tried))
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["day"] for row in rows] == [str(day) for day in DAYS]
    assert {tuple(row[name] for name in ("block", "newly_hit", "released", "unchanged")) for row in rows} == {
        (2, 1, 0, 1)
    }
    assert {row["state"] for row in rows} == {"decided"}
    assert {row["state"] for row in json.loads(again.stdout)} == {"as before"}
    assert "3 of 4 are published" in result.stderr
    stored = catalog.load_table("moderation.decisions").scan().to_arrow()["verdict"].to_pylist()
    assert Counter(stored) == {"block": 6, "allow": 3}
    assert catalog.load_table("moderation.actions").snapshots() == []


def test_the_running_airflow_enforces_every_published_day(
    catalog: Catalog, policies: Path, tried: Path
) -> None:
    airflow = FakeAirflow({str(DAYS[0]): "success", str(DAYS[1]): "waiting", str(DAYS[2]): "success"})
    with installation(catalog, policies, airflow):
        result = run(*SPAN, "--policy", str(tried))
    assert result.exit_code == 0, result.output
    assert [body["partition_key"] for body in airflow.started] == [str(day) for day in DAYS]
    assert all(body["conf"] == {"policy_uri": str(tried)} for body in airflow.started)
    rows = json.loads(result.stdout)
    assert [row["state"] for row in rows] == ["success", "waits for a person", "success"]
    assert {row["newly_hit"] for row in rows} == {1}
    assert "/required_actions?response_received=false" in result.stderr


def test_a_day_that_failed_is_shown_and_told_by_the_exit_code(catalog: Catalog, policies: Path) -> None:
    airflow = FakeAirflow({str(DAYS[0]): "success", str(DAYS[1]): "failed", str(DAYS[2]): "success"})
    with installation(catalog, policies, airflow):
        result = run(*SPAN)
    assert result.exit_code == 1
    assert [row["state"] for row in json.loads(result.stdout)] == ["success", "failed", "success"]
    assert airflow.started[0]["conf"] == {}


def test_many_days_are_run_in_order_a_few_at_a_time_and_asked_for_together(
    catalog: Catalog, policies: Path
) -> None:
    days = [DAY + timedelta(days=offset) for offset in range(230)]
    states = {str(day): ("success", "waiting")[number % 2] for number, day in enumerate(days)}
    airflow = FakeAirflow(states)
    published = mock.patch("cli.policy_apply._published", return_value=(catalog, days))
    with installation(catalog, policies, airflow), published:
        result = run(*SPAN, "--max-active-runs", "10")
    assert result.exit_code == 0, result.output
    assert [body["partition_key"] for body in airflow.started] == [str(day) for day in days]
    assert airflow.most_at_work == 10
    # To start and to read each day one; to look at all of them three and two, twice for each ten.
    assert airflow.requests <= 1 + 2 * 230 + 2 * 23 * 5
    assert len(json.loads(result.stdout)) == 230
    assert "230 of 230 days, 115 wait for a person" in said(result)
    assert "115 days success, 115 days wait for a person" in said(result)


def test_a_table_ends_in_the_sums_by_policy(catalog: Catalog, policies: Path) -> None:
    airflow = FakeAirflow({str(day): "success" for day in DAYS})
    with installation(catalog, policies, airflow):
        result = CliRunner().invoke(app, ["policy", "apply", *SPAN])
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows[-1] == ["3 days", "house", "live", "6", "0", "3", "0", "3", ""]
    assert len(rows) == 1 + 3 + 1


def test_a_paused_dag_is_not_waited_for(catalog: Catalog, policies: Path) -> None:
    airflow = FakeAirflow({}, is_paused=True)
    with installation(catalog, policies, airflow):
        result = run(*SPAN)
    assert result.exit_code != 0
    assert airflow.started == []
    assert "unpause it" in said(result)


def test_interrupted_it_says_what_goes_on(catalog: Catalog, policies: Path) -> None:
    airflow = FakeAirflow({str(day): "success" for day in DAYS})
    with (
        installation(catalog, policies, airflow),
        mock.patch("cli.policy_apply.time.sleep", side_effect=KeyboardInterrupt),
    ):
        result = run(*SPAN, "--max-active-runs", "2")
    assert result.exit_code != 0
    assert len(airflow.started) == 2
    assert "The days that have begun go on: http://127.0.0.1:1. Not begun: 1 of 3 days" in said(result)


def test_without_airflow_it_says_what_to_do(catalog: Catalog, policies: Path) -> None:
    with installation(catalog, policies):
        result = run(*SPAN)
    assert result.exit_code != 0
    assert "./modlake up, or give --decide-only" in said(result)


@pytest.mark.parametrize(
    ("span", "message"),
    [
        (["--from", "2026-11-22", "--to", "2026-11-21"], "is after"),
        (["--from", "2020-01-01", "--to", "2020-01-31"], "No day from 2020-01-01 to 2020-01-31 is published"),
    ],
)
def test_a_span_without_days_is_a_clear_error(
    catalog: Catalog, policies: Path, span: list[str], message: str
) -> None:
    with installation(catalog, policies):
        result = run(*span, "--decide-only")
    assert result.exit_code != 0
    assert message in said(result)


def test_a_policy_that_is_wrong_changes_nothing(catalog: Catalog, policies: Path, tried: Path) -> None:
    tried.write_text(POLICY.format(block_at=600))
    with installation(catalog, policies, FakeAirflow({})):
        result = run(*SPAN, "--policy", str(tried))
    assert result.exit_code != 0
    assert "tried.yaml" in said(result)
    assert catalog.load_table("moderation.decisions").snapshots() == []


def said(result: Any) -> str:
    error = result.exception if isinstance(result.exception, ModlakeTerminalError) else ""
    return " ".join(f"{result.output} {error}".split())
