"""The hook of the object store against botocore's stubbed S3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from unittest import mock

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from botocore.stub import Stubber

from modlake.exceptions import ModlakeError, ModlakeTerminalError, ModlakeTransientError
from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.pipeline.object_store import ListedObject, ObjectExistsError, ObjectNotFoundError

MORNING = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def hook() -> S3ObjectStoreHook:
    return S3ObjectStoreHook(aws_conn_id=None, region_name="us-east-1")


@pytest.fixture
def s3(hook: S3ObjectStoreHook) -> Iterator[Stubber]:
    with Stubber(hook.conn) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def entry(key: str, size: int = 3) -> dict[str, object]:
    return {"Key": key, "Size": size, "ETag": '"0cc1"', "LastModified": MORNING}


def test_listing_yields_pages_with_decoded_keys(hook: S3ObjectStoreHook, s3: Stubber) -> None:
    asked = {"Bucket": "ugc", "Prefix": "d/"}
    s3.add_response(
        "list_objects_v2",
        {
            "EncodingType": "url",
            "IsTruncated": True,
            "NextContinuationToken": "t",
            "Contents": [entry("d/a%2Bb%20%25%0A.jpg"), entry("d/%E6%97%A5.png", 0)],
        },
        asked,
    )
    s3.add_response(
        "list_objects_v2",
        {"EncodingType": "url", "IsTruncated": False, "Contents": [entry("d/z%2B+z")]},
        {**asked, "ContinuationToken": "t"},
    )

    pages = list(hook.list_objects("ugc", "d/"))

    assert [[listed.key for listed in page] for page in pages] == [["d/a+b %\n.jpg", "d/日.png"], ["d/z+ z"]]
    assert pages[0][1] == ListedObject("ugc", "d/日.png", 0, "0cc1", MORNING)


def test_listing_of_nothing_has_no_pages(hook: S3ObjectStoreHook, s3: Stubber) -> None:
    s3.add_response("list_objects_v2", {"IsTruncated": False, "KeyCount": 0})
    assert list(hook.list_objects("ugc", "d/")) == []


def test_an_error_on_a_later_page_is_explained(hook: S3ObjectStoreHook, s3: Stubber) -> None:
    s3.add_response(
        "list_objects_v2", {"IsTruncated": True, "NextContinuationToken": "t", "Contents": [entry("a")]}
    )
    s3.add_client_error("list_objects_v2", "SlowDown", http_status_code=503)
    pages = hook.list_objects("ugc", "d/")
    next(pages)
    with pytest.raises(ModlakeTransientError, match="s3://ugc/d/ now"):
        next(pages)


def test_a_write_is_conditional_only_when_asked(hook: S3ObjectStoreHook, s3: Stubber) -> None:
    s3.add_response("put_object", {}, {"Bucket": "work", "Key": "a#b?c", "Body": b"1"})
    s3.add_response("put_object", {}, {"Bucket": "work", "Key": "x", "Body": b"2", "IfNoneMatch": "*"})
    hook.write("s3://work/a#b?c", b"1")
    hook.write("s3://work/x", b"2", if_absent=True)


@pytest.mark.parametrize(("keys", "there"), [(["m"], True), (["m-longer"], False), ([], False)])
def test_exists_is_about_the_exact_key(
    hook: S3ObjectStoreHook, s3: Stubber, keys: list[str], there: bool
) -> None:
    s3.add_response("list_objects_v2", {"Contents": [entry(key) for key in keys]})
    assert hook.exists("s3://ugc/m") is there


@pytest.mark.parametrize(
    ("code", "status", "kind", "mend"),
    [
        ("NoSuchKey", 404, ObjectNotFoundError, "write it first"),
        ("404", 404, ModlakeTransientError, "cut off"),
        ("NoSuchBucket", 404, ModlakeTerminalError, "no bucket 'work'"),
        ("AccessDenied", 403, ModlakeTerminalError, "allow s3:GetObject"),
        ("InvalidAccessKeyId", 403, ModlakeTerminalError, "renew"),
        ("ExpiredToken", 400, ModlakeTerminalError, "renew"),
        ("PermanentRedirect", 301, ModlakeTerminalError, "is in eu-west-1.*set region_name"),
        ("SlowDown", 503, ModlakeTransientError, "try again"),
        ("InternalError", 500, ModlakeTransientError, "try again"),
        ("RequestTimeout", 400, ModlakeTransientError, "try again"),
        ("InvalidRequest", 400, ModlakeTerminalError, "correct the name"),
    ],
)
def test_errors_name_the_object_and_the_mend(
    hook: S3ObjectStoreHook, s3: Stubber, code: str, status: int, kind: type[ModlakeError], mend: str
) -> None:
    s3.add_client_error(
        "get_object",
        code,
        http_status_code=status,
        response_meta={"HTTPHeaders": {"x-amz-bucket-region": "eu-west-1"}},
    )
    with pytest.raises(
        kind, match=rf"(?s)s3://work/plan\.json.*{mend}|{mend}.*s3://work/plan\.json"
    ) as raised:
        hook.read("s3://work/plan.json")
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("PreconditionFailed", 412, ObjectExistsError),
        ("ConditionalRequestConflict", 409, ModlakeTransientError),
    ],
)
def test_conditional_writes_that_lose(
    hook: S3ObjectStoreHook, s3: Stubber, code: str, status: int, kind: type[ModlakeError]
) -> None:
    s3.add_client_error("put_object", code, http_status_code=status)
    with pytest.raises(kind, match="s3://work/x"):
        hook.write("s3://work/x", b"", if_absent=True)


@pytest.mark.parametrize(
    ("error", "kind", "mend"),
    [
        (EndpointConnectionError(endpoint_url="http://s3"), ModlakeTransientError, "endpoint_url"),
        (NoCredentialsError(), ModlakeTerminalError, "login and password"),
    ],
)
def test_errors_before_an_answer(
    hook: S3ObjectStoreHook, error: Exception, kind: type[ModlakeError], mend: str
) -> None:
    with (
        mock.patch.object(hook.conn, "get_object", side_effect=error),
        pytest.raises(kind, match=f"s3://work/x.*{mend}"),
    ):
        hook.read("s3://work/x")


@pytest.mark.parametrize("uri", ["s3://arn:aws-us-gov:s3:::reports/x", "s3://work/"])
def test_names_that_no_request_can_hold_are_terminal(hook: S3ObjectStoreHook, uri: str) -> None:
    with pytest.raises(ModlakeTerminalError, match=rf"(?s){uri}.*Correct the name"):
        hook.read(uri)


def test_retries_are_standard_beside_the_config_of_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"region_name": "us-east-1", "config_kwargs": {"s3": {"addressing_style": "path"}}}
    monkeypatch.setenv("AIRFLOW_CONN_PATHS", json.dumps({"conn_type": "aws", "extra": extra}))
    config = S3ObjectStoreHook(aws_conn_id="paths").conn.meta.config
    assert config.retries["mode"] == "standard"
    assert config.s3 == {"addressing_style": "path"}


def test_retries_of_the_connection_win(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"region_name": "us-east-1", "config_kwargs": {"retries": {"mode": "adaptive"}}}
    monkeypatch.setenv("AIRFLOW_CONN_CALM", json.dumps({"conn_type": "aws", "extra": extra}))
    assert S3ObjectStoreHook(aws_conn_id="calm").conn.meta.config.retries["mode"] == "adaptive"
