"""A real local cloud for a test: its own directory, its own ports."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from localcloud import cloud
from localcloud.settings import HOST, SEAWEEDFS_PORT_COUNT, CloudSettings

_MOST_WORKERS = 16


def free_settings(home: Path, *, s3_fault_proxy: bool = False) -> CloudSettings:
    """Settings on ports that are free now, below the range from which the system takes its own."""
    count = SEAWEEDFS_PORT_COUNT + 2
    dice = random.SystemRandom()  # Hypothesis seeds the common one alike in all of pytest's workers
    # Between "it is free" and "it is taken" another worker of pytest could choose it too.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _MOST_WORKERS
    blocks = range(20_000 + worker * count, 32_000, _MOST_WORKERS * count)
    for first in dice.sample(blocks, len(blocks)):
        if all(_is_free(port) for port in range(first, first + count)):
            return CloudSettings(
                home=home,
                s3_port=first,
                rekognition_port=first + 1,
                seaweedfs_port=first + 2,
                s3_fault_proxy=s3_fault_proxy,
            )
    raise RuntimeError("no block of free ports between 20000 and 32000")


@contextmanager
def running_cloud(
    home: Path, *, s3_fault_proxy: bool = False, **behaviour: float | str
) -> Iterator[CloudSettings]:
    """A started cloud with this behaviour (see rekognition.toml), stopped at the end."""
    settings = free_settings(home, s3_fault_proxy=s3_fault_proxy)
    settings.cloud_dir.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in behaviour.items()]
    (settings.cloud_dir / "rekognition.toml").write_text("".join(lines), encoding="utf-8")
    try:
        cloud.start(settings)
        yield settings
    finally:
        status = cloud.status(settings)
        for server in filter(None, (status.s3, status.rekognition, status.s3_fault_proxy)):
            if server.pid is None:
                continue
            kill_server(server.pid)  # its data is the test's: no need to wait for an orderly end
        cloud.stop(settings)


def kill_server(pid: int) -> None:
    """SIGKILL, and wait until the process is gone: until then it holds its ports."""
    process = psutil.Process(pid)
    process.kill()
    process.wait(10)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
