"""The operators of maintenance: what they hand on, what they tell, what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowSkipException

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.lake.maintenance.findings import Finding, MaintenanceRefusedError
from modlake.lake.maintenance.policy import MaintenancePolicy
from modlake.operators.lake_maintenance import (
    CompactTablesOperator,
    ExpireSnapshotsOperator,
    ReportMaintenanceOperator,
    SweepOrphansOperator,
    SweepRunsOperator,
)
from tests.support.memory_store import MemoryObjectStore

PARAMS: dict[str, Any] = {
    "dry_run": True,
    "snapshot_retention_days": 30,
    "min_snapshots": 10,
    "orphan_grace_hours": 72,
    "run_retention_days": 30,
    "analysis_retention_days": 400,
    "target_file_size_mb": 128,
    "max_removed_percent": 50,
    "max_deletes": 100_000,
    "steps": ["t", "expire", "sweep"],
}
POLICY = MaintenancePolicy.from_params(PARAMS)
FINDING = Finding("images", "data files", 10, 2, 5_000_000, datetime(2026, 11, 1, tzinfo=UTC), ["s3://a"])

STEPS: list[tuple[Callable[..., Any], str]] = [
    (ExpireSnapshotsOperator, "snapshots.expire_snapshots"),
    (CompactTablesOperator, "compaction.compact_tables"),
    (SweepOrphansOperator, "orphans.sweep_orphans"),
    (lambda **kwargs: SweepRunsOperator(work_uri="s3://work/", **kwargs), "runs.sweep_runs"),
]


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore()


@pytest.fixture
def context() -> dict[str, Any]:
    started = datetime(2026, 11, 22, 4, 30, tzinfo=UTC)
    return {"ti": mock.Mock(), "run_id": "manual__1", "dag_run": mock.Mock(start_date=started)}


def run(operator: Any, context: dict[str, Any], store: MemoryObjectStore, step: str, **result: Any) -> Any:
    operator.__dict__["hook"] = store
    with (
        mock.patch("modlake.lake.catalog.open_catalog", return_value="catalog"),
        mock.patch(f"modlake.lake.maintenance.{step}", **result) as called,
        mock.patch("modlake.operators.lake_maintenance.get_current_context", return_value=context),
    ):
        return operator.execute(context), called


@pytest.mark.parametrize(("make", "step"), STEPS)
class TestEveryStep:
    def test_template_fields_are_attributes(self, make: Callable[..., Any], step: str) -> None:
        operator = make(task_id="t", policy=PARAMS)
        assert "policy" in operator.template_fields
        assert all(hasattr(operator, field) for field in operator.template_fields)

    def test_only_terminal_errors_are_not_retried(self, make: Callable[..., Any], step: str) -> None:
        policy = make(task_id="t", policy=PARAMS).retry_policy
        assert policy.evaluate(MaintenanceRefusedError(""), 1, 3).action is RetryAction.FAIL
        assert policy.evaluate(ModlakeTransientError(), 1, 3).action is RetryAction.DEFAULT

    def test_findings_are_returned_and_pushed(
        self, make: Callable[..., Any], step: str, context: dict[str, Any], store: MemoryObjectStore
    ) -> None:
        result, called = run(make(task_id="t", policy=PARAMS), context, store, step, return_value=[FINDING])
        assert result == json.loads(json.dumps(result)) == [FINDING.to_dict()]
        context["ti"].xcom_push.assert_called_once_with(key="findings", value=result)
        arguments = [*called.call_args.args, *called.call_args.kwargs.values()]
        assert arguments[0] == "catalog"
        assert POLICY in arguments

    def test_findings_are_pushed_when_it_refuses(
        self, make: Callable[..., Any], step: str, context: dict[str, Any], store: MemoryObjectStore
    ) -> None:
        refusal = MaintenanceRefusedError("too much", [FINDING])
        with pytest.raises(MaintenanceRefusedError):
            run(make(task_id="t", policy=PARAMS), context, store, step, side_effect=refusal)
        context["ti"].xcom_push.assert_called_once_with(key="findings", value=[FINDING.to_dict()])


def test_a_step_that_is_left_out_is_skipped(context: dict[str, Any], store: MemoryObjectStore) -> None:
    policy = PARAMS | {"steps": ["sweep_runs"]}
    operator = CompactTablesOperator(task_id="compact_tables", policy=policy)
    with pytest.raises(AirflowSkipException, match="compact_tables"):
        run(operator, context, store, "compaction.compact_tables", side_effect=AssertionError)


def test_whether_a_run_is_going_is_asked_of_airflow(
    context: dict[str, Any], store: MemoryObjectStore
) -> None:
    operator = SweepRunsOperator(task_id="t", policy=PARAMS, work_uri="s3://work/")
    _, called = run(operator, context, store, "runs.sweep_runs", return_value=[])
    is_going = called.call_args.kwargs["is_going"]
    context["ti"].get_dr_count.side_effect = [1, 0]
    assert [is_going("scheduled__1"), is_going("scheduled__2")] == [True, False]
    assert context["ti"].get_dr_count.call_args_list[0].kwargs == {
        "dag_id": "moderate_images",
        "run_ids": ["scheduled__1"],
        "states": ["queued", "running"],
    }


class TestReport:
    def report(self, context: dict[str, Any], store: MemoryObjectStore, left: dict[str, Any]) -> Any:
        def pull(task_ids: str, key: str = "return_value") -> Any:
            return left.get(task_ids, {}).get(key)

        context["ti"].xcom_pull.side_effect = pull
        operator = ReportMaintenanceOperator(
            task_id="report", work_uri="s3://work", policy=PARAMS, steps=["expire", "left_out", "sweep"]
        )
        operator.__dict__["hook"] = store
        return operator.execute(context)

    def test_it_holds_what_the_steps_found(
        self, context: dict[str, Any], store: MemoryObjectStore, capfd: pytest.CaptureFixture[str]
    ) -> None:
        told = [FINDING.to_dict()]
        step = {"return_value": told, "findings": told}
        uri = self.report(context, store, {"expire": step, "sweep": step})
        assert uri == "s3://work/maintenance/20261122T043000Z.json"
        report = json.loads(store.read(uri))
        assert report["steps"] == {"expire": told, "sweep": told}
        assert (report["policy"], report["unfinished"]) == (PARAMS, [])
        assert "images     data files                      10         2         0" in capfd.readouterr().out

    def test_it_is_written_when_a_step_refused_and_then_fails(
        self, context: dict[str, Any], store: MemoryObjectStore
    ) -> None:
        told = [FINDING.to_dict()]
        left = {"expire": {"return_value": told, "findings": told}, "sweep": {"findings": told}}
        with pytest.raises(ModlakeTerminalError, match="sweep did not finish"):
            self.report(context, store, left)
        report = json.loads(store.read("s3://work/maintenance/20261122T043000Z.json"))
        assert report["steps"]["sweep"] == told
        assert report["unfinished"] == ["sweep"]


class TestPolicy:
    def test_params_have_units(self) -> None:
        assert (POLICY.grace, POLICY.run_retention) == (timedelta(hours=72), timedelta(days=30))
        assert (POLICY.target_file_size_bytes, POLICY.dry_run) == (128_000_000, True)

    @pytest.mark.parametrize(("value", "dry"), [("false", False), ("True", True), (False, False)])
    def test_dry_run_is_read_by_its_text(self, value: object, dry: bool) -> None:
        assert MaintenancePolicy.from_params(PARAMS | {"dry_run": value}).dry_run is dry

    @pytest.mark.parametrize("value", [None, "", "no", 0])
    def test_what_is_no_clear_answer_is_refused(self, value: object) -> None:
        with pytest.raises(ModlakeTerminalError, match="neither yes nor no"):
            MaintenancePolicy.from_params(PARAMS | {"dry_run": value})
