"""Image moderation with Amazon Rekognition's DetectModerationLabels, for accounts without bulk analysis."""

from __future__ import annotations

import asyncio
import gc
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from modlake.exceptions import ModlakeError, ModlakeTransientError
from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.hooks.rekognition import (
    InvalidRequestError,
    RekognitionHook,
    RekognitionTransientError,
    check_min_confidence,
    check_text,
    typed_error,
)
from modlake.operators.arguments import is_known_later
from modlake.pipeline.engines import Engine
from modlake.pipeline.media_analysis import MediaAnalysisReconciler, analysis_of
from modlake.pipeline.quotas import default_quotas
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.pipeline.synchronous.detection import ImageFailedError, NoAnswerError, ThrottledError
from modlake.pipeline.synchronous.engine import (
    SynchronousAnalysisStoppedError,
    SynchronousEngine,
    window_size,
)
from modlake.retries import never_retry_terminal_errors

if TYPE_CHECKING:
    from airflow.sdk import Context

    from modlake.pipeline.plan import AnalysisParameters, Plan, Shard
    from modlake.pipeline.synchronous.progress import Tally
    from modlake.pipeline.synchronous.shard_analysis import ShardAnalysis

# How often, and for how long at most, jobs are looked at that are awaited here although single calls were
# asked for. They occupy the slot of the pool meanwhile.
JOBS_POLL_SECONDS = 20
JOBS_PATIENCE = timedelta(hours=24)

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
    code, NO_ANSWER in the second case. Those that passing trouble left without an answer are asked for again,
    as often as the plan's ``image_retries`` allow, and so are those out of reach when they are many; all that
    are not to blame, by the next run. What concerns every image fails the task. A shard that was submitted as
    a media analysis job before is awaited, for 24 hours at most in an attempt, not judged a second time.

    Returns the group. For readable map indexes set
    ``map_index_template="shards {{ task.manifest_group['shards'] | join(', ') }}"``.

    .. seealso::
        https://docs.aws.amazon.com/rekognition/latest/APIReference/API_DetectModerationLabels.html

    :param manifest_group: ``{"plan_uri": …, "group": 0, "shards": [0, 1]}``, as BuildManifestsOperator
        returns it (templated)
    :param account_requests_per_second: the account's quota of DetectModerationLabels in the region; by
        default what the plan found out, else AWS's own, 50 in us-east-1, us-west-2 and eu-west-1, 5 elsewhere
        (templated)
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
        self._judge: SynchronousJudge | None = None
        for name in ("account_requests_per_second", "rate_share"):
            value = getattr(self, name)
            if not is_known_later(value) and value not in {None, ""}:
                self._positive(name)

    def execute(self, context: Context) -> dict[str, Any]:
        from modlake.operators.shards_judge import ShardsJudge
        from modlake.pipeline.plan import read_plan

        group = dict(self.manifest_group)
        given = None
        if self.account_requests_per_second not in {None, ""}:
            given = self._positive("account_requests_per_second")
        store = S3ObjectStoreHook(**self._hook_parameters)
        plan = read_plan(store, group["plan_uri"])
        self._judge = SynchronousJudge(self.hook, store, plan, context, self.log.info, given)
        ShardsJudge(
            api=self.hook,
            store=store,
            plan=plan,
            prefers=Engine.SYNC,
            by_bulk=partial(self._await_jobs, store, plan),
            by_sync=partial(self._judge.judge, rate_share=self._positive("rate_share")),
            report=self.log.info,
        ).judge([plan.shards[number] for number in group["shards"]])
        self.log.info("Judged group %s of %s", group["group"], plan.day)
        return group

    def on_kill(self) -> None:
        if self._judge is not None:
            self._judge.stop()

    def _await_jobs(self, store: S3ObjectStoreHook, plan: Plan, shards: list[Shard]) -> None:
        """Await jobs that were started before for some of the shards: they are paid for."""
        from modlake.pipeline.engine_claims import NoMemory

        analyses = [analysis_of(store, plan, shard, NoMemory()) for shard in shards]
        reconciler = MediaAnalysisReconciler(self.hook, analyses, report=self.log.info)
        until = time.monotonic() + JOBS_PATIENCE.total_seconds()
        while not (progress := reconciler.reconcile()).is_complete:
            self.log.info("Submitted as jobs before, which are awaited: %s", progress)
            if time.monotonic() >= until:
                raise ModlakeTransientError(
                    f"The jobs that some of the shards were submitted to before had not ended after "
                    f"{JOBS_PATIENCE}: {progress}. {reconciler.trouble or 'The jobs are slow.'} Another try "
                    "awaits them further: clear the task; or look the jobs up in the Rekognition console, "
                    "and have the day judged anew with fresh=true."
                )
            time.sleep(JOBS_POLL_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads calls

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


class SynchronousJudge:
    """
    Judges shards of a plan by single calls, within a task. Attribute: ``tally``, of the last round.

    :param account_requests_per_second: instead of the plan's rate, or AWS's default where it has none
    """

    def __init__(
        self,
        hook: RekognitionHook,
        store: S3ObjectStoreHook,
        plan: Plan,
        context: Context,
        report: Callable[[str], None],
        account_requests_per_second: float | None = None,
    ) -> None:
        self._hook = hook
        self._store = store
        self._plan = plan
        self._context = context
        self._report = report
        self._account_requests_per_second = account_requests_per_second
        self._engine: SynchronousEngine | None = None
        self._is_stopped = False
        self.tally: Tally | None = None

    def judge(self, shards: Sequence[Shard], *, rate_share: float) -> None:
        """
        Judge shards, and ask again for images that got no answer, as often as the plan allows.

        :param rate_share: the part of the account's rate that may be used
        :raises SynchronousAnalysisStoppedError: ``stop`` was called
        """
        _check_parameters(self._plan.parameters)
        requests_per_second = self.requests_per_second() * rate_share
        analyses = self._round(shards, requests_per_second)
        for retry in range(1, self._plan.image_retries + 1):
            again = [
                shard
                for shard, analysis in zip(shards, analyses, strict=True)
                if analysis.may_gain_from_a_retry
            ]
            if not again:
                break
            self._report(
                f"Images of {len(again)} manifests got no answer and are asked for again "
                f"({retry} of {self._plan.image_retries})"
            )
            shards, analyses = again, self._round(again, requests_per_second)

    def requests_per_second(self) -> float:
        """Return the rate of the account: the one given, else what the plan found, else AWS's default."""
        if self._account_requests_per_second is not None:
            return self._account_requests_per_second
        if self._plan.engines is not None:
            return self._plan.engines.requests_per_second
        return default_quotas(self._hook.conn_region_name).requests_per_second

    def stop(self) -> None:
        """End soon and keep what was judged; may be called from a signal handler."""
        self._is_stopped = True
        if self._engine is not None:
            self._engine.stop()

    def _round(self, shards: Sequence[Shard], requests_per_second: float) -> list[ShardAnalysis]:
        from modlake.pipeline.synchronous.shard_analysis import Attempt, analyses_of

        self._require_going_on()
        holder = f"{self._context['ti'].id} {uuid.uuid4()}"
        attempt = Attempt(holder=holder, now=lambda: datetime.now(UTC))
        analyses = analyses_of(self._store, self._plan, shards, attempt)
        images = sum(analysis.image_count for analysis in analyses)
        self._report(
            f"Judging {images:,} images in {len(analyses)} manifests, "
            f"at {requests_per_second:g} calls/s at most"
        )
        # Made here: connections can't be looked up while the event loop runs.
        client = paced_client(self._hook, window_size(requests_per_second))

        async def judge() -> Tally:
            async with client as rekognition:
                self._engine = SynchronousEngine(
                    AsyncDetection(rekognition, self._plan),
                    analyses,
                    requests_per_second=requests_per_second,
                    report=self._report,
                )
                self._require_going_on()
                return await self._engine.run()

        gc.freeze()  # or a full collection stops all calls for as long as Airflow's own objects take: 0.3 s
        self.tally = asyncio.run(judge())
        return analyses

    def _require_going_on(self) -> None:
        # An engine that does not run yet can't be told to stop.
        if self._is_stopped:
            raise SynchronousAnalysisStoppedError


def paced_client(hook: RekognitionHook, connections: int) -> Any:
    """Return an aiobotocore client for so many calls at once, which repeats none of them."""
    # The engine repeats calls itself, as every attempt has to keep to the rate.
    config = hook.config.merge(
        Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=connections,
            connect_timeout=5,
            read_timeout=30,
        )
    )
    return hook.get_client_type(region_name=hook.region_name, config=config, deferrable=True)


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
    return NoAnswerError(f"DetectModerationLabels got no answer: {error!r}")


def _refusal(error: ClientError, source_ref: str) -> ModlakeError:
    code = error.response.get("Error", {}).get("Code", "")
    said = error.response.get("Error", {}).get("Message", "") or code
    if code in _THROTTLED:
        return ThrottledError(said, code=code)
    if code in _IMAGE_AT_FAULT | _IMAGE_OUT_OF_REACH:
        return ImageFailedError(said, code=code, is_final=code in _IMAGE_AT_FAULT)
    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        return NoAnswerError(f"DetectModerationLabels failed: {code} ({said})")
    return typed_error(error, "DetectModerationLabels", source_ref)


def _check_parameters(parameters: AnalysisParameters) -> None:
    check_min_confidence(parameters.min_confidence, written_as="The plan's min_confidence")
    if parameters.adapter_arn is not None:
        check_text("ProjectVersion", parameters.adapter_arn, written_as="The plan's adapter_arn")
