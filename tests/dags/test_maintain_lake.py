"""The maintenance DAG as Airflow parses and stores it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, TriggerRule
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

from modlake.lake.maintenance.policy import MaintenancePolicy

STEPS = ["expire_snapshots", "compact_tables", "sweep_orphans", "sweep_runs", "report"]


@pytest.fixture(scope="module")
def dag() -> DAG:
    bag = DagBag(dag_folder=Path(__file__).resolve().parents[2] / "dags" / "maintain_lake.py")
    assert bag.import_errors == {}
    return bag.dags["maintain_lake"]


def test_the_steps_follow_each_other(dag: DAG) -> None:
    assert list(dag.task_dict) == STEPS
    for step, following in pairwise(STEPS):
        assert dag.get_task(step).downstream_task_ids == {following}


def test_it_runs_alone_each_week_and_not_for_the_past(dag: DAG) -> None:
    assert (dag.schedule, dag.catchup, dag.max_active_runs) == ("30 4 * * 0", False, 1)
    assert "modlake" in dag.tags
    assert dag.doc_md


def test_a_run_is_dry_unless_asked(dag: DAG) -> None:
    params = dag.params.dump()
    assert MaintenancePolicy.from_params(params).dry_run
    assert params["steps"] == STEPS[:-1]


def test_every_param_is_explained(dag: DAG) -> None:
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.description, name
        assert param.schema["title"], name


def test_every_step_gets_every_param(dag: DAG) -> None:
    expected = {name: f"{{{{ params.{name} }}}}" for name in dag.params}
    for task in dag.tasks:
        assert task.policy == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"dry_run": "no"},
        {"steps": ["compact"]},
        {"orphan_grace_hours": 1},
        {"min_snapshots": 0},
        {"max_removed_percent": 101},
    ],
)
def test_wrong_params_are_refused_by_the_form(dag: DAG, wrong: dict[str, Any]) -> None:
    (name, value) = next(iter(wrong.items()))
    with pytest.raises((ParamValidationError, ValueError)):
        dag.params.get_param(name).resolve(value)


def test_commits_wait_for_a_slot_and_the_report_for_everything(dag: DAG) -> None:
    assert {step: dag.get_task(step).pool for step in STEPS[:2]} == dict.fromkeys(
        STEPS[:2], "modlake_publish"
    )
    assert dag.get_task("report").trigger_rule == TriggerRule.ALL_DONE
    assert dag.get_task("report").steps == STEPS[:-1]
    # Whatever was left out before it.
    assert {dag.get_task(step).trigger_rule for step in STEPS[:-1]} == {TriggerRule.NONE_FAILED}


def test_it_survives_serialisation(dag: DAG) -> None:
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert list(again.task_dict) == STEPS
