"""Image moderation with Amazon Rekognition's DetectModerationLabels, for accounts without bulk analysis."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from modlake.exceptions import ModlakeError
from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.hooks.rekognition import (
    InvalidRequestError,
    RekognitionHook,
    RekognitionTransientError,
    check_min_confidence,
    check_text,
    typed_error,
)
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.pipeline.synchronous.detection import ImageFailedError, NoAnswerError, ThrottledError
from modlake.pipeline.synchronous.engine import SynchronousEngine, window_size
from modlake.retries import never_retry_terminal_errors

if TYPE_CHECKING:
    from airflow.sdk import Context

    from modlake.pipeline.plan import AnalysisParameters, Plan
    from modlake.pipeline.synchronous.progress import Tally

# "Amazon Rekognition endpoints and quotas": DetectModerationLabels, transactions a second, raisable.
QUOTA_PER_SECOND = {"us-east-1": 50.0, "us-west-2": 50.0, "eu-west-1": 50.0}
QUOTA_PER_SECOND_ELSEWHERE = 5.0

# "Error handling" and the quota guide of the Rekognition developer guide.
_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_IMAGE_AT_FAULT = {"ImageTooLargeException", "InvalidImageFormatException"}
# The parameters of the analysis are checked before, so what is invalid is the image, such as one of 40 px.
_IMAGE_OUT_OF_REACH = {"InvalidParameterException", "InvalidS3ObjectException"}


class DetectModerationLabelsOperator(AwsBaseOperator[RekognitionHook]):
    """
    Judge the images of a group of a plan's manifests one by one, by their place in S3.

    Leaves in the run folder what AnalyseManifestsOperator leaves: results and manifest summary in the format
    of a bulk job, and ``jobs/``. Calls are made side by side, no faster than the quota, and slower while the
    account is throttled. Answers are kept in ``<work>/synchronous/<fingerprint>/`` as they come. So no other
    try, clear or run pays for an equal manifest with equal parameters again, and a try that is killed has to
    repeat no more than the images that were in flight (5 seconds' worth, at least 100). Two runs of a day at
    once share the work, a manifest each.

    Images that Rekognition refuses, or fails to answer for after ten attempts, end in the summary with their
    code. Those that are not to blame for it are asked for again by the next run. What concerns every image
    fails the task.

    Returns the group. For readable map indexes set
    ``map_index_template="shards {{ task.manifest_group['shards'] | join(', ') }}"``.

    .. seealso::
        https://docs.aws.amazon.com/rekognition/latest/APIReference/API_DetectModerationLabels.html

    :param manifest_group: ``{"plan_uri": …, "group": 0, "shards": [0, 1]}``, as BuildManifestsOperator
        returns it (templated)
    :param account_requests_per_second: the account's quota of DetectModerationLabels in the region; by
        default AWS's own, 50 in us-east-1, us-west-2 and eu-west-1, 5 elsewhere (templated)
    :param rate_share: the part of the quota that is this task's: its pool slots divided by the pool's
        (templated)
    """

    aws_hook_class = RekognitionHook
    template_fields = aws_template_fields("manifest_group", "account_requests_per_second", "rate_share")
    template_fields_renderers: ClassVar = {"manifest_group": "json"}
    ui_color = "#e7f2fa"

    def __init__(
        self,
        *,
        manifest_group: Mapping[str, Any],
        account_requests_per_second: float | str | None = None,
        rate_share: float | str = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.manifest_group = manifest_group
        self.account_requests_per_second = account_requests_per_second
        self.rate_share = rate_share
        self._engine: SynchronousEngine | None = None
        for name in ("account_requests_per_second", "rate_share"):
            if _is_written_out(getattr(self, name)):
                self._positive(name)

    def execute(self, context: Context) -> dict[str, Any]:
        from modlake.pipeline.plan import read_plan
        from modlake.pipeline.synchronous.shard_analysis import Attempt, analyses_of

        group = dict(self.manifest_group)
        requests_per_second = self._requests_per_second()
        store = S3ObjectStoreHook(**self._hook_parameters)
        plan = read_plan(store, group["plan_uri"])
        _check_parameters(plan.parameters)
        attempt = Attempt(holder=f"{context['ti'].id} {uuid.uuid4()}", now=lambda: datetime.now(UTC))
        analyses = analyses_of(store, plan, group["shards"], attempt)
        self.log.info(
            "Judging %s images in %d manifests at %g calls/s at most",
            f"{sum(analysis.image_count for analysis in analyses):,}",
            len(analyses),
            requests_per_second,
        )
        # Made here: connections can't be looked up while the event loop runs.
        client = self._client(window_size(requests_per_second))

        async def judge() -> Tally:
            async with client as rekognition:
                self._engine = SynchronousEngine(
                    AsyncDetection(rekognition, plan),
                    analyses,
                    requests_per_second=requests_per_second,
                    report=self.log.info,
                )
                return await self._engine.run()

        asyncio.run(judge())
        self.log.info("Judged group %s of %s", group["group"], plan.day)
        return group

    def on_kill(self) -> None:
        if self._engine is not None:
            self._engine.stop()

    def _client(self, connections: int) -> Any:
        # The engine repeats calls itself, as every attempt has to keep to the rate.
        config = self.hook.config.merge(
            Config(
                retries={"mode": "standard", "total_max_attempts": 1},
                max_pool_connections=connections,
                connect_timeout=5,
                read_timeout=30,
            )
        )
        return self.hook.get_client_type(region_name=self.hook.region_name, config=config, deferrable=True)

    def _requests_per_second(self) -> float:
        quota = QUOTA_PER_SECOND.get(self.hook.conn_region_name, QUOTA_PER_SECOND_ELSEWHERE)
        if self.account_requests_per_second not in {None, ""}:
            quota = self._positive("account_requests_per_second")
        return quota * self._positive("rate_share")

    def _positive(self, name: str) -> float:
        value = getattr(self, name)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        highest = 1.0 if name == "rate_share" else 100_000.0
        if not 0 < number <= highest:
            raise InvalidRequestError(
                f"Task {self.task_id!r}: {name} is {value!r}. Write a number above 0, up to {highest:g}."
            )
        return number


class AsyncDetection:
    """DetectModerationLabels of an aiobotocore client, with the parameters of a plan."""

    def __init__(self, client: Any, plan: Plan) -> None:
        self._client = client
        self._parameters: dict[str, Any] = {"MinConfidence": float(plan.parameters.min_confidence)}
        if plan.parameters.adapter_arn is not None:
            self._parameters["ProjectVersion"] = plan.parameters.adapter_arn

    async def detect_moderation_labels(self, source_ref: str) -> dict[str, Any]:
        """Judge the image at ``s3://bucket/key``; raises the errors of ModerationApi."""
        bucket, key = split_s3_uri(source_ref)
        image = {"S3Object": {"Bucket": bucket, "Name": key}}
        try:
            answer: dict[str, Any] = await self._client.detect_moderation_labels(
                Image=image, **self._parameters
            )
        except (ClientError, BotoCoreError, ResponseParserError, OSError) as error:
            raise detection_error(error, source_ref) from error
        return answer


def detection_error(error: Exception, source_ref: str) -> ModlakeError:
    """Tell whether a failed call concerns its image, the account's pace, this attempt or every image."""
    if isinstance(error, ClientError):
        return _refusal(error, source_ref)
    if isinstance(error, BotoCoreError):
        typed = typed_error(error, "DetectModerationLabels", source_ref)
        if not isinstance(typed, RekognitionTransientError):
            return typed
    return NoAnswerError(f"DetectModerationLabels got no answer: {error!r}", code=type(error).__name__)


def _refusal(error: ClientError, source_ref: str) -> ModlakeError:
    code = error.response.get("Error", {}).get("Code", "")
    said = error.response.get("Error", {}).get("Message", "") or code
    if code in _THROTTLED:
        return ThrottledError(said, code=code)
    if code in _IMAGE_AT_FAULT | _IMAGE_OUT_OF_REACH:
        return ImageFailedError(said, code=code, is_final=code in _IMAGE_AT_FAULT)
    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        return NoAnswerError(said, code=code)
    return typed_error(error, "DetectModerationLabels", source_ref)


def _check_parameters(parameters: AnalysisParameters) -> None:
    check_min_confidence(parameters.min_confidence, written_as="The plan's min_confidence")
    if parameters.adapter_arn is not None:
        check_text("ProjectVersion", parameters.adapter_arn, written_as="The plan's adapter_arn")


def _is_written_out(value: object) -> bool:
    """Tell whether a value is known when the DAG is parsed: no template, no output of another task."""
    if isinstance(value, str):
        return bool(value) and "{{" not in value and "{%" not in value
    return isinstance(value, float | int)
