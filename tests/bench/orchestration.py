"""What orchestrating a day of many jobs costs beside the jobs themselves, against the usual pattern.

    python -m tests.bench.orchestration --jobs 100 --job-seconds 30

Starts an Airflow of its own (PostgreSQL, LocalExecutor, triggerer) and a local cloud whose jobs take that
long, and runs two DAGs over the same images, one after the other: ``moderate_images``, and
``orchestration_dags/usual_pattern.py``. Manifests hold few images: what is judged is not what is measured.

Task starts and worker seconds come from Airflow's table ``log``: every start of a task's process (tries,
looks of a sensor, resumptions after a deferral) leaves a row ``running`` there, and every end one with its
state. The calls of GetMediaAnalysisJob and ListMediaAnalysisJobs are counted by the stand-in.
"""

from __future__ import annotations

import argparse
import json
import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from cli import airflow_processes, environment, postgres
from cli.console import Steps
from cli.processes import free_port
from cli.seed import BUCKET, UPLOADERS, s3_client
from cli.settings import Settings
from localcloud import cloud
from localcloud.faults import ledger, plan
from localcloud.settings import CHECKOUT, CloudSettings
from tests.support.cloud import free_settings

DAGS = Path(__file__).parent / "orchestration_dags"
DAG_IDS = ("moderate_images", "usual_pattern")
DAY = date(2026, 3, 1)
IMAGES_PER_MANIFEST = 10
CONCURRENT_JOBS = 20
POLLS = ("GetMediaAnalysisJob", "ListMediaAnalysisJobs")
COUNTED = (*POLLS, "StartMediaAnalysisJob")
WATCH_SECONDS = 1.0

_STARTS = """
    SELECT task_id, count(*), round(sum(extract(epoch FROM coalesce(next, now()) - dttm)), 1)
    FROM (
        SELECT task_id, event, dttm,
            lead(dttm) OVER (PARTITION BY task_id, map_index ORDER BY dttm, id) AS next
        FROM log
        WHERE dag_id = %s AND run_id = %s AND event IN (
            'running', 'deferred', 'up_for_reschedule', 'up_for_retry', 'success', 'failed', 'skipped'
        )
    ) AS events
    WHERE event = 'running'
    GROUP BY task_id
    ORDER BY task_id
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a DAG run took. ``calls`` are by operation; ``tasks`` are starts and worker seconds by task.

    ``ideal_seconds`` is what the jobs alone take, as many at once as the account's quota allows.
    """

    dag: str
    state: str
    wall_seconds: float
    ideal_seconds: float
    task_starts: int
    worker_seconds: float
    polls_per_second: float
    calls: dict[str, int]
    tasks: dict[str, tuple[int, float]]
    failed_tries: int


@dataclass(frozen=True, slots=True)
class Rig:
    settings: Settings
    cloud: CloudSettings

    def measure(self, dag_id: str) -> Measured:
        """Run a DAG over the day, and ask Airflow's database and the stand-in what that took."""
        api = airflow_processes.api(self.settings)
        calls_before, jobs_before = self._calls(), len(self._job_seconds())
        began = time.monotonic()
        run = api.post(f"dags/{dag_id}/dagRuns", {"logical_date": None, "conf": {"day": DAY.isoformat()}})
        run_id = run["dag_run_id"]
        while (state := self._state(dag_id, run_id)) not in {"success", "failed"}:
            time.sleep(WATCH_SECONDS)
        wall = time.monotonic() - began
        calls = {name: count - calls_before[name] for name, count in self._calls().items()}
        job_seconds = self._job_seconds()[jobs_before:]
        waves = math.ceil(len(job_seconds) / CONCURRENT_JOBS)
        tasks, failed_tries = self._tasks(dag_id, run_id)
        return Measured(
            dag=dag_id,
            state=state,
            wall_seconds=round(wall, 1),
            ideal_seconds=round(waves * sum(job_seconds) / max(1, len(job_seconds)), 1),
            task_starts=sum(starts for starts, _ in tasks.values()),
            worker_seconds=round(sum(seconds for _, seconds in tasks.values()), 1),
            polls_per_second=round(sum(calls[name] for name in POLLS) / wall, 2),
            calls=calls,
            tasks=tasks,
            failed_tries=failed_tries,
        )

    def count_calls(self) -> None:
        """Have the stand-in count calls, by rules of misbehaviour that never come due."""
        rules = [{"operation": name, "error": "ThrottlingException", "times": 0} for name in COUNTED]
        plan.write(self.cloud.cloud_dir, {"calls": rules})

    def _calls(self) -> dict[str, int]:
        seen = _rows(self.cloud.cloud_dir / ledger.FILE_NAME, "SELECT rule, seen FROM rules")
        counts = {str(rule): int(count) for rule, count in seen}
        return {name: counts.get(f"call {number}", 0) for number, name in enumerate(COUNTED)}

    def _job_seconds(self) -> list[float]:
        return [
            float(seconds)
            for (seconds,) in _rows(
                self.cloud.cloud_dir / "rekognition.sqlite",
                "SELECT completed_at - started_at FROM jobs WHERE completed_at IS NOT NULL ORDER BY number",
            )
        ]

    def _database(self) -> psycopg.Connection:
        server = postgres.status(self.settings)
        assert server is not None
        return server.connect()

    def _state(self, dag_id: str, run_id: str) -> str:
        # Not by REST: on a busy machine the API server takes long to answer.
        with self._database() as database:
            query = "SELECT state FROM dag_run WHERE dag_id = %s AND run_id = %s"
            row = database.execute(query, (dag_id, run_id)).fetchone()
        return str(row[0]) if row else "unknown"

    def _tasks(self, dag_id: str, run_id: str) -> tuple[dict[str, tuple[int, float]], int]:
        with self._database() as database:
            rows = database.execute(_STARTS, (dag_id, run_id)).fetchall()
            failed = database.execute(
                "SELECT count(*) FROM log WHERE dag_id = %s AND run_id = %s "
                "AND event IN ('failed', 'up_for_retry', 'state mismatch')",
                (dag_id, run_id),
            ).fetchone()
        tasks = {str(task): (int(starts), float(seconds)) for task, starts, seconds in rows}
        return tasks, int(failed[0]) if failed else 0


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    if not path.exists():
        return []
    connection = sqlite3.connect(path, timeout=30)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


@contextmanager
def rig(job_seconds: float) -> Iterator[Rig]:
    """Bring up a cloud and an Airflow with the bench's DAGs; everything is down and gone at the end."""
    with TemporaryDirectory(prefix="modlake bench ") as directory:
        cloud_settings = free_settings(Path(directory) / ".modlake")
        settings = Settings(home=cloud_settings.home, airflow_port=free_port())
        cloud_settings.cloud_dir.mkdir(parents=True)
        behaviour = f"job_seconds = {job_seconds}\nrunning_jobs = {CONCURRENT_JOBS}\n"
        (cloud_settings.cloud_dir / "rekognition.toml").write_text(behaviour, encoding="utf-8")
        try:
            with Steps() as steps:
                variables = environment.start_services(settings, cloud_settings, steps)
                variables |= {
                    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
                    "MODLAKE_BENCH_IMAGES_PER_MANIFEST": str(IMAGES_PER_MANIFEST),
                }
                with steps.step("Airflow") as step:
                    airflow_processes.start(settings, variables)
                    airflow_processes.wait_until_ready(settings, step.report)
            yield Rig(settings, cloud_settings)
        finally:
            environment.down(settings, cloud_settings)


def upload_day(settings: CloudSettings, images: int) -> None:
    """Upload copies of sample images whose answers the local cloud knows, and mark the day as complete."""
    folder = CHECKOUT / "include" / "sample_images"
    book = json.loads((folder / "labels.json").read_bytes())["answers"]
    bodies = [(folder / answer["file"]).read_bytes() for answer in list(book.values())[:IMAGES_PER_MANIFEST]]
    s3 = s3_client(cloud.environment(settings))

    def put(number: int) -> None:
        key = f"uploads/{DAY}/{number:07d}.png"
        s3.put_object(Bucket=BUCKET, Key=key, Body=bodies[number % len(bodies)])

    with ThreadPoolExecutor(UPLOADERS) as uploaders:
        list(uploaders.map(put, range(images)))
    s3.put_object(Bucket=BUCKET, Key=f"complete/{DAY}", Body=b"")


def run(jobs: int = 100, job_seconds: float = 30, *, dags: Sequence[str] = DAG_IDS) -> dict[str, Any]:
    """Measure the DAGs over a day of that many jobs, each of which takes that long.

    A ratio is the usual pattern's figure divided by Modlake's.
    """
    with rig(job_seconds) as rigged:
        upload_day(rigged.cloud, jobs * IMAGES_PER_MANIFEST)
        rigged.count_calls()
        measured = [rigged.measure(dag_id) for dag_id in dags]
    ways = [
        {
            "way": each.dag,
            "state": each.state,
            "task_starts": each.task_starts,
            "worker_seconds": each.worker_seconds,
            "wall_seconds": each.wall_seconds,
            "beyond_jobs_seconds": round(each.wall_seconds - each.ideal_seconds, 1),
            "polls_per_second": each.polls_per_second,
            "failed_tries": each.failed_tries,
        }
        for each in measured
    ]
    ours, theirs = ways[0], ways[-1]
    return {
        "title": f"{jobs} jobs of {job_seconds:g} s, {CONCURRENT_JOBS} at once",
        "unit": "jobs",
        "size": jobs,
        "ways": ways,
        "ratios": {name: round(theirs[name] / ours[name], 1) for name in ("task_starts", "worker_seconds")},
        "details": {each.dag: {"calls": each.calls, "tasks": each.tasks} for each in measured},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--job-seconds", type=float, default=30)
    parser.add_argument("--only", choices=DAG_IDS)
    arguments = parser.parse_args()
    dags = (arguments.only,) if arguments.only else DAG_IDS
    told = run(arguments.jobs, arguments.job_seconds, dags=dags)
    print(json.dumps(told, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
