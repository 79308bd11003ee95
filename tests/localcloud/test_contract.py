"""The stand-in as boto3 sees it."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from localcloud.settings import CloudSettings
from tests.localcloud.support import UGC, WORK, Client, error_of, picture, png_header

pytestmark = pytest.mark.integration

ADAPTER = "arn:aws:rekognition:us-east-1:123456789012:project/modlake/version/v{}/1700000000000"
WEAPONS = [
    {"Confidence": 91.5, "Name": "Weapons", "ParentName": "Violence", "TaxonomyLevel": 2},
    {"Confidence": 91.5, "Name": "Violence", "ParentName": "", "TaxonomyLevel": 1},
    {"Confidence": 40.0, "Name": "Gambling", "ParentName": "", "TaxonomyLevel": 1},
]
ILLUSTRATED = [{"Confidence": 12.0, "Name": "Illustrated"}]


def write_answers(settings: CloudSettings, name: str, answers: dict[str, Any]) -> None:
    (settings.answers_dir / name).write_text(json.dumps(answers), encoding="utf-8")


def in_book(settings: CloudSettings, data: bytes) -> bytes:
    """The image, after its answer stands in a book."""
    sha256 = hashlib.sha256(data).hexdigest()
    answer = {"ModerationLabels": WEAPONS, "ContentTypes": ILLUSTRATED}
    write_answers(settings, f"{sha256}.json", {sha256: answer})
    return data


class TestJob:
    def test_labels_of_every_image_come_back_by_the_paths_that_get_names(
        self, client: Client, local_cloud: CloudSettings
    ) -> None:
        known = client.put("happy/known.jpg", in_book(local_cloud, picture(seed=1)))
        unknown = client.put("happy/unknown.png", picture("PNG", seed=2))
        client.put_manifest("happy.jsonl", [known, unknown])

        job_id = client.start("happy.jsonl", min_confidence=50, JobName="happy", ClientRequestToken="happy")
        job = client.finished(job_id)

        assert job["Status"] == "SUCCEEDED"
        assert job["JobName"] == "happy"
        assert job["OperationsConfig"] == {"DetectModerationLabels": {"MinConfidence": 50}}
        assert job["Input"] == {"S3Object": {"Bucket": WORK, "Name": "happy.jsonl"}}
        assert job["CompletionTimestamp"] >= job["CreationTimestamp"]
        assert job["CreationTimestamp"].tzinfo is not None
        assert job["Results"]["ModelVersions"] == {"Moderation": "7.0-localcloud"}
        first, second = client.results(job)
        assert first == {
            "source-ref": known,
            "detect-moderation-labels": {
                "ModerationLabels": WEAPONS[:2],
                "ModerationModelVersion": "7.0-localcloud",
                "ContentTypes": ILLUSTRATED,
            },
        }
        assert second["source-ref"] == unknown
        assert client.summary(job) == {
            "version": "1.0",
            "statistics": {"total-json-lines": 2, "valid-json-lines": 2, "invalid-json-lines": 0},
            "errors": [],
        }

    def test_the_model_judges_what_no_book_knows(self, client: Client) -> None:
        client.put_manifest("model.jsonl", [client.put("model/a.jpg", picture(seed=3))])

        (line,) = client.results(client.finished(client.start("model.jsonl", min_confidence=0)))

        labels = line["detect-moderation-labels"]["ModerationLabels"]
        assert [(label["Name"], label["ParentName"], label["TaxonomyLevel"]) for label in labels] == [
            ("Explicit Nudity", "Explicit", 2),
            ("Explicit", "", 1),
        ]
        assert 0 <= labels[0]["Confidence"] == labels[1]["Confidence"] < 50

    @pytest.mark.parametrize(
        "key",
        [
            "a b.jpg",
            "quo'te\"s.jpg",
            "a+b&c=d.jpg",
            "100%20%.jpg",
            "ünï/日本語.jpg",
            "#?.jpg",
            "two//slashes.jpg",
        ],
    )
    def test_keys_are_taken_as_they_are(self, client: Client, key: str) -> None:
        source_ref = client.put(f"keys/{key}", picture())
        client.put_manifest("keys.jsonl", [source_ref])

        (line,) = client.results(client.finished(client.start("keys.jsonl")))

        assert line["source-ref"] == source_ref
        assert "detect-moderation-labels" in line

    @pytest.mark.parametrize(
        ("name", "body", "code"),
        [
            ("webp.jpg", picture("WEBP"), "ERROR_INVALID_IMAGE"),
            ("gif.png", picture("GIF"), "ERROR_INVALID_IMAGE"),
            ("truncated.jpg", picture(width=800, height=800)[:3000], "ERROR_INVALID_IMAGE"),
            ("truncated.png", picture("PNG", 400, 400)[:800], "ERROR_INVALID_IMAGE"),
            ("text.jpg", b"not an image", "ERROR_INVALID_IMAGE"),
            ("empty.jpg", b"", "ERROR_INVALID_IMAGE"),
            ("icon.png", picture("PNG", 40, 40), "ERROR_INVALID_IMAGE_DIMENSIONS"),
            ("long.png", picture("PNG", 10_400, 96), "ERROR_INVALID_IMAGE_DIMENSIONS"),
            ("bomb.png", png_header(60_000, 60_000), "ERROR_INVALID_IMAGE_DIMENSIONS"),
            ("heavy.jpg", picture() + bytes(15 * 1024 * 1024), "ERROR_IMAGE_TOO_LARGE"),
            (None, b"", "ERROR_INVALID_S3_OBJECT"),
        ],
    )
    def test_an_image_that_cannot_be_used_is_an_error_of_the_summary(
        self, client: Client, name: str | None, body: bytes, code: str
    ) -> None:
        good = client.put("bad/good.jpg", picture())
        bad = client.put(f"bad/{name}", body) if name else f"s3://{UGC}/bad/missing.jpg"
        client.put_manifest("bad.jsonl", [good, bad])

        job = client.finished(client.start("bad.jsonl"))

        assert job["Status"] == "SUCCEEDED"
        assert [line["source-ref"] for line in client.results(job)] == [good]
        (error,) = client.summary(job)["errors"]
        assert (error["line-numer"], error["source-ref"], error["code"]) == (2, bad, code)
        assert error["message"]

    def test_invalid_lines_are_counted_and_duplicates_are_each_processed(self, client: Client) -> None:
        source_ref = client.put("lines/a.jpg", picture())
        line = json.dumps({"source-ref": source_ref, "other": 1})
        body = "\n".join([line, "{broken", "", '{"x": 1}', '{"source-ref": "https://x/y"}', line, ""])
        client.put("lines.jsonl", b"\xef\xbb\xbf" + body.encode(), WORK)

        job = client.finished(client.start("lines.jsonl"))

        assert [entry["source-ref"] for entry in client.results(job)] == [source_ref, source_ref]
        summary = client.summary(job)
        assert summary["statistics"] == {
            "total-json-lines": 5,
            "valid-json-lines": 2,
            "invalid-json-lines": 3,
        }
        assert [(error["line-numer"], error["code"]) for error in summary["errors"]] == [
            (2, "ERROR_INVALID_JSON_LINE"),
            (4, "ERROR_MISSING_SOURCE_REF"),
            (5, "ERROR_INVALID_SOURCE_REF_FORMAT"),
        ]

    def test_a_token_starts_one_job(self, client: Client) -> None:
        client.put_manifest("token.jsonl", [client.put("token/a.jpg", picture())])
        first = client.start("token.jsonl", ClientRequestToken="token-1", JobName="token")
        client.finished(first)
        client.s3.delete_object(Bucket=WORK, Key="token.jsonl")

        assert client.start("token.jsonl", ClientRequestToken="token-1", JobName="token") == first
        code, status, _ = error_of(client.start, manifest_key="token.jsonl", ClientRequestToken="token-1")
        assert (code, status) == ("IdempotentParameterMismatchException", 400)


class TestFailedJob:
    def failure(self, client: Client, manifest_key: str, **more: Any) -> str:
        job = client.finished(client.start(manifest_key, **more))
        assert job["Status"] == "FAILED"
        assert "Results" not in job
        assert job["FailureDetails"]["Message"]
        code: str = job["FailureDetails"]["Code"]
        return code

    @pytest.fixture
    def manifest(self, client: Client) -> str:
        client.put_manifest("failing.jsonl", [client.put("failing/a.jpg", picture())])
        return "failing.jsonl"

    def test_no_valid_line(self, client: Client) -> None:
        client.put("invalid.jsonl", b"{}\nnonsense\n", WORK)
        assert self.failure(client, "invalid.jsonl") == "INVALID_MANIFEST"

    def test_more_than_ten_thousand_lines(self, client: Client) -> None:
        client.put_manifest("long.jsonl", ["s3://b/k"] * 10_001)
        assert self.failure(client, "long.jsonl") == "INVALID_MANIFEST"

    def test_no_output_bucket(self, client: Client, manifest: str) -> None:
        output = {"S3Bucket": "no-such-bucket"}
        assert self.failure(client, manifest, OutputConfig=output) == "INVALID_OUTPUT_CONFIG"

    def test_unknown_kms_key(self, client: Client, manifest: str) -> None:
        assert self.failure(client, manifest, KmsKeyId="alias/none") == "INVALID_KMS_KEY"


class TestErrors:
    def test_unknown_job(self, client: Client) -> None:
        code, status, _ = error_of(client.rekognition.get_media_analysis_job, JobId="0" * 64)
        assert (code, status) == ("ResourceNotFoundException", 400)

    def test_errors_are_the_clients_exceptions(self, client: Client) -> None:
        with pytest.raises(client.rekognition.exceptions.ResourceNotFoundException):
            client.rekognition.get_media_analysis_job(JobId="0" * 64)

    def test_missing_manifest(self, client: Client) -> None:
        code, status, _ = error_of(client.start, manifest_key="no-such.jsonl")
        assert (code, status) == ("InvalidS3ObjectException", 400)

    def test_empty_manifest(self, client: Client) -> None:
        client.put("empty.jsonl", b"", WORK)
        code, status, _ = error_of(client.start, manifest_key="empty.jsonl")
        assert (code, status) == ("InvalidManifestException", 400)

    @pytest.mark.parametrize(
        ("more", "told"),
        [
            (
                {"JobName": "x" * 65},
                "at 'jobName' failed to satisfy constraint: Member must have length less",
            ),
            ({"JobName": "a:b c"}, "'a:b c' at 'jobName'"),
            ({"ClientRequestToken": "a+b"}, "at 'clientRequestToken'"),
            ({"min_confidence": 101}, "operationsConfig.detectModerationLabels.minConfidence"),
            ({"OutputConfig": {"S3Bucket": WORK, "S3KeyPrefix": "x" * 801}}, "outputConfig.s3KeyPrefix"),
            ({"OutputConfig": {"S3Bucket": WORK, "S3KeyPrefix": "a b"}}, "outputConfig.s3KeyPrefix"),
            ({"OutputConfig": {}}, "outputConfig.s3Bucket"),
            ({"OperationsConfig": {}}, "OperationsConfig is empty"),
            ({"Input": {"S3Object": {"Bucket": WORK}}}, "S3Object needs Bucket and Name"),
        ],
    )
    def test_constraints_that_clients_do_not_check(
        self, client: Client, more: dict[str, Any], told: str
    ) -> None:
        code, status, message = error_of(client.start, manifest_key="any.jsonl", **more)
        assert (code, status) == ("InvalidParameterException", 400)
        assert told in message

    def test_operations_not_offered_are_refused_and_not_unknown(self, client: Client) -> None:
        code, status, message = error_of(client.rekognition.list_faces, CollectionId="c")
        assert (code, status) == ("AccessDeniedException", 400)
        assert "rekognition:ListFaces is not offered by the local cloud" in message

    def test_wrong_secret(self, local_cloud: CloudSettings) -> None:
        stranger = Client(local_cloud, secret_key="wrong")
        code, status, _ = error_of(stranger.rekognition.list_media_analysis_jobs)
        assert (code, status) == ("InvalidSignatureException", 400)

    def test_unknown_access_key(self, local_cloud: CloudSettings) -> None:
        stranger = Client(local_cloud, access_key="AKIASTRANGER")
        code, status, _ = error_of(stranger.rekognition.list_media_analysis_jobs)
        assert (code, status) == ("UnrecognizedClientException", 400)

    def test_wrong_region(self, local_cloud: CloudSettings) -> None:
        abroad = boto3.client(
            "rekognition",
            region_name="eu-west-1",
            endpoint_url=local_cloud.rekognition_endpoint,
            aws_access_key_id=local_cloud.access_key,
            aws_secret_access_key=local_cloud.secret_key,
            config=Config(retries={"mode": "standard", "total_max_attempts": 1}),
        )
        code, _, message = error_of(abroad.list_media_analysis_jobs)
        assert code == "InvalidSignatureException"
        assert "eu-west-1" in message


class TestWire:
    """What no SDK sends."""

    def post(
        self, settings: CloudSettings, target: str, body: bytes, signed: bool = True
    ) -> tuple[int, Any, Any]:
        headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"}
        request = AWSRequest("POST", f"{settings.rekognition_endpoint}/", data=body, headers=headers)
        if signed:
            SigV4Auth(
                Credentials(settings.access_key, settings.secret_key), "rekognition", settings.region
            ).add_auth(request)
        raw = urllib.request.Request(request.url, data=body, headers=dict(request.headers), method="POST")
        try:
            with urllib.request.urlopen(raw, timeout=5) as answer:
                return answer.status, dict(answer.headers), json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), json.loads(error.read())

    def test_a_signed_request(self, local_cloud: CloudSettings) -> None:
        status, headers, body = self.post(local_cloud, "RekognitionService.ListMediaAnalysisJobs", b"{}")
        assert status == 200
        assert headers["content-type"] == "application/x-amz-json-1.1"
        assert headers["x-amzn-requestid"]
        assert list(body) in (["MediaAnalysisJobs"], ["MediaAnalysisJobs", "NextToken"])

    @pytest.mark.parametrize("target", ["RekognitionService.Dream", "Other.ListFaces", ""])
    def test_unknown_operation(self, local_cloud: CloudSettings, target: str) -> None:
        status, headers, body = self.post(local_cloud, target, b"{}", signed=False)
        assert (status, body) == (400, {"__type": "UnknownOperationException"})
        assert headers["x-amzn-errortype"] == "UnknownOperationException"

    def test_no_signature(self, local_cloud: CloudSettings) -> None:
        status, headers, body = self.post(
            local_cloud, "RekognitionService.ListMediaAnalysisJobs", b"{}", signed=False
        )
        assert (status, body["__type"]) == (400, "MissingAuthenticationTokenException")
        assert body["Message"]
        assert headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"

    @pytest.mark.parametrize("body", [b"{", b"[]", b'{"MaxResults": "ten"}', b'{"NextToken": 1}', b"\xff"])
    def test_wrong_json(self, local_cloud: CloudSettings, body: bytes) -> None:
        status, _, answer = self.post(local_cloud, "RekognitionService.ListMediaAnalysisJobs", body)
        assert (status, answer["__type"]) == (400, "SerializationException")

    def test_a_body_beyond_all_limits(self, local_cloud: CloudSettings) -> None:
        status, _, answer = self.post(
            local_cloud, "RekognitionService.DetectModerationLabels", bytes(10_000_001)
        )
        assert (status, answer["__type"]) == (413, "RequestEntityTooLargeException")


class TestList:
    def test_newest_first_in_pages(self, client: Client) -> None:
        client.put_manifest("list.jsonl", [client.put("list/a.jpg", picture())])
        started = [client.finished(client.start("list.jsonl"))["JobId"] for _ in range(3)]

        first = client.rekognition.list_media_analysis_jobs(MaxResults=2)
        newer = client.finished(client.start("list.jsonl"))["JobId"]
        second = client.rekognition.list_media_analysis_jobs(MaxResults=1, NextToken=first["NextToken"])

        assert [job["JobId"] for job in first["MediaAnalysisJobs"]] == started[:0:-1]
        assert [job["JobId"] for job in second["MediaAnalysisJobs"]] == [started[0]]
        (job,) = client.rekognition.list_media_analysis_jobs(MaxResults=1)["MediaAnalysisJobs"]
        single = client.rekognition.get_media_analysis_job(JobId=newer)
        single.pop("ResponseMetadata")
        assert job == single

    @pytest.mark.parametrize("token", ["nonsense", "MTp4", "ünï"])
    def test_invalid_token(self, client: Client, token: str) -> None:
        code, status, _ = error_of(client.rekognition.list_media_analysis_jobs, NextToken=token)
        assert (code, status) == ("InvalidPaginationTokenException", 400)

    @pytest.mark.parametrize("size", [0, 101])
    def test_page_size(self, client: Client, size: int) -> None:
        code, _, _ = error_of(client.rekognition.list_media_analysis_jobs, MaxResults=size)
        assert code == "InvalidParameterException"


class TestAdapters:
    @pytest.fixture(autouse=True)
    def adapters(self, local_cloud: CloudSettings) -> None:
        statuses = {1: "ACTIVE", 2: "DEPRECATED", 3: "EXPIRED", 4: "TRAINING_IN_PROGRESS"}
        (local_cloud.cloud_dir / "adapters.json").write_text(
            json.dumps({ADAPTER.format(number): status for number, status in statuses.items()})
        )

    @pytest.mark.parametrize(("number", "echoed"), [(1, True), (2, True), (3, False)])
    def test_a_usable_one_is_echoed_and_an_expired_one_left_out(
        self, client: Client, number: int, echoed: bool
    ) -> None:
        arn = ADAPTER.format(number)
        client.put_manifest("adapter.jsonl", [client.put("adapter/a.jpg", picture())])
        config = {"DetectModerationLabels": {"ProjectVersion": arn}}

        job = client.finished(client.start("adapter.jsonl", OperationsConfig=config))
        answer = client.rekognition.detect_moderation_labels(Image={"Bytes": picture()}, ProjectVersion=arn)

        (line,) = client.results(job)
        expected = arn if echoed else None
        assert line["detect-moderation-labels"].get("ProjectVersion") == expected
        assert answer.get("ProjectVersion") == expected
        assert job["OperationsConfig"] == config

    @pytest.mark.parametrize(
        ("number", "code"), [(4, "ResourceNotReadyException"), (5, "ResourceNotFoundException")]
    )
    def test_an_unusable_one(self, client: Client, number: int, code: str) -> None:
        arn = ADAPTER.format(number)
        client.put_manifest("adapter.jsonl", [client.put("adapter/a.jpg", picture())])
        config = {"DetectModerationLabels": {"ProjectVersion": arn}}

        assert error_of(client.start, manifest_key="adapter.jsonl", OperationsConfig=config)[:2] == (
            code,
            400,
        )
        detect = client.rekognition.detect_moderation_labels
        assert error_of(detect, Image={"Bytes": picture()}, ProjectVersion=arn)[:2] == (code, 400)


class TestDetect:
    def test_bytes_and_s3_object_get_the_same_answer(
        self, client: Client, local_cloud: CloudSettings
    ) -> None:
        data = in_book(local_cloud, picture(seed=20))
        client.put("detect/a.jpg", data)

        by_bytes = client.rekognition.detect_moderation_labels(Image={"Bytes": data})
        by_object = client.rekognition.detect_moderation_labels(
            Image={"S3Object": {"Bucket": UGC, "Name": "detect/a.jpg"}}, MinConfidence=30
        )

        assert by_bytes["ModerationLabels"] == WEAPONS[:2]
        assert by_object["ModerationLabels"] == WEAPONS
        assert by_bytes["ContentTypes"] == by_object["ContentTypes"] == ILLUSTRATED
        assert by_bytes["ModerationModelVersion"] == "7.0-localcloud"

    @pytest.mark.parametrize(
        ("image", "code"),
        [
            ({"Bytes": picture("WEBP")}, "InvalidImageFormatException"),
            ({"Bytes": picture()[:500]}, "InvalidImageFormatException"),
            ({"Bytes": picture("PNG", 40, 90)}, "InvalidParameterException"),
            ({"Bytes": png_header(60_000, 60_000)}, "ImageTooLargeException"),
            ({"Bytes": bytes(5_242_881)}, "InvalidParameterException"),
            ({}, "InvalidParameterException"),
            ({"S3Object": {"Bucket": UGC, "Name": "detect/none.jpg"}}, "InvalidS3ObjectException"),
            ({"S3Object": {"Bucket": "no-such-bucket", "Name": "a.jpg"}}, "InvalidS3ObjectException"),
        ],
    )
    def test_refused(self, client: Client, image: dict[str, Any], code: str) -> None:
        assert error_of(client.rekognition.detect_moderation_labels, Image=image)[:2] == (code, 400)

    def test_a_book_is_read_again_when_it_changes(self, client: Client, local_cloud: CloudSettings) -> None:
        data = picture(seed=21)
        sha256 = hashlib.sha256(data).hexdigest()

        def labels() -> list[str]:
            answer = client.rekognition.detect_moderation_labels(Image={"Bytes": data}, MinConfidence=0)
            return [label["Name"] for label in answer["ModerationLabels"]]

        for name in ("Alcohol", "Hate Symbols"):
            label = {"Confidence": 80.0, "Name": name, "ParentName": "", "TaxonomyLevel": 1}
            write_answers(
                local_cloud, "changing.json", {"answers": {sha256: {"ModerationLabels": [label]}}, "more": 1}
            )
            assert labels() == [name]
        (local_cloud.answers_dir / "changing.json").unlink()
        assert labels() == ["Explicit Nudity", "Explicit"]
