"""One try of one task, in a process of its own that may be killed at any moment.

The operators are the real ones. Around them stands the least of Airflow that they need: a context, and a task
state store that lasts as the real one does.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import boto3
import pyiceberg.catalog
import pyiceberg.catalog.sql
import pyiceberg.io.pyarrow
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import BaseTrigger
from botocore.loaders import JSONFileLoader
from pyiceberg.utils.config import Config

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.operators.moderation_day import (
    AuditDayOperator,
    BuildManifestsOperator,
    LandResultsOperator,
    PublishDayOperator,
)
from modlake.operators.rekognition import AnalyseManifestsOperator
from modlake.pipeline import audit, landing, plan
from modlake.triggers import rekognition as triggers

Ending = Literal["success", "transient", "terminal", "untyped", "killed"]
OPERATORS: dict[str, Callable[..., Any]] = {
    "plan": BuildManifestsOperator,
    "analyse": AnalyseManifestsOperator,
    "land": LandResultsOperator,
    "audit": AuditDayOperator,
    "publish": PublishDayOperator,
}


@dataclass(frozen=True)
class Task:
    """What a worker is handed: the operator's name and arguments, and where to leave what came of it."""

    operator: str
    arguments: dict[str, Any]
    run_id: str
    try_number: int
    environment: dict[str, str]
    state_store: Path
    outcome: Path
    log: Path
    images_per_manifest: int


@dataclass(frozen=True)
class Outcome:
    """How a try ended; ``error`` is the message or, for an error of no type of ours, the traceback."""

    ending: Ending
    value: Any = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    error: str = ""


class FileStateStore:
    """Airflow's task state store: what is set is there after a kill."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> Any:
        return self._content().get(key)

    def set(self, key: str, value: Any, retention: Any = None) -> None:
        replace_file(self._path, json.dumps(self._content() | {key: value}))

    def _content(self) -> dict[str, Any]:
        return dict(json.loads(self._path.read_text())) if self._path.exists() else {}


class TaskInstance:
    """A new one each try, as in Airflow."""

    def __init__(self, try_number: int) -> None:
        self.id = uuid.uuid4()
        self.try_number = try_number
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


def perform(task: Task) -> None:
    """Execute the task and leave its outcome, all of it or nothing."""
    output = os.open(task.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(task.environment)
    pyiceberg.catalog._ENV_CONFIG = Config()  # read when it was imported, which was for another cloud
    triggers.MINIMUM_AGE_SECONDS = 0  # no Airflow here that would mind
    # Small manifests, so that a day of some images has several.
    limits = plan.ManifestLimits(images=task.images_per_manifest)
    plan.build_plan = partial(plan.build_plan, limits=limits)
    ti = TaskInstance(task.try_number)
    context = {"ti": ti, "run_id": task.run_id, "task_state_store": FileStateStore(task.state_store)}
    try:
        value = _execute(OPERATORS[task.operator](task_id=task.operator, **task.arguments), context)
        outcome = Outcome("success", value, ti.xcoms)
    except ModlakeTransientError as error:
        outcome = Outcome("transient", error=f"{type(error).__name__}: {error}")
    except ModlakeTerminalError as error:
        outcome = Outcome("terminal", error=f"{type(error).__name__}: {error}")
    except Exception:  # noqa: BLE001  told as it is
        outcome = Outcome("untyped", error=traceback.format_exc())
    replace_file(task.outcome, json.dumps(vars(outcome), default=str))
    sys.stdout.flush()


def _execute(operator: Any, context: dict[str, Any]) -> Any:
    """Execute, and be the triggerer too while the task is deferred."""
    method, kwargs = "execute", {}
    while True:
        try:
            return getattr(operator, method)(context, **kwargs)
        except TaskDeferred as deferred:
            path, arguments = deferred.trigger.serialize()
            assert path.startswith(f"{triggers.__name__}."), path
            trigger = getattr(triggers, path.rpartition(".")[2])(**arguments)
            event = asyncio.run(_first_event(trigger))
            method, kwargs = deferred.method_name, {**(deferred.kwargs or {}), "event": event}


async def _first_event(trigger: BaseTrigger) -> Any:
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


def replace_file(path: Path, text: str) -> None:
    draft = path.with_suffix(f".{os.getpid()}.draft")  # two attempts may write at once
    draft.write_text(text)
    draft.replace(path)


def _warm_up() -> None:
    """Do once, before workers are forked, what each of them would do again: half a second a task."""
    load = cache(partial(JSONFileLoader.load_file, JSONFileLoader()))
    JSONFileLoader.load_file = lambda _, path: load(path)  # type: ignore[method-assign]
    for service in ("s3", "rekognition", "sts"):
        boto3.session.Session().client(
            service, region_name="us-east-1", aws_access_key_id="", aws_secret_access_key=""
        )
    inspect.stack()
    # What the operators import only when they run.
    assert audit
    assert landing


_warm_up()
