"""A world in which things break: a real local cloud, days of uploads, DAG runs with workers to be killed."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal

from cli.airflow_environment import connections
from cli.lake_environment import lake_environment
from cli.seed import s3_client
from localcloud import cloud
from localcloud.faults import plan as plans
from localcloud.faults.ledger import FaultLedger
from localcloud.settings import CHECKOUT, CloudSettings
from tests.support import fork_server
from tests.support.cloud import kill_server, running_cloud
from tests.support.faults_worker import Outcome, Task, perform

UGC = "modlake-ugc"
MIN_CONFIDENCE = 50.0
CORRUPT = b"\xff\xd8\xff" + b"no image" * 20
Server = Literal["s3", "rekognition", "s3_fault_proxy"]


def _read_pictures() -> list[tuple[bytes, frozenset[tuple[str, float]]]]:
    """Small pictures of the answer book, with their labels."""
    samples = CHECKOUT / "include" / "sample_images"
    book = json.loads((samples / "labels.json").read_bytes())["answers"]
    found = []
    for path in sorted(samples.rglob("*.png"), key=lambda path: (path.stat().st_size, path.name)):
        body = path.read_bytes()
        if answer := book.get(hashlib.sha256(body).hexdigest()):
            labels = answer["ModerationLabels"]
            found.append((body, frozenset((label["Name"], label["Confidence"]) for label in labels)))
    return found[:40]


PICTURES = _read_pictures()
LABELS_OF = dict(PICTURES)
JUDGEABLE = {f"{number:02d} +%.png": body for number, (body, _) in enumerate(PICTURES[:10])}
CONTENTS = {**JUDGEABLE, "corrupt.jpg": CORRUPT, "empty.jpg": b"", "wave.gif": b"GIF89a"}
"""A day of images that are judged, one that fails, and two that are not for Rekognition."""


class Attempt:
    """A worker at work on one try of a task."""

    def __init__(self, process: ForkServerProcess, task: Task) -> None:
        self.task = task
        self._process = process

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def wait(self, patience_seconds: float = 120) -> Outcome:
        """Return how it ended."""
        self._process.join(patience_seconds)
        if self._process.is_alive():
            self.kill()
            raise TimeoutError(f"{self.task.operator} ran for {patience_seconds} s: see {self.task.log}")
        if not self.task.outcome.exists():
            assert self._process.exitcode == -signal.SIGKILL, self.task.log.read_text()[-3000:]
            return Outcome("killed")
        return Outcome(**json.loads(self.task.outcome.read_text()))

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead."""
        self._process.kill()
        self._process.join()


@dataclass
class World:
    """A local cloud and the files around it; ``kills`` counts SIGKILLs by what they hit."""

    settings: CloudSettings
    folder: Path
    images_per_manifest: int = 10_000
    kills: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Whoever arranges and checks things meets no faults.
        self.calm = replace(self.settings, s3_port=self.settings.seaweedfs_s3_port, s3_fault_proxy=False)
        self.s3 = s3_client(cloud.environment(self.calm))
        self.ledger = FaultLedger(self.settings.cloud_dir)
        self._number = 0

    def misbehave(self, **plan: Any) -> None:
        plans.write(self.settings.cloud_dir, plan)

    def behave(self) -> None:
        plans.write(self.settings.cloud_dir, None)

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=UGC, Key=key, Body=body)

    def upload_day(self, day: date, contents: Mapping[str, bytes]) -> None:
        for name, body in contents.items():
            self.put(f"uploads/{day}/{name}", body)

    def kill_server(self, server: Server) -> None:
        """SIGKILL; :meth:`heal` starts it again."""
        status = getattr(cloud.status(self.settings), server)
        if status is not None and status.pid is not None:
            kill_server(status.pid)
            self._count_kill(status.name)

    def heal(self) -> None:
        cloud.start(self.settings)

    def new_path(self, name: str) -> Path:
        self._number += 1
        return self.folder / f"{self._number:06d}-{name}"

    def start(
        self, operator: str, arguments: dict[str, Any], run_id: str, try_number: int, state: Path
    ) -> Attempt:
        task = Task(
            operator=operator,
            arguments=arguments,
            run_id=run_id,
            try_number=try_number,
            environment=self.environment(),
            state_store=state,
            outcome=self.new_path(f"{operator}.json"),
            log=self.folder / "workers.log",
            images_per_manifest=self.images_per_manifest,
        )
        return Attempt(fork_server.start(perform, task), task)

    def environment(self) -> dict[str, str]:
        return {
            **lake_environment(self.settings, {}),
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connections(self.settings)["aws_default"]),
        }

    def kill(self, attempt: Attempt) -> None:
        attempt.kill()
        self._count_kill(f"worker at {attempt.task.operator}")

    def wait_for_fault(self, after: int, patience_seconds: float = 60) -> tuple[str, str]:
        """Wait until something went wrong on purpose; return its kind and subject."""
        found = wait_for(lambda: self.ledger.recorded(after), patience_seconds)
        _, kind, subject = found[0]
        return kind, subject

    def _count_kill(self, name: str) -> None:
        self.kills[name] = self.kills.get(name, 0) + 1


@contextmanager
def world(folder: Path, **behaviour: float | str) -> Iterator[World]:
    """A cloud with the S3 fault proxy, whose call rates don't get into the way."""
    rates = {f"{operation}_per_second": 10_000 for operation in ("start", "get", "list", "detect")}
    folder.mkdir(parents=True, exist_ok=True)
    with running_cloud(folder / "home", s3_fault_proxy=True, **(rates | behaviour)) as settings:
        (folder / "tasks").mkdir()
        made = World(settings, folder / "tasks")
        yield made
        made.ledger.close()


@dataclass
class DagRun:
    """A run of the DAG, a task at a time: what Airflow would have the workers do.

    ``in_triggerer`` has all jobs of a group but the first started by its trigger.
    """

    world: World
    day: date
    run_id: str
    fresh: bool = False
    in_triggerer: bool = False
    deadline: timedelta | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    done: dict[str, Outcome] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)

    def next_task(self) -> str | None:
        """The first task that has not succeeded; None after the last."""
        return next((name for name in self._tasks() if name not in self.done), None)

    def clear(self, name: str) -> None:
        """Forget a task's success and that of all after it; its state stays, as in Airflow."""
        names = list(self._tasks())
        for after in names[names.index(name) :]:
            self.done.pop(after, None)

    def start(self) -> Attempt:
        """Start a try of the next task."""
        name = self.next_task()
        assert name is not None
        operator, _, _ = name.partition("[")
        self.tries[name] = self.tries.get(name, 0) + 1
        state = self.world.folder / f"{self.run_id}-{self.day}-{name}.state"
        return self.world.start(operator, self._arguments(name), self.run_id, self.tries[name], state)

    def finish(self, attempt: Attempt) -> Outcome:
        """Take note of how the try of the next task ended."""
        name = self.next_task()
        assert name is not None
        outcome = attempt.wait()
        if outcome.ending == "success":
            self.done[name] = outcome
        return outcome

    def proceed(self, *, until: str | None = None, retries: int = 4) -> Outcome:
        """Run tasks, each with so many retries, up to ``until``, until one fails for good or all are done."""
        outcome = Outcome("success")
        while (name := self.next_task()) is not None and name != until:
            for _ in range(retries + 1):
                outcome = self.finish(self.start())
                if outcome.ending in ("success", "terminal"):
                    break
            if outcome.ending != "success":
                return outcome
        return outcome

    def killed_at(self, task: str, **rule: Any) -> None:
        """Proceed to a task, and SIGKILL its worker while the cloud holds the call that the rule names."""
        assert self.proceed(until=task).ending == "success"
        seen = self.world.ledger.recorded()
        self.world.misbehave(calls=[{"delay_seconds": 60, "times": 1} | rule])
        attempt = self.start()
        self.world.wait_for_fault(seen[-1][0] if seen else 0)
        self.world.kill(attempt)
        self.world.behave()
        assert self.finish(attempt).ending == "killed"

    def _tasks(self) -> Iterator[str]:
        yield "plan"
        if "plan" not in self.done:
            return
        for number in range(len(self.done["plan"].value)):
            yield f"analyse[{number}]"
            yield f"land[{number}]"
        yield "audit"
        yield "publish"

    def _arguments(self, name: str) -> dict[str, Any]:
        if name == "plan":
            return {
                "day": self.day.isoformat(),
                "source_uri": f"s3://{UGC}/uploads/%Y-%m-%d/",
                "work_uri": "s3://modlake-work/",
                "allowed_uris": [f"s3://{UGC}/uploads/"],
                "min_confidence": MIN_CONFIDENCE,
                "shards_per_group": 2,
                "fresh": self.fresh,
                **self.arguments,
            }
        groups = range(len(self.done["plan"].value))
        plan_uri = self.done["plan"].xcoms["plan_uri"]
        match name.rstrip("]").partition("["):
            case "analyse", _, number:
                group = self.done["plan"].value[int(number)]
                timeout = self.deadline or timedelta(minutes=2)
                return {
                    "manifest_group": group,
                    "poll_interval": 0.2,
                    "timeout": timeout,
                    "deferrable": self.in_triggerer,
                    "jobs_at_once": 1 if self.in_triggerer else None,
                }
            case "land", _, number:
                return {"manifest_group": self.done[f"analyse[{number}]"].value}
            case "audit", _, _:
                landed = [self.done[f"land[{number}]"].value for number in groups]
                return {"plan_uri": plan_uri, "landed": landed}
            case _:
                return {"plan_uri": plan_uri, "audit_uri": self.done["audit"].value["audit_uri"]}


def wait_for(condition: Callable[[], Any], patience_seconds: float = 30) -> Any:
    """Return the condition's first truth."""
    deadline = time.monotonic() + patience_seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing happened within {patience_seconds} s")
        time.sleep(0.02)
    return found
