"""The account's quotas of Amazon Rekognition that decide how fast a day is judged, and AWS's defaults."""

from __future__ import annotations

from dataclasses import dataclass

CONCURRENT_JOBS_CODE = "L-22FA69BA"
"""Service Quotas, Amazon Rekognition, "Concurrent Media Analysis jobs"."""

# "Amazon Rekognition endpoints and quotas": the regions of bulk analysis and their default.
CONCURRENT_JOBS = {
    **dict.fromkeys(("us-east-1", "us-west-2", "eu-west-1"), 20),
    **dict.fromkeys(
        (
            "us-east-2", "ap-south-1", "ap-northeast-1", "ap-northeast-2", "ap-southeast-1", "ap-southeast-2",
            "eu-central-1", "eu-west-2",
        ),
        5,
    ),
}  # fmt: skip
CONCURRENT_JOBS_ELSEWHERE = 5

# "Amazon Rekognition endpoints and quotas": DetectModerationLabels, transactions a second, raisable.
DETECT_PER_SECOND = {"us-east-1": 50.0, "us-west-2": 50.0, "eu-west-1": 50.0}
DETECT_PER_SECOND_ELSEWHERE = 5.0


@dataclass(frozen=True, slots=True)
class Quotas:
    """What an account may use at once: media analysis jobs, and DetectModerationLabels calls a second.

    The sources say who told: Service Quotas, AWS's default, or the Airflow variable.
    """

    concurrent_jobs: int
    requests_per_second: float
    concurrent_jobs_source: str
    requests_per_second_source: str


def default_quotas(region: str) -> Quotas:
    """Return AWS's defaults for a region."""
    source = f"AWS's default in {region}"
    return Quotas(
        CONCURRENT_JOBS.get(region, CONCURRENT_JOBS_ELSEWHERE),
        DETECT_PER_SECOND.get(region, DETECT_PER_SECOND_ELSEWHERE),
        source,
        source,
    )
