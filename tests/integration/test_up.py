"""A real Airflow over PostgreSQL: up, a backfill, a run in which PostgreSQL is killed, down, and up again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from tenacity import retry, stop_after_delay, wait_fixed

from cli import airflow_processes
from cli.settings import Settings
from tests.support.airflow_killed import kill_in_the_middle_of_a_run
from tests.support.checkout import Checkout, temporary_checkout

DAYS = (date(2026, 3, 1), date(2026, 3, 2))
IMAGES = 20
PUBLISHED = (
    "SELECT day, run_id, listed, judged + reused + ineligible + failed AS accounted FROM runs "
    f"WHERE day <= '{DAYS[-1]}' ORDER BY day"
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    """A checkout that is up."""
    with temporary_checkout() as made:
        printed = made.run("up")
        assert f"http://127.0.0.1:{made.airflow_port}" in printed
        assert "user: admin" in printed
        yield made


@retry(stop=stop_after_delay(90), wait=wait_fixed(2), reraise=True)
def _settled_status(checkout: Checkout) -> str:
    """On a busy machine a component may miss a heartbeat soon after its start."""
    return checkout.run("status")


def test_status_is_well(checkout: Checkout) -> None:
    lines = _settled_status(checkout).splitlines()

    assert len(lines) == 8
    assert [line for line in lines if " running " not in line and " healthy " not in line] == []


def test_what_the_pipeline_needs_is_in_place(checkout: Checkout) -> None:
    settings = Settings(home=checkout.home, airflow_port=checkout.airflow_port)
    api = airflow_processes.api(settings)

    pools = {pool["name"]: pool for pool in api.get("pools")["pools"]}
    variables = {variable["key"] for variable in api.get("variables")["variables"]}

    assert pools["rekognition_media_analysis_jobs"]["slots"] == 20
    assert pools["rekognition_media_analysis_jobs"]["include_deferred"] is True
    assert pools["modlake_publish"]["slots"] == 8
    assert {"modlake_ugc_uri", "modlake_ugc_marker_uri", "modlake_work_uri"} <= variables
    assert api.get("connections/aws_default")["conn_type"] == "aws"
    assert api.get("dags/moderate_images")["is_paused"] is False


@pytest.fixture(scope="module")
def published(checkout: Checkout) -> list[dict[str, Any]]:
    """The runs of the backfilled days."""
    for day in DAYS:
        checkout.run("seed", "--day", day.isoformat(), "--images", str(IMAGES))
    checkout.run("backfill", *(day.isoformat() for day in DAYS), timeout=600)
    return checkout.query(PUBLISHED)


def test_backfill_publishes_both_days(published: list[dict[str, Any]]) -> None:
    assert [(run["day"], run["listed"], run["accounted"]) for run in published] == [
        (day.isoformat(), IMAGES, IMAGES) for day in DAYS
    ]


def test_a_run_goes_on_after_its_postgresql_was_killed_and_what_was_published_stays(
    checkout: Checkout, published: list[dict[str, Any]]
) -> None:
    """The other processes of Airflow are killed in tests/faults/test_airflow_killed.py."""
    kill_in_the_middle_of_a_run(checkout, "postgres", date(2026, 3, 3))

    assert checkout.query(PUBLISHED) == published
    second = checkout.call("backfill", *(day.isoformat() for day in DAYS))
    assert second.returncode == 0
    assert second.stderr.count("not run again") == len(DAYS)
