"""Maintenance of a lake in a real local cloud, through the whole DAG."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import duckdb
import duckdb_extensions
import pytest
from airflow.dag_processing.dagbag import DagBag
from pyiceberg.catalog import Catalog, load_catalog

from cli.lake_environment import PREFIX, lake_environment
from localcloud.settings import CloudSettings
from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.lake.catalog import ensure_tables
from modlake.lake.maintenance.orphans import sweep_orphans
from modlake.lake.maintenance.policy import MaintenancePolicy
from modlake.lake.maintenance.runs import sweep_runs
from modlake.lake.maintenance.snapshots import expire_snapshots
from modlake.lake.publish import publish_day
from modlake.pipeline.audit import Audit
from tests.support.airflow_home import CHECKOUT, AirflowHome, airflow_home
from tests.support.cloud import running_cloud
from tests.support.days import audited_day

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

DAY = date(2026, 11, 21)
KEYS = [f"{number}.jpg" for number in range(6)]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudSettings]:
    with running_cloud(tmp_path_factory.mktemp("cloud")) as settings:
        yield settings


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, cloud: CloudSettings) -> Iterator[AirflowHome]:
    variables = {"modlake_work_uri": "s3://work/"}
    with airflow_home(tmp_path_factory.mktemp("airflow"), cloud, extra_variables=variables) as home:
        yield home


@pytest.fixture(scope="module")
def catalog(cloud: CloudSettings) -> Catalog:
    properties = {
        name.removeprefix(PREFIX).lower().replace("__", ".").replace("_", "-"): value
        for name, value in lake_environment(cloud, {}).items()
    }
    catalog = load_catalog("modlake", **properties)
    ensure_tables(catalog)
    return catalog


@pytest.fixture(scope="module")
def s3(cloud: CloudSettings) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=cloud.s3_endpoint,
        region_name=cloud.region,
        aws_access_key_id=cloud.access_key,
        aws_secret_access_key=cloud.secret_key,
    )


@pytest.fixture(scope="module")
def store(cloud: CloudSettings) -> Iterator[S3ObjectStoreHook]:
    connection = {
        "conn_type": "aws",
        "login": cloud.access_key,
        "password": cloud.secret_key,
        "extra": {"region_name": cloud.region, "endpoint_url": cloud.s3_endpoint},
    }
    os.environ["AIRFLOW_CONN_MAINTENANCE"] = json.dumps(connection)
    yield S3ObjectStoreHook(aws_conn_id="maintenance")
    del os.environ["AIRFLOW_CONN_MAINTENANCE"]


def keys(s3: Any, bucket: str) -> set[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {entry["Key"] for page in pages for entry in page.get("Contents", [])}


def read(cloud: CloudSettings, catalog: Catalog) -> list[tuple[Any, ...]]:
    """The day's images as DuckDB reads them."""
    for extension in ("avro", "httpfs", "iceberg"):
        duckdb_extensions.import_extension(extension)
    connection = duckdb.connect()
    connection.execute("LOAD avro; LOAD httpfs; LOAD iceberg; SET TimeZone = 'UTC'")
    connection.execute(
        f"""CREATE SECRET (TYPE s3, KEY_ID '{cloud.access_key}', SECRET '{cloud.secret_key}',
        REGION '{cloud.region}', ENDPOINT '127.0.0.1:{cloud.s3_port}', USE_SSL false, URL_STYLE 'path')"""
    )
    location = catalog.load_table("moderation.images").metadata_location
    rows = "SELECT * EXCLUDE (last_modified, judged_at) FROM iceberg_scan(?) ORDER BY ALL"
    return connection.execute(rows, [location]).fetchall()


@pytest.fixture(scope="module")
def published(s3: Any, store: S3ObjectStoreHook, catalog: Catalog) -> Audit:
    """A day that landed as six files a table."""
    for bucket in ("ugc", "work"):
        s3.create_bucket(Bucket=bucket)
    plan, audit = audited_day(store, KEYS, day=DAY, images_per_manifest=1)
    publish_day(catalog, plan, audit)
    return audit


def reports(s3: Any) -> list[dict[str, Any]]:
    return [
        json.loads(s3.get_object(Bucket="work", Key=key)["Body"].read())
        for key in sorted(keys(s3, "work"))
        if key.startswith("maintenance/")
    ]


def test_a_dry_run_reports_and_changes_nothing(
    airflow: AirflowHome, cloud: CloudSettings, catalog: Catalog, s3: Any, published: Audit
) -> None:
    before = read(cloud, catalog), keys(s3, "work"), keys(s3, "modlake-lake")
    outcome = airflow.run_dag("maintain_lake")
    assert outcome.state == "success", outcome.log[-3000:]
    (report,) = reports(s3)
    found = {(each["scope"], each["kind"]): each for step in report["steps"].values() for each in step}
    assert found["images", "small files"]["found"] == len(KEYS)
    assert found["runs", "runs to retire"]["total"] == 1
    assert not any(each["done"] for each in found.values())
    written = {key for key in keys(s3, "work") if key.startswith("maintenance/")}
    assert (read(cloud, catalog), keys(s3, "work") - written, keys(s3, "modlake-lake")) == before


def test_a_real_run_compacts_and_touches_nothing_young(
    airflow: AirflowHome, cloud: CloudSettings, catalog: Catalog, s3: Any, published: Audit
) -> None:
    before, objects = read(cloud, catalog), keys(s3, "work") | keys(s3, "modlake-lake")
    outcome = airflow.run_dag("maintain_lake", {"dry_run": False})
    assert outcome.state == "success", outcome.log[-3000:]
    files = [task.file.file_path for task in catalog.load_table("moderation.images").scan().plan_files()]
    assert len(files) == 1
    assert files[0].startswith("s3://modlake-lake/warehouse/moderation/images/data/day=2026-11-21/compacted-")
    assert read(cloud, catalog) == before
    assert objects <= keys(s3, "work") | keys(s3, "modlake-lake")


def test_what_compaction_replaced_goes_when_its_time_has_come(
    cloud: CloudSettings, catalog: Catalog, store: S3ObjectStoreHook, s3: Any, published: Audit
) -> None:
    before, now = read(cloud, catalog), datetime.now(UTC) + timedelta(days=100)
    policy = MaintenancePolicy.from_params(
        {name: param.value for name, param in maintain_lake_params().items()}
        | {"dry_run": False, "min_snapshots": 1, "max_removed_percent": 100}
    )
    lines: list[str] = []
    expire_snapshots(catalog, policy, now, lines.append)
    sweep_orphans(catalog, store, policy, now, lines.append)
    sweep_runs(
        catalog, store, "s3://work/", policy=policy, now=now, is_going=lambda _: False, report=lines.append
    )
    landed = {uri.removeprefix("s3://work/") for uri in (*published.images_uris, *published.labels_uris)}
    assert not landed & keys(s3, "work")
    assert any(f"Deleting {published.images_uris[0]}" in line for line in lines)
    assert read(cloud, catalog) == before
    assert len(catalog.load_table("moderation.labels").scan().to_arrow()) == published.labels


def maintain_lake_params() -> dict[str, Any]:
    params = DagBag(dag_folder=CHECKOUT / "dags" / "maintain_lake.py").dags["maintain_lake"].params
    return {name: params.get_param(name) for name in params}


ASK = """
from airflow.sdk import DAG, get_current_context
import modlake.lake.catalog
import modlake.lake.maintenance.runs as runs
from modlake.operators.lake_maintenance import SweepRunsOperator

def ask(*args, is_going, **kwargs):
    assert is_going(get_current_context()["run_id"])
    assert not is_going("scheduled__2026-11-21T00:00:00+00:00")
    return []

modlake.lake.catalog.open_catalog = lambda: None
runs.sweep_runs = ask
with DAG("ask"):
    SweepRunsOperator(task_id="ask", policy={policy}, work_uri="s3://work/", moderation_dag_id="ask")
"""


def test_airflow_tells_which_of_its_runs_are_going(tmp_path: Path, cloud: CloudSettings) -> None:
    policy = {name: param.value for name, param in maintain_lake_params().items()}
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "ask.py").write_text(ASK.replace("{policy}", repr(policy)))
    with airflow_home(tmp_path / "home", cloud, dags=tmp_path / "dags") as airflow:
        outcome = airflow.run_dag("ask")
    assert outcome.state == "success", outcome.log[-3000:]
