"""Webhooks against a real receiver, SNS and SQS against moto's server, errors of S3 against a stub."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any

import boto3
import pytest
from airflow.providers.amazon.aws.hooks.sns import SnsHook
from airflow.providers.amazon.aws.hooks.sqs import SqsHook
from botocore.stub import Stubber
from moto.server import ThreadedMotoServer

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.hooks.moderation_actions import (
    ModeratedObjectsHook,
    SnsChannel,
    SqsChannel,
    WebhookHook,
    retry_after_seconds,
)
from modlake.policy.actions.notify import DECISION, Message, NotifyKind, ReceiverBusyError, notification
from modlake.policy.actions.objects import StoredObject
from tests.support.actions import intent, taking_back
from tests.support.memory_store import MemoryObjectStore
from tests.support.webhook_receiver import Receiver, connection_json, receiver


def secret_of(size_bytes: int) -> str:
    return f"whsec_{base64.b64encode(bytes(size_bytes)).decode()}"


MESSAGE = Message("act-1", "s3://ugc/a.jpg", '{"type":"moderation.decision","data":{"name":"é"}}')
NOW = datetime(2026, 11, 21, tzinfo=UTC)
OTHER_SECRET = secret_of(24)


@pytest.fixture(scope="module")
def listening() -> Iterator[Receiver]:
    with receiver() as received:
        yield received


@pytest.fixture
def webhook(listening: Receiver, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    monkeypatch.setenv("AIRFLOW_CONN_MODLAKE_WEBHOOK", connection_json(listening))
    listening.accepted.clear()
    listening.answers.clear()
    listening.body = b""
    return listening


def test_a_signed_message_with_the_action_as_its_id(webhook: Receiver) -> None:
    hook = WebhookHook()
    assert hook.send(MESSAGE) == {"http_status": 204}
    hook.send(MESSAGE)
    assert webhook.accepted == {"act-1": [json.loads(MESSAGE.body)] * 2}


def test_a_delivery_is_told_by_the_status_whatever_the_body(webhook: Receiver) -> None:
    webhook.answers.append((200, {"content-encoding": "gzip"}))
    webhook.body = b"accepted"
    assert WebhookHook().send(MESSAGE) == {"http_status": 200}
    assert len(webhook.accepted["act-1"]) == 1


def test_a_connection_serves_several_messages(webhook: Receiver) -> None:
    webhook.answers += [(200, {})] * 3
    webhook.body = b"accepted"
    hook, before = WebhookHook(), webhook.connections
    for _ in range(4):
        hook.send(MESSAGE)
    assert webhook.connections == before + 1


def test_a_wrong_secret_is_refused(webhook: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MODLAKE_WEBHOOK", connection_json(webhook, OTHER_SECRET))
    with pytest.raises(ModlakeTerminalError, match=r"answered 401 .* secret of connection 'modlake_webhook'"):
        WebhookHook().send(MESSAGE)
    assert webhook.refused == 1


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_busy_receiver_says_when(webhook: Receiver, status: int) -> None:
    webhook.answers.append((status, {"retry-after": "7"}))
    with pytest.raises(ReceiverBusyError, match=f"answered {status}") as busy:
        WebhookHook().send(MESSAGE)
    assert busy.value.after_seconds == 7
    assert not webhook.accepted


@pytest.mark.parametrize("status", [400, 404, 410, 302])
def test_a_refusal_is_final(webhook: Receiver, status: int) -> None:
    webhook.answers.append((status, {"location": webhook.url}))
    with pytest.raises(ModlakeTerminalError, match=f"answered {status}"):
        WebhookHook().send(MESSAGE)


@pytest.mark.parametrize(
    ("connection", "error", "mend"),
    [
        ({"host": "http://127.0.0.1:9/x", "password": OTHER_SECRET}, ReceiverBusyError, "check the receiver"),
        (
            {"host": "127.0.0.1", "port": 9, "schema": "http", "password": OTHER_SECRET},
            ReceiverBusyError,
            ":9/",
        ),
        ({"host": "http://x", "password": ""}, ModlakeTerminalError, "write 'whsec_'"),
        ({"host": "http://x", "password": "whsec_="}, ModlakeTerminalError, "write 'whsec_'"),
        ({"host": "http://x", "password": "password"}, ModlakeTerminalError, "write 'whsec_'"),
        ({"host": "http://x", "password": secret_of(23)}, ModlakeTerminalError, "24 to 64 random bytes"),
        ({"host": "http://x", "password": secret_of(65)}, ModlakeTerminalError, "24 to 64 random bytes"),
        ({"host": "http://x", "password": f"{OTHER_SECRET}-_"}, ModlakeTerminalError, "in base64"),
        (
            {"host": "http://x", "password": f"whsk_{'A' * 44}"},
            ModlakeTerminalError,
            "write 'whsec_'",
        ),
        ({"host": "ftp://x", "password": OTHER_SECRET}, ModlakeTerminalError, "Correct the host"),
        ({"host": "http://", "password": OTHER_SECRET}, ModlakeTerminalError, "Correct the host"),
        ({"host": "", "password": OTHER_SECRET}, ModlakeTerminalError, "Correct the host"),
    ],
)
def test_a_wrong_connection_says_so(
    monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any], error: type[Exception], mend: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MODLAKE_WEBHOOK", json.dumps({"conn_type": "http"} | connection))
    with pytest.raises(error, match=mend):
        WebhookHook().send(MESSAGE)


@pytest.mark.parametrize(
    "secret", [secret_of(24), secret_of(64), secret_of(32).rstrip("="), f"{secret_of(32)}\n"]
)
def test_secrets_of_the_standard_sign(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    connection = {"conn_type": "http", "host": "http://127.0.0.1:9", "password": secret}
    monkeypatch.setenv("AIRFLOW_CONN_MODLAKE_WEBHOOK", json.dumps(connection))
    assert WebhookHook.opened("modlake_webhook")


@pytest.mark.parametrize("status", [401, 503])
def test_what_a_receiver_answers_is_told_without_the_credentials_in_its_url(
    webhook: Receiver, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    host = webhook.url.removeprefix("http://").removesuffix("/hooks")
    monkeypatch.setattr(webhook, "url", f"http://ada:sesame@{host}/T0/sesame?sig=sesame#sesame")
    monkeypatch.setenv("AIRFLOW_CONN_MODLAKE_WEBHOOK", connection_json(webhook))
    webhook.answers.append((status, {}))
    with pytest.raises((ModlakeTerminalError, ReceiverBusyError), match="'modlake_webhook'") as refused:
        WebhookHook().send(MESSAGE)
    assert f"http://{host}/… answered {status}" in str(refused.value)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("host", ["http://ada:sesame/@127.0.0.1:9", "http://ada:sesame@127.0.0.1:9/sesame"])
def test_a_failed_post_is_told_without_the_credentials_in_its_url(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    connection = {"conn_type": "http", "host": host, "password": OTHER_SECRET}
    monkeypatch.setenv("AIRFLOW_CONN_MODLAKE_WEBHOOK", json.dumps(connection))
    with pytest.raises((ModlakeTerminalError, ReceiverBusyError), match="'modlake_webhook'") as failed:
        WebhookHook().send(MESSAGE)
    assert "sesame" not in "".join(traceback.format_exception(failed.value))


def test_a_missing_connection_says_how_to_make_it() -> None:
    with pytest.raises(ModlakeTerminalError, match="or set AIRFLOW_CONN_NO_SUCH_HOOK"):
        WebhookHook("no_such_hook").send(MESSAGE)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30.0),
        (format_datetime(NOW - timedelta(seconds=30), usegmt=True), 0.0),
        ("soon", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds


def test_a_wrong_connection_is_a_dead_letter_too() -> None:
    kind = NotifyKind(WebhookHook.opened, MemoryObjectStore(), "s3://work/e/")
    result = kind.do(intent("s3://ugc/a.jpg", "e", "notify_webhook", "no_such_hook"))
    assert result.status == "failed"
    assert "There is no Airflow connection 'no_such_hook'" in result.detail["message"]


def test_what_a_receiver_refuses_becomes_a_dead_letter(webhook: Receiver) -> None:
    store = MemoryObjectStore()
    todo = intent("s3://ugc/a.jpg", "e", "notify_webhook", "modlake_webhook")
    webhook.answers.append((400, {}))
    kind = NotifyKind(WebhookHook.opened, store, "s3://work/e/dead-letters/")
    result = kind.do(todo)
    assert result.status == "failed"
    assert "answered 400" in result.detail["message"]
    letter = json.loads(store.read(result.detail["dead_letter"]))
    assert result.detail["dead_letter"] == f"s3://work/e/dead-letters/{todo.action_id}.json"
    assert letter["message"] == json.loads(notification(todo, DECISION))


def test_an_undo_sends_a_retraction(webhook: Receiver) -> None:
    kind = NotifyKind(WebhookHook.opened, MemoryObjectStore(), "s3://work/e/")
    todo = intent("s3://ugc/a.jpg", "e", "notify_webhook", "modlake_webhook")
    undo = taking_back(todo, kind.do(todo), decided_at=NOW.isoformat())
    assert kind.undo(undo).status == "completed"
    (decision,) = webhook.accepted[todo.action_id]
    (retraction,) = webhook.accepted[undo.action_id]
    assert decision == {
        "type": "moderation.decision",
        "timestamp": todo.decided_at,
        "data": {
            "action_id": todo.action_id,
            "day": "2026-11-21",
            "source_ref": "s3://ugc/a.jpg",
            "etag": "e",
            "verdict": "block",
            "policy": "default",
            "policy_version": "0123456789ab",
            "rule": "nudity",
            "labels": [{"label": "Explicit Nudity", "confidence": 97.5}],
        },
    }
    assert retraction["type"] == "moderation.retraction"
    assert retraction["timestamp"] == "2026-11-21T00:00:00+00:00"
    assert retraction["data"]["retracts"] == todo.action_id
    assert retraction["data"]["reason"] == "judged wrongly"


@pytest.fixture(scope="module")
def moto_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_endpoint)
    return partial(boto3.client, region_name="us-east-1")


def received(aws: Any, queue_url: str) -> list[dict[str, Any]]:
    found = aws("sqs").receive_message(
        QueueUrl=queue_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    )
    return list(found.get("Messages", []))


@pytest.mark.parametrize("fifo", [False, True])
def test_sqs(aws: Any, fifo: bool) -> None:
    suffix, attributes = (".fifo", {"FifoQueue": "true"}) if fifo else ("", {})
    queue_url = aws("sqs").create_queue(QueueName=f"q{suffix}", Attributes=attributes)["QueueUrl"]
    channel = SqsChannel(partial(SqsHook, aws_conn_id=None, region_name="us-east-1"), queue_url)
    assert channel.send(MESSAGE)["message_id"]
    if fifo:
        channel.send(MESSAGE)  # the queue itself knows the repetition
    (message,) = received(aws, queue_url)
    assert message["Body"] == MESSAGE.body
    assert message["MessageAttributes"]["action_id"]["StringValue"] == "act-1"


@pytest.mark.parametrize(
    ("region", "host"),
    [("us-east-1", "sqs.us-east-1.amazonaws.com"), ("cn-north-1", "sqs.cn-north-1.amazonaws.com.cn")],
)
def test_a_queue_in_another_region_than_the_connection(aws: Any, region: str, host: str) -> None:
    queue_url = aws("sqs", region_name=region).create_queue(QueueName="far")["QueueUrl"]
    elsewhere = partial(SqsHook, aws_conn_id=None, region_name="eu-west-1")
    SqsChannel(elsewhere, f"https://{host}/123456789012/far").send(MESSAGE)
    (message,) = received(partial(aws, region_name=region), queue_url)
    assert message["Body"] == MESSAGE.body


@pytest.mark.parametrize("fifo", [False, True])
def test_sns(aws: Any, fifo: bool) -> None:
    suffix, attributes = (".fifo", {"FifoTopic": "true"}) if fifo else ("", {})
    queue_attributes = {"FifoQueue": "true"} if fifo else {}
    topic = aws("sns").create_topic(Name=f"t{suffix}", Attributes=attributes)["TopicArn"]
    queue_url = aws("sqs").create_queue(QueueName=f"of-t{suffix}", Attributes=queue_attributes)["QueueUrl"]
    queue_arn = aws("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    aws("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn["Attributes"]["QueueArn"])
    assert SnsChannel(partial(SnsHook, aws_conn_id=None), topic).send(MESSAGE)["message_id"]
    (message,) = received(aws, queue_url)
    assert json.loads(message["Body"])["Message"] == MESSAGE.body


def test_a_missing_topic_or_queue_is_final(aws: Any) -> None:
    topic = SnsChannel(partial(SnsHook, aws_conn_id=None), "arn:aws:sns:us-east-1:123456789012:none")
    with pytest.raises(ModlakeTerminalError, match="check that it exists, and allow sns:Publish"):
        topic.send(MESSAGE)
    queue = SqsChannel(
        partial(SqsHook, aws_conn_id=None, region_name="us-east-1"),
        "https://sqs.us-east-1.amazonaws.com/123456789012/none",
    )
    with pytest.raises(ModlakeTerminalError, match="allow sqs:SendMessage"):
        queue.send(MESSAGE)
    with pytest.raises(ModlakeTerminalError, match="is not the ARN of a topic"):
        SnsChannel(partial(SnsHook, aws_conn_id=None), "moderation")


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> ModeratedObjectsHook:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return ModeratedObjectsHook(aws_conn_id=None, region_name="us-east-1")


def stored(**changes: Any) -> StoredObject:
    values: dict[str, Any] = {
        "uri": "s3://ugc/a",
        "etag": "e",
        "size_bytes": 3,
        "version_id": None,
        "headers": {},
        "metadata": {},
    }
    return StoredObject(**values | changes)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({"etag": "e"}, {"etag": "e"}, True),
        ({"size_bytes": 3}, {"size_bytes": 4}, False),
        (
            {"checksums": {"ChecksumCRC64NVME": "x"}},
            {"etag": "f", "checksums": {"ChecksumCRC64NVME": "x"}},
            True,
        ),
        (
            {"checksums": {"ChecksumCRC64NVME": "x"}},
            {"etag": "f", "checksums": {"ChecksumCRC64NVME": "y"}},
            False,
        ),
    ],
)
def test_content_is_compared_without_reading(
    objects: ModeratedObjectsHook, one: dict[str, Any], other: dict[str, Any], is_same: bool
) -> None:
    assert objects.same_content(stored(**one), stored(**other)) is is_same


def test_a_large_object_without_known_parts_is_copied_by_ranges(objects: ModeratedObjectsHook) -> None:
    source = stored(size_bytes=6 * 1024**3, etag="e")
    with Stubber(objects.conn) as s3:
        s3.add_response("head_object", {"ContentLength": source.size_bytes})
        sizes = list(objects._part_sizes(source))
    assert sum(sizes) == source.size_bytes
    assert max(sizes) <= 5 * 1024**3


@pytest.mark.parametrize(
    ("code", "status", "error", "mend"),
    [
        ("AccessDenied", 403, ModlakeTerminalError, "s3:PutObjectTagging"),
        ("SlowDown", 503, ModlakeTransientError, "try again later"),
    ],
)
def test_what_s3_refuses_names_the_permission(
    objects: ModeratedObjectsHook, code: str, status: int, error: type[Exception], mend: str
) -> None:
    with Stubber(objects.conn) as s3:
        s3.add_client_error("put_object_tagging", code, http_status_code=status)
        with pytest.raises(error, match=mend):
            objects.set_tags("s3://ugc/a", {"a": "b"})
