"""Hook, operators, sensor and trigger in a stranger's DAG, against the real local cloud."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from cli.airflow_environment import connections
from cli.seed import s3_client
from localcloud import cloud as local_cloud
from localcloud.settings import CloudSettings
from modlake.hooks.rekognition import RekognitionHook
from modlake.pipeline.media_analysis import (
    MediaAnalysisJobNotFoundError,
    NoJobSlotError,
    TokenParametersMismatchError,
)
from tests.support.airflow_home import CHECKOUT, AirflowHome, airflow_home
from tests.support.cloud import running_cloud

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

# Longer than the operators wait in the worker, so that the task defers.
JOB_SECONDS = 18.0
BUCKET = "modlake-work"
DAG_FILE = f"""
from datetime import timedelta

from airflow.sdk import DAG, Param

from modlake.operators.rekognition import StartMediaAnalysisJobOperator
from modlake.sensors.rekognition import MediaAnalysisJobSensor

with DAG("stranger", params={{"manifest": Param("", type="string")}}):
    start = StartMediaAnalysisJobOperator(
        task_id="start",
        manifest_bucket="{BUCKET}",
        manifest_key="{{{{ params.manifest }}}}",
        output_bucket="{BUCKET}",
        output_prefix="stranger/results/",
        waiter_delay=2,
        deferrable=True,
        retries=3,
        retry_delay=timedelta(0),
    )
    start >> MediaAnalysisJobSensor(
        task_id="wait", job_id="{{{{ ti.xcom_pull(task_ids='start')['job_id'] }}}}", deferrable=True
    )
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudSettings]:
    with running_cloud(
        tmp_path_factory.mktemp("cloud"),
        job_seconds=JOB_SECONDS,
        concurrent_jobs=2,
        start_per_second=50,  # the tests' own calls come faster than those of any pipeline
    ) as settings:
        yield settings


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, cloud: CloudSettings) -> Iterator[AirflowHome]:
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "dags").mkdir()
    (folder / "dags" / "stranger.py").write_text(DAG_FILE)
    with airflow_home(folder, cloud, dags=folder / "dags") as home:
        yield home


@pytest.fixture
def hook(cloud: CloudSettings, monkeypatch: pytest.MonkeyPatch) -> RekognitionHook:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connections(cloud)["aws_default"]))
    return RekognitionHook()


def put_manifest(cloud: CloudSettings, key: str) -> dict[str, Any]:
    """Upload an image and a manifest that names it; return the request that analyses it."""
    s3 = s3_client(local_cloud.environment(cloud))
    image = next((CHECKOUT / "include/sample_images/photos").glob("*.jp*g"))
    s3.put_object(Bucket="modlake-ugc", Key="stranger/a b.jpg", Body=image.read_bytes())
    manifest = json.dumps({"source-ref": "s3://modlake-ugc/stranger/a b.jpg"})
    s3.put_object(Bucket=BUCKET, Key=key, Body=manifest.encode())
    return {
        "OperationsConfig": {"DetectModerationLabels": {"MinConfidence": 50.0}},
        "Input": {"S3Object": {"Bucket": BUCKET, "Name": key}},
        "OutputConfig": {"S3Bucket": BUCKET, "S3KeyPrefix": "stranger/results/"},
        "JobName": "hook",
        "ClientRequestToken": "hook",
    }


def test_the_hook_against_the_local_cloud(cloud: CloudSettings, hook: RekognitionHook) -> None:
    request = put_manifest(cloud, "stranger/hook.jsonl")
    job_id = hook.start_media_analysis_job(**request)

    assert hook.start_media_analysis_job(**request) == job_id
    with pytest.raises(TokenParametersMismatchError):
        hook.start_media_analysis_job(**{**request, "JobName": "changed"})
    hook.start_media_analysis_job(**{**request, "ClientRequestToken": "second"})
    with pytest.raises(NoJobSlotError):
        hook.start_media_analysis_job(**{**request, "ClientRequestToken": "third"})
    with pytest.raises(MediaAnalysisJobNotFoundError):
        hook.get_media_analysis_job("f00")
    found = hook.find_media_analysis_job("hook", max_pages=1)
    assert found is not None
    hook.get_waiter("media_analysis_job_complete").wait(
        JobId=job_id, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )

    async def wait() -> None:
        async with await hook.get_async_conn() as client:
            waiter = hook.get_waiter("media_analysis_job_complete", deferrable=True, client=client)
            await waiter.wait(JobId=job_id, WaiterConfig={"Delay": 1, "MaxAttempts": 60})

    asyncio.run(wait())
    job = hook.get_media_analysis_job(job_id)
    assert job["Status"] == "SUCCEEDED"
    image: Any = {"S3Object": {"Bucket": "modlake-ugc", "Name": "stranger/a b.jpg"}}
    assert "ModerationModelVersion" in hook.detect_moderation_labels(image, min_confidence=50)


def test_a_strangers_dag_defers_and_pays_once(
    cloud: CloudSettings, airflow: AirflowHome, hook: RekognitionHook
) -> None:
    key = "stranger/operator.jsonl"
    put_manifest(cloud, key)
    outcomes = [airflow.run_dag("stranger", {"manifest": key}) for _ in range(2)]
    ours = [
        job
        for job in hook.iter_media_analysis_jobs(max_pages=1)
        if job["Input"]["S3Object"]["Name"] == key and job["JobName"].startswith("modlake-")
    ]

    assert [outcome.state for outcome in outcomes] == ["success", "success"], outcomes[0].log[-4_000:]
    assert len(ours) == 1
    assert "MediaAnalysisJobCompletedTrigger" in outcomes[0].log
    assert "found job" in outcomes[1].log
    assert "1 of 1 jobs done" in outcomes[1].log


def test_terminal_failures_use_no_retries(cloud: CloudSettings, airflow: AirflowHome) -> None:
    outcome = airflow.run_dag("stranger", {"manifest": "stranger/missing.jsonl"})

    assert outcome.state == "failed"
    assert outcome.tasks["start", -1] == "failed"
    assert outcome.log.count("There is no object s3://modlake-work/stranger/missing.jsonl") == 1
