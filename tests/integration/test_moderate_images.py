"""The whole DAG, from seeded uploads in a real local cloud to the tables of the lake."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import boto3
import pytest
from pyiceberg.catalog import Catalog, load_catalog

from cli.lake_environment import PREFIX, lake_environment
from cli.seed import s3_client, seed_day
from localcloud import cloud as local_cloud
from localcloud.faults import plan as faults
from localcloud.settings import CloudSettings
from tests.support.airflow_home import CHECKOUT, AirflowHome, DagRunOutcome, airflow_home
from tests.support.cloud import running_cloud

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

DAG_ID = "moderate_images"
DAY = date(2026, 11, 21)
IMAGES = 80
MIN_CONFIDENCE = 70.0


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudSettings]:
    with running_cloud(tmp_path_factory.mktemp("cloud")) as settings:
        yield settings


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, cloud: CloudSettings) -> Iterator[AirflowHome]:
    with airflow_home(tmp_path_factory.mktemp("airflow"), cloud) as home:
        yield home


@pytest.fixture(scope="module")
def moderated(cloud: CloudSettings, airflow: AirflowHome) -> DagRunOutcome:
    """The first run of a seeded day."""
    seed(cloud, DAY, IMAGES)
    return airflow.run_dag(DAG_ID, {"day": DAY.isoformat(), "min_confidence": MIN_CONFIDENCE})


def seed(cloud: CloudSettings, day: date, images: int) -> None:
    s3 = s3_client(local_cloud.environment(cloud))
    seed_day(s3, cloud.home, day, images, lambda done, total: None)


def objects(cloud: CloudSettings, day: date) -> dict[str, bytes]:
    """What a stranger's client lists for the day, by source_ref."""
    s3 = s3_client(local_cloud.environment(cloud))
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="modlake-ugc", Prefix=f"uploads/{day}/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return {
        f"s3://modlake-ugc/{key}": s3.get_object(Bucket="modlake-ugc", Key=key)["Body"].read() for key in keys
    }


def answers(cloud: CloudSettings) -> dict[str, dict[str, Any]]:
    """All answer books, by SHA-256."""
    book = json.loads((CHECKOUT / "include/sample_images/labels.json").read_bytes())["answers"]
    for path in (cloud.home / "cloud" / "answers").glob("*.json"):
        book |= json.loads(path.read_bytes())
    return dict(book)


def jobs(cloud: CloudSettings) -> list[str]:
    environment = local_cloud.environment(cloud)
    rekognition = boto3.client(
        "rekognition",
        endpoint_url=environment["AWS_ENDPOINT_URL_REKOGNITION"],
        region_name=cloud.region,
        aws_access_key_id=cloud.access_key,
        aws_secret_access_key=cloud.secret_key,
    )
    return [job["JobId"] for job in rekognition.list_media_analysis_jobs(MaxResults=100)["MediaAnalysisJobs"]]


def catalog(cloud: CloudSettings) -> Catalog:
    properties = {
        name.removeprefix(PREFIX).lower().replace("__", ".").replace("_", "-"): value
        for name, value in lake_environment(cloud, {}).items()
    }
    return load_catalog("modlake", **properties)


def rows(cloud: CloudSettings, table: str, day: date) -> list[dict[str, Any]]:
    scanned = catalog(cloud).load_table(f"moderation.{table}").scan(row_filter=f"day == '{day}'")
    return list(scanned.to_arrow().to_pylist())


def engines_of(cloud: CloudSettings, day: date) -> set[str | None]:
    return {row["engine"] for row in rows(cloud, "images", day) if row["outcome"] in {"judged", "failed"}}


@contextmanager
def misbehaving(cloud: CloudSettings, *calls: dict[str, Any]) -> Iterator[None]:
    """Let the account answer calls as told."""
    faults.write(cloud.home / "cloud", {"calls": list(calls)})
    try:
        yield
    finally:
        faults.write(cloud.home / "cloud", None)


def snapshots(cloud: CloudSettings) -> dict[str, int | None]:
    lake = catalog(cloud)
    current = {name: lake.load_table(("moderation", name)) for name in ("images", "labels", "jobs", "runs")}
    return {name: table.metadata.current_snapshot_id for name, table in current.items()}


def test_all_tasks_succeed_under_readable_names(moderated: DagRunOutcome) -> None:
    assert moderated.state == "success", moderated.log[-5000:]
    assert (
        moderated.tasks["single_calls.analyse", -1] == moderated.tasks["single_calls.land", -1] == "skipped"
    )
    assert set(moderated.tasks.values()) == {"success", "skipped"}
    assert moderated.map_names["shards.analyse", 0] == moderated.map_names["shards.land", 0] == "shards 0"


def test_every_listed_object_has_exactly_one_outcome(cloud: CloudSettings, moderated: DagRunOutcome) -> None:
    listed = objects(cloud, DAY)
    images = rows(cloud, "images", DAY)

    assert len(listed) == IMAGES
    assert any("漢字" in ref for ref in listed)
    assert any("%2F" in ref for ref in listed)
    assert any("+" in ref and "'" not in ref for ref in listed)
    assert Counter(row["source_ref"] for row in images) == Counter(list(listed))
    outcomes = Counter(row["outcome"] for row in images)
    assert set(outcomes) == {"judged", "ineligible", "failed"}
    (run,) = rows(cloud, "runs", DAY)
    assert run["listed"] == IMAGES
    assert {name: run[name] for name in ("judged", "reused", "ineligible", "failed")} == {
        "reused": 0,
        **outcomes,
    }


def test_labels_are_those_of_the_answer_book(cloud: CloudSettings, moderated: DagRunOutcome) -> None:
    book = answers(cloud)
    known = {
        ref: book[digest]
        for ref, body in objects(cloud, DAY).items()
        if (digest := hashlib.sha256(body).hexdigest()) in book
    }
    expected = {
        (ref, label["Name"], label["ParentName"] or None, label["TaxonomyLevel"], label["Confidence"])
        for ref, answer in known.items()
        for label in answer["ModerationLabels"]
        if label["Confidence"] >= MIN_CONFIDENCE
    }
    held_back = sum(
        label["Confidence"] < MIN_CONFIDENCE for a in known.values() for label in a["ModerationLabels"]
    )
    found = [row for row in rows(cloud, "labels", DAY) if row["source_ref"] in known]

    assert len(expected) > 20
    assert held_back > 0
    assert len(found) == len(expected)
    assert {
        (
            row["source_ref"],
            row["label"],
            row["parent_label"] or None,
            row["taxonomy_level"],
            row["confidence"],
        )
        for row in found
    } == expected


def test_paths_are_those_of_the_taxonomy(cloud: CloudSettings, moderated: DagRunOutcome) -> None:
    taxonomy = json.loads((CHECKOUT / "plugins/modlake/data/moderation_taxonomy_v7.json").read_bytes())
    parents = {label["name"]: label["parent"] for label in taxonomy}

    def path(label: str) -> list[str | None]:
        names = [label]
        while parents[names[0]]:
            names.insert(0, parents[names[0]])
        return [*names, None, None][:3]

    labels = rows(cloud, "labels", DAY)
    assert {row["taxonomy_level"] for row in labels} == {1, 2, 3}
    assert all([row["l1"], row["l2"], row["l3"]] == path(row["label"]) for row in labels)


def test_the_event_of_a_run_by_hand_is_of_the_partition_of_the_day(
    cloud: CloudSettings, moderated: DagRunOutcome
) -> None:
    (event,) = moderated.events
    (run,) = rows(cloud, "runs", DAY)
    assert event["asset"] == "moderation_labels"
    assert event["partition_key"] == event["extra"]["day"] == "2026-11-21"
    for name in ("listed", "judged", "reused", "ineligible", "failed", "labels"):
        assert event["extra"][name] == run[name]
    assert event["extra"]["snapshot_ids"]["images"] == run["images_snapshot_id"]
    assert event["extra"]["snapshot_ids"]["labels"] == run["labels_snapshot_id"]


def test_a_rerun_changes_nothing_and_starts_no_job(
    cloud: CloudSettings, airflow: AirflowHome, moderated: DagRunOutcome
) -> None:
    before = snapshots(cloud), sorted(jobs(cloud))
    again = airflow.run_dag(DAG_ID, {"day": DAY.isoformat(), "min_confidence": MIN_CONFIDENCE})
    assert again.state == "success"
    assert (snapshots(cloud), sorted(jobs(cloud))) == before
    assert again.events[0]["extra"]["changed"] is False


def test_a_fresh_run_analyses_anew(
    cloud: CloudSettings, airflow: AirflowHome, moderated: DagRunOutcome
) -> None:
    before = len(jobs(cloud))
    fresh = airflow.run_dag(DAG_ID, {"day": DAY.isoformat(), "min_confidence": MIN_CONFIDENCE, "fresh": True})
    assert fresh.state == "success"
    assert len(jobs(cloud)) == before + 1
    assert len(rows(cloud, "images", DAY)) == IMAGES


def test_both_engines_lead_to_the_same_rows(cloud: CloudSettings, airflow: AirflowHome) -> None:
    day = date(2026, 11, 15)
    seed(cloud, day, 40)
    by_bulk = airflow.run_dag(DAG_ID, {"day": day.isoformat(), "engine": "bulk", "fresh": True})
    tables = {table: rows(cloud, table, day) for table in ("images", "labels", "runs")}
    by_sync = airflow.run_dag(DAG_ID, {"day": day.isoformat(), "engine": "sync", "fresh": True})
    assert (by_bulk.state, by_sync.state) == ("success", "success"), by_sync.log[-5000:]
    assert by_bulk.tasks["single_calls.analyse", -1] == by_sync.tasks["shards.analyse", -1] == "skipped"
    assert by_sync.tasks["single_calls.analyse", 0] == "success"
    assert engines_of(cloud, day) == {"sync"}
    # Who judged and when; the words for images that can't be judged are each engine's own.
    own = {"engine", "job_id", "judged_at", "run_id", "error_code", "error_message"}
    for table in ("images", "labels"):
        before, after = (
            sorted(
                ({name: value for name, value in row.items() if name not in own} for row in found),
                key=lambda row: json.dumps(row, default=str, sort_keys=True),
            )
            for found in (tables[table], rows(cloud, table, day))
        )
        assert before == after
        assert before
    counts = ("listed", "judged", "reused", "ineligible", "failed", "labels")
    (run,) = rows(cloud, "runs", day)
    assert {name: run[name] for name in counts} == {name: tables["runs"][0][name] for name in counts}


def test_where_start_is_denied_the_day_is_judged_by_single_calls_once(
    cloud: CloudSettings, airflow: AirflowHome
) -> None:
    day = date(2026, 11, 14)
    seed(cloud, day, 12)
    before = len(jobs(cloud))
    # Nothing but Start tells: this is how a closed account may look.
    with misbehaving(cloud, {"operation": "StartMediaAnalysisJob", "error": "AccessDeniedException"}):
        refused = airflow.run_dag(DAG_ID, {"day": day.isoformat(), "engine": "bulk", "fresh": True})
        assert refused.state == "failed"
        assert "DetectModerationLabels stays open to all" in refused.log
        closed = airflow.run_dag(DAG_ID, {"day": day.isoformat()})
        assert closed.state == "success", closed.log[-5000:]
        assert closed.tasks["shards.analyse", 0] == "success"
        assert "What has no job yet is judged by single calls" in closed.log
        assert engines_of(cloud, day) == {"sync"}
        # The next plan knows, and no job is asked for.
        following = airflow.run_dag(DAG_ID, {"day": day.isoformat(), "min_confidence": 60})
        assert following.tasks["shards.analyse", -1] == "skipped"
        assert "bulk analysis: denied at" in following.log
    judged = [row["judged_at"] for row in rows(cloud, "images", day)]
    # What single calls have judged is theirs, also for a run that is asked for jobs.
    again = airflow.run_dag(DAG_ID, {"day": day.isoformat(), "min_confidence": 60, "engine": "bulk"})
    assert again.state == "success", again.log[-5000:]
    assert [row["judged_at"] for row in rows(cloud, "images", day)] == judged
    assert len(jobs(cloud)) == before
    # The other tests' account has bulk analysis.
    s3_client(local_cloud.environment(cloud)).delete_object(Bucket="modlake-work", Key="engines/bulk.json")


def test_an_empty_day_is_published_with_zero_rows(cloud: CloudSettings, airflow: AirflowHome) -> None:
    day = date(2026, 11, 20)
    seed(cloud, day, 0)
    empty = airflow.run_dag(DAG_ID, {"day": day.isoformat()})
    assert empty.state == "success"
    assert empty.tasks["shards.analyse", -1] == empty.tasks["shards.land", -1] == "skipped"
    assert empty.tasks["single_calls.analyse", -1] == "skipped"
    assert empty.tasks["publish", -1] == "success"
    assert rows(cloud, "images", day) == []
    (run,) = rows(cloud, "runs", day)
    assert (run["listed"], run["labels"]) == (0, 0)
    assert empty.events[0]["partition_key"] == day.isoformat()


def test_a_day_of_one_image(cloud: CloudSettings, airflow: AirflowHome) -> None:
    day = date(2026, 11, 19)
    seed(cloud, day, 1)
    assert airflow.run_dag(DAG_ID, {"day": day.isoformat()}).state == "success"
    assert [row["source_ref"] for row in rows(cloud, "images", day)] == list(objects(cloud, day))


def test_a_day_is_awaited_until_its_marker_exists(cloud: CloudSettings, airflow: AirflowHome) -> None:
    day = date(2026, 11, 18)
    late = threading.Timer(10, seed, (cloud, day, 1))
    late.start()
    waited = airflow.run_dag(DAG_ID, {"day": day.isoformat()})
    late.join()
    assert waited.state == "success"
    assert "s3://modlake-ugc/complete/2026-11-18 is not there yet" in waited.log


def test_neither_partition_nor_day_is_a_clear_error(airflow: AirflowHome) -> None:
    lost = airflow.run_dag(DAG_ID)
    assert lost.state == "failed"
    assert lost.tasks["wait_for_day", -1] == "failed"
    assert "no partition key and no param day" in lost.log
    assert '--conf \'{"day": "2026-11-21"}\'' in lost.log


def test_late_images_of_a_day_are_the_only_ones_analysed(cloud: CloudSettings, airflow: AirflowHome) -> None:
    day = date(2026, 11, 17)
    seed(cloud, day, 12)
    first = airflow.run_dag(DAG_ID, {"day": day.isoformat()})
    judged = {row["source_ref"]: row for row in rows(cloud, "images", day) if row["outcome"] == "judged"}
    before, spent = len(jobs(cloud)), len(rows(cloud, "jobs", day))
    late = f"uploads/{day}/zz-late.jpg"
    copied = next(ref for ref in judged if ref.endswith((".jpg", ".png"))).removeprefix("s3://modlake-ugc/")
    s3_client(local_cloud.environment(cloud)).copy_object(
        Bucket="modlake-ugc", Key=late, CopySource={"Bucket": "modlake-ugc", "Key": copied}
    )
    for _ in range(2):
        again = airflow.run_dag(DAG_ID, {"day": day.isoformat()})
        assert (first.state, again.state) == ("success", "success"), again.log[-5000:]
        images = {row["source_ref"]: row for row in rows(cloud, "images", day)}
        assert images[f"s3://modlake-ugc/{late}"]["outcome"] == "judged"
        for ref, row in judged.items():
            assert (images[ref]["outcome"], images[ref]["reused_from"]) == ("reused", day.isoformat())
            for name in ("label_count", "top_label", "top_confidence", "job_id", "judged_at", "etag"):
                assert images[ref][name] == row[name]
    # Failed images are asked for again with the late one, which costs nothing.
    assert (len(jobs(cloud)), len(rows(cloud, "jobs", day))) == (before + 1, spent + 1)
    assert again.events[0]["extra"]["changed"] is False


@pytest.mark.parametrize(("status", "task"), [("DEPRECATED", "publish"), ("EXPIRED", "plan")])
def test_an_adapter_that_has_expired_stops_the_day_before_it_costs(
    cloud: CloudSettings, airflow: AirflowHome, status: str, task: str
) -> None:
    day = date(2026, 11, 16)
    seed(cloud, day, 3)
    arn = "arn:aws:rekognition:us-east-1:123456789012:project/house-rules/version/v1/1700000000000"
    (cloud.home / "cloud" / "adapters.json").write_text(json.dumps({arn: status}))
    before = len(jobs(cloud))
    run = airflow.run_dag(DAG_ID, {"day": day.isoformat(), "adapter_arn": arn})
    assert run.tasks[task, -1] == ("success" if task == "publish" else "failed")
    assert f"The adapter {arn} is {status}" in run.log
    assert (len(jobs(cloud)) > before) == (status == "DEPRECATED")


def test_a_day_over_budget_submits_nothing(
    cloud: CloudSettings, airflow: AirflowHome, moderated: DagRunOutcome
) -> None:
    before = len(jobs(cloud))
    refused = airflow.run_dag(DAG_ID, {"day": DAY.isoformat(), "max_cost_usd": 0.01, "min_confidence": 33})
    assert refused.tasks["plan", -1] == "failed"
    assert "over the budget of 0.01 USD" in refused.log
    assert len(jobs(cloud)) == before
