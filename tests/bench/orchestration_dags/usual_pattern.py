"""What users build of the parts at hand: for each job a task that starts, a sensor, and a task that loads.

Written as the amazon provider's examples are: hooks in Python tasks, a sensor that gives its slot back
between looks, with Airflow's own interval, and another try when the account is full.
"""

from __future__ import annotations

import io
import json
import os
from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk import DAG, Param, task, task_group

IMAGES_PER_MANIFEST = int(os.environ["MODLAKE_BENCH_IMAGES_PER_MANIFEST"])
WORK_BUCKET = "modlake-work"
LAKE_BUCKET = "modlake-lake"


def rekognition() -> Any:
    return AwsBaseHook(client_type="rekognition").conn


with DAG(
    dag_id="usual_pattern",
    schedule=None,
    params={"day": Param(None, type=["null", "string"])},
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
):

    @task
    def write_manifests(params: dict[str, Any]) -> list[str]:
        s3 = S3Hook()
        keys = s3.list_keys("modlake-ugc", f"uploads/{params['day']}/")
        manifests = []
        for first in range(0, len(keys), IMAGES_PER_MANIFEST):
            manifest = f"usual/{params['day']}/manifests/{first:09d}.jsonl"
            batch = keys[first : first + IMAGES_PER_MANIFEST]
            lines = [json.dumps({"source-ref": f"s3://modlake-ugc/{key}"}) for key in batch]
            s3.load_string("\n".join(lines), manifest, WORK_BUCKET, replace=True)
            manifests.append(manifest)
        return manifests

    @task_group
    def analyse(manifest: str) -> None:
        # A full account is met by trying again, as often as it takes.
        @task(retries=1000)
        def start_job(manifest: str) -> str:
            answer = rekognition().start_media_analysis_job(
                OperationsConfig={"DetectModerationLabels": {"MinConfidence": 50}},
                Input={"S3Object": {"Bucket": WORK_BUCKET, "Name": manifest}},
                OutputConfig={"S3Bucket": WORK_BUCKET, "S3KeyPrefix": "usual/results/"},
            )
            return str(answer["JobId"])

        @task.sensor(mode="reschedule", timeout=24 * 60 * 60)
        def wait_for_job(job_id: str) -> bool:
            status = rekognition().get_media_analysis_job(JobId=job_id)["Status"]
            if status == "FAILED":
                raise RuntimeError(f"job {job_id} failed")
            return bool(status == "SUCCEEDED")

        @task
        def load_results(job_id: str) -> None:
            import pandas as pd

            results = rekognition().get_media_analysis_job(JobId=job_id)["Results"]["S3Object"]
            lines = S3Hook().read_key(results["Name"], results["Bucket"]).splitlines()
            labels = pd.json_normalize(
                [json.loads(line) for line in lines],
                record_path=["detect-moderation-labels", "ModerationLabels"],
                meta="source-ref",
            )
            parquet = io.BytesIO()
            labels.to_parquet(parquet)
            S3Hook().load_bytes(
                parquet.getvalue(), f"usual/{job_id}.parquet", bucket_name=LAKE_BUCKET, replace=True
            )

        job_id = start_job(manifest)
        wait_for_job(job_id) >> load_results(job_id)

    analyse.expand(manifest=write_manifests())
