"""The whole DAG on a real local cloud: from stored labels to buckets, through the brake, and back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog, load_catalog

from cli.lake_environment import PREFIX, lake_environment
from cli.seed import s3_client
from localcloud import cloud as local_cloud
from localcloud.settings import CloudSettings
from modlake.lake.actions import read_actions
from modlake.lake.catalog import ensure_tables
from tests.support.airflow_home import AirflowHome, DagRunOutcome, airflow_home
from tests.support.cloud import running_cloud
from tests.support.labelled_days import publish_labels

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

DAG_ID = "enforce_policy"
DAY = date(2026, 11, 21)
UGC, QUARANTINE = "modlake-ugc", "modlake-quarantine"

POLICY = """
name: house
status: live
match: most_severe
default: allow
actions: {{block: [tag, quarantine], review: [tag, review_queue]}}
brake: {{max_images: {max_images}}}
rules:
  - name: nudity
    verdict: block
    description: Nudity and sex
    when: {{label: Explicit, at_least: {block_at}}}
  - name: arms
    verdict: review
    when: {{label: Weapons, at_least: 80}}
"""


@dataclass
class World:
    """A local cloud with an Airflow, and days of images that are published by hand."""

    cloud: CloudSettings
    airflow: AirflowHome
    policies: Path
    catalog: Catalog
    bodies: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.s3 = s3_client(local_cloud.environment(self.cloud))

    def publish(self, day: date, confidences: list[float], label: str = "Explicit") -> list[str]:
        """Upload an image for each confidence, and publish the label; return the keys."""
        keys = [f"uploads/{day}/{number:02d} é.jpg" for number in range(len(confidences))]
        etags = {}
        for key in keys:
            self.bodies[key] = key.encode()
            answer = self.s3.put_object(
                Bucket=UGC, Key=key, Body=key.encode(), ContentType="image/jpeg", Metadata={"owner": "ada"}
            )
            etags[key] = {"etag": answer["ETag"].strip('"')}
        labels = {key: {label: confidence} for key, confidence in zip(keys, confidences, strict=True)}
        publish_labels(self.catalog, day, labels, run_id=f"run-{day}", bucket=UGC, images=etags)
        return keys

    def use(self, *, block_at: float = 80, max_images: int = 100) -> None:
        body = POLICY.format(block_at=block_at, max_images=max_images)
        (self.policies / "house.yaml").write_text(body)

    def run(self, day: date, answer: str | None = None, **conf: Any) -> DagRunOutcome:
        return self.airflow.run_dag(DAG_ID, {"day": day.isoformat(), **conf}, answer=answer)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def tags(self, key: str) -> dict[str, str]:
        found = self.s3.get_object_tagging(Bucket=UGC, Key=key)["TagSet"]
        return {tag["Key"]: tag["Value"] for tag in found}

    def actions(self, day: date) -> Counter[tuple[str, str]]:
        rows = read_actions(self.catalog, day=day).to_pylist()
        return Counter((("undo " if row["undoes"] else "") + row["kind"], row["status"]) for row in rows)

    def decisions(self, day: date) -> Counter[str]:
        rows = self.catalog.load_table("moderation.decisions").scan(f"day = '{day}'").to_arrow().to_pylist()
        return Counter(row["verdict"] for row in rows)

    def snapshots(self) -> list[int]:
        names = ("decisions", "enforcements", "actions")
        return [len(self.catalog.load_table(f"moderation.{name}").snapshots()) for name in names]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    policies = tmp_path_factory.mktemp("policies")
    with running_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        catalog = open_catalog(cloud)
        ensure_tables(catalog)
        variables = {"modlake_policies_uri": str(policies)}
        with airflow_home(tmp_path_factory.mktemp("airflow"), cloud, extra_variables=variables) as home:
            yield World(cloud, home, policies, catalog)


def open_catalog(cloud: CloudSettings) -> Catalog:
    properties = {
        name.removeprefix(PREFIX).lower().replace("__", ".").replace("_", "-"): value
        for name, value in lake_environment(cloud, {}).items()
    }
    return load_catalog("modlake", **properties)


def states(outcome: DagRunOutcome) -> dict[str, str]:
    return {task: state for (task, _), state in outcome.tasks.items()}


def test_a_usual_day_is_acted_on_without_a_person_and_once(world: World) -> None:
    world.use()
    keys = world.publish(DAY, [95, 90, 70, 60])
    first = world.run(DAY, actions_per_batch=2)
    assert first.state == "success", first.log[-20000:]
    assert first.questions == []
    assert first.map_names["act", 0] == "batch 0"
    assert world.decisions(DAY) == {"block": 2, "allow": 2}
    assert world.actions(DAY) == {("tag", "completed"): 2, ("quarantine", "completed"): 2}
    assert world.keys(UGC, f"uploads/{DAY}/") == keys[2:]
    assert len(world.keys(QUARANTINE, f"{UGC}/uploads/{DAY}/")) == 2
    (event,) = first.events
    assert (event["asset"], event["partition_key"]) == ("moderation_decisions", DAY.isoformat())
    assert event["extra"]["verdicts"] == {"block": 2, "review": 0, "allow": 2}
    assert event["extra"]["actions"] == {"completed": 4}

    before = world.snapshots()
    again = world.run(DAY)
    assert again.state == "success", again.log[-20000:]
    assert states(again) == {
        "decide": "success", "brake": "success", "request": "skipped", "act": "skipped", "record": "success"
    }  # fmt: skip
    assert world.snapshots() == before
    assert again.events[0]["extra"]["actions"] == {}


def test_what_is_for_people_to_judge_is_tagged_and_queued(world: World) -> None:
    day = DAY + timedelta(days=1)
    world.use()
    keys = world.publish(day, [95, 10], label="Weapons")
    assert world.run(day).state == "success"
    assert world.tags(keys[0]) == {"moderation": "review"}
    assert world.tags(keys[1]) == {}
    (item,) = world.keys("modlake-work", f"review/day={day}/")
    body = json.loads(world.s3.get_object(Bucket="modlake-work", Key=item)["Body"].read())
    assert body["source_ref"] == f"s3://{UGC}/{keys[0]}"


def test_more_than_usual_waits_for_a_person_and_a_no_does_nothing(world: World) -> None:
    day = DAY + timedelta(days=2)
    world.use(max_images=2)
    keys = world.publish(day, [95, 95, 95, 60])

    rejected = world.run(day, "Reject")
    assert rejected.state == "success", rejected.log[-20000:]
    (question,) = rejected.questions
    assert question["subject"] == f"{day}: 3 to be blocked of 4 images, more than usual"
    assert f"`s3://{UGC}/uploads/{day}/00 %C3%A9.jpg`" in question["body"]
    assert "Nudity and sex" in question["body"]
    assert states(rejected) == {
        "decide": "success", "brake": "success", "request": "skipped", "act": "skipped", "record": "success"
    }  # fmt: skip
    assert rejected.events[0]["extra"]["approval"] == {"asked": True, "approved": False, "by": "ada"}
    assert world.decisions(day) == {"block": 3, "allow": 1}
    assert world.actions(day) == {}
    assert world.keys(UGC, f"uploads/{day}/") == keys

    approved = world.run(day, "Approve")
    assert approved.state == "success", approved.log[-20000:]
    assert [question["subject"] for question in approved.questions] == [question["subject"]]
    assert world.actions(day) == {("tag", "completed"): 3, ("quarantine", "completed"): 3}
    assert world.keys(UGC, f"uploads/{day}/") == keys[3:]
    assert approved.events[0]["extra"]["approval"]["approved"] is True
    details = read_actions(world.catalog, day=day)["detail"].to_pylist()
    assert {json.loads(detail)["approved_by"] for detail in details} == {"ada"}


def test_a_changed_policy_releases_what_it_does_not_block_any_more(world: World) -> None:
    day = DAY + timedelta(days=3)
    world.use()
    keys = world.publish(day, [95, 85, 70])
    assert world.run(day).state == "success"
    assert world.keys(UGC, f"uploads/{day}/") == keys[2:]

    world.use(block_at=90)
    released = world.run(day)
    assert released.state == "success", released.log[-20000:]
    assert world.decisions(day) == {"block": 1, "allow": 2}
    assert world.actions(day) == {
        ("tag", "completed"): 1, ("quarantine", "completed"): 1,
        ("tag", "undone"): 1, ("quarantine", "undone"): 1,
        ("undo tag", "completed"): 1, ("undo quarantine", "completed"): 1,
    }  # fmt: skip
    assert world.keys(UGC, f"uploads/{day}/") == keys[1:]
    restored = world.s3.get_object(Bucket=UGC, Key=keys[1])
    assert restored["Body"].read() == world.bodies[keys[1]]
    assert (restored["Metadata"], restored["ContentType"]) == ({"owner": "ada"}, "image/jpeg")
    assert world.tags(keys[1]) == {}

    # Back again, by a file that stands in for the policy of its name.
    tried = world.policies.parent / "tried.yaml"
    tried.write_text(POLICY.format(block_at=80, max_images=100))
    assert world.run(day, policy_uri=str(tried)).state == "success"
    assert world.keys(UGC, f"uploads/{day}/") == keys[2:]


def test_objects_that_were_replaced_are_not_touched(world: World) -> None:
    day = DAY + timedelta(days=4)
    world.use()
    keys = world.publish(day, [95, 95])
    world.s3.put_object(Bucket=UGC, Key=keys[0], Body=b"another image")
    world.s3.delete_object(Bucket=UGC, Key=keys[1])
    run = world.run(day)
    assert run.state == "success", run.log[-20000:]
    assert set(world.actions(day)) >= {("quarantine", "replaced"), ("quarantine", "gone")}
    assert world.s3.get_object(Bucket=UGC, Key=keys[0])["Body"].read() == b"another image"


def test_errors_name_what_to_mend(world: World) -> None:
    day = DAY + timedelta(days=5)
    world.use()
    lost = world.run(day)
    assert lost.state == "failed"
    assert "is not published" in lost.log
    assert "decide or brake did not finish" in lost.log
    assert lost.events == []
