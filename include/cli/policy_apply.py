"""`./modlake policy apply`: policies over days of history, without a new scan."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from cli import airflow_processes
from cli.console import Step, Steps, err, out
from cli.lake_catalog import open_lake_catalog
from cli.query import Rows
from cli.rows import Format, write
from cli.settings import DAY_FORMAT, POLICIES, Settings
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from cli.airflow_api import AirflowApi
    from modlake.policy.policy import Policy

DAG_ID = "enforce_policy"
POLL_SECONDS = 2.0
EXAMPLE = "Example: ./modlake policy apply --from 2026-11-01 --to 2026-11-30"

_WAITS = "waits for a person"
_ENDED = ("success", "failed")
_PAGE = 100  # as much as Airflow answers at a time
_NUMBERS = ("block", "review", "newly_hit", "released", "unchanged")
_COLUMNS = ("day", "policy", "mode", *_NUMBERS, "state")


@dataclass(frozen=True, slots=True)
class DayResult:
    """How a day came out, and what changed by policy; no policies when it was not decided."""

    day: date
    state: str
    policies: Sequence[dict[str, Any]] = ()


def apply(
    first: Annotated[datetime, typer.Option("--from", formats=DAY_FORMAT, help="The first day.")],
    last: Annotated[datetime, typer.Option("--to", formats=DAY_FORMAT, help="The last day too.")],
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A policy that stands in for the one of its name this time."),
    ] = None,
    decide_only: Annotated[
        bool,
        typer.Option("--decide-only", help="Write decisions and do nothing about them; needs no Airflow."),
    ] = False,
    max_active_runs: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many days Airflow works at, at a time.")
    ] = 4,
    output_format: Annotated[
        Format, typer.Option("--format", help="How to print the difference.")
    ] = Format.table,
) -> None:
    """Decide published days anew by the policies, from stored labels, and show what that changes.

    The running Airflow runs enforce_policy for each day: what is newly hit is acted on, what is released is
    undone, and days that change more than usual wait for a person there. With --decide-only just the
    decisions are written, here and by include/policies; the next run of enforce_policy acts on them. To look
    without storing anything, use backtest. The exit code is 1 when a day has failed.
    """
    settings, cloud_settings = Settings.from_environment(), CloudSettings.from_environment()
    file = _readable(policy) if policy else None
    with Steps() as steps, steps.step("Days") as step:
        catalog, days = _published(cloud_settings, first.date(), last.date())
        step.result = f"{len(days)} of {(last - first).days + 1} are published"
    with Steps() as steps, steps.step("Deciding") as step:
        if decide_only:
            results = decide(catalog, days, policies(file), step)
        else:
            results = enforce(_airflow(settings), days, file, step, max_active_runs)
        step.result = summary(results)
    write(_as_rows(results, with_sums=output_format is Format.table), output_format, out)
    if any(result.state == _WAITS for result in results):
        url = f"{airflow_processes.address(settings)}/required_actions?response_received=false"
        err.print(f"Approve or reject what waits: {url}", markup=False)
    if any(result.state == "failed" for result in results):
        raise typer.Exit(1)


def decide(catalog: Catalog, days: Sequence[date], policies: Sequence[Policy], step: Step) -> list[DayResult]:
    """Writes the decisions of the days, one day after another."""
    from modlake.lake.decisions import DayDecisions, by_policy, read_published
    from modlake.policy.enforcement_folder import new_enforcement_id

    named = [f"{policy.name} {policy.version} {policy.status}" for policy in policies]
    results = []
    for number, day in enumerate(days):
        step.advance(number, len(days), f"{day}, {number} of {len(days)} days done")
        published = read_published(catalog, day)
        decisions = DayDecisions(catalog, published, policies)
        for _ in decisions.batches():
            pass
        figures, changed = decisions.commit(new_enforcement_id(day, published.run_id, named))
        differences = [asdict(difference) for difference in by_policy(figures)]
        results.append(DayResult(day, "decided" if changed else "as before", differences))
    return results


def enforce(
    api: AirflowApi, days: Sequence[date], policy: Path | None, step: Step, max_active_runs: int
) -> list[DayResult]:
    """Has Airflow enforce the days, a few at a time and in their order, until each has ended or waits."""
    if api.get(f"dags/{DAG_ID}")["is_paused"]:
        raise ModlakeTerminalError(f"{DAG_ID} is paused: unpause it in Airflow's UI, then run this again.")
    runs = DayRuns(api, {"policy_uri": str(policy)} if policy else {})
    waiting = list(days)
    try:
        while True:
            while waiting and runs.at_work < max_active_runs:
                runs.start(waiting.pop(0))
            runs.look()
            step.advance(len(runs.states) - runs.at_work, len(days), _progress(runs.states, len(days)))
            if not waiting and not runs.at_work:
                break
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        begun = f"The days that have begun go on: {api.url}. " if runs.at_work else ""
        not_begun = f"Not begun: {len(waiting)} of {len(days)} days; run this again for them."
        err.print(f"{begun}{not_begun}", markup=False)
        raise
    return [DayResult(day, runs.states[day], _differences(api, runs.run_id(day))) for day in days]


class DayRuns:
    """The runs that one `apply` has started, and the state of each day."""

    def __init__(self, api: AirflowApi, conf: dict[str, str]) -> None:
        self._api = api
        self._conf = conf
        self._prefix = f"apply__{datetime.now(UTC):%Y%m%dT%H%M%S%f}__"
        self.states: dict[date, str] = {}

    def run_id(self, day: date) -> str:
        return f"{self._prefix}{day}"

    @property
    def at_work(self) -> int:
        """How many days have neither ended nor wait for a person."""
        return sum(state not in (*_ENDED, _WAITS) for state in self.states.values())

    def start(self, day: date) -> None:
        body = {"dag_run_id": self.run_id(day), "partition_key": str(day), "logical_date": None}
        self._api.post(f"dags/{DAG_ID}/dagRuns", {**body, "conf": self._conf})
        self.states[day] = "queued"

    def look(self) -> None:
        """Asks for the states, in a request or two however many days there are."""
        states = {run["dag_run_id"]: run["state"] for run in self._runs()}
        awaiting = self._awaiting([run_id for run_id, state in states.items() if state == "running"])
        for day in self.states:
            run_id = self.run_id(day)
            self.states[day] = _WAITS if run_id in awaiting else states.get(run_id, "queued")

    def _runs(self) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = []
        while True:
            page = self._api.get(
                f"dags/{DAG_ID}/dagRuns",
                run_id_prefix_pattern=self._prefix,
                order_by="id",
                limit=_PAGE,
                offset=len(runs),
            )["dag_runs"]
            runs += page
            if len(page) < _PAGE:
                return runs

    def _awaiting(self, run_ids: list[str]) -> set[str]:
        found: set[str] = set()
        for first in range(0, len(run_ids), _PAGE):
            body = {
                "dag_ids": [DAG_ID],
                "dag_run_ids": run_ids[first : first + _PAGE],
                "task_ids": ["brake"],
                "state": ["awaiting_input"],
                "page_limit": _PAGE,
            }
            page = self._api.post("dags/~/dagRuns/~/taskInstances/list", body)
            found |= {instance["dag_run_id"] for instance in page["task_instances"]}
        return found


def _progress(states: dict[date, str], total: int) -> str:
    waits = sum(state == _WAITS for state in states.values())
    rest = sum(state in _ENDED for state in states.values()) + waits
    return f"{rest} of {total} days" + (f", {_wait(waits)} for a person" if waits else "")


def _wait(days: int) -> str:
    return f"{days} wait{'s' if days == 1 else ''}"


def _differences(api: AirflowApi, run_id: str) -> list[dict[str, Any]]:
    found = api.find(f"dags/{DAG_ID}/dagRuns/{quote(run_id)}/taskInstances/decide/xcomEntries/summary")
    policies: list[dict[str, Any]] = found["value"]["policies"] if found else []
    return policies


def _published(cloud_settings: CloudSettings, first: date, last: date) -> tuple[Catalog, list[date]]:
    if first > last:
        raise ModlakeTerminalError(f"{first} is after {last}; give the earlier day first.")
    catalog = open_lake_catalog(cloud_settings)
    # Only now: what pyiceberg's variables say is read when it is imported.
    from modlake.lake.catalog import ensure_tables
    from modlake.lake.labelled_batches import published_days

    ensure_tables(catalog)
    days = [published.day for published in published_days(catalog, first, last)]
    if not days:
        raise ModlakeTerminalError(
            f"No day from {first} to {last} is published: run ./modlake backfill for it first."
        )
    return catalog, days


def _airflow(settings: Settings) -> AirflowApi:
    if not airflow_processes.is_running(settings):
        raise ModlakeTerminalError(
            "To act on decisions needs the running Airflow: start it with ./modlake up, or give "
            "--decide-only."
        )
    return airflow_processes.api(settings)


def policies(file: Path | None = None) -> list[Policy]:
    """The policies of include/policies; one of a file stands in for that of its name, or is one more."""
    from modlake.policy.policy_files import load_policies

    return load_policies(None, str(POLICIES), str(file) if file else None)


def _readable(file: Path) -> Path:
    from modlake.policy.policy_files import load_policy

    load_policy(None, str(file))
    return file.resolve()


def summary(results: Sequence[DayResult]) -> str:
    """How many days came out how."""
    states = Counter(result.state for result in results)
    return ", ".join(
        f"1 day {state}"
        if count == 1
        else f"{count} days {'wait for a person' if state == _WAITS else state}"
        for state, count in states.items()
    )


def _as_rows(results: Sequence[DayResult], *, with_sums: bool) -> Rows:
    records: list[dict[str, Any]] = [
        {"day": result.day, "state": result.state, **difference}
        for result in results
        for difference in (result.policies or ({},))
    ]
    if with_sums and len(results) > 1:
        records += _sums(results)
    return Rows(list(_COLUMNS), [tuple(record.get(name) for name in _COLUMNS) for record in records])


def _sums(results: Sequence[DayResult]) -> Iterator[dict[str, Any]]:
    days: Counter[tuple[str, str]] = Counter()
    sums: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for result in results:
        for each in result.policies:
            key = each["policy"], each["mode"]
            days[key] += 1
            sums[key].update({name: each[name] for name in _NUMBERS})
    for key, numbers in sums.items():
        policy, mode = key
        yield {
            "day": f"{days[key]} days",
            "policy": policy,
            "mode": mode,
            **{name: numbers[name] for name in _NUMBERS},
        }
