"""The whole DAG with both engines in it: a day split for its deadline, a worker killed, a closed account."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from cli.seed import s3_client
from localcloud import cloud as local_cloud
from localcloud.faults import plan as faults
from localcloud.settings import CloudSettings
from modlake.lake.catalog import ensure_tables
from modlake.pipeline.plan import Plan
from modlake.pipeline.synchronous.engine import window_size
from tests.support.airflow_home import DagRunOutcome, airflow_home
from tests.support.cloud import running_cloud
from tests.support.dag_runs import DagRuns, dag_runs
from tests.support.fake_rekognition import served
from tests.support.faults import CORRUPT, PICTURES, wait_for
from tests.support.faults_oracle import Bill, Lake

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DAG_ID = "moderate_images"
UGC, WORK = "modlake-ugc", "modlake-work"
# Six manifests, of which the account takes two at a time as jobs.
IMAGES, IMAGES_PER_MANIFEST = 88, 15
CONCURRENT_JOBS, CALLS_PER_SECOND = 2, 20.0
RATE = "Transactions per second per account for the Amazon Rekognition Image operation DetectModerationLabels"
FEW = 20
SPLIT_DAY, FOUND_OUT_DAY = date(2026, 11, 2), date(2026, 11, 4)
# By the record of a job and the quotas: 9 s by jobs, 4.6 s by calls, 3.1 s by both.
DEADLINE_MINUTES = 3.6 / 60
# What two days with the same uploads may differ in, when different engines judge them.
OF_THE_RUN = {"day", "run_id", "job_id", "engine", "judged_at", "last_modified"}
OF_THE_ENGINE = {"error_code", "error_message"}  # the words for an image that can't be judged


class ServiceQuotas:
    """Service Quotas of a small account."""

    def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        assert operation == "ListServiceQuotas"
        jobs = {"QuotaCode": "L-22FA69BA", "QuotaName": "Concurrent Media Analysis jobs"}
        calls = {"QuotaCode": "L-1", "QuotaName": RATE}
        return {"Quotas": [jobs | {"Value": CONCURRENT_JOBS}, calls | {"Value": CALLS_PER_SECOND}]}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudSettings]:
    with running_cloud(tmp_path_factory.mktemp("cloud")) as settings:
        yield settings


@pytest.fixture(scope="module")
def lake(cloud: CloudSettings) -> Lake:
    return Lake(cloud)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cloud: CloudSettings) -> Iterator[DagRuns]:
    with airflow_home(tmp_path_factory.mktemp("airflow"), cloud) as home, served(ServiceQuotas()) as endpoint:
        connection = json.loads(home.env["AIRFLOW_CONN_AWS_DEFAULT"])
        extra = json.loads(connection["extra"])
        extra["service_config"]["service-quotas"] = {"endpoint_url": endpoint}
        connection["extra"] = json.dumps(extra)
        home.env["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps(connection)
        with dag_runs(
            home, images_per_manifest=IMAGES_PER_MANIFEST, in_workers=("single_calls.analyse",)
        ) as made:
            yield made


def upload(cloud: CloudSettings, day: date, images: int = IMAGES) -> None:
    """Make a complete day of pictures, with one that can't be judged and one that is not for Rekognition."""
    s3 = s3_client(local_cloud.environment(cloud))
    contents = {f"{number:03d} +%.png": PICTURES[number % 40][0] for number in range(images)}
    for name, body in (contents | {"corrupt.jpg": CORRUPT, "wave.gif": b"GIF89a"}).items():
        s3.put_object(Bucket=UGC, Key=f"uploads/{day}/{name}", Body=body)
    s3.put_object(Bucket=UGC, Key=f"complete/{day}", Body=b"")


def billed(cloud: CloudSettings, day: date) -> Counter[str]:
    """Return how often each image of a day was paid for."""
    return Bill.read(cloud).of_day(day)


def once(day: date, images: int = IMAGES) -> Counter[str]:
    return Counter({f"s3://{UGC}/uploads/{day}/{number:03d} +%.png": 1 for number in range(images)})


def content(lake: Lake, day: date) -> dict[str, list[str]]:
    """Return the published rows of a day, but for what the run, the day and the engine may differ in."""

    def told(row: dict[str, Any]) -> str:
        kept = {name: value for name, value in row.items() if name not in OF_THE_RUN | OF_THE_ENGINE}
        return json.dumps(kept, default=str, sort_keys=True).replace(day.isoformat(), "DAY")

    rows = {table: sorted(map(told, lake.rows(table, day))) for table in ("images", "labels")}
    counts = ("listed", "judged", "reused", "ineligible", "failed", "labels")
    return rows | {
        "runs": [json.dumps({name: run[name] for name in counts}) for run in lake.rows("runs", day)]
    }


def stored_plans(cloud: CloudSettings, day: date) -> list[Plan]:
    """Return the plans of a day's runs, the oldest first."""
    s3 = s3_client(local_cloud.environment(cloud))
    listed = s3.list_objects_v2(Bucket=WORK, Prefix=f"runs/day={day}/")["Contents"]
    keys = [entry["Key"] for entry in listed if entry["Key"].endswith("/plan.json")]
    plans = [Plan.from_json(s3.get_object(Bucket=WORK, Key=key)["Body"].read()) for key in keys]
    return sorted(plans, key=lambda plan: plan.created_at)


@contextmanager
def misbehaving(cloud: CloudSettings, **plan: Any) -> Iterator[None]:
    """Let the account behave as a plan of faults says."""
    faults.write(cloud.cloud_dir, plan)
    try:
        yield
    finally:
        faults.write(cloud.cloud_dir, None)


def assert_published(ended: DagRunOutcome) -> None:
    assert ended.state == "success", (ended.tasks, ended.log[-5000:])


@pytest.fixture(scope="module")
def by_bulk(cloud: CloudSettings, runs: DagRuns, lake: Lake) -> dict[str, list[str]]:
    """The rows of the same uploads, judged by jobs alone."""
    day = date(2026, 11, 1)
    upload(cloud, day)
    assert_published(runs.run(DAG_ID, {"day": day.isoformat(), "engine": "bulk"}))
    found = content(lake, day)
    assert len(found["images"]) == IMAGES + 2
    assert len(found["labels"]) > IMAGES
    return found


def record_a_job(lake: Lake, *, images: int, seconds: float) -> None:
    """Leave what the lake records of a job, in a day of its own."""
    catalog = lake.catalog()
    ensure_tables(catalog)
    jobs = catalog.load_table("moderation.jobs")
    began = datetime(2026, 10, 30, 1, tzinfo=UTC)
    row = {
        "day": date(2026, 10, 30),
        "run_id": "recorded",
        "shard": 0,
        "job_id": "recorded",
        "engine": "bulk",
        "status": "SUCCEEDED",
        "image_count": images,
        "judged_count": images,
        "failed_count": 0,
        "started_at": began,
        "completed_at": began + timedelta(seconds=seconds),
    }
    schema = jobs.schema().as_arrow()
    jobs.append(pa.Table.from_pylist([{name: row.get(name) for name in schema.names}], schema=schema))


@pytest.fixture(scope="module")
def split(cloud: CloudSettings, runs: DagRuns, lake: Lake) -> DagRunOutcome:
    """The run of a day that is late by jobs alone, and by calls alone."""
    upload(cloud, SPLIT_DAY)
    record_a_job(lake, images=10_000, seconds=2_000)
    return runs.run(DAG_ID, {"day": SPLIT_DAY.isoformat(), "deadline_minutes": DEADLINE_MINUTES})


@pytest.fixture
def split_day(split: DagRunOutcome) -> date:
    assert_published(split)
    return SPLIT_DAY


def test_a_day_is_split_to_meet_its_deadline(
    cloud: CloudSettings, lake: Lake, split: DagRunOutcome, by_bulk: dict[str, list[str]]
) -> None:
    day = SPLIT_DAY
    assert_published(split)
    (plan,) = stored_plans(cloud, day)
    assert plan.engines is not None
    assert (plan.engines.asked, plan.engines.chosen) == ("auto", "split")
    assert plan.engines.reason == "bulk alone would take 0.1 min, in time"
    assert plan.engines.bulk_pace_source == "median of 1 jobs"
    assert plan.engines.concurrent_jobs_source == plan.engines.requests_per_second_source == "Service Quotas"
    assert [shard.engine for shard in plan.shards] == ["bulk"] * 2 + ["sync"] * 4
    for group in ("shards", "single_calls"):
        assert split.tasks[f"{group}.analyse", 0] == split.tasks[f"{group}.land", 0] == "success"

    assert content(lake, day) == by_bulk
    assert [(job["shard"], job["engine"], job["image_count"]) for job in _jobs(lake, day)] == [
        (shard.shard, shard.engine, shard.image_count) for shard in plan.shards
    ]
    engines = Counter(row["engine"] for row in lake.rows("images", day) if row["outcome"] == "judged")
    assert set(engines) == {"bulk", "sync"}
    assert 0 < engines["bulk"] <= 2 * IMAGES_PER_MANIFEST
    assert billed(cloud, day) == once(day)


def _jobs(lake: Lake, day: date) -> list[dict[str, Any]]:
    return sorted(lake.rows("jobs", day), key=lambda job: int(job["shard"]))


def test_a_day_that_was_split_stays_as_it_is(
    cloud: CloudSettings, runs: DagRuns, lake: Lake, split_day: date
) -> None:
    """Without a deadline all of it would go to jobs: but each manifest has its engine."""
    before = content(lake, split_day), billed(cloud, split_day), _jobs(lake, split_day)
    assert_published(runs.run(DAG_ID, {"day": split_day.isoformat(), "reuse": "off"}))
    plan = stored_plans(cloud, split_day)[-1]
    assert plan.engines is not None
    assert plan.engines.claimed == {"bulk": 2, "sync": 4}
    after = content(lake, split_day), billed(cloud, split_day), _jobs(lake, split_day)
    for was, now in zip(before[2], after[2], strict=True):
        assert {name: was[name] for name in ("engine", "job_id", "shard")} == {
            name: now[name] for name in ("engine", "job_id", "shard")
        }
    assert after[:2] == before[:2]


def test_a_split_day_anew_asks_again_for_what_a_job_left_out(
    cloud: CloudSettings, runs: DagRuns, lake: Lake, split_day: date, by_bulk: dict[str, list[str]]
) -> None:
    before = billed(cloud, split_day)
    conf = {"day": split_day.isoformat(), "deadline_minutes": DEADLINE_MINUTES, "fresh": True}
    with misbehaving(cloud, jobs=[{"results": "missing", "nth": [1]}]):
        anew = runs.run(DAG_ID, conf)
    assert_published(anew)
    plan = stored_plans(cloud, split_day)[-1]
    assert plan.engines is not None
    assert (plan.engines.chosen, plan.engines.claimed) == ("split", {})
    assert "1 images got no answer and are asked for again (1 of 1)" in anew.log
    assert content(lake, split_day) == by_bulk
    jobs = _jobs(lake, split_day)
    first = [(job["shard"], job["engine"]) for job in jobs if not job["retry"]]
    assert first == [(shard.shard, shard.engine) for shard in plan.shards]
    (again,) = [job for job in jobs if job["retry"]]
    assert (again["engine"], again["image_count"]) == ("bulk", 1)
    # All of it once more, as asked, and the image twice that the first of its jobs has judged in vain.
    assert Counter((billed(cloud, split_day) - before).values()) == {1: IMAGES - 1, 2: 1}


def test_a_worker_killed_among_single_calls_is_followed_by_one_that_goes_on(
    cloud: CloudSettings, runs: DagRuns, lake: Lake, by_bulk: dict[str, list[str]]
) -> None:
    day = date(2026, 11, 3)
    upload(cloud, day)
    running = runs.start(DAG_ID, {"day": day.isoformat(), "engine": "sync"})
    wait_for(lambda: billed(cloud, day).total() >= IMAGES / 2, 90)
    killed = runs.kill_worker("single_calls.analyse")
    judged = billed(cloud, day).total()
    assert judged < IMAGES
    assert_published(running.result(120))

    tries = runs.tries("single_calls.analyse")
    assert tries == dict.fromkeys(tries, 1) | {killed: 2}
    assert content(lake, day) == by_bulk
    assert {job["engine"] for job in lake.rows("jobs", day)} == {"sync"}
    paid = billed(cloud, day)
    assert paid.keys() == once(day).keys()
    assert paid.total() - IMAGES <= window_size(CALLS_PER_SECOND)
    # Better than that: what was kept before the kill is not paid for again.
    kept_first, kept_then = kept(cloud, day)
    assert len(kept_first) >= IMAGES / 4
    assert len(kept_then) > 0
    assert {ref: paid[ref] for ref in kept_first} == dict.fromkeys(kept_first, 1)


def kept(cloud: CloudSettings, day: date) -> tuple[set[str], set[str]]:
    """Return the images that the first terms of manifests have kept answers for, and those of later ones."""
    s3 = s3_client(local_cloud.environment(cloud))
    found: tuple[set[str], set[str]] = set(), set()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=WORK, Prefix="synchronous/"):
        for key in (entry["Key"] for entry in page["Contents"] if "/parts/" in entry["Key"]):
            _, *lines = s3.get_object(Bucket=WORK, Key=key)["Body"].read().splitlines()
            refs = {json.loads(line)["source-ref"] for line in lines}
            is_first = "/parts/00000-" in key
            found[0 if is_first else 1].update(ref for ref in refs if f"/uploads/{day}/" in ref)
    return found


def assert_judged_by_calls_alone(cloud: CloudSettings, lake: Lake, day: date) -> None:
    assert {job["engine"] for job in lake.rows("jobs", day)} == {"sync"}
    assert billed(cloud, day) == once(day, FEW)


def test_an_account_that_may_list_no_jobs_is_planned_for_single_calls_at_once(
    cloud: CloudSettings, runs: DagRuns, lake: Lake
) -> None:
    day = date(2026, 11, 6)
    upload(cloud, day, FEW)
    closed = ("ListMediaAnalysisJobs", "StartMediaAnalysisJob")
    with misbehaving(cloud, calls=[{"operation": name, "error": "AccessDeniedException"} for name in closed]):
        ended = runs.run(DAG_ID, {"day": day.isoformat(), "deadline_minutes": DEADLINE_MINUTES})
    assert_published(ended)
    (plan,) = stored_plans(cloud, day)
    assert plan.engines is not None
    assert plan.engines.chosen == "sync"
    assert plan.engines.bulk_access == "ListMediaAnalysisJobs was denied: AccessDeniedException"
    assert "bulk analysis: ListMediaAnalysisJobs was denied: AccessDeniedException" in ended.log
    assert ended.tasks["shards.analyse", -1] == "skipped"
    assert_judged_by_calls_alone(cloud, lake, day)


class TestAnAccountThatMayStartNoJobs:
    @pytest.fixture(scope="class")
    def found_out(self, cloud: CloudSettings, runs: DagRuns) -> Iterator[DagRunOutcome]:
        """The first run, where nothing but Start tells; the account stays closed."""
        upload(cloud, FOUND_OUT_DAY, FEW)
        with misbehaving(
            cloud, calls=[{"operation": "StartMediaAnalysisJob", "error": "AccessDeniedException"}]
        ):
            yield runs.run(DAG_ID, {"day": FOUND_OUT_DAY.isoformat()})
        # What is noted of the account's access does not hold for other tests.
        s3_client(local_cloud.environment(cloud)).delete_object(Bucket=WORK, Key="engines/bulk.json")

    def test_it_goes_to_single_calls_on_the_way(
        self, cloud: CloudSettings, lake: Lake, found_out: DagRunOutcome
    ) -> None:
        assert_published(found_out)
        (plan,) = stored_plans(cloud, FOUND_OUT_DAY)
        assert plan.engines is not None
        assert plan.engines.chosen == "bulk"
        assert plan.engines.bulk_access == "ListMediaAnalysisJobs answers; the first Start will decide"
        assert found_out.tasks["shards.analyse", 0] == "success"
        assert found_out.tasks["single_calls.analyse", -1] == "skipped"
        assert "What has no job yet is judged by single calls" in found_out.log
        assert_judged_by_calls_alone(cloud, lake, FOUND_OUT_DAY)

    @pytest.mark.usefixtures("found_out")
    def test_the_next_plan_knows_and_says_it(self, cloud: CloudSettings, runs: DagRuns, lake: Lake) -> None:
        day = date(2026, 11, 5)
        upload(cloud, day, FEW)
        knowing = runs.run(DAG_ID, {"day": day.isoformat()})
        assert_published(knowing)
        (plan,) = stored_plans(cloud, day)
        assert plan.engines is not None
        assert (plan.engines.chosen, plan.engines.reason) == ("sync", "bulk analysis is closed")
        assert plan.engines.bulk_access.startswith("denied at ")
        assert "since 2026-04-30" in plan.engines.bulk_access
        assert {shard.engine for shard in plan.shards} == {"sync"}
        assert knowing.tasks["shards.analyse", -1] == "skipped"
        assert "bulk analysis: denied at" in knowing.log
        assert "sync: bulk analysis is closed" in knowing.log
        assert_judged_by_calls_alone(cloud, lake, day)
