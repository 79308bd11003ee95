"""Clouds that behave otherwise than by default."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from localcloud.settings import CloudSettings
from tests.localcloud.support import UGC, WORK, Client, error_of, picture
from tests.support.cloud import running_cloud

pytestmark = pytest.mark.integration


class TestQuotas:
    @pytest.fixture(scope="class")
    def client(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
        home = tmp_path_factory.mktemp("quotas")
        with running_cloud(home, job_seconds=1.5, running_jobs=1, concurrent_jobs=2) as settings:
            client = Client(settings)
            client.put_manifest("m.jsonl", [client.put("a.jpg", picture())])
            yield client

    def test_concurrent_jobs(self, client: Client) -> None:
        first, second = client.start("m.jsonl"), client.start("m.jsonl", ClientRequestToken="second")

        assert error_of(client.start, manifest_key="m.jsonl")[:2] == ("LimitExceededException", 400)
        assert client.start("m.jsonl", ClientRequestToken="second") == second
        get = client.rekognition.get_media_analysis_job
        assert get(JobId=second)["Status"] == "QUEUED"
        assert get(JobId=first)["Status"] in ("QUEUED", "IN_PROGRESS")
        job = client.finished(first)
        assert (job["CompletionTimestamp"] - job["CreationTimestamp"]).total_seconds() >= 1.5
        client.finished(client.start("m.jsonl"))

    def test_what_disappears_before_a_queued_job_runs_fails_it(self, client: Client) -> None:
        adapters = client.settings.cloud_dir / "adapters.json"
        arn = "arn:aws:rekognition:us-east-1:123456789012:project/p/version/v/1700000000000"
        config = {"DetectModerationLabels": {"ProjectVersion": arn}}
        codes = []
        for status in (None, "DELETING"):
            adapters.write_text(json.dumps({arn: "ACTIVE"}))
            first = client.start("m.jsonl")
            queued = client.start("m.jsonl", OperationsConfig=config)
            adapters.write_text(json.dumps({arn: status} if status else {}))
            client.finished(first)
            codes.append(client.finished(queued)["FailureDetails"]["Code"])
        client.put_manifest("gone.jsonl", [f"s3://{UGC}/a.jpg"])
        client.start("m.jsonl")
        queued = client.start("gone.jsonl")
        client.s3.delete_object(Bucket=WORK, Key="gone.jsonl")
        codes.append(client.finished(queued)["FailureDetails"]["Code"])
        assert codes == ["RESOURCE_NOT_FOUND", "RESOURCE_NOT_READY", "INVALID_S3_OBJECT"]

    @pytest.mark.parametrize(
        ("operation", "request_", "quota"),
        [
            ("get_media_analysis_job", {"JobId": "none"}, 20),
            ("list_media_analysis_jobs", {}, 5),
            ("start_media_analysis_job", {}, 5),
        ],
    )
    def test_call_rates(self, client: Client, operation: str, request_: dict[str, str], quota: int) -> None:
        codes = []
        for _ in range(2 * quota):
            try:
                getattr(client.rekognition, operation)(**request_)
            except ClientError as error:
                codes.append(
                    (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
                )
        assert ("ProvisionedThroughputExceededException", 400) in codes


def test_what_is_unknown_of_a_failed_image_can_be_the_other_way(tmp_path: Path) -> None:
    with running_cloud(
        tmp_path, failed_image_line="without-answer", line_number_key="line-number"
    ) as settings:
        client = Client(settings)
        client.put_manifest("m.jsonl", [client.put("a.jpg", picture()), f"s3://{UGC}/none.jpg"])

        job = client.finished(client.start("m.jsonl"))

        assert client.results(job)[1] == {"source-ref": f"s3://{UGC}/none.jpg"}
        (error,) = client.summary(job)["errors"]
        assert error["line-number"] == 2
        assert "line-numer" not in error


class TestPermissions:
    @pytest.fixture(scope="class")
    def cloud(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudSettings]:
        """A cloud with a second identity, which may read the work bucket and nothing more."""
        home = tmp_path_factory.mktemp("permissions")
        (home / "cloud").mkdir()
        reader = {
            "name": "reader",
            "credentials": [{"accessKey": "reader", "secretKey": "reader-secret"}],
            "actions": [f"Read:{WORK}", f"List:{WORK}"],
        }
        (home / "cloud" / "s3.json").write_text(json.dumps({"identities": [reader]}))
        with running_cloud(home) as settings:
            owner = Client(settings)
            owner.put_manifest("m.jsonl", [owner.put("a.jpg", picture())])
            yield settings

    @pytest.fixture
    def reader(self, cloud: CloudSettings) -> Client:
        return Client(cloud, access_key="reader", secret_key="reader-secret")

    def test_a_caller_who_may_not_write_the_output(self, reader: Client) -> None:
        job = reader.finished(reader.start("m.jsonl"))
        assert (job["Status"], job["FailureDetails"]["Code"]) == ("FAILED", "ACCESS_DENIED")

    def test_a_caller_who_may_not_read_the_image(self, reader: Client) -> None:
        image = {"S3Object": {"Bucket": UGC, "Name": "a.jpg"}}
        code, _, _ = error_of(reader.rekognition.detect_moderation_labels, Image=image)
        assert code == "InvalidS3ObjectException"

    def test_a_caller_who_may_not_read_the_manifest(self, reader: Client) -> None:
        place = {"S3Object": {"Bucket": UGC, "Name": "a.jpg"}}
        code, _, _ = error_of(reader.start, manifest_key="m.jsonl", Input=place)
        assert code == "InvalidS3ObjectException"
