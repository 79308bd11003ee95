"""DetectModerationLabelsOperator: its arguments, its client, and what AWS's errors mean to it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from airflow.sdk import RetryAction
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.hooks.rekognition import RekognitionTerminalError, RekognitionTransientError
from modlake.operators.rekognition_synchronous import (
    _THROTTLED,
    AsyncDetection,
    DetectModerationLabelsOperator,
    SynchronousJudge,
    detection_error,
    paced_client,
)
from modlake.pipeline.outcomes import is_worth_a_retry
from modlake.pipeline.plan import Plan
from modlake.pipeline.synchronous.detection import ImageFailedError, NoAnswerError, ThrottledError
from tests.support.days import PROJECT_VERSION, plan_day
from tests.support.memory_store import MemoryObjectStore

GROUP = {"plan_uri": "s3://work/plan.json", "group": 0, "shards": [0]}
IMAGE = "s3://ugc/uploads/a b%20+ü.jpg"


def operator(**kwargs: Any) -> DetectModerationLabelsOperator:
    return DetectModerationLabelsOperator(task_id="analyse", manifest_group=GROUP, **kwargs)


def judge(region: str, plan: Plan, given: float | None = None) -> SynchronousJudge:
    hook = mock.Mock(conn_region_name=region)
    return SynchronousJudge(hook, mock.Mock(), plan, {}, lambda _: None, given)


def refusal(code: str, http_status: int = 400, message: str = "said") -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": http_status},
    }
    return ClientError(answer, "DetectModerationLabels")  # type: ignore[arg-type]


class TestArguments:
    def test_template_fields_are_attributes(self) -> None:
        made = operator()
        assert {"manifest_group", "account_requests_per_second", "rate_share", "region_name"} <= set(
            made.template_fields
        )
        assert all(hasattr(made, field) for field in made.template_fields)

    def test_only_terminal_errors_are_not_retried(self) -> None:
        policy = operator(retry_policy=None).retry_policy
        assert policy.evaluate(ModlakeTerminalError(), 1, 3).action is RetryAction.FAIL
        assert policy.evaluate(ModlakeTransientError(), 1, 3).action is RetryAction.DEFAULT

    @pytest.mark.parametrize("value", [0, -1, "fast", "nan"])
    def test_a_rate_that_is_none_is_refused_when_it_is_written(self, value: object) -> None:
        with pytest.raises(ValueError, match=r"account_requests_per_second is .* Write a number above 0"):
            operator(account_requests_per_second=value)

    def test_a_share_is_at_most_the_whole(self) -> None:
        with pytest.raises(ValueError, match=r"rate_share is 2.* up to 1"):
            operator(rate_share=2)

    def test_templates_are_read_when_the_task_runs(self) -> None:
        made = operator(account_requests_per_second="{{ var.value.rate }}")
        made.account_requests_per_second = "200"
        assert made._positive("account_requests_per_second") == 200


class TestRate:
    @pytest.mark.parametrize(
        ("region", "quota"), [("us-east-1", 50), ("us-west-2", 50), ("eu-west-1", 50), ("eu-central-1", 5)]
    )
    def test_the_default_is_the_quota_of_the_region(self, region: str, quota: float) -> None:
        assert judge(region, plan_day(MemoryObjectStore())).requests_per_second() == quota

    def test_what_the_plan_has_found_comes_before_it_and_what_is_given_before_both(self) -> None:
        planned = replace(plan_day(MemoryObjectStore()), engines=mock.Mock(requests_per_second=120.0))
        assert judge("eu-central-1", planned).requests_per_second() == 120
        assert judge("eu-central-1", planned, 7.0).requests_per_second() == 7


class TestClient:
    def test_it_repeats_nothing_itself_and_keeps_the_connections_settings(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection = {
            "conn_type": "aws",
            "login": "key",
            "password": "secret",
            "extra": {
                "region_name": "eu-west-1",
                "service_config": {"rekognition": {"endpoint_url": "http://127.0.0.1:9"}},
                "config_kwargs": {"retries": {"max_attempts": 7}, "proxies": {"http": "http://proxy"}},
            },
        }
        monkeypatch.setenv("AIRFLOW_CONN_AWS_TEST", json.dumps(connection))
        made = operator(aws_conn_id="aws_test")

        async def look() -> tuple[Any, str]:
            async with paced_client(made.hook, 250) as client:
                return client.meta.config, client.meta.endpoint_url

        config, endpoint = asyncio.run(look())
        assert endpoint == "http://127.0.0.1:9"
        assert config.retries["total_max_attempts"] == 1
        assert config.max_pool_connections == 250
        assert config.proxies == {"http": "http://proxy"}
        assert config.region_name == "eu-west-1"


class TestDetection:
    def test_the_image_is_named_never_sent(self) -> None:
        client = mock.Mock(detect_moderation_labels=mock.AsyncMock(return_value={"ModerationLabels": []}))
        plan = plan_day(MemoryObjectStore(), adapter_arn=PROJECT_VERSION)
        answer = asyncio.run(AsyncDetection(client, plan).detect_moderation_labels(IMAGE))
        assert answer == {"ModerationLabels": []}
        client.detect_moderation_labels.assert_awaited_once_with(
            Image={"S3Object": {"Bucket": "ugc", "Name": "uploads/a b%20+ü.jpg"}},
            MinConfidence=50.0,
            ProjectVersion=PROJECT_VERSION,
        )

    def test_without_an_adapter_none_is_named(self) -> None:
        client = mock.Mock(
            detect_moderation_labels=mock.AsyncMock(side_effect=refusal("ThrottlingException"))
        )
        detection = AsyncDetection(client, plan_day(MemoryObjectStore()))
        with pytest.raises(ThrottledError):
            asyncio.run(detection.detect_moderation_labels(IMAGE))
        assert "ProjectVersion" not in client.detect_moderation_labels.await_args.kwargs


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "http_status"),
        [
            ("ThrottlingException", 400),
            ("ThrottlingException", 500),
            ("ProvisionedThroughputExceededException", 400),
            ("ServiceUnavailable", 503),
        ],
    )
    def test_throttled(self, code: str, http_status: int) -> None:
        assert isinstance(detection_error(refusal(code, http_status), IMAGE), ThrottledError)

    @pytest.mark.parametrize(
        ("code", "is_final"),
        [
            ("ImageTooLargeException", True),
            ("InvalidImageFormatException", True),
            ("InvalidS3ObjectException", False),
            ("InvalidParameterException", False),
        ],
    )
    def test_the_images_own(self, code: str, is_final: bool) -> None:
        error = detection_error(refusal(code), IMAGE)
        assert isinstance(error, ImageFailedError)
        assert (error.code, error.is_final, str(error)) == (code, is_final, "said")

    @pytest.mark.parametrize(
        "error",
        [
            refusal("InternalServerError", 500),
            refusal("502", 502),
            ConnectionClosedError(endpoint_url="x"),
            ReadTimeoutError(endpoint_url="x"),
            ConnectionResetError(),
            refusal("503", 503, message=""),
            HTTPClientError(error="x"),
            SSLError(endpoint_url="x", error="y"),
            ProxyConnectionError(proxy_url="x"),
            CredentialRetrievalError(provider="x", error_msg="y"),
            ResponseParserError("<html>"),
        ],
    )
    def test_no_answer(self, error: Exception) -> None:
        failure = detection_error(error, IMAGE)
        assert isinstance(failure, NoAnswerError)
        assert is_worth_a_retry(failure.code)
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        assert code in str(failure)

    @pytest.mark.parametrize("code", sorted(_THROTTLED))
    def test_a_throttled_image_is_worth_a_retry(self, code: str) -> None:
        assert is_worth_a_retry(code)

    @pytest.mark.parametrize(
        "error",
        [
            refusal("AccessDeniedException"),
            refusal("ResourceNotFoundException"),
            refusal("UnrecognizedClientException"),
        ],
    )
    def test_every_images(self, error: ClientError) -> None:
        assert isinstance(detection_error(error, IMAGE), RekognitionTerminalError)

    def test_an_adapter_that_is_not_ready_may_become_so(self) -> None:
        error = detection_error(refusal("ResourceNotReadyException"), IMAGE)
        assert isinstance(error, RekognitionTransientError)

    def test_missing_credentials_are_every_images_too(self) -> None:
        error = detection_error(NoCredentialsError(), IMAGE)
        assert not isinstance(error, NoAnswerError | ImageFailedError)


def test_on_kill_stops_the_engine() -> None:
    made = operator()
    made.on_kill()
    made._judge = judge("us-east-1", plan_day(MemoryObjectStore()))
    made._judge._engine = mock.Mock()
    made.on_kill()
    made._judge._engine.stop.assert_called_once_with()
