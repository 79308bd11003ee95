"""The DAGs of the bench of orchestration are whole, and of the shape that is compared; it is not run."""

from __future__ import annotations

import pytest
from airflow.dag_processing.dagbag import DagBag

from modlake.pipeline import plan
from tests.bench.orchestration import DAG_IDS, DAGS
from tests.bench.requests import run as count_requests


@pytest.fixture
def bag(monkeypatch: pytest.MonkeyPatch) -> DagBag:
    monkeypatch.setenv("MODLAKE_BENCH_IMAGES_PER_MANIFEST", "10")
    # The bench's copy of the nightly DAG lowers it.
    defaults = dict(plan.build_plan.__kwdefaults__ or {})
    monkeypatch.setattr(plan.build_plan, "__kwdefaults__", defaults)
    return DagBag(dag_folder=str(DAGS))


def test_both_dags_are_there(bag: DagBag) -> None:
    assert bag.import_errors == {}
    assert set(bag.dags) == set(DAG_IDS)
    assert plan.build_plan.__kwdefaults__["limits"].images == 10
    usual = bag.dags["usual_pattern"]
    assert {task.task_id for task in usual.tasks} == {
        "write_manifests",
        *(f"analyse.{step}" for step in ("start_job", "wait_for_job", "load_results")),
    }


def test_requests_grow_with_the_shards_and_commits_do_not() -> None:
    one, two = count_requests(5), count_requests(10)

    for step in ("land", "audit"):
        assert (
            two["requests"][step]["GET"] - one["requests"][step]["GET"]
            == one["requests"][step]["GET"] // 5 * 5
        )
    assert two["api_calls"]["StartMediaAnalysisJob"] == 10
    assert one["commits"] == two["commits"] == 4
