"""Deleting against botocore's stubbed S3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.stub import Stubber

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.hooks.object_store import S3ObjectStoreHook


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> S3ObjectStoreHook:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return S3ObjectStoreHook(aws_conn_id=None, region_name="us-east-1")


@pytest.fixture
def s3(hook: S3ObjectStoreHook) -> Iterator[Stubber]:
    with Stubber(hook.conn) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def request(bucket: str, keys: list[str]) -> dict[str, Any]:
    return {"Bucket": bucket, "Delete": {"Objects": [{"Key": key} for key in keys], "Quiet": True}}


def test_objects_go_a_thousand_a_request_bucket_by_bucket(hook: S3ObjectStoreHook, s3: Stubber) -> None:
    keys = [f"k%+ {number}" for number in range(1001)]
    s3.add_response("delete_objects", {}, request("work", keys[:1000]))
    s3.add_response("delete_objects", {}, request("work", keys[1000:]))
    s3.add_response("delete_objects", {}, request("lake", ["a/b"]))
    hook.delete([*(f"s3://work/{key}" for key in keys), "s3://lake/a/b"])


def test_nothing_to_delete_asks_nothing(hook: S3ObjectStoreHook, s3: Stubber) -> None:
    hook.delete([])


@pytest.mark.parametrize(
    ("code", "error", "mend"),
    [
        ("AccessDenied", ModlakeTerminalError, "Allow s3:DeleteObject"),
        ("InternalError", ModlakeTransientError, "Try again later"),
    ],
)
def test_objects_that_stay_are_an_error(
    hook: S3ObjectStoreHook, s3: Stubber, code: str, error: type[Exception], mend: str
) -> None:
    s3.add_response("delete_objects", {"Errors": [{"Key": "b", "Code": code, "Message": "no"}]})
    with pytest.raises(error, match=rf"1 of 2 objects, first s3://work/b: {code} no\. {mend}"):
        hook.delete(["s3://work/a", "s3://work/b"])


def test_a_refused_request_names_the_permission(hook: S3ObjectStoreHook, s3: Stubber) -> None:
    s3.add_client_error("delete_objects", "AccessDenied", http_status_code=403)
    with pytest.raises(ModlakeTerminalError, match="s3:DeleteObject"):
        hook.delete(["s3://work/a"])
