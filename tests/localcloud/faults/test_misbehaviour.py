"""What a client meets when the cloud is told to misbehave."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError
from pyarrow import fs
from urllib3.exceptions import HTTPError

from localcloud import cloud
from localcloud.faults import plan as plans
from localcloud.faults.ledger import FaultLedger
from localcloud.rekognition.jobs import JobStore
from localcloud.settings import CloudSettings
from tests.localcloud.support import WORK, Client, error_of, picture
from tests.support.cloud import running_cloud

pytestmark = pytest.mark.integration

IMAGES = 4
ADAPTER = "arn:aws:rekognition:us-east-1:111122223333:project/m/version/v1/17"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudSettings]:
    rates = {f"{operation}_per_second": 10_000 for operation in ("start", "get", "list", "detect")}
    with running_cloud(tmp_path_factory.mktemp("cloud"), s3_fault_proxy=True, **rates) as settings:
        yield settings


@pytest.fixture
def client(settings: CloudSettings) -> Iterator[Client]:
    plans.write(settings.cloud_dir, None)
    client = Client(settings)
    refs = [client.put(f"{number}.jpg", picture(seed=number)) for number in range(IMAGES)]
    client.put_manifest("m.jsonl", [*refs, "s3://modlake-ugc/nowhere.jpg"])
    yield client
    plans.write(settings.cloud_dir, None)


def misbehave(settings: CloudSettings, **plan: Any) -> None:
    plans.write(settings.cloud_dir, plan)


def newest(settings: CloudSettings) -> tuple[str, str]:
    ledger = FaultLedger(settings.cloud_dir)
    kind, subject = ledger.recorded()[-1][1:]
    ledger.close()
    return kind, subject


def results(client: Client, job: dict[str, Any]) -> bytes:
    return client._read(job["Results"]["S3Object"])


def run_job(client: Client, **more: Any) -> dict[str, Any]:
    return client.finished(client.start("m.jsonl", **more))


class TestCalls:
    def test_an_error_instead_of_an_effect(self, client: Client, settings: CloudSettings) -> None:
        rule = {"operation": "StartMediaAnalysisJob", "error": "LimitExceededException", "nth": [1]}
        misbehave(settings, calls=[rule])
        before = len(client.rekognition.list_media_analysis_jobs()["MediaAnalysisJobs"])
        with pytest.raises(ClientError, match="LimitExceededException"):
            client.start("m.jsonl")
        assert len(client.rekognition.list_media_analysis_jobs()["MediaAnalysisJobs"]) == before
        assert newest(settings)[0] == "rekognition error LimitExceededException"
        client.start("m.jsonl")

    def test_errors_of_the_server_have_its_http_code(self, client: Client, settings: CloudSettings) -> None:
        misbehave(settings, calls=[{"operation": "*", "error": "InternalServerError"}])
        assert error_of(client.rekognition.list_media_analysis_jobs)[:2] == ("InternalServerError", 500)
        misbehave(settings, calls=[{"operation": "*", "error": "Odd", "status": 418, "message": "tea"}])
        assert error_of(client.rekognition.list_media_analysis_jobs) == ("Odd", 418, "tea")

    @pytest.mark.parametrize(("cut", "jobs"), [("request", 0), ("reply", 1), ("body", 1)])
    def test_a_lost_connection(self, client: Client, settings: CloudSettings, cut: str, jobs: int) -> None:
        misbehave(settings, calls=[{"operation": "StartMediaAnalysisJob", "cut": cut, "nth": [1]}])
        # botocore takes a JSON answer that ends too soon for an empty one.
        with pytest.raises((BotoCoreError, KeyError)):
            client.start("m.jsonl", ClientRequestToken=f"cut-{cut}", JobName=f"cut-{cut}")
        listed = client.rekognition.list_media_analysis_jobs()["MediaAnalysisJobs"]
        assert [job.get("JobName") for job in listed].count(f"cut-{cut}") == jobs
        assert newest(settings)[0] == f"rekognition {cut} lost"

    def test_a_delay(self, client: Client, settings: CloudSettings) -> None:
        misbehave(settings, calls=[{"operation": "*", "delay_seconds": 0.5}])
        began = time.monotonic()
        client.rekognition.list_media_analysis_jobs()
        assert time.monotonic() - began > 0.5


class TestS3:
    def test_signed_requests_pass_unchanged(self, client: Client, settings: CloudSettings) -> None:
        for key in ("a b/+%2F&=?#.jpg", "漢字/cafe\u0301", "x" * 200, "line\nbreak", "a~b/.hidden"):
            body = key.encode() * 1000
            client.put(key, body)
            read = client.s3.get_object(Bucket="modlake-ugc", Key=key)
            assert read["Body"].read() == body
            assert client.s3.head_object(Bucket="modlake-ugc", Key=key)["ContentLength"] == len(body)
            listed = client.s3.list_objects_v2(Bucket="modlake-ugc", Prefix=key)["Contents"]
            assert [entry["Key"] for entry in listed] == [key]
            client.s3.delete_object(Bucket="modlake-ugc", Key=key)
        assert error_of(client.s3.get_object, Bucket="modlake-ugc", Key="none")[:2] == ("NoSuchKey", 404)

    def test_multipart_uploads_and_pyarrow(self, client: Client, settings: CloudSettings) -> None:
        s3 = fs.S3FileSystem(
            access_key=settings.access_key,
            secret_key=settings.secret_key,
            region=settings.region,
            endpoint_override=f"127.0.0.1:{settings.s3_port}",
            scheme="http",
        )
        body = bytes(range(256)) * 60_000
        with s3.open_output_stream(f"{WORK}/large") as stream:
            stream.write(body)
        assert s3.open_input_file(f"{WORK}/large").read() == body

    @pytest.mark.parametrize(("code", "status"), [("SlowDown", 503), ("InternalError", 500)])
    def test_errors(self, client: Client, settings: CloudSettings, code: str, status: int) -> None:
        misbehave(settings, calls=[{"service": "s3", "operation": "PutObject", "error": code, "nth": [1]}])
        assert error_of(client.s3.put_object, Bucket=WORK, Key="k", Body=b"x")[:2] == (code, status)
        client.s3.put_object(Bucket=WORK, Key="k", Body=b"x")
        assert newest(settings) == (f"s3 error {code}", f"PutObject {WORK}/k")

    @pytest.mark.parametrize(("cut", "written"), [("request", False), ("reply", True)])
    def test_a_lost_connection(
        self, client: Client, settings: CloudSettings, cut: str, written: bool
    ) -> None:
        key = f"cut-{cut}"
        misbehave(settings, calls=[{"service": "s3", "operation": "PutObject", "match": key, "cut": cut}])
        with pytest.raises(ConnectionClosedError):
            client.s3.put_object(Bucket=WORK, Key=key, Body=b"x" * 100_000)
        assert bool(client.s3.list_objects_v2(Bucket=WORK, Prefix=key).get("Contents")) is written

    def test_a_body_that_ends_too_soon(self, client: Client, settings: CloudSettings) -> None:
        client.s3.put_object(Bucket=WORK, Key="whole", Body=b"x" * 100_000)
        misbehave(settings, calls=[{"service": "s3", "operation": "GetObject", "cut": "body"}])
        with pytest.raises((BotoCoreError, HTTPError)):
            client.s3.get_object(Bucket=WORK, Key="whole")["Body"].read()

    def test_the_service_itself_is_spared(self, client: Client, settings: CloudSettings) -> None:
        misbehave(settings, calls=[{"service": "s3", "operation": "*", "error": "SlowDown"}])
        job_id = client.start("m.jsonl")
        assert client.finished(job_id)["Status"] == "SUCCEEDED"

    def test_a_dead_storage_ends_connections(self, client: Client, settings: CloudSettings) -> None:
        pid = cloud.status(settings).s3.pid
        assert pid is not None
        buckets = [bucket["Name"] for bucket in client.s3.list_buckets()["Buckets"]]
        psutil.Process(pid).kill()
        with pytest.raises(ConnectionClosedError):
            client.s3.list_buckets()
        cloud.start(settings)
        assert [bucket["Name"] for bucket in client.s3.list_buckets()["Buckets"]] == buckets
        assert buckets


class TestJobs:
    @pytest.mark.parametrize("code", plans.FAILURE_CODES)
    def test_every_failure_code_before_anything_is_billed(
        self, client: Client, settings: CloudSettings, code: str
    ) -> None:
        misbehave(settings, jobs=[{"fail": code, "nth": [1]}])
        job = run_job(client)
        assert (job["Status"], job["FailureDetails"]["Code"]) == ("FAILED", code)
        assert newest(settings)[0] == f"job {code}"

    def test_a_stuck_job_lasts_until_the_plan_changes(self, client: Client, settings: CloudSettings) -> None:
        misbehave(settings, jobs=[{"stuck": True}])
        job_id = client.start("m.jsonl")
        with pytest.raises(TimeoutError, match="IN_PROGRESS"):
            client.finished(job_id, patience_seconds=1)
        misbehave(settings)
        assert client.finished(job_id)["Status"] == "SUCCEEDED"

    def test_a_slow_job(self, client: Client, settings: CloudSettings) -> None:
        misbehave(settings, jobs=[{"seconds": 1.5}])
        job = run_job(client)
        assert (job["CompletionTimestamp"] - job["CreationTimestamp"]).total_seconds() > 1.4

    @pytest.mark.parametrize(
        ("results_fault", "lines"),
        [("missing", IMAGES - 2), ("doubled", IMAGES + 2), ("foreign", IMAGES + 2), ("unanswered", IMAGES)],
    )
    def test_results_with_lines_amiss(
        self, client: Client, settings: CloudSettings, results_fault: str, lines: int
    ) -> None:
        misbehave(settings, jobs=[{"results": results_fault, "lines": 2}])
        found = client.results(run_job(client))
        assert len(found) == lines
        assert sum("somebody-elses" in line["source-ref"] for line in found) == (
            2 if results_fault == "foreign" else 0
        )
        unanswered = sum("detect-moderation-labels" not in line for line in found)
        assert unanswered == (2 if results_fault == "unanswered" else 0)

    def test_results_in_odd_dress(self, client: Client, settings: CloudSettings) -> None:
        misbehave(
            settings,
            jobs=[{"nth": [n], "results": kind} for n, kind in enumerate(ODD_DRESS, start=1)],
        )
        bodies = {kind: results(client, run_job(client)) for kind in ODD_DRESS}
        assert bodies["crlf"].endswith(b"}\r\n")
        assert bodies["bom"].startswith(b"\xef\xbb\xbf{")
        assert b"NaN" in bodies["nan"]
        assert b"Rehearsed Label" in bodies["unknown-labels"]
        assert b"8.0-rehearsed" in bodies["other-model"]
        assert b'"rehearsed":{"key"' in bodies["unknown-keys"]
        last = bodies["truncated"].splitlines()[-1]
        with pytest.raises(json.JSONDecodeError):
            json.loads(last)
        contradicted = bodies["contradicting"].splitlines()
        assert json.loads(contradicted[-1])["source-ref"] == json.loads(contradicted[-2])["source-ref"]

    def test_an_adapter_that_expires_midway(self, client: Client, settings: CloudSettings) -> None:
        (settings.cloud_dir / "adapters.json").write_text(json.dumps({ADAPTER: "ACTIVE"}))
        misbehave(settings, jobs=[{"results": "adapter-expired", "lines": 1}])
        config = {"DetectModerationLabels": {"MinConfidence": 0.0, "ProjectVersion": ADAPTER}}
        found = client.results(run_job(client, OperationsConfig=config))
        versions = [line["detect-moderation-labels"].get("ProjectVersion") for line in found]
        assert versions == [ADAPTER] * (IMAGES - 1) + [None]

    @pytest.mark.parametrize(
        ("spelling", "keys"),
        [
            ("line-number", {"line-number", "source-ref", "code", "message"}),
            ("without-source-ref", {"line-numer", "code", "message"}),
        ],
    )
    def test_summaries(self, client: Client, settings: CloudSettings, spelling: str, keys: set[str]) -> None:
        misbehave(settings, jobs=[{"summary": spelling}])
        (error,) = client.summary(run_job(client))["errors"]
        assert error.keys() == keys

    def test_no_summary(self, client: Client, settings: CloudSettings) -> None:
        misbehave(settings, jobs=[{"summary": "absent"}])
        assert "ManifestSummary" not in run_job(client)


ODD_DRESS = (
    "crlf",
    "bom",
    "nan",
    "unknown-labels",
    "other-model",
    "unknown-keys",
    "truncated",
    "contradicting",
)


class TestTokens:
    def start(self, client: Client, token: str, **more: Any) -> str:
        return client.start("m.jsonl", ClientRequestToken=token, **more)

    @pytest.mark.parametrize("after_failed", ["old", "new"])
    def test_after_a_failure(self, client: Client, settings: CloudSettings, after_failed: str) -> None:
        misbehave(
            settings, jobs=[{"fail": "INTERNAL_ERROR", "nth": [1]}], tokens={"after_failed": after_failed}
        )
        token = f"after-failed-{after_failed}"
        first = self.start(client, token)
        assert client.finished(first)["Status"] == "FAILED"
        second = self.start(client, token)
        assert (second == first) is (after_failed == "old")
        assert self.start(client, token) == second

    def test_a_lifetime(self, client: Client, settings: CloudSettings) -> None:
        first = self.start(client, "mortal")
        misbehave(settings, tokens={"lifetime_seconds": 0})
        second = self.start(client, "mortal", JobName="other")
        assert second != first
        misbehave(settings)
        assert self.start(client, "mortal", JobName="other") == second


class TestAdapters:
    def test_statuses_are_those_of_the_file(self, client: Client, settings: CloudSettings) -> None:
        deprecated, expired = ADAPTER.replace("v1/17", "v2/18"), ADAPTER.replace("/m/", "/n/")
        (settings.cloud_dir / "adapters.json").write_text(
            json.dumps({ADAPTER: "ACTIVE", deprecated: "DEPRECATED", expired: "EXPIRED"})
        )
        projects = client.rekognition.describe_projects(ProjectNames=["m"])["ProjectDescriptions"]
        (project,) = projects
        described = client.rekognition.describe_project_versions(ProjectArn=project["ProjectArn"])
        statuses = {
            version["ProjectVersionArn"]: version["Status"]
            for version in described["ProjectVersionDescriptions"]
        }
        assert statuses == {ADAPTER: "TRAINING_COMPLETED", deprecated: "DEPRECATED"}
        (one,) = client.rekognition.describe_project_versions(
            ProjectArn=project["ProjectArn"], VersionNames=["v2"]
        )["ProjectVersionDescriptions"]
        assert one["ProjectVersionArn"] == deprecated
        unknown = project["ProjectArn"].replace("/m/", "/o/")
        assert error_of(client.rekognition.describe_project_versions, ProjectArn=unknown)[0] == (
            "ResourceNotFoundException"
        )


def test_calls_of_detect_moderation_labels_are_billed(client: Client, settings: CloudSettings) -> None:
    store = JobStore(settings.cloud_dir / "rekognition.sqlite")
    before = len(store.billed())
    client.rekognition.detect_moderation_labels(
        Image={"S3Object": {"Bucket": "modlake-ugc", "Name": "0.jpg"}}
    )
    client.rekognition.detect_moderation_labels(Image={"Bytes": picture()})
    error_of(client.rekognition.detect_moderation_labels, Image={"Bytes": b"no image"})
    billed = [image for image in store.billed()[before:] if image.job_id is None]
    store.close()
    assert [(image.source_ref, image.job_id) for image in billed] == [
        ("s3://modlake-ugc/0.jpg", None),
        (None, None),
    ]
    assert billed[0].sha256 == billed[1].sha256
