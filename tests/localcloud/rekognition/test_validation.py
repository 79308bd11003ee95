from __future__ import annotations

import base64
from typing import Any

import pytest

from localcloud.rekognition.protocol import ApiError, operation_name, parse_body
from localcloud.rekognition.validation import validated

ARN = "arn:aws:rekognition:us-east-1:123456789012:project/p/version/v/1700000000000"


def start(**more: Any) -> dict[str, Any]:
    return {
        "OperationsConfig": {"DetectModerationLabels": {"MinConfidence": 50, "ProjectVersion": ARN}},
        "Input": {"S3Object": {"Bucket": "bucket", "Name": "k"}},
        "OutputConfig": {"S3Bucket": "bucket", "S3KeyPrefix": "p/"},
        "ClientRequestToken": "a" * 64,
        "JobName": "modlake-2026-11-21.0_x",
        "KmsKeyId": "alias/k",
    } | more


def refusal(operation: str, request: dict[str, Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        validated(operation, request)
    assert caught.value.status == 400
    return caught.value


def test_a_valid_request_passes_unchanged() -> None:
    assert validated("StartMediaAnalysisJob", start()) == start()


def test_null_is_absent_and_unknown_members_are_ignored() -> None:
    request = start(JobName=None, Surprise={"a": 1})
    assert validated("StartMediaAnalysisJob", request) == {k: v for k, v in start().items() if k != "JobName"}


@pytest.mark.parametrize(
    ("more", "constraint"),
    [
        (
            {"JobName": ""},
            "Value '' at 'jobName' failed to satisfy constraint: Member must have length greater",
        ),
        ({"JobName": "x" * 65}, "Member must have length less than or equal to 64"),
        ({"JobName": "ünï"}, r"Member must satisfy regular expression pattern: [a-zA-Z0-9_.\-]+"),
        ({"JobName": "x\n"}, "regular expression"),
        ({"ClientRequestToken": "x" * 65}, "'clientRequestToken' failed"),
        ({"ClientRequestToken": "scheduled__2026-11-21T00:00:00+00:00"}, "regular expression"),
        ({"KmsKeyId": "!"}, "'kmsKeyId' failed"),
        ({"OutputConfig": {"S3Bucket": "bu"}}, "'outputConfig.s3Bucket'"),
        ({"OutputConfig": {"S3Bucket": "bucket", "S3KeyPrefix": "x" * 801}}, "less than or equal to 800"),
        ({"OutputConfig": {"S3Bucket": "bucket", "S3KeyPrefix": "a b"}}, "regular expression"),
        (
            {"OperationsConfig": {"DetectModerationLabels": {"MinConfidence": 100.5}}},
            "value less than or equal to 100",
        ),
        (
            {"OperationsConfig": {"DetectModerationLabels": {"MinConfidence": -1}}},
            "greater than or equal to 0",
        ),
        (
            {"OperationsConfig": {"DetectModerationLabels": {"ProjectVersion": "arn:aws:x" * 3}}},
            "regular expression",
        ),
        ({"Input": None}, "Value null at 'input' failed to satisfy constraint: Member must not be null"),
        ({"Input": {}}, "'input.s3Object'"),
    ],
)
def test_each_constraint(more: dict[str, Any], constraint: str) -> None:
    error = refusal("StartMediaAnalysisJob", start(**more))
    assert error.code == "InvalidParameterException"
    assert constraint in str(error)


def test_every_violation_is_named() -> None:
    error = refusal("StartMediaAnalysisJob", start(JobName="a b", ClientRequestToken="a b"))
    assert str(error).startswith("2 validation errors detected: ")


def test_enums() -> None:
    error = refusal("DetectFaces", {"Image": {"Bytes": ""}, "Attributes": ["MOOD"]})
    assert (
        "'MOOD' at 'attributes.1.member' failed to satisfy constraint: Member must satisfy enum value set"
        in str(error)
    )


@pytest.mark.parametrize(
    "request_",
    [
        {"MaxResults": "10"},
        {"MaxResults": 1.5},
        {"MaxResults": True},
        {"MaxResults": float("nan")},
        {"NextToken": 5},
        {"NextToken": "\ud800"},
    ],
)
def test_a_wrong_json_type(request_: dict[str, Any]) -> None:
    assert refusal("ListMediaAnalysisJobs", request_).code == "SerializationException"


def test_a_number_beyond_every_float() -> None:
    assert refusal("ListMediaAnalysisJobs", {"MaxResults": 10**400}).code == "InvalidParameterException"


def test_blobs_are_decoded_and_limited() -> None:
    encoded = base64.b64encode(b"image").decode()
    assert validated("DetectModerationLabels", {"Image": {"Bytes": encoded}}) == {
        "Image": {"Bytes": b"image"}
    }
    too_large = base64.b64encode(bytes(5_242_881)).decode()
    assert "less than or equal to 5242880" in str(
        refusal("DetectModerationLabels", {"Image": {"Bytes": too_large}})
    )
    assert refusal("DetectModerationLabels", {"Image": {"Bytes": "%"}}).code == "SerializationException"


def test_targets() -> None:
    assert operation_name("RekognitionService.ListFaces") == "ListFaces"
    for target in (None, "", "RekognitionService.", "RekognitionService.Dream", "Other.ListFaces"):
        with pytest.raises(ApiError) as caught:
            operation_name(target)
        assert caught.value.code == "UnknownOperationException"


def test_bodies() -> None:
    assert parse_body(b"") == {}
    assert parse_body(b'{"a": 1}') == {"a": 1}
    for body in (b"[]", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(ApiError) as caught:
            parse_body(body)
        assert caught.value.code == "SerializationException"
