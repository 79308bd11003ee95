"""Images, manifests and clients for the local cloud's tests."""

from __future__ import annotations

import io
import json
import struct
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from PIL import Image

from localcloud.settings import CloudSettings

UGC, WORK = "modlake-ugc", "modlake-work"


def picture(image_format: str = "JPEG", width: int = 160, height: int = 120, seed: int = 0) -> bytes:
    """The bytes of a small noisy image; another seed, another image."""
    noise = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(buffer, image_format)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims these dimensions and holds nearly nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def error_of(call: Any, **request: Any) -> tuple[str, int, str]:
    """Name, HTTP code and message of the error that the call ends in."""
    with pytest.raises(ClientError) as caught:
        call(**request)
    response = caught.value.response
    assert response["ResponseMetadata"]["RequestId"]
    return (
        response["Error"]["Code"],
        response["ResponseMetadata"]["HTTPStatusCode"],
        response["Error"]["Message"],
    )


@dataclass
class Client:
    """What a user of the local cloud has: boto3 with the addresses and keys, and nothing else."""

    settings: CloudSettings
    access_key: str | None = None
    secret_key: str | None = None

    def _make(self, service: str, endpoint: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=endpoint,
            region_name=self.settings.region,
            aws_access_key_id=self.access_key or self.settings.access_key,
            aws_secret_access_key=self.secret_key or self.settings.secret_key,
            config=Config(retries={"mode": "standard", "total_max_attempts": 1}, parameter_validation=False),
        )

    @cached_property
    def s3(self) -> Any:
        return self._make("s3", self.settings.s3_endpoint)

    @cached_property
    def rekognition(self) -> Any:
        return self._make("rekognition", self.settings.rekognition_endpoint)

    def put(self, key: str, body: bytes, bucket: str = UGC) -> str:
        """Upload; the object's source-ref."""
        self.s3.put_object(Bucket=bucket, Key=key, Body=body)
        return f"s3://{bucket}/{key}"

    def put_manifest(self, key: str, source_refs: Iterable[str]) -> None:
        lines = [json.dumps({"source-ref": ref}, ensure_ascii=False) for ref in source_refs]
        self.put(key, "\n".join(lines).encode(), WORK)

    def start(self, manifest_key: str, min_confidence: float = 0.0, **more: Any) -> str:
        request = {
            "OperationsConfig": {"DetectModerationLabels": {"MinConfidence": min_confidence}},
            "Input": {"S3Object": {"Bucket": WORK, "Name": manifest_key}},
            "OutputConfig": {"S3Bucket": WORK, "S3KeyPrefix": "results"},
        }
        job_id: str = self.rekognition.start_media_analysis_job(**(request | more))["JobId"]
        return job_id

    def finished(self, job_id: str, patience_seconds: float = 60) -> dict[str, Any]:
        """The job once it is SUCCEEDED or FAILED."""
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.rekognition.get_media_analysis_job(JobId=job_id)
            if job["Status"] in ("SUCCEEDED", "FAILED"):
                return job
            time.sleep(0.1)
        raise TimeoutError(f"job {job_id} is {job['Status']}")

    def results(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        body = self._read(job["Results"]["S3Object"]).decode()
        return [json.loads(line) for line in body.splitlines()]

    def summary(self, job: dict[str, Any]) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self._read(job["ManifestSummary"]["S3Object"]))
        return summary

    def _read(self, s3_object: dict[str, str]) -> bytes:
        body: bytes = self.s3.get_object(Bucket=s3_object["Bucket"], Key=s3_object["Name"])["Body"].read()
        return body
