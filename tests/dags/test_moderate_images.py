"""The DAG as Airflow parses, checks and stores it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, Asset, CronPartitionTimetable, TriggerRule
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.encoders import coerce_to_core_timetable
from airflow.serialization.serialized_objects import DagSerialization

from cli.airflow_environment import pools

CHECKOUT = Path(__file__).resolve().parents[2]
DAGS = CHECKOUT / "dags"

# Parses in a process that knows no connection and no database, and tells what that took.
PARSE = """
import json, sys, time
import airflow.sdk
from airflow.dag_processing.dagbag import DagBag
import airflow.providers.amazon.aws.hooks.base_aws

def refuse(*args, **kwargs):
    raise AssertionError("parsing asked for a connection or a variable")

airflow.sdk.Connection.get = airflow.sdk.Variable.get = refuse
started = time.process_time()
bag = DagBag(dag_folder=sys.argv[1])
seconds = time.process_time() - started
print(json.dumps({
    "errors": bag.import_errors,
    "dags": sorted(bag.dags),
    "seconds": seconds,
    "modules": sorted(sys.modules),
}))
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("airflow")
    environment = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(CHECKOUT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'there-is-none.db'}",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    ended = subprocess.run(
        [sys.executable, "-c", PARSE, str(DAGS)],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(ended.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def dag() -> DAG:
    bag = DagBag(dag_folder=DAGS)
    assert bag.import_errors == {}
    return bag.dags["moderate_images"]


def test_every_dag_is_found_and_none_fails_to_import(parsed: dict[str, Any]) -> None:
    assert parsed["errors"] == {}
    assert parsed["dags"] == ["enforce_policy", "maintain_lake", "moderate_images"]


def test_parsing_takes_less_than_a_second(parsed: dict[str, Any]) -> None:
    assert parsed["seconds"] < 1


def test_parsing_imports_nothing_heavy(parsed: dict[str, Any]) -> None:
    roots = {name.partition(".")[0] for name in parsed["modules"]}
    assert not roots & {"pyarrow", "pyiceberg", "pandas", "numpy", "duckdb", "arro3", "localcloud", "cli"}


def test_airflow_scans_nothing_of_the_package(tmp_path: Path) -> None:
    code = """
import sys
from airflow import plugins_manager
plugins, errors = plugins_manager._get_plugins()
assert not errors, errors
assert "modlake" in [plugin.name for plugin in plugins], plugins
print(*sys.modules)
"""
    environment = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(CHECKOUT / "plugins"),
    }
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stdout.splitlines()[-1].split())
    stems = {path.stem for path in (CHECKOUT / "plugins" / "modlake").rglob("*.py")} - {"__init__"}
    # Names that something else owns can't tell who loaded them.
    assert not loaded & (stems - set(sys.stdlib_module_names))
    assert "modlake_plugin" in loaded


def test_it_is_documented(dag: DAG) -> None:
    assert dag.description
    assert dag.doc_md
    assert "wait_for_day → plan" in dag.doc_md
    assert dag.tags == {"modlake", "moderation", "rekognition"}


def test_the_form_explains_every_param(dag: DAG) -> None:
    params = {name: dag.params.get_param(name) for name in dag.params}
    assert set(params) == {
        "day",
        "min_confidence",
        "adapter_arn",
        "max_cost_usd",
        "fresh",
        "reuse",
        "engine",
        "deadline_minutes",
        "image_retries",
        "allow_incomplete",
    }
    assert "forged" in params["reuse"].description
    for param in params.values():
        assert {"type", "title", "section"} <= set(param.schema)
        assert param.description
    assert params["day"].schema["format"] == "date"
    assert {"minimum": 0, "maximum": 100}.items() <= params["min_confidence"].schema.items()


@pytest.mark.parametrize(
    "conf",
    [
        {"day": "yesterday"},
        {"min_confidence": 101},
        {"max_cost_usd": -1},
        {"fresh": "sometimes"},
        {"reuse": "always"},
        {"engine": "fast"},
        {"deadline_minutes": 0},
        {"image_retries": -1},
        {"image_retries": 0.5},
        {"allow_incomplete": 1.5},
    ],
)
def test_the_form_refuses(dag: DAG, conf: dict[str, Any]) -> None:
    params = copy.deepcopy(dag.params)
    with pytest.raises(ParamValidationError):
        params.update(conf)


def test_the_form_may_stay_as_it_is(dag: DAG) -> None:
    assert dag.params.validate() == {
        "day": None,
        "min_confidence": 50,
        "adapter_arn": None,
        "max_cost_usd": None,
        "fresh": False,
        "reuse": "object",
        "engine": "auto",
        "deadline_minutes": None,
        "image_retries": 1,
        "allow_incomplete": 0,
    }


def test_each_night_is_of_the_day_before(dag: DAG) -> None:
    assert isinstance(dag.timetable, CronPartitionTimetable)
    timetable = coerce_to_core_timetable(dag.timetable)
    partition_date, key = timetable._get_partition_info(run_date=datetime(2026, 11, 22, tzinfo=UTC))
    assert key == "2026-11-21"
    assert partition_date == datetime(2026, 11, 21, tzinfo=UTC)
    days = timetable.iter_partition_dagrun_infos(
        earliest=datetime(2026, 11, 17, tzinfo=UTC), latest=datetime(2026, 11, 21, tzinfo=UTC)
    )
    assert [info.partition_key for info in days] == [f"2026-11-{number}" for number in range(17, 22)]


def test_the_steps_follow_each_other(dag: DAG) -> None:
    by_bulk = ["wait_for_day", "plan", "shards.analyse", "shards.land", "audit", "publish"]
    by_single_calls = ["plan", "single_call_groups", "single_calls.analyse", "single_calls.land", "audit"]
    assert {task.task_id for task in dag.tasks} == {*by_bulk, *by_single_calls}
    for earlier, later in [*pairwise(by_bulk), *pairwise(by_single_calls)]:
        assert later in dag.get_task(earlier).downstream_task_ids


def test_every_task_is_retried_with_growing_delays(dag: DAG) -> None:
    for task in dag.tasks:
        assert task.retries >= 3
        assert task.retry_exponential_backoff
        assert task.max_retry_delay is not None
        assert task.max_retry_delay >= timedelta(minutes=5)
        assert task.retry_policy is not None


def test_mapped_tasks_have_readable_names(dag: DAG) -> None:
    mapped = [task for task in dag.tasks if task.get_closest_mapped_task_group() is not None]
    assert {task.task_id for task in mapped} == {
        f"{group}.{step}" for group in ("shards", "single_calls") for step in ("analyse", "land")
    }
    assert all(task.map_index_template for task in mapped)


def test_pools_hold_the_quota(dag: DAG) -> None:
    analyse, plan = dag.get_task("shards.analyse"), dag.get_task("plan")
    assert analyse.pool == "rekognition_media_analysis_jobs"
    assert analyse.pool_slots == analyse.jobs_at_once == plan.jobs_at_once
    quota = pools()["rekognition_media_analysis_jobs"]["slots"]
    assert plan.jobs_at_once * plan.groups_at_once == quota
    assert dag.get_task("single_calls.analyse").pool == "rekognition_detect_moderation_labels"
    assert dag.get_task("publish").pool == "modlake_publish"


def test_what_waits_long_is_deferred(dag: DAG) -> None:
    assert dag.get_task("wait_for_day").deferrable
    assert dag.get_task("shards.analyse").deferrable


def test_a_day_without_groups_is_audited_too(dag: DAG) -> None:
    assert dag.get_task("audit").trigger_rule == TriggerRule.NONE_FAILED


def test_it_produces_the_labels_and_they_alone(dag: DAG) -> None:
    assert {task.task_id: task.outlets for task in dag.tasks if task.outlets} == {
        "publish": [Asset("moderation_labels")]
    }


def test_it_survives_being_stored(dag: DAG) -> None:
    stored = DagSerialization.serialize_dag(dag)
    again = DagSerialization.deserialize_dag(json.loads(json.dumps(stored)))
    assert [task.task_id for task in again.tasks] == [task.task_id for task in dag.tasks]
    assert again.doc_md == dag.doc_md
    assert DagSerialization.serialize_dag(DagBag(dag_folder=DAGS).dags["moderate_images"]) == stored
