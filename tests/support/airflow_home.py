"""An Airflow of a test's own: home, database, connection, variables and pools, and DAG runs in it."""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from cli.airflow_environment import connections, pools, variables
from cli.lake_environment import lake_environment
from localcloud.settings import CloudSettings

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class DagRunOutcome:
    """How a DAG run ended.

    ``events`` are the asset events it emitted, ``log`` is what its tasks wrote, ``questions`` what they have
    asked.
    """

    run_id: str
    state: str
    tasks: dict[tuple[str, int], str]
    map_names: dict[tuple[str, int], str | None]
    events: list[dict[str, Any]]
    log: str
    questions: list[dict[str, Any]]


@dataclass
class AirflowHome:
    """One isolated Airflow; ``env`` is the whole environment of its processes."""

    home: Path
    env: dict[str, str]
    _worker: ProcessPoolExecutor | None = field(default=None, repr=False)

    def run_dag(
        self, dag_id: str, conf: Mapping[str, Any] | None = None, *, answer: str | None = None
    ) -> DagRunOutcome:
        """Run a DAG as ``airflow dags test`` does, in one process kept for all runs of this home.

        ``answer`` is the option that a person chooses in a task that asks.
        """
        if self._worker is None:
            self._worker = ProcessPoolExecutor(
                max_workers=1,
                # A process of its own: Airflow reads its configuration once, when it is imported.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=enter_airflow,
                initargs=(self.env, str(self.home / "runs.log")),
            )
        log = str(self.home / "runs.log")
        return self._worker.submit(run_dag_here, dag_id, dict(conf or {}), log, answer).result()

    def airflow(self, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run the ``airflow`` command in this home."""
        return subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.env,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def close(self) -> None:
        if self._worker is not None:
            self._worker.shutdown()


@contextmanager
def airflow_home(
    home: Path,
    cloud: CloudSettings,
    *,
    dags: Path = CHECKOUT / "dags",
    plugins: Path = CHECKOUT / "plugins",
    extra_variables: Mapping[str, str] | None = None,
) -> Iterator[AirflowHome]:
    """
    Make an Airflow under ``home`` that uses the given local cloud, with its pools in a SQLite database.

    The connection and the variables are given by environment, so that nothing has to be written for them.
    """
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_migrated_database(), home / "airflow.db")
    airflow = AirflowHome(home, _environment(home, cloud, dags, plugins, extra_variables or {}))
    try:
        yield airflow
    finally:
        airflow.close()


def _environment(
    home: Path, cloud: CloudSettings, dags: Path, plugins: Path, extra_variables: Mapping[str, str]
) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "AWS_", "PYICEBERG_", "PYTEST_")) and name != "PYTHONPATH"
    }
    return {
        **inherited,
        **lake_environment(cloud, {}),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        **{
            f"AIRFLOW_CONN_{name.upper()}": json.dumps(connection)
            for name, connection in connections(cloud).items()
        },
        **{
            f"AIRFLOW_VAR_{name.upper()}": value for name, value in {**variables(), **extra_variables}.items()
        },
    }


@cache
def _migrated_database() -> Path:
    """Build the database once a session: migrating takes longer than any other step of a test."""
    home = Path(tempfile.mkdtemp(prefix="modlake-airflow-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    (home / "pools.json").write_text(json.dumps(pools()))
    commands = (["db", "migrate"], ["pools", "import", str(home / "pools.json")])
    subprocess.run(
        [sys.executable, "-m", "cli.airflow_commands", *map(json.dumps, commands)],
        env={
            **os.environ,
            "PYTHONPATH": str(CHECKOUT / "include"),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        },
        capture_output=True,
        check=True,
    )
    return home / "airflow.db"


def enter_airflow(env: dict[str, str], log: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)


def run_dag_here(dag_id: str, conf: dict[str, Any], log: str, answer: str | None) -> DagRunOutcome:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.asset import AssetEvent, AssetModel

    from airflow import settings

    written_before = Path(log).stat().st_size
    bag = DagBag(dag_folder=settings.DAGS_FOLDER)
    if bag.import_errors:
        raise RuntimeError(str(bag.import_errors))
    with _person(answer) as questions:
        run = bag.dags[dag_id].test(run_conf=conf)
    with settings.Session() as session:
        instances = run.get_task_instances(session=session)
        events = session.query(AssetEvent, AssetModel).filter(
            AssetEvent.source_run_id == run.run_id, AssetModel.id == AssetEvent.asset_id
        )
        return DagRunOutcome(
            run_id=run.run_id,
            state=str(run.state.value),
            tasks={(ti.task_id, ti.map_index): str(ti.state) for ti in instances},
            map_names={(ti.task_id, ti.map_index): ti.rendered_map_index for ti in instances},
            events=[
                {"asset": asset.name, "partition_key": event.partition_key, "extra": event.extra}
                for event, asset in events
            ],
            log=Path(log).read_bytes()[written_before:].decode(errors="replace"),
            questions=questions,
        )


@contextmanager
def _person(answer: str | None) -> Iterator[list[dict[str, Any]]]:
    """Answer what tasks ask, as Airflow's API does; yields the questions."""
    # Not in the thread: Airflow's modules import each other in circles. And all models, before it begins:
    # its first query would import the others under SQLAlchemy's lock, while the run that imports one waits
    # for that lock.
    from airflow.models import import_all_models
    from airflow.models.hitl import HITLDetail
    from airflow.models.trigger import handle_event_submit
    from airflow.triggers.base import TriggerEvent
    from sqlalchemy.orm import configure_mappers

    from airflow import settings

    import_all_models()
    configure_mappers()
    questions: list[dict[str, Any]] = []
    over = threading.Event()

    def answer_questions() -> None:
        while not over.wait(0.5):
            with settings.Session() as session:
                for detail in session.query(HITLDetail).filter(HITLDetail.responded_at.is_(None)):
                    ti = detail.task_instance
                    if ti.state != "awaiting_input":
                        continue
                    questions.append({"task": ti.task_id, "subject": detail.subject, "body": detail.body})
                    detail.chosen_options = [answer or "Reject"]
                    detail.responded_by = {"id": "1", "name": "ada"}
                    detail.responded_at = datetime.now(UTC)
                    event = TriggerEvent(detail.as_resume_event_payload())
                    handle_event_submit(event, task_instance=ti, session=session)
                    session.commit()

    person = threading.Thread(target=answer_questions, daemon=True)
    person.start()
    try:
        yield questions
    finally:
        over.set()
        person.join()
