"""Airflow's native backfill of a range of days, asked for and watched over REST."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx

from cli.airflow_api import AirflowApi, AirflowRefusedError
from cli.settings import DAG_ID
from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.day import fill_day

FINISHED = frozenset({"success", "failed"})
POLL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill that Airflow has accepted."""

    id: int
    days: list[str]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DayState:
    """The newest run of a day. `is_earlier`: it was there before the backfill, which left it alone.

    `awaited_uri`: the marker without which the day is not complete, while the run is deferred for it.
    """

    day: str
    state: str
    run_id: str = ""
    seconds: float | None = None
    is_earlier: bool = False
    task: str = ""
    awaited_uri: str = ""

    @property
    def finished(self) -> bool:
        return self.state in FINISHED


def create(api: AirflowApi, first: date, last: date, *, reprocess: str, max_active_runs: int) -> Backfill:
    """Asks for the days `first` to `last`, both included.

    Raises ModlakeTerminalError when Airflow declines, such as while another backfill is at work.
    """
    if first > last:
        raise ModlakeTerminalError(f"{first} is after {last}; give the earlier day first.")
    body = {
        "dag_id": DAG_ID,
        # Airflow takes instants, compares them with each partition's date and includes both.
        "from_date": f"{first}T00:00:00Z",
        "to_date": f"{last}T23:59:59Z",
        "reprocess_behavior": reprocess,
        "max_active_runs": max_active_runs,
    }
    try:
        answer = api.post("backfills", body)
    except AirflowRefusedError as error:
        if error.status == httpx.codes.CONFLICT:
            raise ModlakeTerminalError(
                f"A backfill of {DAG_ID} is at work already, and Airflow runs one at a time: "
                "wait until it has ended, or cancel it in Airflow's UI."
            ) from error
        raise
    days = [(first + timedelta(days=offset)).isoformat() for offset in range((last - first).days + 1)]
    return Backfill(answer["id"], days, datetime.fromisoformat(answer["created_at"]))


def watch(api: AirflowApi, backfill: Backfill, report: Callable[[list[DayState]], None]) -> list[DayState]:
    """Reports the state of every day until Airflow calls the backfill complete; answers the last one."""
    while True:
        # In this order: what is complete does not change after it was seen as complete.
        complete = api.get(f"backfills/{backfill.id}")["completed_at"] is not None
        states = [_with_task(api, state) for state in day_states(backfill, _runs(api, backfill))]
        report(states)
        if complete and not any(state.state in ("queued", "running") for state in states):
            return states
        time.sleep(POLL_SECONDS)


def day_states(backfill: Backfill, runs: Iterable[dict[str, Any]]) -> list[DayState]:
    """The state of each day by its newest run; `runs` come in the order of their making."""
    newest = {run["partition_key"]: run for run in runs}
    return [
        _day_state(day, newest[day], backfill) if day in newest else DayState(day, "no run")
        for day in backfill.days
    ]


def _day_state(day: str, run: dict[str, Any], backfill: Backfill) -> DayState:
    queued_at = datetime.fromisoformat(run["queued_at"] or run["start_date"])
    return DayState(
        day,
        run["state"],
        run_id=run["dag_run_id"],
        seconds=run["duration"],
        is_earlier=queued_at < backfill.created_at,
    )


def _with_task(api: AirflowApi, state: DayState) -> DayState:
    if state.state != "running":
        return state
    path = f"dags/{DAG_ID}/dagRuns/{quote(state.run_id)}/taskInstances"
    tasks = api.get(path, state=["running", "deferred", "up_for_retry"])["task_instances"]
    if not tasks:
        return state
    task = tasks[0]["task_id"].rpartition(".")[2]
    return replace(state, task=task, awaited_uri=_awaited_uri(state.day, tasks[0]))


def _awaited_uri(day: str, task: dict[str, Any]) -> str:
    marker_uri = (task["rendered_fields"] or {}).get("marker_uri") if task["state"] == "deferred" else None
    return fill_day(marker_uri, date.fromisoformat(day)) if marker_uri else ""


def _runs(api: AirflowApi, backfill: Backfill) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = []
    while True:
        page = api.get(
            f"dags/{DAG_ID}/dagRuns",
            partition_date_gte=backfill.days[0],
            partition_date_lte=backfill.days[-1],
            order_by="id",
            limit=100,
            offset=len(runs),
        )
        runs += page["dag_runs"]
        if not page["dag_runs"] or len(runs) >= page["total_entries"]:
            return runs
