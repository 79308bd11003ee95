"""The Airflow pools against what AWS grants the account."""

from __future__ import annotations

from collections.abc import Iterator

from botocore.exceptions import BotoCoreError, ClientError

from cli.doctor.airflow_records import Pool
from cli.doctor.findings import Finding, failed, ok, warning
from cli.doctor.installation import Installation
from localcloud.rekognition import behaviour

JOBS_POOL = "rekognition_media_analysis_jobs"
PUBLISH_POOL = "modlake_publish"
# A task of dags/moderate_images.py takes so many slots of the jobs' pool.
SLOTS_PER_TASK = 5

# Service Quotas, Amazon Rekognition, "Concurrent Media Analysis jobs".
QUOTA_CODE = "L-22FA69BA"
# "Amazon Rekognition endpoints and quotas": the regions of bulk analysis and their default.
DEFAULT_JOBS = {
    **dict.fromkeys(("us-east-1", "us-west-2", "eu-west-1"), 20),
    **dict.fromkeys(
        (
            "us-east-2", "ap-south-1", "ap-northeast-1", "ap-northeast-2", "ap-southeast-1", "ap-southeast-2",
            "eu-central-1", "eu-west-2",
        ),
        5,
    ),
}  # fmt: skip


def check(installation: Installation) -> Iterator[Finding]:
    """The pool of jobs against the quota of concurrent jobs, and the pool of commits."""
    yield _jobs(installation)
    yield _publish(installation)


def _jobs(installation: Installation) -> Finding:
    subject = f"pool {JOBS_POOL}"
    pool: Pool | None = installation.pools.values.get(JOBS_POOL)
    if pool is None:
        return _missing(subject, installation)
    seen = f"{pool.slots} slots in {installation.pools.place}"
    if not pool.include_deferred:
        mend = "set include_deferred: a waiting task has left its worker, but its jobs still run"
        return failed(subject, f"{seen}, which does not count deferred tasks", mend)
    if pool.slots < SLOTS_PER_TASK:
        mend = f"give it at least {SLOTS_PER_TASK} slots"
        return failed(subject, f"{seen}: a task takes {SLOTS_PER_TASK}, so none would ever start", mend)
    quota, source = _quota(installation)
    if quota is None:
        mend = f"call Rekognition in one of {', '.join(DEFAULT_JOBS)}, or judge by DetectModerationLabels"
        return warning(subject, f"{seen}; AWS lists no bulk analysis in {installation.region}", mend)
    seen = f"{seen}, quota {quota} ({source})"
    if pool.slots > quota:
        mend = f"set it to {quota}, or ask for more in Service Quotas ({QUOTA_CODE}); tasks wait for the rest"
        return warning(subject, seen, mend)
    if pool.slots < quota:
        return warning(subject, seen, f"set it to {quota}, unless others in the account need the rest")
    return ok(subject, seen)


def _publish(installation: Installation) -> Finding:
    subject = f"pool {PUBLISH_POOL}"
    pool: Pool | None = installation.pools.values.get(PUBLISH_POOL)
    if pool is None:
        return _missing(subject, installation)
    seen = f"{pool.slots} slots in {installation.pools.place}"
    return ok(subject, seen) if pool.slots >= 1 else failed(subject, seen, "give it at least 1 slot")


def _missing(subject: str, installation: Installation) -> Finding:
    mend = "airflow pools import include/airflow/pools.json"
    return failed(subject, f"is missing in {installation.pools.place}", mend)


def _quota(installation: Installation) -> tuple[int | None, str]:
    """Concurrent jobs, and who says so."""
    if installation.cloud:
        return behaviour.load(installation.cloud.cloud_dir).concurrent_jobs, "the local cloud's behaviour"
    try:
        quota = installation.client("service-quotas").get_service_quota(
            ServiceCode="rekognition", QuotaCode=QUOTA_CODE
        )
        return int(quota["Quota"]["Value"]), "Service Quotas"
    except (ClientError, BotoCoreError):
        return DEFAULT_JOBS.get(installation.region), "AWS's default; Service Quotas could not be read"
