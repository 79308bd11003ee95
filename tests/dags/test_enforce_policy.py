"""The DAG that enforces policies, as Airflow parses and stores it."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, Asset, PartitionedAssetTimetable, TriggerRule
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

DAGS = Path(__file__).resolve().parents[2] / "dags"
STEPS = ["decide", "brake", "request", "act", "record"]


@pytest.fixture(scope="module")
def dag() -> DAG:
    bag = DagBag(dag_folder=DAGS / "enforce_policy.py")
    assert bag.import_errors == {}
    return bag.dags["enforce_policy"]


def test_the_steps_follow_each_other(dag: DAG) -> None:
    assert sorted(dag.task_dict) == sorted(STEPS)
    for step, following in pairwise(STEPS):
        assert following in dag.get_task(step).downstream_task_ids
    assert dag.get_task("brake").downstream_task_ids == {"request"}


def test_each_published_day_starts_it_by_its_partition(dag: DAG) -> None:
    assert isinstance(dag.timetable, PartitionedAssetTimetable)
    assert dag.timetable.asset_condition == Asset("moderation_labels")
    assert not dag.catchup


def test_it_is_documented(dag: DAG) -> None:
    assert dag.doc_md
    for said in ("Required Actions", "moderation_decisions", "modlake_action_targets", "`day`"):
        assert said in dag.doc_md
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.description, name
        assert param.schema["title"], name


@pytest.mark.parametrize(
    "wrong",
    [{"day": "yesterday"}, {"actions_per_batch": 0}, {"actions_per_second": 0}, {"policy_uri": 7}],
)
def test_wrong_params_are_refused_by_the_form(dag: DAG, wrong: dict[str, Any]) -> None:
    (name, value) = next(iter(wrong.items()))
    with pytest.raises((ParamValidationError, ValueError)):
        dag.params.get_param(name).resolve(value)


def test_a_person_is_awaited_for_a_day_and_silence_is_a_no(dag: DAG) -> None:
    brake: Any = dag.get_task("brake")
    assert brake.response_timeout == timedelta(hours=24)
    assert brake.defaults == ["Reject"]
    assert (brake.fail_on_reject, brake.ignore_downstream_trigger_rules) == (False, False)


def test_what_was_rejected_or_failed_is_recorded_too(dag: DAG) -> None:
    assert dag.get_task("record").trigger_rule == TriggerRule.ALL_DONE
    assert dag.get_task("request").trigger_rule == TriggerRule.ALL_SUCCESS
    assert dag.get_task("act").trigger_rule == TriggerRule.ALL_SUCCESS


def test_pools_bound_commits_and_actions(dag: DAG) -> None:
    assert {step: dag.get_task(step).pool for step in STEPS if step != "brake"} == {
        "decide": "modlake_publish",
        "request": "modlake_publish",
        "act": "moderation_actions",
        "record": "modlake_publish",
    }
    assert dag.get_task("act").map_index_template


def test_failures_that_pass_are_tried_again(dag: DAG) -> None:
    for step in STEPS:
        task = dag.get_task(step)
        assert task.retries == 4
        assert task.retry_policy is not None


def test_it_produces_the_decisions_and_they_alone(dag: DAG) -> None:
    assert {task.task_id: task.outlets for task in dag.tasks if task.outlets} == {
        "record": [Asset("moderation_decisions")]
    }


def test_it_survives_being_stored(dag: DAG) -> None:
    stored = DagSerialization.serialize_dag(dag)
    again = DagSerialization.deserialize_dag(json.loads(json.dumps(stored)))
    assert sorted(again.task_dict) == sorted(STEPS)
    assert again.doc_md == dag.doc_md
    assert (
        DagSerialization.serialize_dag(DagBag(dag_folder=DAGS / "enforce_policy.py").dags["enforce_policy"])
        == stored
    )
