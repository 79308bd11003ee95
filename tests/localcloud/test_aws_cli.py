"""The ordinary `aws` CLI against the local cloud, with nothing but the exported environment."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

from localcloud import cloud
from localcloud.settings import CloudSettings
from tests.localcloud.support import Client, picture

pytestmark = pytest.mark.integration

AWS = Path(sysconfig.get_path("scripts"), "aws")


@pytest.fixture
def aws(local_cloud: CloudSettings, tmp_path: Path) -> Any:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {"HOME": str(tmp_path), "AWS_MAX_ATTEMPTS": "1"} | cloud.environment(local_cloud)

    def run(*arguments: str, ok: bool = True) -> Any:
        done = subprocess.run([str(AWS), *arguments], env=env, capture_output=True, text=True, timeout=60)
        if ok:
            assert done.returncode == 0, done.stderr
            return done.stdout
        assert done.returncode != 0
        return done.stderr

    return run


def test_a_job_from_upload_to_results(aws: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    (tmp_path / "m.jsonl").write_text('{"source-ref":"s3://modlake-ugc/cli/a.jpg"}')
    aws("s3", "cp", str(tmp_path / "a.jpg"), "s3://modlake-ugc/cli/a.jpg")
    aws("s3", "cp", str(tmp_path / "m.jsonl"), "s3://modlake-work/cli/m.jsonl")

    started = json.loads(
        aws(
            *("rekognition", "start-media-analysis-job", "--job-name", "cli"),
            *("--operations-config", "DetectModerationLabels={MinConfidence=0}"),
            *("--input", "S3Object={Bucket=modlake-work,Name=cli/m.jsonl}"),
            *("--output-config", "S3Bucket=modlake-work,S3KeyPrefix=cli/out"),
        )
    )
    deadline = time.monotonic() + 30
    while True:
        job = json.loads(aws("rekognition", "get-media-analysis-job", "--job-id", started["JobId"]))
        if job["Status"] == "SUCCEEDED" or time.monotonic() > deadline:
            break

    results = job["Results"]["S3Object"]
    (line,) = aws("s3", "cp", f"s3://{results['Bucket']}/{results['Name']}", "-").splitlines()
    assert json.loads(line)["source-ref"] == "s3://modlake-ugc/cli/a.jpg"
    listed = json.loads(aws("rekognition", "list-media-analysis-jobs", "--max-results", "1"))
    assert listed["MediaAnalysisJobs"][0]["JobId"] == started["JobId"]


def test_detect_moderation_labels(aws: Any, client: Client) -> None:
    client.put("cli/b.jpg", picture())
    answer = json.loads(
        aws(
            *("rekognition", "detect-moderation-labels"),
            *("--image", "S3Object={Bucket=modlake-ugc,Name=cli/b.jpg}", "--min-confidence", "0"),
        )
    )
    assert answer["ModerationModelVersion"] == "7.0-localcloud"


def test_errors_read_as_from_aws(aws: Any) -> None:
    told = aws("rekognition", "get-media-analysis-job", "--job-id", "none", ok=False)
    assert "(ResourceNotFoundException) when calling the GetMediaAnalysisJob operation" in told
