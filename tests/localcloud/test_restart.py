"""What survives a stop, and a SIGKILL at the worst moment."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcloud import cloud
from localcloud.settings import CloudSettings
from tests.localcloud.support import Client, picture
from tests.support.cloud import kill_server, running_cloud

pytestmark = pytest.mark.integration

IMAGES = 40


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[CloudSettings]:
    with running_cloud(tmp_path, image_workers=1) as settings:
        yield settings


@pytest.fixture
def client(settings: CloudSettings) -> Client:
    client = Client(settings)
    refs = [client.put(f"{number:03}.jpg", picture(seed=number)) for number in range(IMAGES)]
    client.put_manifest("m.jsonl", refs)
    return client


def billed(settings: CloudSettings) -> list[tuple[int, float]]:
    with sqlite3.connect(settings.cloud_dir / "rekognition.sqlite") as database:
        return database.execute("SELECT line_number, billed_at FROM bill ORDER BY line_number").fetchall()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(server: cloud.ServerStatus) -> None:
    assert server.pid is not None
    kill_server(server.pid)


def assert_complete(client: Client, job_id: str) -> None:
    job = client.finished(job_id)
    assert job["Status"] == "SUCCEEDED", job
    assert len({line["source-ref"] for line in client.results(job)}) == len(client.results(job)) == IMAGES
    assert [line for line, _ in billed(client.settings)] == list(range(1, IMAGES + 1))


def test_a_job_killed_midway_goes_on_and_bills_no_image_twice(
    client: Client, settings: CloudSettings
) -> None:
    job_id = client.start("m.jsonl", ClientRequestToken="once")
    wait_for(lambda: len(billed(settings)) > 0)
    kill(cloud.status(settings).rekognition)
    before = billed(settings)
    assert 0 < len(before) < IMAGES
    assert cloud.status(settings).rekognition.state == "stopped"

    cloud.start(settings)

    assert client.start("m.jsonl", ClientRequestToken="once") == job_id
    assert_complete(client, job_id)
    assert billed(settings)[: len(before)] == before


def test_a_job_outlives_the_death_of_s3(client: Client, settings: CloudSettings) -> None:
    job_id = client.start("m.jsonl")
    wait_for(lambda: len(billed(settings)) > 0)
    kill(cloud.status(settings).s3)

    cloud.start(settings)

    assert_complete(client, job_id)


def test_a_stopped_cloud_keeps_everything(client: Client, settings: CloudSettings) -> None:
    job_id = client.start("m.jsonl")
    wait_for(lambda: len(billed(settings)) > 0)
    cloud.stop(settings)
    assert len(billed(settings)) < IMAGES
    cloud.start(settings)
    assert_complete(client, job_id)
    job = client.finished(job_id)

    cloud.stop(settings)
    cloud.start(settings)

    job.pop("ResponseMetadata")
    again = client.finished(job_id)
    again.pop("ResponseMetadata")
    assert again == job
    assert len(client.results(again)) == IMAGES
