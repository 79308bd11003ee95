"""Amazon S3 as the pipeline's object store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from modlake.exceptions import ModlakeError, ModlakeTerminalError, ModlakeTransientError
from modlake.hooks.listed_page import keep_bodies, read_page
from modlake.pipeline.object_store import ListedObject, ListedPage, ObjectExistsError, ObjectNotFoundError
from modlake.pipeline.s3_uri import split_s3_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Codes of Amazon S3's "Error responses" page.
WRONG_REGION = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
ACCESS_DENIED = {"AccessDenied", "AllAccessDisabled"}
BAD_CREDENTIALS = {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
# Two conditional writes of one key met: the loser may try again ("Conditional writes").
WRITE_CONFLICT = "ConditionalRequestConflict"
# Of Amazon S3's "DeleteObjects".
KEYS_PER_DELETE = 1_000
# As many as threads ask at once; botocore's 10 make it drop and warn.
CONNECTIONS = 64


class S3ObjectStoreHook(AwsBaseHook):
    """
    Read, write, list and delete objects; fulfils :class:`modlake.pipeline.object_store.ObjectStore`,
    :class:`modlake.pipeline.object_store.PagedListing` and
    :class:`modlake.lake.maintenance.store.DeletableStore`.

    Every failure is a :class:`~modlake.exceptions.ModlakeError` that names the object and the mend. Calls are
    tried six times in botocore's ``standard`` mode, unless the connection or ``config`` says otherwise.

    .. seealso::
        - :class:`airflow.providers.amazon.aws.hooks.base_aws.AwsBaseHook` for the arguments
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["client_type"] = "s3"
        super().__init__(*args, **kwargs)

    @property
    def config(self) -> Config:
        """The botocore configuration of the hook or its connection, with retries in any case."""
        given: Config = super().config
        retries: Any = {"mode": "standard", **(getattr(given, "retries", None) or {"total_max_attempts": 6})}
        connections = max(CONNECTIONS, getattr(given, "max_pool_connections", 0))
        return given.merge(Config(retries=retries, max_pool_connections=connections))

    def list_objects(self, bucket: str, prefix: str) -> Iterator[list[ListedObject]]:
        """
        Yield the objects under a prefix page by page, up to 1,000 each, in the order S3 lists them.

        :raises ModlakeTerminalError: the bucket doesn't exist, is in another region, or may not be listed
        :raises ModlakeTransientError: S3 can't be reached or asks to slow down
        """
        uri = f"s3://{bucket}/{prefix}"
        # EncodingType stays unset: boto3 asks for "url" itself, and decodes only what it asked for itself.
        pages = iter(self.conn.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix))
        while True:
            with explained("s3:ListBucket", uri):
                page = next(pages, None)
            if page is None:
                return
            if contents := page.get("Contents"):
                yield [listed_object(bucket, entry) for entry in contents]

    def list_page(
        self, bucket: str, prefix: str, *, after: str = "", continuation: str = "", limit: int = 1_000
    ) -> ListedPage:
        """
        Return up to ``limit`` objects under a prefix that S3 lists after a key; any thread may ask.

        :param continuation: that of the page that ended with that key
        :raises ModlakeTerminalError: as :meth:`list_objects` does
        """
        with explained("s3:ListBucket", f"s3://{bucket}/{prefix}"):
            beginning: Any = {"StartAfter": after} if after else {}
            if continuation:
                beginning = {"ContinuationToken": continuation}
            answer: Any = self._lister.list_objects_v2(
                Bucket=bucket, Prefix=prefix, MaxKeys=limit, **beginning
            )
        return read_page(answer, limit)

    @cached_property
    def _lister(self) -> S3Client:
        client: S3Client = self.get_client_type()
        keep_bodies(client)
        return client

    def read(self, uri: str) -> bytes:
        """
        Return an object's bytes.

        :raises ObjectNotFoundError: there is no such object
        """
        bucket, key = split_s3_uri(uri)
        with explained("s3:GetObject", uri):
            body: bytes = self.conn.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def write(self, uri: str, body: bytes, *, if_absent: bool = False) -> None:
        """
        Store an object whole; with ``if_absent`` only when nobody stored it before.

        :raises ObjectExistsError: ``if_absent`` and the object is there; after a lost reply it may be ours
        """
        bucket, key = split_s3_uri(uri)
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        with explained("s3:PutObject", uri):
            self.conn.put_object(Bucket=bucket, Key=key, Body=body, **condition)

    def exists(self, uri: str) -> bool:
        """Tell whether the object is there; a bucket that doesn't exist is an error, not a no."""
        bucket, key = split_s3_uri(uri)
        with explained("s3:ListBucket", uri):
            return names_object(self.conn.list_objects_v2(**exact_listing(bucket, key)), key)

    def delete(self, uris: Iterable[str]) -> None:
        """
        Remove objects, up to 1,000 a request; one that isn't there is no error.

        :raises ModlakeTerminalError: S3 denies it
        :raises ModlakeTransientError: S3 could not remove all of them
        """
        by_bucket: dict[str, list[str]] = {}
        for uri in uris:
            bucket, key = split_s3_uri(uri)
            by_bucket.setdefault(bucket, []).append(key)
        for bucket, keys in by_bucket.items():
            for chunk in _chunks(keys):
                self._delete_chunk(bucket, chunk)

    def _delete_chunk(self, bucket: str, keys: list[str]) -> None:
        with explained("s3:DeleteObject", f"s3://{bucket}/{keys[0]}"):
            answer = self.conn.delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        errors = answer.get("Errors", [])
        if not errors:
            return
        first = errors[0]
        said = (
            f"S3 did not delete {len(errors)} of {len(keys)} objects, first s3://{bucket}/{first['Key']}: "
            f"{first.get('Code')} {first.get('Message', '')}."
        )
        if first.get("Code") in ACCESS_DENIED:
            raise ModlakeTerminalError(f"{said} Allow s3:DeleteObject on it for the connection's identity.")
        raise ModlakeTransientError(f"{said} Try again later.")


def exact_listing(bucket: str, key: str) -> dict[str, Any]:
    """Request of ListObjectsV2 that finds one key: HeadObject answers 404 for a missing bucket too."""
    return {"Bucket": bucket, "Prefix": key, "MaxKeys": 1}


def names_object(page: dict[str, Any], key: str) -> bool:
    """Tell whether the answer to :func:`exact_listing` holds the key and not just a longer one."""
    return any(entry["Key"] == key for entry in page.get("Contents", ()))


def listed_object(bucket: str, entry: dict[str, Any]) -> ListedObject:
    """Take over one entry of a ListObjectsV2 page."""
    return ListedObject(
        bucket=bucket,
        key=entry["Key"],
        size_bytes=entry["Size"],
        etag=entry["ETag"].strip('"'),
        last_modified=entry["LastModified"].astimezone(UTC),
    )


@contextmanager
def explained(permission: str, uri: str) -> Iterator[None]:
    """
    Turn what botocore raises inside the block into an error of ours about ``uri``.

    :param permission: the IAM action that the calls in the block need
    """
    try:
        yield
    except ClientError as error:
        raise _client_error(error, permission, uri) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ModlakeTerminalError(
            f"No AWS credentials to reach {uri}: {error} "
            "Set login and password of the Airflow connection, or give the worker a role."
        ) from error
    except ParamValidationError as error:
        raise ModlakeTerminalError(
            f"S3 can't be asked for {uri}: {error}. Correct the name or the request."
        ) from error
    except BotoCoreError as error:
        raise ModlakeTransientError(
            f"S3 can't be reached for {uri}: {error} "
            "If it stays so, check the network and the connection's endpoint_url."
        ) from error


def _client_error(error: ClientError, permission: str, uri: str) -> ModlakeError:
    bucket = split_s3_uri(uri)[0]
    code = str(error.response.get("Error", {}).get("Code", ""))
    metadata = error.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return ModlakeTerminalError(f"There is no bucket {bucket!r} for {uri}: create or rename it.")
    if code == "NoSuchKey":
        return ObjectNotFoundError(f"There is no object {uri}: check its name or write it first.")
    if code == "PreconditionFailed":
        return ObjectExistsError(f"{uri} exists already: read it, or write under another name.")
    if code in WRONG_REGION:
        home = metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region", "another region")
        return ModlakeTerminalError(
            f"Bucket {bucket!r} of {uri} is in {home}, not in the connection's region: set region_name to it."
        )
    if code in ACCESS_DENIED:
        return ModlakeTerminalError(
            f"S3 denies access to {uri}: allow {permission} on it (and s3:ListBucket on {bucket!r}, without "
            "which a missing object is denied too) for the connection's identity."
        )
    if code in BAD_CREDENTIALS:
        return ModlakeTerminalError(
            f"S3 doesn't accept the credentials for {uri} ({code}): renew those of the connection."
        )
    if code.isdigit() and not error.operation_name.startswith("Head"):
        # botocore's code for an error without the XML that S3 sends with each but those of HEAD requests.
        return ModlakeTransientError(f"S3's answer about {uri} was cut off (HTTP {code}): try again later.")
    if code == WRITE_CONFLICT or status >= 500 or status == 429 or code == "RequestTimeout":
        return ModlakeTransientError(f"S3 can't serve {uri} now ({code}): try again later.")
    return ModlakeTerminalError(
        f"S3 refuses {permission} on {uri} ({error}): correct the name or the request."
    )


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    rest = iter(keys)
    while chunk := list(islice(rest, KEYS_PER_DELETE)):
        yield chunk
