"""The caller's objects in S3, read and written with the caller's own keys."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ABSENT = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound", "404", "InvalidBucketName"})
_FORBIDDEN = frozenset({"AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"})


class ObjectError(Exception):
    """S3 did not give or take an object."""


class ObjectAbsentError(ObjectError):
    """There is no such bucket, key or version."""


class ObjectForbiddenError(ObjectError):
    """The caller may not do that."""


class ObjectTooLargeError(ObjectError):
    """The object is larger than the caller of `read` takes."""


class StorageUnavailableError(ObjectError):
    """S3 can't be reached or is overloaded: the same call may succeed later."""

    def __init__(self, message: str, *, throttled: bool) -> None:
        super().__init__(message)
        self.throttled = throttled


class Objects:
    """One caller's view of S3; safe to share between threads."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    def read(self, bucket: str, key: str, version: str | None = None, *, limit_bytes: int) -> bytes:
        """The object's bytes; raises ObjectError (ObjectTooLargeError without reading the body)."""
        with _translated():
            answer = self._client.get_object(Bucket=bucket, Key=key, **_version(version))
            with answer["Body"] as body:
                if answer["ContentLength"] > limit_bytes:
                    raise ObjectTooLargeError(f"{answer['ContentLength']} bytes, {limit_bytes} are allowed")
                return bytes(body.read())

    def size(self, bucket: str, key: str, version: str | None = None) -> int:
        """The object's size in bytes; raises ObjectError."""
        with _translated():
            return int(self._client.head_object(Bucket=bucket, Key=key, **_version(version))["ContentLength"])

    def require_writable(self, bucket: str, key: str) -> None:
        """Raise ObjectError unless the key can be written; leaves nothing behind."""
        with _translated():
            upload = self._client.create_multipart_upload(Bucket=bucket, Key=key)
            self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload["UploadId"])

    def upload(self, path: Path, bucket: str, key: str, content_type: str) -> None:
        """Write a file as an object; raises ObjectError."""
        with _translated(), path.open("rb") as body:
            self._client.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)


class ObjectsByCaller:
    """An S3 client for each access key, made once."""

    def __init__(
        self, endpoint: str, region: str, secrets: Callable[[], Mapping[str, str]], connections: int
    ) -> None:
        self._endpoint = endpoint
        self._region = region
        self._secrets = secrets
        self._connections = connections
        self._objects: dict[tuple[str, str], Objects] = {}
        self._lock = threading.Lock()

    def of(self, access_key: str) -> Objects:
        """The caller's view; raises ObjectForbiddenError for a key that is no longer known."""
        secret_key = self._secrets().get(access_key)
        if secret_key is None:
            raise ObjectForbiddenError(f"the access key {access_key} does not exist any more")
        with self._lock:
            keys = (access_key, secret_key)
            if keys not in self._objects:
                self._objects[keys] = Objects(self._client(access_key, secret_key))
            return self._objects[keys]

    def _client(self, access_key: str, secret_key: str) -> S3Client:
        return boto3.client(
            "s3",
            endpoint_url=self._endpoint,
            region_name=self._region,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(
                connect_timeout=3,
                read_timeout=30,
                max_pool_connections=self._connections,
                retries={"mode": "standard", "total_max_attempts": 3},
                s3={"addressing_style": "path"},
            ),
        )


class _Version(TypedDict, total=False):
    VersionId: str


def _version(version: str | None) -> _Version:
    return {} if version is None else {"VersionId": version}


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _from_client_error(error) from error
    except ParamValidationError as error:
        raise ObjectAbsentError(f"no such bucket or key: {error}") from error
    except BotoCoreError as error:
        raise StorageUnavailableError(str(error), throttled=False) from error


def _from_client_error(error: ClientError) -> ObjectError:
    code = error.response["Error"]["Code"]
    http_status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if code in _ABSENT or http_status == HTTPStatus.NOT_FOUND:
        return ObjectAbsentError(str(error))
    if code in _FORBIDDEN or http_status == HTTPStatus.FORBIDDEN:
        return ObjectForbiddenError(str(error))
    if http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return StorageUnavailableError(str(error), throttled=http_status == HTTPStatus.SERVICE_UNAVAILABLE)
    return ObjectError(str(error))
