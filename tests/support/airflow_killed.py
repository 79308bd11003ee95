"""A run whose Airflow is killed in the middle, in a real `./modlake up`, and goes on after down and up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import date
from typing import Any, Literal

import psutil

from cli import airflow_processes, postgres
from cli.seed import s3_client
from cli.settings import DAG_ID, Settings
from localcloud import cloud
from localcloud.faults import plan as faults
from modlake.exceptions import ModlakeTerminalError
from tests.support.checkout import Checkout
from tests.support.faults import CONTENTS, JUDGEABLE, wait_for
from tests.support.faults_oracle import Bill, Lake, expected, jobs_alive_together

Component = Literal["triggerer", "scheduler", "postgres"]

# Longer than the operators wait in the worker, so that the task is deferred when the kill comes.
JOB_SECONDS = 20.0
PATIENCE_SECONDS = 900.0


def kill_in_the_middle_of_a_run(checkout: Checkout, component: Component, day: date) -> None:
    """SIGKILL while a day is analysed; then the day must come out complete, and paid for once."""
    s3 = s3_client(cloud.environment(checkout.cloud))
    for name, content in CONTENTS.items():
        s3.put_object(Bucket="modlake-ugc", Key=f"uploads/{day}/{name}", Body=content)
    s3.put_object(Bucket="modlake-ugc", Key=f"complete/{day}", Body=b"")
    faults.write(checkout.cloud.cloud_dir, {"jobs": [{"seconds": JOB_SECONDS}]})
    settings = Settings(home=checkout.home, airflow_port=checkout.airflow_port)
    body = {"logical_date": None, "conf": {"day": day.isoformat()}}
    run: str = airflow_processes.api(settings).post(f"dags/{DAG_ID}/dagRuns", body)["dag_run_id"]
    # Of a task that was running Airflow learns only minutes later that it is dead.
    wanted = {"running", "deferred"} if component == "scheduler" else {"deferred"}
    _until(lambda: _states(settings, run).get("shards.analyse") in wanted)
    wait_for(lambda: Bill.read(checkout.cloud).of_day(day), 60)  # the job has begun

    _kill(settings, component)
    faults.write(checkout.cloud.cloud_dir, None)
    checkout.run("down")
    assert checkout.processes() == []
    checkout.run("up")

    _until(lambda: _states(settings, run).get("run") in ("success", "failed"))
    assert _states(settings, run)["run"] == "success", _states(settings, run)
    assert Lake(checkout.cloud).outcomes(day) == expected(day, CONTENTS)
    prefix = f"s3://modlake-ugc/uploads/{day}/"
    assert Bill.read(checkout.cloud).of_day(day) == {prefix + name: 1 for name in JUDGEABLE}
    assert jobs_alive_together(checkout.cloud) == []


def _states(settings: Settings, run: str) -> dict[str, str | None]:
    """Return the states of the run (key ``run``) and its tasks; none while Airflow does not answer."""
    api = airflow_processes.api(settings)
    try:
        path = f"dags/{DAG_ID}/dagRuns/{run}"
        tasks: list[dict[str, Any]] = api.get(f"{path}/taskInstances", limit=100)["task_instances"]
        return {"run": api.get(path)["state"]} | {task["task_id"]: task["state"] for task in tasks}
    except ModlakeTerminalError:
        return {}


def _kill(settings: Settings, component: Component) -> None:
    """SIGKILL a component and what it has started."""
    if component == "postgres":
        server = postgres.status(settings)
        assert server is not None
        victims = [psutil.Process(server.pid)]
    else:
        started = airflow_processes.find(settings)
        assert started is not None
        victims = [each for each in started.family() if f"airflow {component}" in " ".join(each.cmdline())]
        assert victims, [each.cmdline() for each in started.family()]
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):  # children end with their parent
            children = victim.children(recursive=True)
            victim.kill()
            for child in children:
                child.kill()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(1)
