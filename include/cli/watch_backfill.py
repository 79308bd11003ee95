"""The command `backfill`: asks for it and shows its progress until it has ended."""

from __future__ import annotations

from datetime import date

from rich.markup import escape

from cli import airflow_processes
from cli import backfill as native
from cli.console import Step, Steps, err
from cli.settings import Settings
from modlake.exceptions import ModlakeTerminalError

NAMED_DAYS = 3


def run(settings: Settings, first: date, last: date, *, reprocess: str, max_active_runs: int) -> bool:
    """Whether every day ended in success; raises ModlakeTerminalError when Airflow is not up or declines."""
    if not airflow_processes.is_running(settings):
        raise ModlakeTerminalError("A backfill needs the running Airflow: start it with ./modlake up.")
    api = airflow_processes.api(settings)
    backfill = native.create(api, first, last, reprocess=reprocess, max_active_runs=max_active_runs)
    shown: set[str] = set()
    awaited: set[str] = set()
    try:
        with Steps() as steps, steps.step("Backfill") as step:
            states = native.watch(api, backfill, lambda states: _show(states, shown, awaited, step))
            succeeded = sum(state.state == "success" for state in states)
            step.result = f"{succeeded} of {len(states)} days succeeded"
    except KeyboardInterrupt:
        err.print(f"The backfill goes on; {api.url} shows it and can cancel it.")
        raise
    return succeeded == len(states)


def _show(states: list[native.DayState], shown: set[str], awaited: set[str], step: Step) -> None:
    for state in states:
        if state.awaited_uri and state.day not in awaited:
            awaited.add(state.day)
            err.print(f"[yellow]…[/] {state.day}  waits for its marker {escape(state.awaited_uri)}")
        if state.day not in shown and state.finished:
            shown.add(state.day)
            err.print(_line(state))
    running = [f"{state.day} {state.task}".rstrip() for state in states if state.state == "running"]
    names = ", ".join(running[:NAMED_DAYS]) + (" …" if len(running) > NAMED_DAYS else "")
    rest = f", running {names}" if names else ", Airflow is closing it" if len(shown) == len(states) else ""
    step.advance(len(shown), len(states), f"{len(shown)} of {len(states)} days{rest}")


def _line(state: native.DayState) -> str:
    mark = "[green]✓[/]" if state.state == "success" else "[red]✗[/]"
    if state.is_earlier:
        return f"{mark} {state.day}  {state.state} before, not run again (see --reprocess)"
    return f"{mark} {state.day}  {state.state} [dim]{state.seconds or 0:.1f} s[/]"
