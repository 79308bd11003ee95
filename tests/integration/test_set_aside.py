"""What a known-hash stage has set aside, through moderate_images and enforce_policy on a real local cloud."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import quote

import pytest
from pyiceberg.catalog import load_catalog

from cli.lake_environment import PREFIX, lake_environment
from cli.seed import s3_client, seed_day
from localcloud import cloud as local_cloud
from localcloud.faults import plan as faults
from localcloud.faults.ledger import FaultLedger
from localcloud.rekognition.jobs import JobStore
from localcloud.settings import CloudSettings
from tests.support.airflow_home import AirflowHome, DagRunOutcome, airflow_home
from tests.support.cloud import running_cloud

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DAY = date(2026, 11, 21)
IMAGES = 24
RESTRICTED = "restricted"


@dataclass
class World:
    """A seeded day of which some images with labels are known; S3's proxy writes down what is touched."""

    cloud: CloudSettings
    airflow: AirflowHome

    def __post_init__(self) -> None:
        self.s3 = s3_client(local_cloud.environment(self.cloud))
        seed_day(self.s3, self.cloud.home, DAY, IMAGES, lambda done, total: None)
        self.s3.create_bucket(Bucket=RESTRICTED)
        book = json.loads((self.cloud.home / "cloud" / "answers" / f"{DAY}.json").read_bytes())
        self.listed = {
            f"s3://modlake-ugc/{key}": hashlib.sha256(self.read("modlake-ugc", key)).hexdigest()
            for key in self.keys("modlake-ugc", f"uploads/{DAY}/")
        }
        labelled = [
            ref for ref, digest in self.listed.items() if book.get(digest, {}).get("ModerationLabels")
        ]
        # A copy of a known image is on the stage's list, too.
        known = {self.listed[ref] for ref in labelled[:3]}
        self.known = sorted(ref for ref, digest in self.listed.items() if digest in known)
        watched = {
            "service": "s3",
            "operation": "*",
            "match": "^modlake-ugc/uploads/",
            "delay_seconds": 0.001,
        }
        faults.write(self.cloud.home / "cloud", {"calls": [watched]})

    def keys(self, bucket: str, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read(self, bucket: str, key: str) -> bytes:
        return self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    def leave_the_list(self) -> None:
        lines = "".join(json.dumps({"source_ref": ref, "hash": "f00d"}) + "\n" for ref in self.known)
        self.s3.put_object(Bucket=RESTRICTED, Key=f"{DAY}.jsonl", Body=lines.encode())

    def run(self, dag_id: str) -> DagRunOutcome:
        return self.airflow.run_dag(dag_id, {"day": DAY.isoformat()})

    def touched(self) -> set[str]:
        """The uploads that the pipeline read, tagged, copied or deleted."""
        ledger = FaultLedger(self.cloud.home / "cloud")
        recorded = {f"s3://{subject.split(' ', 1)[1]}" for _, _, subject in ledger.recorded()}
        ledger.close()
        return recorded & set(self.listed)

    def billed(self) -> set[str]:
        store = JobStore(self.cloud.home / "cloud" / "rekognition.sqlite")
        digests = {image.sha256 for image in store.billed()}
        store.close()
        return digests

    def rows(self, table: str) -> list[dict[str, Any]]:
        properties = {
            name.removeprefix(PREFIX).lower().replace("__", ".").replace("_", "-"): value
            for name, value in lake_environment(self.cloud, {}).items()
        }
        scan = load_catalog("modlake", **properties).load_table(f"moderation.{table}").scan(f"day = '{DAY}'")
        return list(scan.to_arrow().to_pylist())

    def named_in(self, text: str) -> list[str]:
        """The known images that a text names, plain, quoted for a URL or as JSON in ASCII."""
        keys = [ref.removeprefix("s3://modlake-ugc/") for ref in self.known]
        spellings = {key: (key, quote(key), json.dumps(key)[1:-1], repr(key)[1:-1]) for key in keys}
        return [key for key, forms in spellings.items() if any(form in text for form in forms)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    variables = {"modlake_set_aside_uri": f"s3://{RESTRICTED}/%Y-%m-%d.jsonl"}
    with (
        running_cloud(tmp_path_factory.mktemp("cloud"), s3_fault_proxy=True) as cloud,
        airflow_home(tmp_path_factory.mktemp("airflow"), cloud, extra_variables=variables) as home,
    ):
        yield World(cloud, home)


def test_known_images_are_counted_and_nothing_else_is_done_about_them(world: World) -> None:
    assert len(world.known) >= 3

    # Before the stage has run, no image of the day is looked at.
    too_early = world.run("moderate_images")
    assert too_early.tasks["plan", -1] == "failed"
    assert f"s3://{RESTRICTED}/{DAY}.jsonl does not exist" in too_early.log
    assert (world.touched(), world.billed()) == (set(), set())

    world.leave_the_list()
    runs = [world.run("moderate_images"), world.run("enforce_policy")]
    assert [run.state for run in runs] == ["success"] * 2, runs[-1].log[-10000:]

    images = {row["source_ref"]: row for row in world.rows("images")}
    assert set(images) == set(world.listed)
    for ref in world.known:
        assert (images[ref]["outcome"], images[ref]["error_code"]) == ("ineligible", "SET_ASIDE")
        assert (images[ref]["label_count"], images[ref]["job_id"]) == (None, None)
    judged = {ref for ref, row in images.items() if row["outcome"] == "judged"}
    (run,) = world.rows("runs")
    assert run["ineligible"] >= len(world.known)
    assert run["listed"] == IMAGES

    # The others were judged and acted on, so that not to find these means something.
    assert judged
    assert {world.listed[ref] for ref in judged} <= world.billed()
    assert world.touched() & judged
    assert not world.touched() & set(world.known)
    assert not world.billed() & {world.listed[ref] for ref in world.known}

    decided = {row["source_ref"]: row["verdict"] for row in world.rows("decisions")}
    assert set(decided) == set(world.listed) - set(world.known)
    assert "block" in decided.values()
    assert not {row["source_ref"] for table in ("labels", "actions") for row in world.rows(table)} & set(
        world.known
    )
    written = {
        key: world.read("modlake-work", key).decode()
        for key in world.keys("modlake-work", "")
        if (not key.endswith(".parquet"))
    }
    assert any("/manifests/" in key for key in written)
    assert {key: named for key, text in written.items() if (named := world.named_in(text))} == {}
    for outcome in [too_early, *runs]:
        told = outcome.log + json.dumps([outcome.events, outcome.questions], ensure_ascii=False)
        assert world.named_in(told) == []
