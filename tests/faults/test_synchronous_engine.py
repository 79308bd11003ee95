"""The synchronous engine as real processes, killed, against an account that throttles and loses answers."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import uvicorn

from cli.airflow_environment import connections
from cli.seed import s3_client
from localcloud import cloud as local_cloud
from localcloud.rekognition.__main__ import build_app
from localcloud.settings import CHECKOUT, CloudSettings
from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.operators.rekognition_synchronous import DetectModerationLabelsOperator
from modlake.pipeline.job_files import read_finished_job
from modlake.pipeline.landing import land_shard
from modlake.pipeline.plan import AnalysisParameters, Plan
from tests.support.cloud import running_cloud
from tests.support.days import plan_day

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

IMAGES = 400
WINDOW = 250
Message = MutableMapping[str, Any]
SPAWN = multiprocessing.get_context("spawn")


class UnreliableService:
    """The stand-in behind a network: 5 % of the calls are throttled, 1 % fail, before they are judged.

    Each image that was answered is written to ``journal``, a line each.
    """

    def __init__(self, service: Any, journal: Path) -> None:
        self._service = service
        self._random = random.Random(4)
        self._journal = journal.open("a", buffering=1)

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._service(scope, receive, send)
            return
        message = await receive()
        luck = self._random.random()
        if luck < 0.06:
            code = "ThrottlingException" if luck < 0.05 else "InternalServerError"
            body = json.dumps({"__type": code, "message": "no luck"}).encode()
            headers = [(b"content-type", b"application/x-amz-json-1.1")]
            await send({"type": "http.response.start", "status": 500, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        image = json.loads(message["body"])["Image"]["S3Object"]["Name"]

        async def pass_on() -> Message:
            return message

        async def note(answer: Message) -> None:
            if answer["type"] == "http.response.start" and answer["status"] == 200:
                self._journal.write(f"{image}\n")
            await send(answer)

        await self._service(scope, pass_on, note)


def serve(settings: CloudSettings, port: int, journal: Path) -> None:
    uvicorn.run(UnreliableService(build_app(settings), journal), host="127.0.0.1", port=port, log_config=None)


def attempt(connection: dict[str, Any], plan_uri: str, shards: list[int]) -> None:
    """What a worker does, in a process of its own: as in Airflow's task runner, SIGTERM calls ``on_kill``."""
    os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps(connection)
    operator = DetectModerationLabelsOperator(
        task_id="analyse", manifest_group={"plan_uri": plan_uri, "group": 0, "shards": shards}
    )
    signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    operator.execute({"ti": mock.Mock(id="ti")})


@dataclass(frozen=True)
class Scene:
    store: S3ObjectStoreHook
    connection: dict[str, Any]
    journal: Path

    def plan(self, name: str, **changes: Any) -> Plan:
        return plan_day(
            self.store,
            run_id=name,
            source_uri="s3://modlake-ugc/uploads/2026-11-21/",
            work_uri="s3://modlake-work/",
            allowed_uris=["s3://modlake-ugc/uploads/"],
            images_per_manifest=150,
            **changes,
        )

    def start(self, plan: Plan) -> BaseProcess:
        shards = [shard.shard for shard in plan.shards]
        process = SPAWN.Process(
            target=attempt, args=(self.connection, plan.folder.plan_uri, shards), daemon=True
        )
        process.start()
        return process

    def judged(self) -> Counter[str]:
        return Counter(self.journal.read_text().splitlines()) if self.journal.exists() else Counter()

    def wait_until(self, judged: int) -> None:
        deadline = time.monotonic() + 60
        while self.judged().total() < judged:
            assert time.monotonic() < deadline, f"{self.judged().total()} of {judged} images after 60 s"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudSettings]:
    with running_cloud(tmp_path_factory.mktemp("cloud")) as settings:
        image = (CHECKOUT / "include/sample_images/clipart/gambling/die.png").read_bytes()
        s3 = s3_client(local_cloud.environment(settings))
        for number in range(IMAGES):
            key = f"uploads/2026-11-21/{number:04d} +%.png"
            s3.put_object(Bucket="modlake-ugc", Key=key, Body=image)
        yield settings


@pytest.fixture
def scene(cloud: CloudSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    connection = connections(replace(cloud, rekognition_port=port))["aws_default"]
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    service = SPAWN.Process(target=serve, args=(cloud, port, tmp_path / "journal"), daemon=True)
    service.start()
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield Scene(S3ObjectStoreHook(), connection, tmp_path / "journal")
    finally:
        service.kill()
        service.join()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def assert_all_judged(scene: Scene, plan: Plan) -> None:
    landed = [land_shard(scene.store, plan, shard.shard, "1") for shard in plan.shards]
    assert sum(shard.judged for shard in landed) == IMAGES
    assert sum(shard.failed for shard in landed) == 0


def test_a_killed_attempt_goes_on_where_it_was(scene: Scene) -> None:
    plan = scene.plan("killed")
    killed = scene.start(plan)
    scene.wait_until(judged=220)
    killed.kill()
    killed.join()
    second = scene.start(plan)
    second.join(120)
    assert second.exitcode == 0
    assert_all_judged(scene, plan)
    judged = scene.judged()
    assert len(judged) == IMAGES
    assert judged.total() - IMAGES <= min(WINDOW, 150)


def test_two_runs_at_once_judge_each_image_once(scene: Scene) -> None:
    plans = [scene.plan(name, parameters=AnalysisParameters(60.0, None)) for name in ("one", "two")]
    processes = [scene.start(plan) for plan in plans]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    for plan in plans:
        assert_all_judged(scene, plan)
    assert set(scene.judged().values()) == {1}
    jobs = [[read_finished_job(scene.store, plan, number).job_id for number in range(3)] for plan in plans]
    assert jobs[0] == jobs[1]


def test_a_terminated_attempt_keeps_all_its_answers(scene: Scene) -> None:
    plan = scene.plan("terminated", parameters=AnalysisParameters(70.0, None))
    process = scene.start(plan)
    scene.wait_until(judged=100)
    told_at = time.monotonic()
    process.terminate()
    process.join(20)
    assert process.exitcode == 1
    assert time.monotonic() - told_at < 5
    second = scene.start(plan)
    second.join(120)
    assert_all_judged(scene, plan)
    assert set(scene.judged().values()) == {1}
