"""The same day through both engines, against the real local cloud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest

from cli.airflow_environment import connections
from cli.seed import s3_client, seed_day
from localcloud import cloud as local_cloud
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError
from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.operators.rekognition import AnalyseManifestsOperator
from modlake.operators.rekognition_synchronous import DetectModerationLabelsOperator
from modlake.pipeline.audit import audit_day
from modlake.pipeline.engines import (
    BulkAccess,
    Engine,
    EngineChoice,
    EnginePlan,
    RecordedPaces,
    plan_engines,
)
from modlake.pipeline.landing import LandedShard, land_shard
from modlake.pipeline.parquet import decode_parquet
from modlake.pipeline.plan import AnalysisParameters, Plan, Shard
from modlake.pipeline.quotas import default_quotas
from tests.support.cloud import running_cloud
from tests.support.days import plan_day

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DAY = date(2026, 11, 21)
IMAGES = 80
UNKNOWN_ADAPTER = "arn:aws:rekognition:us-east-1:111122223333:project/none/version/none/1"
# What may differ between the engines: who judged, when, and the words for images that can't be judged.
ENGINE_COLUMNS = ["engine", "job_id", "judged_at", "run_id", "error_code", "error_message"]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudSettings]:
    with running_cloud(tmp_path_factory.mktemp("cloud")) as settings:
        s3 = s3_client(local_cloud.environment(settings))
        seed_day(s3, settings.home, DAY, IMAGES, lambda done, total: None)
        yield settings


@pytest.fixture
def store(cloud: CloudSettings, monkeypatch: pytest.MonkeyPatch) -> S3ObjectStoreHook:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connections(cloud)["aws_default"]))
    return S3ObjectStoreHook()


def planned(store: S3ObjectStoreHook, run_id: str, **changes: Any) -> Plan:
    return plan_day(
        store,
        day=DAY,
        run_id=run_id,
        source_uri=f"s3://modlake-ugc/uploads/{DAY}/",
        work_uri="s3://modlake-work/",
        allowed_uris=["s3://modlake-ugc/uploads/"],
        images_per_manifest=50,
        **changes,
    )


def analysed(engine: type[Any], plan: Plan, **arguments: Any) -> None:
    group = {
        "plan_uri": plan.folder.plan_uri,
        "group": 0,
        "shards": [shard.shard for shard in plan.shards],
    }
    operator = engine(task_id="analyse", manifest_group=group, **arguments)
    assert operator.execute({"ti": mock.Mock(id="ti")}) == group


def landed(store: S3ObjectStoreHook, plan: Plan) -> tuple[list[LandedShard], pa.Table, pa.Table]:
    shards = [land_shard(store, plan, shard.shard, "1") for shard in plan.shards]
    images = [decode_parquet(store.read(shard.images_uri)) for shard in shards]
    labels = [decode_parquet(store.read(shard.labels_uri)) for shard in shards if shard.labels_uri]
    return shards, pa.concat_tables(images), pa.concat_tables(labels)


def test_both_engines_lead_to_the_same_rows(
    store: S3ObjectStoreHook, capsys: pytest.CaptureFixture[str]
) -> None:
    # Anew, as what jobs have judged is never judged by single calls as well.
    by_bulk = planned(store, "bulk")
    by_sync = planned(store, "sync", parameters=AnalysisParameters(50.0, None, fresh="sync"))
    analysed(AnalyseManifestsOperator, by_bulk, poll_interval=0.5, deferrable=False)
    analysed(DetectModerationLabelsOperator, by_sync)
    _, bulk_images, bulk_labels = landed(store, by_bulk)
    shards, images, labels = landed(store, by_sync)
    assert images.drop_columns(ENGINE_COLUMNS).equals(bulk_images.drop_columns(ENGINE_COLUMNS))
    assert labels.drop_columns(["job_id", "run_id"]).equals(bulk_labels.drop_columns(["job_id", "run_id"]))
    assert labels.num_rows > IMAGES / 4
    assert set(images["engine"].to_pylist()) == {"sync"}
    assert set(images.filter(pa.compute.equal(images["outcome"], "failed"))["error_code"].to_pylist()) == {
        "ImageTooLargeException",
        "InvalidImageFormatException",
        "InvalidParameterException",
    }
    audit = audit_day(store, by_sync, shards, "1")
    assert (audit.judged, audit.failed) == (sum(s.judged for s in shards), sum(s.failed for s in shards))
    assert {job["engine"] for job in audit.jobs} == {"sync"}
    assert "images/s" in capsys.readouterr().out


def test_a_day_split_over_both_engines_has_the_rows_of_one(store: S3ObjectStoreHook) -> None:
    def split(shards: list[Shard], *_: Any) -> tuple[EnginePlan, dict[int, Engine]]:
        return plan_engines(
            EngineChoice.AUTO,
            shards,
            claims={0: Engine.BULK, 1: Engine.SYNC},
            access=BulkAccess(True, "open"),
            quotas=default_quotas("us-east-1"),
            recorded=RecordedPaces(),
            deadline_minutes=None,
            price_per_image_usd=0.001,
        )

    parameters = AnalysisParameters(55.0, None)
    by_bulk = planned(store, "whole", parameters=replace(parameters, fresh="whole"))
    by_both = planned(store, "split", parameters=parameters, choose_engines=split)
    analysed(AnalyseManifestsOperator, by_bulk, poll_interval=0.5, deferrable=False)
    for operator, engine, more in (
        (AnalyseManifestsOperator, Engine.BULK, {"poll_interval": 0.5, "deferrable": False}),
        (DetectModerationLabelsOperator, Engine.SYNC, {}),
    ):
        for group in by_both.groups_of(engine):
            operator(task_id="analyse", manifest_group=group, **more).execute({"ti": mock.Mock(id="ti")})
    _, bulk_images, bulk_labels = landed(store, by_bulk)
    shards, images, labels = landed(store, by_both)
    assert images.drop_columns(ENGINE_COLUMNS).equals(bulk_images.drop_columns(ENGINE_COLUMNS))
    assert labels.drop_columns(["job_id", "run_id"]).equals(bulk_labels.drop_columns(["job_id", "run_id"]))
    audit = audit_day(store, by_both, shards, "1")
    assert [job["engine"] for job in audit.jobs] == ["bulk", "sync"]


def test_another_run_of_the_day_is_content_with_what_is_there(
    store: S3ObjectStoreHook, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = AnalysisParameters(50.0, None, fresh="sync")
    first, second = (planned(store, name, parameters=parameters) for name in ("first", "second"))
    analysed(DetectModerationLabelsOperator, first)
    capsys.readouterr()
    analysed(DetectModerationLabelsOperator, second)
    assert " 0 images judged" in capsys.readouterr().out
    digests = [[shard.content_sha256 for shard in landed(store, plan)[0]] for plan in (first, second)]
    assert digests[0] == digests[1]


def test_an_adapter_that_does_not_exist_stops_the_task(store: S3ObjectStoreHook) -> None:
    plan = planned(store, "adapter", parameters=AnalysisParameters(50.0, UNKNOWN_ADAPTER))
    with pytest.raises(ModlakeTerminalError, match="ResourceNotFoundException"):
        analysed(DetectModerationLabelsOperator, plan)


def test_wrong_keys_stop_the_task(
    cloud: CloudSettings, store: S3ObjectStoreHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(store, "keys", parameters=AnalysisParameters(51.0, None))
    operator = DetectModerationLabelsOperator(
        task_id="analyse", manifest_group={"plan_uri": plan.folder.plan_uri, "group": 0, "shards": [0]}
    )
    connection = connections(cloud)["aws_default"]
    connection["password"] = "wrong"
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps(connection))
    operator.aws_conn_id = "wrong"
    with (
        mock.patch("modlake.operators.rekognition_synchronous.S3ObjectStoreHook", return_value=store),
        pytest.raises(ModlakeTerminalError, match="InvalidSignatureException"),
    ):
        operator.execute({"ti": mock.Mock(id="ti")})
