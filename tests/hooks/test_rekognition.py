"""Tests of the Rekognition hook, over HTTP where what goes over the wire matters."""

from __future__ import annotations

import asyncio
import json
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    WaiterError,
)

from modlake.exceptions import ModlakeError, ModlakeTerminalError, ModlakeTransientError
from modlake.hooks import rekognition as module
from modlake.hooks.rekognition import (
    InvalidRequestError,
    RekognitionHook,
    RekognitionTerminalError,
    check_min_confidence,
    check_text,
    typed_error,
)
from modlake.pipeline.media_analysis import (
    MediaAnalysisJobNotFoundError,
    NoJobSlotError,
    TokenParametersMismatchError,
)
from tests.support.fake_rekognition import FakeRekognition, connection_to, served

REQUEST: dict[str, Any] = {
    "OperationsConfig": {"DetectModerationLabels": {"MinConfidence": 50.0}},
    "Input": {"S3Object": {"Bucket": "work", "Name": "manifests/00000.jsonl"}},
    "OutputConfig": {"S3Bucket": "work", "S3KeyPrefix": "results/"},
    "JobName": "job-0",
    "ClientRequestToken": "token-0",
}
ARN = "arn:aws:rekognition:us-east-1:123456789012:project/p/version/v/1700000000000"


@pytest.fixture
def aws() -> FakeRekognition:
    return FakeRekognition()


@pytest.fixture
def hook(aws: FakeRekognition, monkeypatch: pytest.MonkeyPatch) -> Iterator[RekognitionHook]:
    with served(aws) as endpoint_url:
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", connection_to(endpoint_url))
        yield RekognitionHook(config={"retries": {"total_max_attempts": 1}})


def request_with(path: str, value: Any) -> dict[str, Any]:
    request: dict[str, Any] = {**REQUEST}
    *parents, last = path.split(".")
    part = request
    for name in parents:
        part[name] = {**part[name]}
        part = part[name]
    part[last] = value
    return request


def test_start_answers_the_job_id(hook: RekognitionHook, aws: FakeRekognition) -> None:
    job_id = hook.start_media_analysis_job(**REQUEST)

    assert aws.started == [REQUEST]
    assert hook.start_media_analysis_job(**REQUEST) == job_id


def test_get_describes_the_job(hook: RekognitionHook) -> None:
    job = hook.get_media_analysis_job(hook.start_media_analysis_job(**REQUEST))

    assert job["Status"] == "CREATED"
    assert job["CreationTimestamp"].tzinfo is not None
    assert "ResponseMetadata" not in job


def test_get_of_an_unknown_job(hook: RekognitionHook) -> None:
    with pytest.raises(MediaAnalysisJobNotFoundError, match="f00"):
        hook.get_media_analysis_job("f00")


def start_jobs(hook: RekognitionHook, count: int) -> None:
    for number in range(count):
        names = {"JobName": f"job-{number}", "ClientRequestToken": f"token-{number}"}
        hook.start_media_analysis_job(**{**REQUEST, **names})


def test_list_follows_the_pages(
    hook: RekognitionHook, aws: FakeRekognition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIST_PAGE_SIZE", 2)
    start_jobs(hook, 5)

    names = [job["JobName"] for job in hook.iter_media_analysis_jobs(max_pages=9)]
    assert names == ["job-4", "job-3", "job-2", "job-1", "job-0"]
    assert aws.calls.count("ListMediaAnalysisJobs") == 3


def test_list_is_bounded(
    hook: RekognitionHook, aws: FakeRekognition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIST_PAGE_SIZE", 2)
    start_jobs(hook, 5)

    assert hook.find_media_analysis_job("job-0", max_pages=2) is None
    assert aws.calls.count("ListMediaAnalysisJobs") == 2


def test_a_job_is_found_by_name_and_no_further_page_is_read(
    hook: RekognitionHook, aws: FakeRekognition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIST_PAGE_SIZE", 2)
    start_jobs(hook, 5)
    found = hook.find_media_analysis_job("job-3", max_pages=9)

    assert found is not None
    assert found["JobName"] == "job-3"
    assert aws.calls.count("ListMediaAnalysisJobs") == 1


def test_one_image_is_judged(hook: RekognitionHook) -> None:
    image: Any = {"S3Object": {"Bucket": "ugc", "Name": "a.jpg"}}
    answer = hook.detect_moderation_labels(image, min_confidence=50, project_version=ARN)

    assert answer["ModerationModelVersion"] == "7.0"


def test_an_adapter_is_described_by_its_own_arn(hook: RekognitionHook, aws: FakeRekognition) -> None:
    retrained = ARN.replace("1700000000000", "1800000000000")
    aws.adapters = {retrained: {"Status": "EXPIRED"}, ARN: {"Status": "DEPRECATED"}}
    assert hook.describe_adapter(ARN)["Status"] == "DEPRECATED"


@pytest.mark.parametrize("known", [[], [ARN.replace("/v/", "/w/")], [ARN.replace("project/p", "project/q")]])
def test_an_unknown_adapter_is_terminal(
    hook: RekognitionHook, aws: FakeRekognition, known: list[str]
) -> None:
    aws.adapters = {arn: {"Status": "TRAINING_COMPLETED"} for arn in known}
    with pytest.raises(RekognitionTerminalError, match=f"{ARN}.*check adapter_arn"):
        hook.describe_adapter(ARN)


@pytest.mark.parametrize("operation", ["DescribeProjects", "DescribeProjectVersions"])
def test_no_permission_to_look_at_adapters(
    hook: RekognitionHook, aws: FakeRekognition, operation: str
) -> None:
    aws.adapters = {ARN: {"Status": "TRAINING_COMPLETED"}}
    aws.faults[operation] = ["AccessDeniedException"]
    with pytest.raises(RekognitionTerminalError, match=f"{operation} .*grant the action.*modlake-policy"):
        hook.describe_adapter(ARN)


ILLEGAL = [
    ("JobName", "a:b c"),
    ("JobName", "x" * 65),
    ("JobName", ""),
    ("JobName", "line\n"),
    ("ClientRequestToken", "scheduled__2026-11-21T00:00:00+00:00"),
    ("ClientRequestToken", "x" * 65),
    ("KmsKeyId", "has space"),
    ("OutputConfig.S3KeyPrefix", "with space/"),
    ("OutputConfig.S3KeyPrefix", "x" * 801),
    ("OutputConfig.S3Bucket", "s3://bucket"),
    ("OutputConfig.S3Bucket", "ab"),
    ("Input.S3Object.Name", "x" * 1025),
    ("Input.S3Object.Bucket", "a/b"),
    ("OperationsConfig.DetectModerationLabels.MinConfidence", 101),
    ("OperationsConfig.DetectModerationLabels.MinConfidence", -0.1),
    ("OperationsConfig.DetectModerationLabels.MinConfidence", float("nan")),
    ("OperationsConfig.DetectModerationLabels.ProjectVersion", "arn:aws:rekognition:us-east-1:1:project/p"),
]


@pytest.mark.parametrize(("path", "value"), ILLEGAL)
def test_what_botocore_lets_pass_is_refused_before_the_call(
    hook: RekognitionHook, aws: FakeRekognition, path: str, value: Any
) -> None:
    with pytest.raises(InvalidRequestError, match=r"Write "):
        hook.start_media_analysis_job(**request_with(path, value))
    assert aws.calls == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("JobName", "x" * 64),
        ("OutputConfig.S3KeyPrefix", "x" * 800),
        ("OutputConfig.S3KeyPrefix", "ünïcode/%2B/"),
        ("Input.S3Object.Name", "with space\nand newline" + "x" * 900),
        ("OperationsConfig.DetectModerationLabels.MinConfidence", 0),
        ("OperationsConfig.DetectModerationLabels.MinConfidence", 100),
        ("OperationsConfig.DetectModerationLabels.ProjectVersion", ARN),
        ("KmsKeyId", "arn:aws:kms:us-east-1:123456789012:key/1234"),
    ],
)
def test_the_limits_themselves_are_allowed(hook: RekognitionHook, path: str, value: Any) -> None:
    assert hook.start_media_analysis_job(**request_with(path, value))


def test_the_rules_are_those_of_the_service_model() -> None:
    model = botocore.session.get_session().get_service_model("rekognition")
    start: Any = model.operation_model("StartMediaAnalysisJob").input_shape
    moderation = start.members["OperationsConfig"].members["DetectModerationLabels"].members
    s3_object = start.members["Input"].members["S3Object"].members
    shapes = {
        **{name: start.members[name] for name in ("JobName", "ClientRequestToken", "KmsKeyId")},
        **{name: s3_object[name] for name in ("Bucket", "Name", "Version")},
        "S3KeyPrefix": start.members["OutputConfig"].members["S3KeyPrefix"],
        "ProjectVersion": moderation["ProjectVersion"],
    }
    assert set(shapes) == set(module._TEXT_RULES)
    for name, shape in shapes.items():
        rule = module._TEXT_RULES[name]
        assert (rule.shortest, rule.longest) == (shape.metadata.get("min", 0), shape.metadata["max"]), name
        if "pattern" in shape.metadata:
            ours, theirs = (
                re.sub(r"[\^$()\\]", "", text) for text in (rule.pattern, shape.metadata["pattern"])
            )
            assert ours == theirs, name
    confidence = moderation["MinConfidence"].metadata
    assert (confidence["min"], confidence["max"]) == (0, 100)


def test_checks_say_what_the_author_wrote() -> None:
    with pytest.raises(InvalidRequestError, match="Task 'x': job_name is 'a b'"):
        check_text("JobName", "a b", written_as="Task 'x': job_name")
    with pytest.raises(ValueError, match="min_confidence is 101"):
        check_min_confidence(101, written_as="min_confidence")


TRANSIENT = [
    ("InternalServerError", 500),
    ("ProvisionedThroughputExceededException", 400),
    ("ThrottlingException", 400),
    ("ThrottlingException", 500),
    ("ResourceNotReadyException", 400),
    ("ServiceUnavailable", 503),
    ("WhateverIsNew", 502),
]
TERMINAL = [
    ("AccessDeniedException", 400),
    ("IdempotentParameterMismatchException", 400),
    ("InvalidManifestException", 400),
    ("InvalidParameterException", 400),
    ("InvalidS3ObjectException", 400),
    ("InvalidPaginationTokenException", 400),
    ("ResourceNotFoundException", 400),
    ("ImageTooLargeException", 400),
    ("InvalidImageFormatException", 400),
    ("WhateverIsNew", 400),
]


def client_error(code: str, http_status: int = 400) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "their words"},
        "ResponseMetadata": {"HTTPStatusCode": http_status},
    }
    return ClientError(response, "StartMediaAnalysisJob")


@pytest.mark.parametrize(("code", "http_status"), TRANSIENT)
def test_transient_errors(code: str, http_status: int) -> None:
    error = typed_error(client_error(code, http_status), "GetMediaAnalysisJob", "job 1")

    assert isinstance(error, ModlakeTransientError)
    assert all(
        part in str(error) for part in ("GetMediaAnalysisJob for job 1", code, "their words", "Mend: ")
    )


@pytest.mark.parametrize(("code", "http_status"), TERMINAL)
def test_terminal_errors(code: str, http_status: int) -> None:
    error = typed_error(client_error(code, http_status), "StartMediaAnalysisJob", "manifest s3://w/m")

    assert isinstance(error, ModlakeTerminalError)
    assert all(part in str(error) for part in ("for manifest s3://w/m", code, "their words", "Mend: "))


def test_every_error_of_the_service_model_is_known() -> None:
    model = botocore.session.get_session().get_service_model("rekognition")
    operations = [
        "StartMediaAnalysisJob",
        "GetMediaAnalysisJob",
        "ListMediaAnalysisJobs",
        "DetectModerationLabels",
        "DescribeProjects",
        "DescribeProjectVersions",
    ]
    codes = {shape.name for name in operations for shape in model.operation_model(name).error_shapes}
    known = {code for code, _ in (*TRANSIENT, *TERMINAL)} | {"LimitExceededException"}

    assert codes - known == {"HumanLoopQuotaExceededException"}


def test_a_full_account_is_a_signal_of_its_own() -> None:
    error = typed_error(client_error("LimitExceededException"), "StartMediaAnalysisJob", "manifest s3://w/m")

    assert isinstance(error, NoJobSlotError)
    assert "L-22FA69BA" in str(error)


def test_a_token_used_otherwise_is_a_signal_of_its_own() -> None:
    error = typed_error(client_error("IdempotentParameterMismatchException"), "StartMediaAnalysisJob", "m")

    assert isinstance(error, TokenParametersMismatchError)


def test_a_closed_account_is_explained() -> None:
    error = typed_error(client_error("AccessDeniedException"), "StartMediaAnalysisJob", "manifest s3://w/m")

    assert "2026-04-30" in str(error)
    assert "include/iam/" in str(error)


def test_the_closure_is_not_blamed_for_single_images() -> None:
    error = typed_error(client_error("AccessDeniedException"), "DetectModerationLabels", "s3://ugc/a.jpg")

    assert "2026-04-30" not in str(error)
    assert "include/iam/" in str(error)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (EndpointConnectionError(endpoint_url="http://x", error="refused"), ModlakeTransientError),
        (ReadTimeoutError(endpoint_url="http://x", error="slow"), ModlakeTransientError),
        (NoCredentialsError(), ModlakeTerminalError),
    ],
)
def test_no_answer_at_all(raised: Any, kind: type[ModlakeError]) -> None:
    assert isinstance(typed_error(raised, "GetMediaAnalysisJob", "job 1"), kind)


def test_errors_survive_pickling() -> None:
    error = typed_error(
        client_error("InvalidManifestException"), "StartMediaAnalysisJob", "manifest s3://w/m"
    )
    copy = pickle.loads(pickle.dumps(error))

    assert isinstance(copy, RekognitionTerminalError)
    assert (str(copy), copy.code) == (str(error), "InvalidManifestException")


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        (None, {"mode": "standard"}),
        ({"read_timeout": 7}, {"mode": "standard"}),
        ({"retries": {"max_attempts": 9}}, {"mode": "standard", "max_attempts": 9}),
        ({"retries": {"mode": "adaptive"}}, {"mode": "adaptive"}),
    ],
)
@pytest.mark.parametrize("given_by", ["hook", "connection"])
def test_the_retry_mode_never_depends_on_botocore(
    monkeypatch: pytest.MonkeyPatch,
    configured: dict[str, Any] | None,
    expected: dict[str, Any],
    given_by: str,
) -> None:
    extra = {"region_name": "us-east-1", "config_kwargs": configured if given_by == "connection" else None}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps({"conn_type": "aws", "extra": extra}))
    config = RekognitionHook(config=configured if given_by == "hook" else None).config

    assert config.retries == expected  # type: ignore[attr-defined]
    if configured and "read_timeout" in configured:
        assert config.read_timeout == 7  # type: ignore[attr-defined]


def test_the_retry_mode_reaches_the_clients(hook: RekognitionHook) -> None:
    assert hook.conn.meta.config.retries["mode"] == "standard"

    async def mode() -> str:
        async with await hook.get_async_conn() as client:
            return str(client.meta.config.retries["mode"])

    assert asyncio.run(mode()) == "standard"


def test_region_verify_and_endpoint_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", connection_to("http://127.0.0.1:9"))
    hook = RekognitionHook(aws_conn_id="elsewhere", region_name="eu-west-1", verify=False)

    assert hook.conn.meta.endpoint_url == "http://127.0.0.1:9"
    assert hook.conn.meta.region_name == "eu-west-1"
    assert hook.verify is False


WAITER = "media_analysis_job_complete"
Wait = Callable[[RekognitionHook, str], None]


def wait_sync(hook: RekognitionHook, job_id: str) -> None:
    hook.get_waiter(WAITER).wait(JobId=job_id, WaiterConfig={"Delay": 0.01, "MaxAttempts": 9})


def wait_async(hook: RekognitionHook, job_id: str) -> None:
    async def wait() -> None:
        async with await hook.get_async_conn() as client:
            waiter = hook.get_waiter(WAITER, deferrable=True, client=client)
            await waiter.wait(JobId=job_id, WaiterConfig={"Delay": 0.01, "MaxAttempts": 9})

    asyncio.run(wait())


def test_the_waiters_are_the_projects_own(hook: RekognitionHook) -> None:
    assert WAITER in hook.list_waiters()


@pytest.mark.parametrize("wait", [wait_sync, wait_async])
def test_the_waiter_waits_for_success(hook: RekognitionHook, aws: FakeRekognition, wait: Wait) -> None:
    aws.script = ("CREATED", "QUEUED", "IN_PROGRESS", "SUCCEEDED")
    wait(hook, hook.start_media_analysis_job(**REQUEST))

    assert aws.calls.count("GetMediaAnalysisJob") == 4


@pytest.mark.parametrize("wait", [wait_sync, wait_async])
@pytest.mark.parametrize("last", ["FAILED:INTERNAL_ERROR", "PAUSED"])
def test_the_waiter_fails_on_failure_and_on_the_unknown(
    hook: RekognitionHook, aws: FakeRekognition, wait: Wait, last: str
) -> None:
    aws.script = ("IN_PROGRESS", last)
    job_id = hook.start_media_analysis_job(**REQUEST)
    with pytest.raises(WaiterError, match="terminal failure"):
        wait(hook, job_id)
