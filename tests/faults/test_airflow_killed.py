"""SIGKILL of Airflow's own processes and its database in the middle of a run, in a real `./modlake up`.

It takes minutes, so it runs only with `--kill-airflow`, as `./modlake soak` gives it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import psutil
import pytest

from cli import airflow_processes, postgres
from cli.processes import free_port
from cli.seed import s3_client
from cli.settings import DAG_ID, Settings
from localcloud import cloud
from localcloud.settings import CHECKOUT, CloudSettings
from modlake.exceptions import ModlakeTerminalError
from tests.faults.conftest import CONTENTS, JUDGEABLE
from tests.support.cloud import free_settings
from tests.support.faults import wait_for
from tests.support.faults_oracle import Bill, Lake, expected, jobs_alive_together

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

# Longer than the operators wait in the worker, so that the task is deferred when the kill comes.
JOB_SECONDS = 25.0
PATIENCE_SECONDS = 900.0


@dataclass
class Development:
    """An Airflow with everything around it, as `./modlake up` starts it."""

    settings: Settings
    cloud: CloudSettings

    def modlake(self, *arguments: str) -> None:
        variables = {
            **os.environ,
            **self.cloud.to_environment(),
            "MODLAKE_AIRFLOW_PORT": str(self.settings.airflow_port),
            "PYTHONPATH": f"{CHECKOUT / 'plugins'}{os.pathsep}{CHECKOUT / 'include'}",
        }
        variables.pop("AIRFLOW_HOME", None)
        command = [sys.executable, "-m", "cli", *arguments]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def trigger(self, day: date) -> str:
        body = {"logical_date": None, "conf": {"day": day.isoformat()}}
        run: str = airflow_processes.api(self.settings).post(f"dags/{DAG_ID}/dagRuns", body)["dag_run_id"]
        return run

    def states(self, run: str) -> dict[str, str | None]:
        """Return the states of the run (key ``run``) and its tasks; none while Airflow does not answer."""
        api = airflow_processes.api(self.settings)
        try:
            path = f"dags/{DAG_ID}/dagRuns/{run}"
            tasks: list[dict[str, Any]] = api.get(f"{path}/taskInstances", limit=100)["task_instances"]
            return {"run": api.get(path)["state"]} | {task["task_id"]: task["state"] for task in tasks}
        except ModlakeTerminalError:
            return {}

    def kill(self, component: str) -> None:
        """SIGKILL a component and what it has started."""
        if component == "postgres":
            server = postgres.status(self.settings)
            assert server is not None
            victims = [psutil.Process(server.pid)]
        else:
            started = airflow_processes.find(self.settings)
            assert started is not None
            victims = [
                each for each in started.family() if f"airflow {component}" in " ".join(each.cmdline())
            ]
            assert victims, [each.cmdline() for each in started.family()]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):  # children end with their parent
                children = victim.children(recursive=True)
                victim.kill()
                for child in children:
                    child.kill()


@pytest.fixture(scope="module")
def development(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Development]:
    if not pytestconfig.getoption("--kill-airflow", False):
        pytest.skip("takes minutes: give --kill-airflow, or run ./modlake soak")
    home = tmp_path_factory.mktemp("airflow") / ".modlake"
    made = Development(Settings(home=home, airflow_port=free_port()), free_settings(home))
    made.cloud.cloud_dir.mkdir(parents=True)
    (made.cloud.cloud_dir / "rekognition.toml").write_text(f"job_seconds = {JOB_SECONDS}\n")
    try:
        made.modlake("up")
        yield made
    finally:
        made.modlake("down")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(1)


@pytest.mark.parametrize(
    ("component", "number"),
    [("triggerer", 1), ("scheduler", 2), ("postgres", 3)],
    ids=lambda value: str(value),
)
def test_a_run_whose_airflow_is_killed(development: Development, component: str, number: int) -> None:
    day = date(2026, 3, number)
    s3 = s3_client(cloud.environment(development.cloud))
    for name, body in CONTENTS.items():
        s3.put_object(Bucket="modlake-ugc", Key=f"uploads/{day}/{name}", Body=body)
    s3.put_object(Bucket="modlake-ugc", Key=f"complete/{day}", Body=b"")
    run = development.trigger(day)
    wanted = {"deferred"} if component == "triggerer" else {"running", "deferred"}
    until(lambda: development.states(run).get("shards.analyse") in wanted)
    wait_for(lambda: Bill.read(development.cloud).of_day(day), 60)  # the job has begun

    development.kill(component)
    development.modlake("down")
    development.modlake("up")

    until(lambda: development.states(run).get("run") in ("success", "failed"))
    assert development.states(run)["run"] == "success", development.states(run)
    assert Lake(development.cloud).outcomes(day) == expected(day, CONTENTS)
    prefix = f"s3://modlake-ugc/uploads/{day}/"
    assert Bill.read(development.cloud).of_day(day) == {prefix + name: 1 for name in JUDGEABLE}
    assert jobs_alive_together(development.cloud) == []
