"""Links from a task to its media analysis job and to the results."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow.providers.amazon.aws.links.base_aws import BASE_AWS_CONSOLE_LINK, BaseAwsLink


class RekognitionMediaAnalysisJobLink(BaseAwsLink):
    """Helper class for constructing Amazon Rekognition Bulk Analysis console links."""

    name = "Amazon Rekognition Bulk Analysis"
    key = "rekognition_media_analysis_job"
    # The address of a job is documented nowhere: this opens the console in the region of the job.
    format_str = BASE_AWS_CONSOLE_LINK + "/rekognition/home?region={region_name}#/"


class MediaAnalysisResultLink(BaseAwsLink):
    """Helper class for constructing Amazon S3 console links to the results of media analysis jobs."""

    name = "Media Analysis Results"
    key = "media_analysis_result"
    format_str = BASE_AWS_CONSOLE_LINK + "/s3/buckets/{bucket}?region={region_name}&prefix={prefix}"

    def format_link(self, **kwargs: Any) -> str:
        return str(super().format_link(**{**kwargs, "prefix": quote(kwargs.get("prefix", ""))}))
