"""Starting, stopping and healing real processes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from localcloud import cloud
from localcloud.errors import LocalCloudError
from localcloud.settings import BUCKETS, HOST, CloudSettings
from tests.localcloud.support import Client
from tests.support.cloud import free_settings, kill_server, running_cloud

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[CloudSettings]:
    with running_cloud(tmp_path) as settings:
        yield settings


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[CloudSettings]:
    settings = free_settings(tmp_path)
    yield settings
    cloud.stop(settings)


def pids(settings: CloudSettings) -> tuple[int | None, int | None]:
    status = cloud.status(settings)
    assert status.running
    return status.s3.pid, status.rekognition.pid


def test_start_makes_the_buckets_and_is_idempotent(settings: CloudSettings) -> None:
    buckets = Client(settings).s3.list_buckets()["Buckets"]
    assert {bucket["Name"] for bucket in buckets} == set(BUCKETS)
    before = pids(settings)
    cloud.start(settings)
    assert pids(settings) == before


def test_only_this_machine_can_connect(settings: CloudSettings) -> None:
    listening = {
        connection.laddr
        for pid in pids(settings)
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.ip for address in listening} == {HOST}
    ports = {address.port for address in listening}
    assert {settings.s3_port, settings.rekognition_port} <= ports
    assert ports <= {settings.s3_port, settings.rekognition_port, *settings.internal_ports.values()}


@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_half_is_healed(settings: CloudSettings, victim: int) -> None:
    before = pids(settings)
    kill_server(before[victim] or 0)
    assert not cloud.status(settings).running

    cloud.start(settings)

    after = pids(settings)
    assert after[victim] != before[victim]
    assert after[1 - victim] == before[1 - victim]


def test_a_hanging_server_is_told_from_a_running_one(settings: CloudSettings) -> None:
    before = pids(settings)
    os.kill(before[1] or 0, signal.SIGSTOP)
    assert cloud.status(settings).rekognition.state == "unresponsive"
    os.kill(before[1] or 0, signal.SIGCONT)


def test_processes_whose_record_was_lost_are_found_again(settings: CloudSettings) -> None:
    before = pids(settings)
    for pid_file in settings.cloud_dir.glob("*.pid"):
        pid_file.unlink()
    cloud.start(settings)
    assert pids(settings) == before


def test_other_ports_or_keys_restart_the_servers(settings: CloudSettings) -> None:
    Client(settings).put("kept.txt", b"kept")
    moved = dataclasses.replace(free_settings(settings.home), secret_key="another-secret")
    cloud.start(moved)
    assert Client(moved).s3.get_object(Bucket="modlake-ugc", Key="kept.txt")["Body"].read() == b"kept"
    cloud.stop(moved)
    assert cloud.status(settings).s3.state == cloud.status(settings).rekognition.state == "stopped"


def test_stop_never_kills_a_stranger(stopped: CloudSettings) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        stopped.cloud_dir.mkdir(parents=True)
        # The pid was ours before the machine was restarted.
        record = {"pid": stranger.pid, "create_time": psutil.Process(stranger.pid).create_time() - 100}
        (stopped.cloud_dir / "seaweedfs.pid").write_text(json.dumps(record))
        (stopped.cloud_dir / "rekognition.pid").write_text("half a rec")
        cloud.stop(stopped)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize(
    ("port", "variable"),
    [
        ("s3_port", "MODLAKE_S3_PORT"),
        ("rekognition_port", "MODLAKE_REKOGNITION_PORT"),
        ("seaweedfs_port", "MODLAKE_SEAWEEDFS_PORT"),
    ],
)
def test_a_taken_port_names_the_variable_to_set(stopped: CloudSettings, port: str, variable: str) -> None:
    number = getattr(stopped, port)
    with socket.socket() as taken:
        taken.bind((HOST, number))
        taken.listen()
        with pytest.raises(
            LocalCloudError, match=f"port {number} .*by .*pid {os.getpid()}.*set {variable} to"
        ):
            cloud.start(stopped)
    assert cloud.status(stopped).s3.pid is None


def test_a_wrong_behaviour_is_told_before_anything_starts(stopped: CloudSettings) -> None:
    stopped.cloud_dir.mkdir(parents=True)
    (stopped.cloud_dir / "rekognition.toml").write_text("job_secs = 1\n")
    with pytest.raises(LocalCloudError, match="unknown setting 'job_secs': use one of concurrent_jobs"):
        cloud.start(stopped)
    assert cloud.status(stopped).s3.pid is None


def test_two_clouds_run_side_by_side(
    settings: CloudSettings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running_cloud(tmp_path_factory.mktemp("second")) as second:
        assert not set(pids(settings)) & set(pids(second))
    assert cloud.status(settings).running
