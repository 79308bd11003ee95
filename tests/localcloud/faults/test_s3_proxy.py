from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from localcloud import cloud
from localcloud.faults.s3_proxy import operation_of
from localcloud.settings import CloudSettings
from tests.localcloud.support import Client
from tests.support.cloud import running_cloud


@pytest.mark.parametrize(
    ("method", "key", "query", "operation"),
    [
        ("GET", "", "list-type=2&prefix=a", "ListObjectsV2"),
        ("POST", "", "delete", "DeleteObjects"),
        ("PUT", "", "", "CreateBucket"),
        ("GET", "a/b", "", "GetObject"),
        ("HEAD", "a", "", "HeadObject"),
        ("PUT", "a", "", "PutObject"),
        ("DELETE", "a", "", "DeleteObject"),
        ("POST", "a", "uploads", "CreateMultipartUpload"),
        ("PUT", "a", "partNumber=1&uploadId=u", "UploadPart"),
        ("POST", "a", "uploadId=u", "CompleteMultipartUpload"),
        ("DELETE", "a", "uploadId=u", "AbortMultipartUpload"),
    ],
)
def test_operations_are_told_apart(method: str, key: str, query: str, operation: str) -> None:
    assert operation_of(method, key, query) == operation


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[CloudSettings]:
    with running_cloud(tmp_path, s3_fault_proxy=True) as settings:
        yield settings


@pytest.mark.integration
def test_the_proxy_comes_and_goes_with_the_setting(settings: CloudSettings) -> None:
    Client(settings).put("kept.jpg", b"kept")
    status = cloud.status(settings)
    assert status.running
    assert status.s3_fault_proxy is not None
    assert status.s3_fault_proxy.endpoint == settings.s3_endpoint != status.s3.endpoint

    plain = replace(settings, s3_fault_proxy=False)
    cloud.start(plain)

    assert cloud.status(plain).running
    assert cloud.status(plain).s3.endpoint == settings.s3_endpoint
    assert cloud.status(settings).s3_fault_proxy.state == "stopped"  # type: ignore[union-attr]
    assert Client(plain).s3.get_object(Bucket="modlake-ugc", Key="kept.jpg")["Body"].read() == b"kept"


@pytest.mark.integration
def test_a_stop_ends_the_proxy_whatever_the_setting(settings: CloudSettings) -> None:
    cloud.stop(replace(settings, s3_fault_proxy=False))
    status = cloud.status(settings)
    assert status.s3_fault_proxy is not None
    assert (status.s3.state, status.s3_fault_proxy.state) == ("stopped", "stopped")
