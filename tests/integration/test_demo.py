"""`./modlake demo`, twice, as a newcomer runs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import boto3
import pytest

from tests.support.checkout import Checkout, temporary_checkout

DAY = date(2026, 3, 1)
IMAGES = 30

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Demos:
    """What two demos of the same day have printed, and the jobs there were after each."""

    checkout: Checkout
    reports: tuple[str, str]
    jobs: tuple[list[str], list[str]]


def _job_ids(checkout: Checkout) -> list[str]:
    client = boto3.client(
        "rekognition",
        endpoint_url=checkout.cloud.rekognition_endpoint,
        region_name=checkout.cloud.region,
        aws_access_key_id=checkout.cloud.access_key,
        aws_secret_access_key=checkout.cloud.secret_key,
    )
    return sorted(job["JobId"] for job in client.list_media_analysis_jobs()["MediaAnalysisJobs"])


@pytest.fixture(scope="module")
def demos() -> Iterator[Demos]:
    reports, jobs = [], []
    with temporary_checkout() as checkout:
        for _ in range(2):
            reports.append(checkout.run("demo", "--day", DAY.isoformat(), "--images", str(IMAGES)))
            jobs.append(_job_ids(checkout))
        yield Demos(checkout, (reports[0], reports[1]), (jobs[0], jobs[1]))


def test_report_shows_the_whole_day(demos: Demos) -> None:
    report = demos.reports[0]

    assert f"{DAY}: {IMAGES} images" in report
    for title in ("Outcomes", "Labels", "Content types", "Verdicts", "Jobs", "Tables"):
        assert f"\n{title}\n" in report
    assert "./modlake query" in report
    assert report.endswith(
        "PostgreSQL and the local cloud go on running. Stop them with ./modlake down; the data stays.\n"
    )


def test_every_image_has_one_outcome(demos: Demos) -> None:
    (counts,) = demos.checkout.query(
        "SELECT count(*) AS images, count(DISTINCT source_ref) AS keys FROM images WHERE outcome IS NOT NULL"
    )

    assert counts == {"images": IMAGES, "keys": IMAGES}


def test_every_image_has_a_verdict_of_the_live_policy(demos: Demos) -> None:
    (counts,) = demos.checkout.query(
        "SELECT count(*) AS images, count(DISTINCT verdict) AS verdicts FROM decisions WHERE mode = 'live'"
    )

    assert counts == {"images": IMAGES, "verdicts": 3}


def test_second_demo_starts_no_job(demos: Demos) -> None:
    first, second = demos.jobs

    assert len(first) == 1
    assert second == first


def test_second_demo_publishes_the_same_tables(demos: Demos) -> None:
    """The report ends in the tables' metadata files, and every commit makes a new one."""
    first, second = demos.reports

    assert "metadata.json" in first
    assert second == first
