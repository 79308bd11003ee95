"""Runs of a DAG that cut a day into small manifests, and have workers of their own for tasks to be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.airflow_home import AirflowHome, DagRunOutcome, enter_airflow, run_dag_here


@dataclass(frozen=True)
class DagRuns:
    """Runs of DAGs in an Airflow home, one at a time, as ``airflow dags test`` makes them."""

    home: AirflowHome
    pool: ProcessPoolExecutor

    def start(self, dag_id: str, conf: Mapping[str, Any]) -> Future[DagRunOutcome]:
        return self.pool.submit(run_dag_here, dag_id, dict(conf), str(_log(self.home)), None)

    def run(self, dag_id: str, conf: Mapping[str, Any]) -> DagRunOutcome:
        return self.start(dag_id, conf).result()

    def kill_worker(self, task_id: str) -> int:
        """SIGKILL the process that runs an instance of a task; return the instance's map index."""
        ((map_index, pid),) = self._instances("map_index, pid", task_id, "state = 'running'")
        os.kill(pid, signal.SIGKILL)
        return int(map_index)

    def tries(self, task_id: str) -> dict[int, int]:
        """Return the number of the last try of a task's instances in the last run, by map index."""
        return dict(self._instances("map_index, try_number", task_id))

    def _instances(self, columns: str, task_id: str, condition: str = "TRUE") -> list[Any]:
        with closing(sqlite3.connect(self.home.home / "airflow.db")) as database:
            return database.execute(
                f"SELECT {columns} FROM task_instance WHERE task_id = ? AND {condition} "
                "AND run_id = (SELECT run_id FROM dag_run ORDER BY id DESC LIMIT 1)",
                (task_id,),
            ).fetchall()


@contextmanager
def dag_runs(
    home: AirflowHome, *, images_per_manifest: int, in_workers: tuple[str, ...] = ()
) -> Iterator[DagRuns]:
    """
    Keep a process for runs of DAGs.

    :param in_workers: ids of tasks that run as a real executor has them run: in a process of their own, under
        Airflow's supervisor. What their retries wait for is over at once
    """
    pool = ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare,
        initargs=(home.env, str(_log(home)), images_per_manifest, in_workers),
    )
    try:
        yield DagRuns(home, pool)
    finally:
        processes = list(pool._processes.values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:  # a run that a test has given up would go on for ever
            process.kill()


def _log(home: AirflowHome) -> Path:
    return home.home / "small-runs.log"


def _prepare(env: dict[str, str], log: str, images_per_manifest: int, in_workers: tuple[str, ...]) -> None:
    enter_airflow(env, log)
    from airflow.sdk.definitions import dag as definitions

    from modlake.pipeline import plan

    limits = plan.ManifestLimits(images=images_per_manifest)
    plan.build_plan = partial(plan.build_plan, limits=limits)
    run_in_process = definitions._run_task

    def run_task(*, ti: Any, task: Any, run_triggerer: bool = False) -> Any:
        if ti.task_id in in_workers:
            return _run_in_worker(ti, task)
        return run_in_process(ti=ti, task=task, run_triggerer=run_triggerer)

    definitions._run_task = run_task


def _run_in_worker(ti: Any, task: Any) -> None:
    from airflow.executors.workloads import BundleInfo, ExecuteTask
    from airflow.models.dagbag import DBDagBag
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor, supervise_task
    from airflow.utils.session import create_session

    ti.set_state("queued")
    path = Path(task.dag.fileloc)
    workload = ExecuteTask.make(ti, dag_rel_path=Path(path.name), bundle_info=BundleInfo(name="dags-folder"))
    supervise_task(
        ti=workload.ti,
        bundle_info=workload.bundle_info,
        dag_rel_path=path.name,
        token="",
        client=InProcessTestSupervisor._api_client(task.dag),
        subprocess_logs_to_stdout=True,
    )
    instance = {name: getattr(ti, name) for name in ("dag_id", "run_id", "task_id", "map_index")}
    with create_session() as session:
        ended = session.query(TaskInstance).filter_by(**instance).one()
        if ended.state == "running":
            # The supervisor leaves it to the scheduler to see that the process is gone.
            dag = DBDagBag().get_dag_for_run(dag_run=ended.dag_run, session=session)
            ended.task = dag.get_task(ti.task_id)
            ended.handle_failure(error="its process was killed", session=session)
        if ended.state == "up_for_retry":
            ended.end_date = datetime.now(UTC) - timedelta(days=1)
