"""Wait for an Amazon Rekognition media analysis job."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.utils import validate_execute_complete_event
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.sdk import conf

from modlake.exceptions import ModlakeTransientError
from modlake.hooks.rekognition import RekognitionHook
from modlake.pipeline.media_analysis import FAILED, MediaAnalysisJobFailedError, failure_of, has_ended
from modlake.retries import never_retry_terminal_errors
from modlake.triggers.rekognition import MediaAnalysisJobCompletedTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

# A job that ends soon is awaited in the worker: Airflow 3.3.2 loses deferrals that end at once.
WORKER_WAIT_SECONDS = 15.0
WORKER_LOOK_SECONDS = 5.0


class MediaAnalysisJobSensor(AwsBaseSensor[RekognitionHook]):
    """
    Wait until a media analysis job has succeeded; fails at once, and for good, when the job FAILED.

    :param job_id: the job, as StartMediaAnalysisJob returned it (templated)
    :param deferrable: wait in the triggerer
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    aws_hook_class = RekognitionHook
    template_fields = aws_template_fields("job_id")

    def __init__(
        self,
        *,
        job_id: str,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.job_id = job_id
        self.deferrable = deferrable

    def poke(self, context: Context) -> bool:  # noqa: ARG002 - Airflow's signature
        """
        Look at the job.

        :raises MediaAnalysisJobFailedError: the job FAILED, for whatever reason: the same job can't recover
        """
        job = self.hook.get_media_analysis_job(self.job_id)
        self.log.info("Media analysis job %s is %s", self.job_id, job["Status"])
        if not has_ended(job):
            return False
        if job["Status"] == FAILED:
            failure = failure_of(job)
            raise MediaAnalysisJobFailedError(str(failure), job_id=failure.job_id, code=failure.code)
        return True

    def execute(self, context: Context) -> None:
        if not self.deferrable:
            super().execute(context)
        elif not self._ends_soon(context):
            self.defer(
                timeout=timedelta(seconds=self.timeout),
                trigger=MediaAnalysisJobCompletedTrigger(
                    job_ids=[self.job_id],
                    poll_interval=self.poke_interval,
                    aws_conn_id=self.aws_conn_id,
                    region_name=self.region_name,
                    verify=self.verify,
                    botocore_config=self.botocore_config,
                ),
                method_name="execute_complete",
            )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        """Resume after the trigger fired; the job itself tells how it ended."""
        validated = validate_execute_complete_event(event)
        if not self.poke(context):
            raise ModlakeTransientError(
                f"The wait for media analysis job {self.job_id} broke off: {validated['message']} "
                "Clear the task to wait on."
            )

    def _ends_soon(self, context: Context) -> bool:
        deadline = time.monotonic() + WORKER_WAIT_SECONDS
        while not self.poke(context):
            if time.monotonic() >= deadline:
                return False
            time.sleep(min(WORKER_LOOK_SECONDS, self.poke_interval))
        return True
