"""One run of the DAG for a day, watched until it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

from cli.airflow_api import AirflowApi
from cli.dag_test_log import DagTestLog
from cli.settings import DAG_ID, Settings
from modlake.exceptions import ModlakeTerminalError

POLL_SECONDS = 1.0


def run_here(
    settings: Settings,
    day: date,
    environment: Mapping[str, str],
    report: Callable[[str], None],
    complain: Callable[[str], None],
) -> Path:
    """Runs the day by `airflow dags test`, which needs no scheduler; answers the path of its log.

    Raises ModlakeTerminalError with the last lines of the failing task when the run fails.
    """
    settings.logs.mkdir(parents=True, exist_ok=True)
    path = settings.logs / f"{DAG_ID}-{day}.log"
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow", "dags", "test", DAG_ID, "--conf", json.dumps({"day": str(day)})],
        env={**environment, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
        cwd=settings.airflow_home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    log = DagTestLog(report, complain)
    try:
        with path.open("w") as copy:
            for line in process.stdout or ():
                copy.write(line)
                log.feed(line)
        exit_code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if exit_code != 0:
        raise ModlakeTerminalError(
            f"The run of {day} failed. Its log ends in:\n{log.last_lines()}\nThe whole log is {path}."
        )
    return path


def run_on_server(api: AirflowApi, day: date, report: Callable[[str], None]) -> str:
    """Triggers the day in the Airflow that runs and watches it; answers the run's address.

    Raises ModlakeTerminalError, naming the failed tasks, when the run fails.
    """
    body = {"logical_date": None, "conf": {"day": str(day)}}
    run_id = api.post(f"dags/{DAG_ID}/dagRuns", body)["dag_run_id"]
    path = f"dags/{DAG_ID}/dagRuns/{run_id}"
    address = f"{api.url}/dags/{DAG_ID}/runs/{run_id}"
    while True:
        state = api.get(path)["state"]
        tasks = api.get(f"{path}/taskInstances", limit=500)["task_instances"]
        if state == "success":
            return address
        if state == "failed":
            failed = sorted({task["task_id"] for task in tasks if task["state"] == "failed"})
            raise ModlakeTerminalError(f"The run of {day} failed in {', '.join(failed)}; see {address}")
        done = sum(task["state"] == "success" for task in tasks)
        running = sorted({task["task_id"] for task in tasks if task["state"] in ("running", "deferred")})
        report(f"{done} of {len(tasks)} tasks done{': ' + ', '.join(running) if running else ''}")
        time.sleep(POLL_SECONDS)
