"""Uploads a day of UGC to the local cloud: `./modlake seed`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError

from cli.seed_objects import SeedObject, day_objects
from cli.seed_variants import load_samples
from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "modlake-ugc"
MAKERS = 2
UPLOADERS = 16

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SeedResult:
    """What the day holds now, and what was done to get there, in objects."""

    images: int
    uploaded: int
    skipped: int
    deleted: int


@dataclass(frozen=True, slots=True)
class _Made:
    """An object whose bytes lie in a local file."""

    source: SeedObject
    path: Path
    md5: str
    sha256: str


def seed_day(s3: S3Client, home: Path, day: date, images: int, report: Report) -> SeedResult:
    """Make s3://modlake-ugc/uploads/<day>/ hold exactly `images` objects, then mark the day as complete.

    The same day and number give the same keys and bytes. What is already there is left alone, anything else
    below the day's prefix is deleted. The answers of the images are in <home>/cloud/answers/<day>.json before
    the first upload. `report` gets the objects done and their total.

    Raises ModlakeTerminalError for a negative number, ModlakeTransientError when the local cloud is down.
    """
    if images < 0:
        raise ModlakeTerminalError(f"A day of {images} images cannot be seeded; ask for 0 or more.")
    prefix = f"uploads/{day.isoformat()}/"
    try:
        present = _etags(s3, prefix)
    except EndpointConnectionError as error:
        raise ModlakeTransientError(
            f"S3 at {s3.meta.endpoint_url} does not answer; start the local cloud: ./modlake cloud start"
        ) from error
    objects = day_objects(day, images, load_samples())
    with TemporaryDirectory(prefix="modlake-seed-") as folder:
        made = _make(objects, Path(folder), report)
        _write_answers(home / "cloud" / "answers" / f"{day.isoformat()}.json", made)
        wanted = {prefix + one.source.key: one for one in made}
        pending = {key: one.path for key, one in wanted.items() if present.get(key) != one.md5}
        stale = [key for key in present if key not in wanted]
        marker = f"complete/{day.isoformat()}"
        if pending or stale:
            s3.delete_object(Bucket=BUCKET, Key=marker)  # nobody may take a half-changed day for complete
        _delete(s3, stale)
        _upload(s3, pending, lambda done: report((2 * images - len(pending) + done) // 2, images))
    _mark_complete(s3, marker, {"day": day.isoformat(), "images": images})
    report(images, images)
    return SeedResult(images, uploaded=len(pending), skipped=images - len(pending), deleted=len(stale))


def s3_client(environment: Mapping[str, str]) -> S3Client:
    """A client by `localcloud.cloud.environment` that can carry all uploaders at once."""
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(
            max_pool_connections=UPLOADERS,
            retries={"mode": "standard", "total_max_attempts": 3},
            s3={"addressing_style": "path"},
        ),
    )


def _make(objects: list[SeedObject], folder: Path, report: Report) -> list[_Made]:
    """The bytes go to disk, so that memory does not grow with the day; counts as half of the work."""

    def make(index: int) -> _Made:
        body = objects[index].body()
        path = folder / str(index)
        path.write_bytes(body)
        return _Made(objects[index], path, _md5(body), hashlib.sha256(body).hexdigest())

    made = []
    with ThreadPoolExecutor(MAKERS) as makers:
        for one in makers.map(make, range(len(objects))):
            made.append(one)
            report(len(made) // 2, len(objects))
    return made


def _write_answers(path: Path, made: list[_Made]) -> None:
    """The local cloud re-reads the answer book when it changes, so it must never see half of one."""
    answers: dict[str, dict[str, Any]] = {
        one.sha256: one.source.sample.answer
        for one in made
        if one.source.sample is not None and one.source.sample.answer is not None
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(answers, ensure_ascii=False), encoding="utf-8")
    unfinished.replace(path)


def _upload(s3: S3Client, pending: dict[str, Path], report: Callable[[int], None]) -> None:
    def put(key: str) -> None:
        s3.put_object(Bucket=BUCKET, Key=key, Body=pending[key].read_bytes())

    with ThreadPoolExecutor(UPLOADERS) as uploaders:
        for done, _ in enumerate(uploaders.map(put, pending), start=1):
            report(done)


def _delete(s3: S3Client, keys: list[str]) -> None:
    with ThreadPoolExecutor(UPLOADERS) as deleters:
        list(deleters.map(lambda key: s3.delete_object(Bucket=BUCKET, Key=key), keys))


def _mark_complete(s3: S3Client, key: str, content: dict[str, str | int]) -> None:
    body = json.dumps(content).encode()
    if _etags(s3, key).get(key) != _md5(body):
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)


def _etags(s3: S3Client, prefix: str) -> dict[str, str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return {entry["Key"]: entry["ETag"].strip('"') for page in pages for entry in page.get("Contents", [])}


def _md5(body: bytes) -> str:
    """The ETag of an object that was put in one piece."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
