"""S3 for the benches: SeaweedFS with a day of keys, kept between runs, because seeding takes longest."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import obstore
from botocore.config import Config
from obstore.store import S3Store

from localcloud import cloud
from localcloud.settings import CloudSettings
from tests.support.cloud import free_settings

UGC, WORK = "modlake-ugc", "modlake-work"
_PUTS_AT_ONCE = 24
# With the local cloud's 512 its garbage collector takes two thirds of the time to list a million keys.
_SEAWEEDFS_MEMORY_MIB = 2048
_running: dict[Path, CloudSettings] = {}


@contextmanager
def bench_cloud(home: Path) -> Iterator[CloudSettings]:
    """A local cloud on free ports, stopped at the end; its data stays. Within another it is that one."""
    if home in _running:
        yield _running[home]
        return
    settings = replace(free_settings(home), seaweedfs_memory_mib=_SEAWEEDFS_MEMORY_MIB)
    cloud.start(settings)
    _running[home] = settings
    try:
        yield settings
    finally:
        del _running[home]
        cloud.stop(settings)


@contextmanager
def found_by_every_library(settings: CloudSettings) -> Iterator[None]:
    """Let every AWS library of this process, and of its children, find the cloud and no other one."""
    with mock.patch.dict("os.environ", _environment(settings)), mock.patch("boto3.DEFAULT_SESSION", None):
        yield


def _environment(settings: CloudSettings) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": settings.access_key,
        "AWS_SECRET_ACCESS_KEY": settings.secret_key,
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_REGION": settings.region,
        "AWS_ENDPOINT_URL": settings.s3_endpoint,
        "AWS_ENDPOINT_URL_S3": settings.s3_endpoint,
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }


def day_prefix(images: int, *, is_flat: bool) -> str:
    return f"bench/{'flat' if is_flat else 'hours'}-{images}/"


def seed_day(settings: CloudSettings, images: int, *, is_flat: bool = False) -> str:
    """Store that many small objects, unless it was done before; return their prefix.

    Keys are random, below 24 hours or flat; every hundredth is no image.
    """
    prefix = day_prefix(images, is_flat=is_flat)
    marker = f"seeded/{prefix}done"
    s3 = client(settings)
    if not s3.list_objects_v2(Bucket=WORK, Prefix=marker, MaxKeys=1).get("Contents"):
        asyncio.run(_put_all(settings, prefix, images, is_flat=is_flat))
        s3.put_object(Bucket=WORK, Key=marker, Body=b"")
    return prefix


def client(settings: CloudSettings) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        region_name=settings.region,
        config=Config(s3={"addressing_style": "path"}),
    )


async def _put_all(settings: CloudSettings, prefix: str, images: int, *, is_flat: bool) -> None:
    store = S3Store(
        UGC,
        endpoint=settings.s3_endpoint,
        access_key_id=settings.access_key,
        secret_access_key=settings.secret_key,
        region=settings.region,
        client_options={"allow_http": True},
    )

    async def put_some(first: int) -> None:
        for number in range(first, images, _PUTS_AT_ONCE):
            name = hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()
            folder = "" if is_flat else f"{number % 24:02d}/"
            suffix = "json" if number % 100 == 0 else "jpg"
            await obstore.put_async(store, f"{prefix}{folder}{name}.{suffix}", name[:16].encode())

    await asyncio.gather(*(put_some(first) for first in range(_PUTS_AT_ONCE)))
