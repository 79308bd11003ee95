"""What actions need of AWS and of webhooks' receivers."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
from airflow.providers.amazon.aws.hooks.sns import SnsHook
from airflow.providers.amazon.aws.hooks.sqs import SqsHook
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from standardwebhooks.webhooks import Webhook

from modlake.exceptions import ModlakeError, ModlakeTerminalError, ModlakeTransientError
from modlake.hooks.object_store import S3ObjectStoreHook, exact_listing, explained, names_object
from modlake.pipeline.object_store import ObjectNotFoundError
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.policy.actions.notify import Message, ReceiverBusyError
from modlake.policy.actions.objects import ObjectChangedError, Properties, StoredObject

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

GIB = 1024**3
LARGEST_COPY_BYTES = 5 * GIB
"""What one CopyObject, and one UploadPartCopy, can copy ("Copying, moving, and renaming objects")."""
MULTIPART_COPY_BYTES = GIB

_HEADERS = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "WebsiteRedirectLocation",
    "StorageClass",
)
_CHECKSUMS = ("ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256")
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_CHANGED = {"412", "PreconditionFailed", "ConditionalRequestConflict"}
_QUEUE_REGION = re.compile(r"https://sqs\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/")
_WHSEC = "whsec_"
_WEBHOOK_KEY_BYTES = range(24, 65)
_WEBHOOK_SECONDS = 10.0


class ModeratedObjectsHook(S3ObjectStoreHook):
    """
    Tag, copy and remove objects with all that belongs to them; fulfils
    :class:`modlake.policy.actions.objects.ModeratedObjects`.

    .. seealso::
        - :class:`airflow.providers.amazon.aws.hooks.base_aws.AwsBaseHook` for the arguments
    """

    def describe(self, uri: str) -> StoredObject | None:
        bucket, key = split_s3_uri(uri)
        with explained("s3:GetObject", uri):
            try:
                answer = self.conn.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
            except ClientError as error:
                if _code(error) not in _ABSENT:
                    raise
                # HeadObject says 404 of a missing bucket too; that is an error.
                if names_object(self.conn.list_objects_v2(**exact_listing(bucket, key)), key):
                    raise ModlakeTransientError(f"{uri} came while it was looked for: try again.") from error
                return None
        return _stored(uri, answer)

    def tags(self, uri: str, version_id: str | None = None) -> dict[str, str]:
        with explained("s3:GetObjectTagging", uri):
            answer = self.conn.get_object_tagging(**_place(uri, version_id))
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def set_tags(self, uri: str, tags: Mapping[str, str], version_id: str | None = None) -> None:
        tag_set: Any = [{"Key": key, "Value": value} for key, value in tags.items()]
        with explained("s3:PutObjectTagging", uri):
            self.conn.put_object_tagging(**_place(uri, version_id), Tagging={"TagSet": tag_set})

    def copy(self, source: StoredObject, uri: str, properties: Properties, *, if_absent: bool) -> None:
        bucket, key = split_s3_uri(uri)
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        destination: dict[str, Any] = {"Bucket": bucket, "Key": key}
        given: dict[str, Any] = {
            **properties.headers,
            "Metadata": dict(properties.metadata),
            "Tagging": urlencode(properties.tags),
        }
        with _conditions(source.uri), explained("s3:PutObject and s3:PutObjectTagging", uri):
            # A multipart ETag lasts only when the parts are the same again.
            if "-" in source.etag or source.size_bytes > LARGEST_COPY_BYTES:
                self._copy_in_parts(source, destination, given, condition)
                return
            self.conn.copy_object(
                **destination,
                **_from(source),
                **given,
                **condition,
                MetadataDirective="REPLACE",
                TaggingDirective="REPLACE",
            )

    def same_content(self, one: StoredObject, other: StoredObject) -> bool:
        if one.size_bytes != other.size_bytes:
            return False
        if one.etag == other.etag:
            return True
        # Encrypted with KMS, or in other parts: the ETag is no digest of the bytes.
        for name in one.checksums.keys() & other.checksums.keys():
            return one.checksums[name] == other.checksums[name]
        return self._sha256(one) == self._sha256(other)

    def remove(self, stored: StoredObject) -> None:
        bucket, key = split_s3_uri(stored.uri)
        with _conditions(stored.uri), explained("s3:DeleteObject", stored.uri):
            try:
                self.conn.delete_object(Bucket=bucket, Key=key, IfMatch=f'"{stored.etag}"')
            except ClientError as error:
                if _code(error) not in _ABSENT | _CHANGED or self.describe(stored.uri) is not None:
                    raise
        self.purge(stored)

    def purge(self, stored: StoredObject) -> None:
        # Without versions the object itself is gone by now; "null" would name the delete marker.
        if stored.version_id in (None, "null"):
            return
        with explained("s3:DeleteObjectVersion", stored.uri):
            self.conn.delete_object(**_place(stored.uri, stored.version_id))

    def _copy_in_parts(
        self,
        source: StoredObject,
        destination: dict[str, Any],
        given: dict[str, Any],
        condition: dict[str, Any],
    ) -> None:
        upload_id = self.conn.create_multipart_upload(**destination, **given)["UploadId"]
        upload: dict[str, Any] = {**destination, "UploadId": upload_id}
        try:
            parts: list[CompletedPartTypeDef] = []
            begin = 0
            for number, size in enumerate(self._part_sizes(source), 1):
                answer = self.conn.upload_part_copy(
                    **upload,
                    **_from(source),
                    PartNumber=number,
                    CopySourceRange=f"bytes={begin}-{begin + size - 1}",
                )
                parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
                begin += size
            self.conn.complete_multipart_upload(**upload, **condition, MultipartUpload={"Parts": parts})
        except BaseException:
            self.conn.abort_multipart_upload(**upload)
            raise

    def _part_sizes(self, source: StoredObject) -> Iterator[int]:
        first = self.conn.head_object(**_place(source.uri, source.version_id), PartNumber=1)
        count = first.get("PartsCount")
        if count is None:
            for begin in range(0, source.size_bytes, MULTIPART_COPY_BYTES):
                yield min(MULTIPART_COPY_BYTES, source.size_bytes - begin)
            return
        yield first["ContentLength"]
        for number in range(2, count + 1):
            part = self.conn.head_object(**_place(source.uri, source.version_id), PartNumber=number)
            yield part["ContentLength"]

    def _sha256(self, stored: StoredObject) -> bytes:
        digest = hashlib.sha256()
        with explained("s3:GetObject", stored.uri):
            body = self.conn.get_object(**_place(stored.uri, stored.version_id), IfMatch=f'"{stored.etag}"')
            for chunk in body["Body"].iter_chunks(1 << 20):
                digest.update(chunk)
        return digest.digest()


class SnsChannel:
    """Publishes to a topic, in its region; fulfils :class:`modlake.policy.actions.notify.Channel`."""

    def __init__(self, hook: Callable[..., SnsHook], topic_arn: str) -> None:
        self._topic_arn = topic_arn
        parts = topic_arn.split(":")
        if len(parts) != 6 or parts[2] != "sns":
            raise ModlakeTerminalError(
                f"{topic_arn!r} is not the ARN of a topic: write arn:aws:sns:<region>:<account>:<name> as "
                "topic_arn of notify_sns."
            )
        self._hook = hook(region_name=parts[3])
        self._hook.get_conn()  # before threads share it

    def send(self, message: Message) -> dict[str, Any]:
        with _aws_errors("sns:Publish", self._topic_arn):
            answer = self._hook.publish_to_target(
                target_arn=self._topic_arn,
                message=message.body,
                message_attributes={"action_id": message.message_id},
                **_fifo(self._topic_arn, message),
            )
        return {"message_id": answer["MessageId"]}


class SqsChannel:
    """Sends to a queue, in its region; fulfils :class:`modlake.policy.actions.notify.Channel`.

    A queue whose URL names no region of AWS is taken to be in the hook's.
    """

    def __init__(self, hook: Callable[..., SqsHook], queue_url: str) -> None:
        named = _QUEUE_REGION.match(queue_url)
        self._hook = hook(region_name=named[1]) if named else hook()
        self._hook.get_conn()  # before threads share it
        self._queue_url = queue_url

    def send(self, message: Message) -> dict[str, Any]:
        with _aws_errors("sqs:SendMessage", self._queue_url):
            answer = self._hook.send_message(
                queue_url=self._queue_url,
                message_body=message.body,
                message_attributes={"action_id": {"DataType": "String", "StringValue": message.message_id}},
                **_fifo(self._queue_url, message),
            )
        return {"message_id": answer["MessageId"]}


class WebhookHook(BaseHook):
    """
    Posts messages signed as the Standard Webhooks specification wants it.

    The connection's host is the receiver's URL (schema and port may be given apart), its password the secret,
    ``whsec_`` and 24 to 64 bytes in base64. No message names more of the URL than scheme, host and port: the
    rest may be a credential. The action's id is the ``webhook-id``, by which a receiver knows a repetition.

    :param conn_id: an Airflow connection of type HTTP
    """

    def __init__(self, conn_id: str = "modlake_webhook") -> None:
        super().__init__()
        self.conn_id = conn_id

    def get_conn(self) -> httpx.Client:
        return self._client

    @classmethod
    def opened(cls, conn_id: str) -> WebhookHook:
        """Return a hook that has looked its connection up, so that threads can share it.

        :raises ModlakeTerminalError: there is no such connection, or its URL or secret is none
        """
        hook = cls(conn_id)
        assert hook._url
        assert hook._signer
        return hook

    def send(self, message: Message) -> dict[str, Any]:
        """Post once; raises ReceiverBusyError for 5xx, 408, 425, 429 and a receiver out of reach."""
        now = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": message.message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message.message_id, now, message.body),
        }
        try:
            with self._client.stream(
                "POST", self._url, content=message.body.encode(), headers=headers
            ) as answer:
                _keep_connection(answer)
        except httpx.RequestError as error:
            raise ReceiverBusyError(
                f"{self._receiver} can't be reached: {error!r} If it stays so, check the receiver and the "
                f"host of connection {self.conn_id!r}."
            ) from error
        if answer.is_success:
            return {"http_status": answer.status_code}
        said = f"{self._receiver} answered {answer.status_code} {answer.reason_phrase}"
        if answer.status_code >= 500 or answer.status_code in {408, 425, 429}:
            after = retry_after_seconds(answer.headers.get("retry-after"), now)
            raise ReceiverBusyError(
                f"{said}: try again later, or check the receiver of connection {self.conn_id!r}.", after
            )
        raise ModlakeTerminalError(
            f"{said}: check the URL and the secret of connection {self.conn_id!r}, and what the receiver "
            "accepts, then send the dead letter again."
        )

    @cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(timeout=_WEBHOOK_SECONDS, follow_redirects=False)

    @cached_property
    def _connection(self) -> Any:
        try:
            return self.get_connection(self.conn_id)
        except AirflowNotFoundException as error:
            raise ModlakeTerminalError(
                f"There is no Airflow connection {self.conn_id!r}: make it, of type HTTP, its host the URL "
                "of the receiver, its password the secret "
                f"(or set AIRFLOW_CONN_{self.conn_id.upper()})."
            ) from error

    @cached_property
    def _url(self) -> httpx.URL:
        url = _as_url(self._connection)
        if url is None or url.scheme not in {"http", "https"} or not url.host:
            raise ModlakeTerminalError(
                f"Connection {self.conn_id!r} has no URL to post to. Correct the host of it: write "
                "https://<name>/<path>."
            )
        return url

    @cached_property
    def _receiver(self) -> str:
        return f"{self._url.scheme}://{self._url.netloc.decode()}/…"

    @cached_property
    def _signer(self) -> Webhook:
        # Files and secret backends often end with a line end.
        key = _webhook_key((self._connection.password or "").strip())
        if len(key) not in _WEBHOOK_KEY_BYTES:
            raise ModlakeTerminalError(
                f"The password of connection {self.conn_id!r} is not a secret of Standard Webhooks: write "
                "'whsec_' and 24 to 64 random bytes in base64."
            )
        return Webhook(key)


def _as_url(connection: Any) -> httpx.URL | None:
    text: str = connection.host or ""
    if "://" not in text:
        port = f":{connection.port}" if connection.port else ""
        name, _, path = text.partition("/")
        text = f"{connection.schema or 'https'}://{name}{port}/{path}"
    try:
        return httpx.URL(text)
    except httpx.InvalidURL:  # its text may quote a credential
        return None


def _webhook_key(secret: str) -> bytes:
    """Return the key of a symmetric secret; empty when it is none, where the library may sign."""
    if not secret.startswith(_WHSEC):
        return b""
    encoded = secret.removeprefix(_WHSEC)
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        return b""


def _keep_connection(answer: httpx.Response) -> None:
    """Read the end of a short body, so that the connection serves again; only the status tells a delivery."""
    with suppress(httpx.RequestError):
        for _ in islice(answer.iter_raw(), 2):
            pass


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, in either of its forms (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(header) - now).total_seconds())
    except (TypeError, ValueError):
        return None


def _fifo(name: str, message: Message) -> dict[str, str]:
    if not name.endswith(".fifo"):
        return {}
    group = hashlib.sha256(message.group.encode()).hexdigest()
    return {"message_deduplication_id": message.message_id, "message_group_id": group}


@contextmanager
def _aws_errors(permission: str, target: str) -> Iterator[None]:
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ModlakeTerminalError(
            f"No AWS credentials to reach {target}: {error} Set them on the Airflow connection."
        ) from error
    except BotoCoreError as error:
        raise ReceiverBusyError(f"{target} can't be reached: {error} Check the network.") from error
    except ClientError as error:
        raise _aws_error(error, permission, target) from error


def _aws_error(error: ClientError, permission: str, target: str) -> ModlakeError:
    code = _code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or status == 429 or "Throttl" in code:
        return ReceiverBusyError(f"{target} can't take a message now ({code}): try again later.")
    return ModlakeTerminalError(
        f"{target} refuses the message ({error}): check that it exists, and allow {permission} on it for the "
        "connection's identity."
    )


@contextmanager
def _conditions(uri: str) -> Iterator[None]:
    try:
        yield
    except ModlakeError as error:
        if isinstance(error.__cause__, ClientError):
            code = _code(error.__cause__)
            if code in _CHANGED:
                raise ObjectChangedError(f"{uri} was changed meanwhile: look again.") from error
            if code in _ABSENT:
                raise ObjectNotFoundError(f"{uri} is not there any more: nothing is to be done.") from error
        raise


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _place(uri: str, version_id: str | None) -> dict[str, Any]:
    bucket, key = split_s3_uri(uri)
    return {"Bucket": bucket, "Key": key} | ({} if version_id is None else {"VersionId": version_id})


def _from(source: StoredObject) -> dict[str, Any]:
    return {
        "CopySource": _place(source.uri, source.version_id),
        "CopySourceIfMatch": f'"{source.etag}"',
    }


def _stored(uri: str, answer: Mapping[str, Any]) -> StoredObject:
    headers = {name: answer[name] for name in _HEADERS if answer.get(name)}
    if "Expires" in answer:
        headers["Expires"] = answer["ExpiresString"]
    if answer.get("ServerSideEncryption", "AES256") != "AES256":
        headers["ServerSideEncryption"] = answer["ServerSideEncryption"]
        headers["SSEKMSKeyId"] = answer["SSEKMSKeyId"]
    is_whole = answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    checksums = {name: answer[name] for name in _CHECKSUMS if answer.get(name)}
    return StoredObject(
        uri=uri,
        etag=answer["ETag"].strip('"'),
        size_bytes=answer["ContentLength"],
        version_id=answer.get("VersionId"),
        headers=headers,
        metadata=dict(answer.get("Metadata", {})),
        # A checksum of parts ends in their number, like an ETag.
        checksums={name: value for name, value in checksums.items() if is_whole and "-" not in value},
        last_modified=answer["LastModified"].isoformat(),
    )
