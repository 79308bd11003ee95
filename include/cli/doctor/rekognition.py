"""What Rekognition lets the identity do, asked by calls that judge no image, so that nothing is paid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from cli.doctor.findings import Finding, Status, failed, failure, ok, skipped, warning
from cli.doctor.installation import Installation
from modlake.exceptions import ModlakeError
from modlake.hooks.rekognition import BulkAnalysisDeniedError, RekognitionTerminalError
from modlake.pipeline.adapter import check_adapter
from modlake.pipeline.media_analysis import MediaAnalysisJobNotFoundError, NoJobSlotError
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri

if TYPE_CHECKING:
    from mypy_boto3_rekognition.type_defs import ImageTypeDef

_POLICY_FILE = "include/iam/modlake-policy.json"
_POLICY = f"compare the identity's policy with {_POLICY_FILE}"
_MIN_CONFIDENCE = 50.0
# Answers of an operation that let the caller in, and then missed the object, which doesn't exist.
_LET_IN = frozenset({"InvalidS3ObjectException", "InvalidParameterException", "InvalidManifestException"})
_CLOSURE = (
    "If the policy grants it, the account is closed: since 2026-04-30 AWS keeps bulk analysis for accounts "
    "that used it in the 12 months before, and no policy opens it."
)


class _Answer(NamedTuple):
    finding: Finding
    denied: bool = False


def check(installation: Installation) -> Iterator[Finding]:
    """The operation of the synchronous engine, those of bulk analysis, and whether that is open."""
    detect = _ask("DetectModerationLabels", lambda: _detect(installation))
    bulk = {
        operation: _ask(operation, partial(ask, installation))
        for operation, ask in (
            ("ListMediaAnalysisJobs", _list),
            ("GetMediaAnalysisJob", _get),
            ("StartMediaAnalysisJob", _start),
        )
    }
    yield _only_for_single_calls(detect, bulk)
    runs_on_single_calls = _works([detect]) and _is_closed(bulk)
    for answer in bulk.values():
        yield replace(answer.finding, status=Status.warning) if runs_on_single_calls else answer.finding
    yield _bulk_analysis(detect, bulk)


def check_adapter_status(installation: Installation) -> Iterator[Finding]:
    """Whether the given adapter judges images."""
    adapter_arn = installation.adapter_arn
    if adapter_arn is None:
        yield skipped("adapter", "none was given; --adapter-arn names one")
        return
    warnings: list[str] = []
    try:
        described = installation.rekognition.describe_adapter(adapter_arn)
        check_adapter(adapter_arn, described, warnings.append)
    except ModlakeError as error:
        yield failure("adapter", error, "give the ARN of a version that is TRAINING_COMPLETED, or none")
        return
    for text in warnings:
        yield warning("adapter", text, "train its successor, and give that one's ARN as adapter_arn")
    if not warnings:
        yield ok("adapter", f"{adapter_arn} is {described['Status']}")


def _ask(operation: str, call: Callable[[], str]) -> _Answer:
    subject = f"rekognition:{operation}"
    try:
        return _Answer(ok(subject, call()))
    except RekognitionTerminalError as error:
        if error.code in _LET_IN:
            return _Answer(ok(subject, f"permitted; an object that doesn't exist was refused ({error.code})"))
        if isinstance(error, BulkAnalysisDeniedError) or error.code == "AccessDeniedException":
            seen = failure(subject, error, "").seen
            return _Answer(failed(subject, seen, f"grant {subject} ({_POLICY_FILE})"), denied=True)
        return _Answer(failure(subject, error, _POLICY))
    except ModlakeError as error:
        return _Answer(failure(subject, error, _POLICY))


def _works(answers: Iterable[_Answer]) -> bool:
    return all(answer.finding.status is Status.ok for answer in answers)


def _is_closed(bulk: Mapping[str, _Answer]) -> bool:
    """Whether the engine ``auto`` takes single calls: by a denial where it asks, and no other trouble."""
    return (bulk["ListMediaAnalysisJobs"].denied or bulk["StartMediaAnalysisJob"].denied) and all(
        answer.denied or answer.finding.status is Status.ok for answer in bulk.values()
    )


def _only_for_single_calls(detect: _Answer, bulk: Mapping[str, _Answer]) -> Finding:
    """The DAG judges by bulk analysis first: where that works, DetectModerationLabels may be denied."""
    if detect.denied and _works(bulk.values()):
        return replace(detect.finding, status=Status.warning)
    return detect.finding


def _bulk_analysis(detect: _Answer, bulk: Mapping[str, _Answer]) -> Finding:
    subject = "bulk analysis"
    if _works(bulk.values()):
        return ok(subject, "open to this account")
    if not any(answer.denied for answer in bulk.values()):
        return skipped(subject, "not known: its operations gave no answer that tells")
    if _works([detect]) and _is_closed(bulk):
        mend = f"nothing, if that is meant: the rows are the same (engine=bulk would fail). {_CLOSURE}"
        seen = "not open to this identity: with engine=auto the nights run on DetectModerationLabels"
        return warning(subject, seen, mend)
    if _works([detect]):
        mend = f"grant what {_POLICY_FILE} grants, or run with engine=sync. {_CLOSURE}"
        return failed(subject, "not open to this identity, but jobs could be started", mend)
    mend = f"grant rekognition:DetectModerationLabels, or what {_POLICY_FILE} grants. {_CLOSURE}"
    return failed(subject, "not open to this identity, and neither is DetectModerationLabels", mend)


def _list(installation: Installation) -> str:
    newest = next(installation.rekognition.iter_media_analysis_jobs(max_pages=1), None)
    return "permitted; " + (f"the newest job is {newest['JobId']}" if newest else "there is no job yet")


def _get(installation: Installation) -> str:
    try:
        installation.rekognition.get_media_analysis_job(uuid4().hex)
    except MediaAnalysisJobNotFoundError:
        return "permitted; a job that doesn't exist was not found"
    return "permitted"


def _start(installation: Installation) -> str:
    """Asks for the analysis of a manifest that doesn't exist, and so names no image."""
    bucket, folder = split_s3_uri(_scratch_folder(installation))
    name = uuid4().hex
    try:
        job_id = installation.rekognition.start_media_analysis_job(
            JobName=f"modlake-doctor-{name}",
            ClientRequestToken=name,
            OperationsConfig={"DetectModerationLabels": {"MinConfidence": _MIN_CONFIDENCE}},
            Input={"S3Object": {"Bucket": bucket, "Name": f"{folder}{name}.jsonl"}},
            OutputConfig={"S3Bucket": bucket, "S3KeyPrefix": f"{folder}{name}/"},
        )
    except NoJobSlotError:
        return "permitted; all jobs of the quota are running"
    return f"permitted; job {job_id} will end FAILED for free, as its manifest doesn't exist"


def _detect(installation: Installation) -> str:
    bucket, folder = split_s3_uri(_scratch_folder(installation))
    image: ImageTypeDef = {"S3Object": {"Bucket": bucket, "Name": f"{folder}{uuid4().hex}.jpg"}}
    installation.rekognition.detect_moderation_labels(image, min_confidence=_MIN_CONFIDENCE)
    return "permitted"


def _scratch_folder(installation: Installation) -> str:
    return f"{as_folder_uri(installation.variable('modlake_work_uri'))}doctor/"
