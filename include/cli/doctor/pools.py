"""The Airflow pools against what AWS grants the account."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from cli.doctor.airflow_records import Pool
from cli.doctor.findings import Finding, Status, failed, failure, ok, warning
from cli.doctor.installation import Installation
from cli.doctor.variables import OPTIONAL, RATE, RATE_SHARE, rate_share
from localcloud.rekognition import behaviour
from modlake.exceptions import ModlakeError
from modlake.hooks import service_quotas
from modlake.pipeline.quotas import CONCURRENT_JOBS, CONCURRENT_JOBS_CODE

JOBS_POOL = "rekognition_media_analysis_jobs"
CALLS_POOL = "rekognition_detect_moderation_labels"
PUBLISH_POOL = "modlake_publish"
ACTIONS_POOL = "moderation_actions"
# A task of dags/moderate_images.py takes so many slots of the jobs' pool.
SLOTS_PER_TASK = 5


def check(installation: Installation) -> Iterator[Finding]:
    """The pools of jobs and of single calls against the quotas; those of commits and of actions."""
    for look in (_jobs, _calls, partial(_any, PUBLISH_POOL), partial(_any, ACTIONS_POOL)):
        finding = look(installation)
        # What would be imported tells nothing of what an Airflow has.
        unseen = finding.status is Status.ok and installation.pools.assumed
        yield replace(finding, status=Status.skipped) if unseen else finding


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
        mend = f"call Rekognition in one of {', '.join(CONCURRENT_JOBS)}, or run with engine=sync"
        return warning(subject, f"{seen}; AWS lists no bulk analysis in {installation.region}", mend)
    seen = f"{seen}, quota {quota} ({source})"
    if pool.slots > quota:
        more = f"ask for more in Service Quotas ({CONCURRENT_JOBS_CODE})"
        mend = f"set it to {quota}, or {more}; tasks wait for the rest"
        return warning(subject, seen, mend)
    if pool.slots < quota:
        return warning(subject, seen, f"set it to {quota}, unless others in the account need the rest")
    return ok(subject, seen)


def _calls(installation: Installation) -> Finding:
    subject = f"pool {CALLS_POOL}"
    pool: Pool | None = installation.pools.values.get(CALLS_POOL)
    if pool is None:
        return _missing(subject, installation)
    try:
        share = rate_share(installation.variables.values.get(RATE_SHARE) or "1")
        rate, source = _rate(installation)
    except ModlakeError as error:
        return failure(subject, error, f"correct the variable {RATE_SHARE} or {RATE} (docs/aws.md, step 5)")
    seen = f"{pool.slots} slots of {share:g} in {installation.pools.place}, {rate:g} calls/s ({source})"
    if pool.slots < 1:
        return failed(subject, seen, "give it at least 1 slot")
    used = pool.slots * share
    if abs(used - 1) <= 0.01:
        return ok(subject, seen)
    verb = "more than all" if used > 1 else "only a part"
    mend = f"set the variable {RATE_SHARE} to {1 / pool.slots:g}, the share of each of {pool.slots} slots"
    return warning(subject, f"{seen}: {verb} of the rate", mend)


def _rate(installation: Installation) -> tuple[float, str]:
    """Calls a second of DetectModerationLabels, and who says so."""
    given = installation.variables.values.get(RATE)
    if given:
        read, _ = OPTIONAL[RATE]
        return read(given), f"the variable {RATE}"
    return installation.quotas.requests_per_second, installation.quotas.requests_per_second_source


def _any(name: str, installation: Installation) -> Finding:
    subject = f"pool {name}"
    pool: Pool | None = installation.pools.values.get(name)
    if pool is None:
        return _missing(subject, installation)
    seen = f"{pool.slots} slots in {installation.pools.place}"
    return ok(subject, seen) if pool.slots >= 1 else failed(subject, seen, "give it at least 1 slot")


def _missing(subject: str, installation: Installation) -> Finding:
    mend = "airflow pools import include/airflow/pools.json"
    return failed(subject, f"is missing in {installation.pools.place}", mend)


def _quota(installation: Installation) -> tuple[int | None, str]:
    """Concurrent jobs, None where AWS lists no bulk analysis, and who says so."""
    if installation.cloud:
        return behaviour.load(installation.cloud.cloud_dir).concurrent_jobs, "the local cloud's behaviour"
    is_listed = installation.region in CONCURRENT_JOBS
    quotas = installation.quotas
    is_known = is_listed or quotas.concurrent_jobs_source == service_quotas.SOURCE
    return quotas.concurrent_jobs if is_known else None, quotas.concurrent_jobs_source
