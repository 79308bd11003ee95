"""Amazon Rekognition: media analysis jobs (bulk image moderation) and DetectModerationLabels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
)
from botocore.exceptions import ConnectionError as BotocoreConnectionError

from modlake.exceptions import ModlakeError, ModlakeTerminalError, ModlakeTransientError
from modlake.pipeline.media_analysis import (
    MediaAnalysisJobNotFoundError,
    NoJobSlotError,
    TokenParametersMismatchError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike

    from mypy_boto3_rekognition.type_defs import ImageTypeDef

LIST_PAGE_SIZE = 100
"""Jobs a page of ListMediaAnalysisJobs holds at most (API reference)."""

_BULK_OPERATIONS = frozenset({"StartMediaAnalysisJob", "GetMediaAnalysisJob", "ListMediaAnalysisJobs"})

# By these an account learns whether bulk analysis is open to it.
_DOORS = frozenset({"StartMediaAnalysisJob", "ListMediaAnalysisJobs"})
_DENIAL = "AccessDenied|NotAuthorized|Unauthorized|Forbidden|OptIn|Subscription|Unsupported|UnknownOperation"

# botocore takes an answer whose body was cut off for an empty one.
_MEMBER_OF_EVERY_ANSWER = {
    "StartMediaAnalysisJob": "JobId",
    "GetMediaAnalysisJob": "Status",
    "ListMediaAnalysisJobs": "MediaAnalysisJobs",
    "DetectModerationLabels": "ModerationLabels",
    "DescribeProjects": "ProjectDescriptions",
    "DescribeProjectVersions": "ProjectVersionDescriptions",
}


class RekognitionTransientError(ModlakeTransientError):
    """Rekognition could not answer now. Attributes: ``operation``, ``code``."""

    def __init__(self, message: str, *, operation: str = "", code: str = "") -> None:
        super().__init__(message)
        self.operation = operation
        self.code = code


class RekognitionTerminalError(ModlakeTerminalError):
    """Rekognition refused the request itself. Attributes: ``operation``, ``code``."""

    def __init__(self, message: str, *, operation: str = "", code: str = "") -> None:
        super().__init__(message)
        self.operation = operation
        self.code = code


class BulkAnalysisDeniedError(RekognitionTerminalError):
    """The account or the identity may not list or start media analysis jobs."""


class InvalidRequestError(ModlakeTerminalError, ValueError):
    """A value that can't be asked for, which botocore would let pass; the message says what to write."""


@dataclass(frozen=True, slots=True)
class _TextRule:
    longest: int
    pattern: str
    write: str
    shortest: int = 1


# The constraints of the service model (API version 2016-06-27). botocore checks required members, types and
# minimums, but neither maxima nor patterns.
_TEXT_RULES: dict[str, _TextRule] = {
    "JobName": _TextRule(64, r"[a-zA-Z0-9_.\-]+", "1 to 64 letters, digits, '_', '.' or '-'"),
    "ClientRequestToken": _TextRule(64, r"[a-zA-Z0-9\-_]+", "1 to 64 letters, digits, '-' or '_'"),
    "S3KeyPrefix": _TextRule(800, r"\S*", "at most 800 characters without white space", shortest=0),
    "Bucket": _TextRule(255, r"[0-9A-Za-z\.\-_]*", "a bucket name, without 's3://'", shortest=3),
    "Name": _TextRule(1024, r"(?s:.*)", "an object key of 1 to 1024 characters"),
    "Version": _TextRule(1024, r"(?s:.*)", "an object version of 1 to 1024 characters"),
    "KmsKeyId": _TextRule(2048, r"[A-Za-z0-9][A-Za-z0-9:_/+=,@.-]{0,2048}", "a KMS key id, alias or ARN"),
    "ProjectVersion": _TextRule(
        2048,
        r"arn:[a-z\d-]+:rekognition:[a-z\d-]+:\d{12}:project\/[a-zA-Z0-9_.\-]{1,255}"
        r"\/version\/[a-zA-Z0-9_.\-]{1,255}\/[0-9]+",
        "an adapter's ARN, arn:aws:rekognition:<region>:<account>:project/<name>/version/<name>/<number>",
        shortest=20,
    ),
}


def check_text(member: str, value: str, *, written_as: str | None = None) -> None:
    """
    Check a text against the rule of the request member it is meant for.

    :param member: name in the service model, for example ``JobName``
    :param written_as: what the author of a DAG calls it, for the message
    :raises InvalidRequestError: says what to write instead
    """
    rule = _TEXT_RULES[member]
    if rule.shortest <= len(value) <= rule.longest and re.fullmatch(rule.pattern, value):
        return
    shown = value if len(value) <= 100 else f"{value[:100]}… ({len(value)} characters)"
    raise InvalidRequestError(
        f"{written_as or member} is {shown!r}, which Rekognition refuses. Write {rule.write}."
    )


def check_min_confidence(value: float, *, written_as: str = "MinConfidence") -> None:
    """:raises InvalidRequestError: outside 0..100 (percent), NaN included."""
    if not 0 <= value <= 100:
        raise InvalidRequestError(
            f"{written_as} is {value!r}, which Rekognition refuses. Write a number from 0 to 100 (percent)."
        )


def _check_start_request(request: Mapping[str, Any]) -> None:
    moderation = request["OperationsConfig"]["DetectModerationLabels"]
    manifest = request["Input"]["S3Object"]
    output = request["OutputConfig"]
    check_min_confidence(moderation["MinConfidence"])
    texts = {
        "ProjectVersion": [moderation.get("ProjectVersion")],
        "Bucket": [manifest["Bucket"], output["S3Bucket"]],
        "Name": [manifest["Name"]],
        "Version": [manifest.get("Version")],
        "S3KeyPrefix": [output.get("S3KeyPrefix")],
        **{member: [request.get(member)] for member in ("JobName", "ClientRequestToken", "KmsKeyId")},
    }
    for member, values in texts.items():
        for value in values:
            if value is not None:
                check_text(member, value)


_QUOTAS = (
    "wait, or ask for more in Service Quotas (Amazon Rekognition, transactions per second of this operation; "
    "by default Start 5, Get 20, List 5)."
)
_TROUBLE = "the service had a problem of its own: try again."
_TRANSIENT_CODES = {
    "InternalServerError": _TROUBLE,
    "ProvisionedThroughputExceededException": _QUOTAS,
    "ThrottlingException": _QUOTAS,
    "Throttling": _QUOTAS,
    "RequestLimitExceeded": _QUOTAS,
    "ServiceUnavailable": _TROUBLE,
    "ResourceNotReadyException": "the adapter is not ready: wait until its status is TRAINING_COMPLETED.",
}
_TERMINAL_CODES = {
    "InvalidManifestException": "write a manifest of 1 to 10,000 JSON lines and at most 50 MB.",
    "InvalidParameterException": "correct the value that the message names.",
    "InvalidPaginationTokenException": "list again from the first page.",
    "InvalidS3ObjectException": (
        "check that the object exists, that its bucket is in the region of the call, and that the identity "
        "may read it (include/iam/modlake-policy.json)."
    ),
    "ResourceNotFoundException": "check project_version (the adapter's ARN), the account and the region.",
    "ImageTooLargeException": "send at most 15 MB from S3 or 5 MB as bytes, and at most 10,000 px a side.",
    "InvalidImageFormatException": "send JPEG or PNG.",
    "UnrecognizedClientException": "check the credentials of the Airflow connection.",
    "InvalidSignatureException": "check the credentials of the Airflow connection and this host's clock.",
    "ExpiredTokenException": "renew the session credentials of the Airflow connection.",
}
_ACCESS_DENIED = "grant the action to the connection's identity (include/iam/modlake-policy.json)."
_BULK_CLOSED = (
    "either the identity lacks the permission: grant it (include/iam/modlake-policy.json); or the account "
    "has no bulk analysis: since 2026-04-30 AWS keeps it for accounts that used it in the 12 months before, "
    "and no policy opens it (Rekognition developer guide, availability changes). DetectModerationLabels "
    "stays open to all."
)
_NO_SLOT = (
    "The account runs as many media analysis jobs at once as its quota allows (by default 20 in us-east-1, "
    "us-west-2 and eu-west-1, 5 elsewhere). Wait for one to end, or ask for more in Service Quotas (Amazon "
    "Rekognition, Concurrent Media Analysis jobs, L-22FA69BA)."
)


def typed_error(error: ClientError | BotoCoreError, operation: str, subject: str) -> ModlakeError:
    """
    Translate what botocore raised into an error that says whether to try again, and what to do.

    :param operation: the API operation, for example ``GetMediaAnalysisJob``
    :param subject: what it was called for, for example ``job 1f0e…``
    """
    if isinstance(error, ClientError):
        return _refusal(error, operation, subject)
    cause = f"{operation} for {subject} got no answer: {error}."
    if isinstance(error, HTTPClientError | BotocoreConnectionError | CredentialRetrievalError):
        mend = "check the endpoint and the network, then try again."
        return RekognitionTransientError(f"{cause} Mend: {mend}", operation=operation)
    mend = "correct the request, or the Airflow connection with its credentials and region."
    return RekognitionTerminalError(f"{cause} Mend: {mend}", operation=operation)


def check_whole(answer: Mapping[str, Any], operation: str, subject: str) -> None:
    """
    Refuse an answer that was cut off on its way.

    :raises RekognitionTransientError: it lacks a member that every answer of the operation has
    """
    member = _MEMBER_OF_EVERY_ANSWER[operation]
    if member not in answer:
        raise RekognitionTransientError(
            f"{operation} for {subject} was answered without {member}: the answer was cut off. "
            "Mend: check the network, then try again.",
            operation=operation,
        )


def _refusal(error: ClientError, operation: str, subject: str) -> ModlakeError:
    code = error.response.get("Error", {}).get("Code", "")
    said = error.response.get("Error", {}).get("Message", "")
    cause = f"{operation} for {subject} was refused: {code}{f' ({said})' if said else ''}."
    match code:
        case "LimitExceededException":
            return NoJobSlotError(f"{cause} {_NO_SLOT}")
        case "IdempotentParameterMismatchException":
            return TokenParametersMismatchError(
                f"{cause} The client request token was used before with other parameters. Mend: ask for a "
                "fresh analysis, or give another client_request_token."
            )
        case "ResourceNotFoundException" if operation == "GetMediaAnalysisJob":
            return MediaAnalysisJobNotFoundError(
                f"{cause} Mend: check the job id, the account and the region of the connection. AWS forgets "
                "jobs after a year: then ask for a fresh analysis."
            )
        case _ if operation in _DOORS and _denies_access(code, error):
            return BulkAnalysisDeniedError(f"{cause} Mend: {_BULK_CLOSED}", operation=operation, code=code)
        case "AccessDeniedException":
            mend = _BULK_CLOSED if operation in _BULK_OPERATIONS else _ACCESS_DENIED
        case _:
            http_status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code not in _TERMINAL_CODES and (code in _TRANSIENT_CODES or http_status >= 500):
                mend = _TRANSIENT_CODES.get(code, _TROUBLE)
                return RekognitionTransientError(f"{cause} Mend: {mend}", operation=operation, code=code)
            mend = _TERMINAL_CODES.get(code, "look the code up in the Rekognition API reference.")
    return RekognitionTerminalError(f"{cause} Mend: {mend}", operation=operation, code=code)


def _denies_access(code: str, error: ClientError) -> bool:
    """What a closed account is answered is not documented, so whatever may be a denial is taken for one."""
    if code in _TERMINAL_CODES or code in _TRANSIENT_CODES:
        return False
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status == 403 or re.search(_DENIAL, code) is not None


class RekognitionHook(AwsBaseHook):
    """
    Interact with Amazon Rekognition.

    Provide typed calls around :external+boto3:py:class:`boto3.client("rekognition") <Rekognition.Client>`.
    Calls retry in botocore's ``standard`` mode unless the connection or ``config`` names another, as boto3's
    own default depends on its version.

    Every call raises a :class:`~modlake.exceptions.ModlakeTransientError` or a
    :class:`~modlake.exceptions.ModlakeTerminalError`.

    Waiters: ``media_analysis_job_complete`` (GetMediaAnalysisJob; fails on FAILED and on an unknown status).

    Additional arguments (such as ``aws_conn_id``) may be specified and
    are passed down to the underlying AwsBaseHook.

    .. seealso::
        - :class:`airflow.providers.amazon.aws.hooks.base_aws.AwsBaseHook`
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["client_type"] = "rekognition"
        super().__init__(*args, **kwargs)

    @cached_property
    def waiter_path(self) -> PathLike[str]:
        """Modlake's own waiters; the base class looks into the amazon provider only."""
        return Path(__file__).parents[1] / "waiters" / "rekognition.json"

    @property
    def config(self) -> Config:
        """The botocore configuration of the hook or its connection, with a retry mode in any case."""
        given: Config = super().config
        # No more attempts than the mode's three: it also retries LimitExceededException, which lasts minutes.
        retries: Any = {"mode": "standard", **(getattr(given, "retries", None) or {})}
        return given.merge(Config(retries=retries))

    def start_media_analysis_job(self, **request: Any) -> str:
        """
        Start the bulk analysis of a manifest.

        :param request: members of StartMediaAnalysisJob. Give ``ClientRequestToken``: without it botocore
            makes one up, and a repeated call is a second job to pay.
        :return: the job id; the old one when the token was used before with the same parameters
        :raises NoJobSlotError: the account's quota of concurrent jobs is used up
        :raises TokenParametersMismatchError: the token was used before with other parameters
        """
        _check_start_request(request)
        manifest = request["Input"]["S3Object"]
        subject = f"manifest s3://{manifest['Bucket']}/{manifest['Name']}"
        return str(self._call("StartMediaAnalysisJob", subject, request)["JobId"])

    def get_media_analysis_job(self, job_id: str) -> dict[str, Any]:
        """
        Describe a job: its ``Status``, ``FailureDetails``, ``Results`` and more.

        :raises MediaAnalysisJobNotFoundError: the account has no such job in this region
        """
        return self._call("GetMediaAnalysisJob", f"job {job_id}", {"JobId": job_id})

    def iter_media_analysis_jobs(self, *, max_pages: int) -> Iterator[dict[str, Any]]:
        """Iterate over the account's jobs, newest first, at most ``max_pages`` pages of 100."""
        request: dict[str, Any] = {"MaxResults": LIST_PAGE_SIZE}
        for _ in range(max_pages):
            page = self._call("ListMediaAnalysisJobs", "the account", request)
            yield from page.get("MediaAnalysisJobs", [])
            if not page.get("NextToken"):
                return
            request["NextToken"] = page["NextToken"]

    def find_media_analysis_job(self, job_name: str, *, max_pages: int) -> dict[str, Any] | None:
        """Find the newest job of that name, in ``max_pages`` pages of 100 jobs; names need not be unique."""
        jobs = self.iter_media_analysis_jobs(max_pages=max_pages)
        return next((job for job in jobs if job.get("JobName") == job_name), None)

    def describe_adapter(self, adapter_arn: str) -> dict[str, Any]:
        """
        Describe a custom moderation adapter: ``Status``, ``StatusMessage``, ``BaseModelVersion`` and more.

        Two calls: the ARN of a project, which DescribeProjectVersions asks for, has a number of its own, so
        that the version's ARN doesn't tell it.

        :param adapter_arn: the ARN of a project version, as ``ProjectVersion`` of an analysis
        :raises RekognitionTerminalError: there is no such adapter, or the identity may not look
        """
        check_text("ProjectVersion", adapter_arn)
        _, project, _, version, _ = adapter_arn.split("/")
        request: dict[str, Any] = {"ProjectNames": [project], "Features": ["CONTENT_MODERATION"]}
        projects = self._call("DescribeProjects", f"project {project}", request)
        for described in projects.get("ProjectDescriptions", []):
            request = {"ProjectArn": described["ProjectArn"], "VersionNames": [version]}
            versions = self._call("DescribeProjectVersions", f"adapter {adapter_arn}", request)
            for each in versions.get("ProjectVersionDescriptions", []):
                if each.get("ProjectVersionArn") == adapter_arn:
                    return dict(each)
        raise RekognitionTerminalError(
            f"There is no adapter {adapter_arn}. Mend: check adapter_arn, and the account and the region of "
            "the connection.",
            operation="DescribeProjectVersions",
            code="ResourceNotFoundException",
        )

    def detect_moderation_labels(
        self, image: ImageTypeDef, *, min_confidence: float, project_version: str | None = None
    ) -> dict[str, Any]:
        """
        Judge one image.

        :param image: ``{"S3Object": {"Bucket", "Name"}}`` (≤ 15 MB) or ``{"Bytes": …}`` (≤ 5 MB)
        :param min_confidence: labels below it (percent, 0..100) are not returned
        :param project_version: ARN of an adapter; the answer leaves ``ProjectVersion`` out if it has expired
        """
        check_min_confidence(min_confidence)
        request: dict[str, Any] = {"Image": image, "MinConfidence": min_confidence}
        if project_version is not None:
            check_text("ProjectVersion", project_version)
            request["ProjectVersion"] = project_version
        stored = image.get("S3Object", {})
        subject = f"s3://{stored.get('Bucket')}/{stored.get('Name')}" if stored else "an image sent as bytes"
        return self._call("DetectModerationLabels", subject, request)

    def _call(self, operation: str, subject: str, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self.conn, xform_name(operation))(**request)
        except (ClientError, BotoCoreError) as error:
            raise typed_error(error, operation, subject) from error
        check_whole(answer, operation, subject)
        answer.pop("ResponseMetadata", None)
        return answer
