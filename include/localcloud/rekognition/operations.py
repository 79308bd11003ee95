"""The operations the stand-in offers, from a validated request to an answer."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from localcloud.rekognition import manifest
from localcloud.rekognition.adapters import AdapterNotReadyError, Adapters, UnknownAdapterError
from localcloud.rekognition.analysis import analyse
from localcloud.rekognition.images import MAX_OBJECT_BYTES, ImageError
from localcloud.rekognition.jobs import Job, TokenReusedError, TooManyJobsError
from localcloud.rekognition.judges import MODEL_VERSION
from localcloud.rekognition.objects import ObjectError, ObjectTooLargeError, StorageUnavailableError
from localcloud.rekognition.protocol import ApiError
from localcloud.rekognition.runner import Dependencies, JobRunner

_UNREADABLE = "Unable to get object metadata from S3. Check object key, region and/or access permissions."
_DEFAULT_PAGE = 100
Answer = dict[str, Any]


class Operations:
    """Each method takes a request as `validation.validated` returns it, and the caller's access key."""

    def __init__(self, dependencies: Dependencies, runner: JobRunner) -> None:
        self._with = dependencies
        self._runner = runner
        self._offered: dict[str, Callable[[Answer, str], Answer]] = {
            "StartMediaAnalysisJob": self.start_media_analysis_job,
            "GetMediaAnalysisJob": self.get_media_analysis_job,
            "ListMediaAnalysisJobs": self.list_media_analysis_jobs,
            "DetectModerationLabels": self.detect_moderation_labels,
            "DescribeProjects": self.describe_projects,
            "DescribeProjectVersions": self.describe_project_versions,
        }

    def named(self, operation: str) -> Callable[[Answer, str], Answer]:
        """The operation, or ApiError for one of Rekognition's that is not offered here."""
        try:
            return self._offered[operation]
        except KeyError:
            raise ApiError(
                "AccessDeniedException",
                f"rekognition:{operation} is not offered by the local cloud, only "
                f"{', '.join(self._offered)}: call an AWS account for it",
            ) from None

    def start_media_analysis_job(self, request: Answer, access_key: str) -> Answer:
        parameters = {name: value for name, value in request.items() if name != "ClientRequestToken"}
        token = request.get("ClientRequestToken")
        limit = self._with.behaviour.concurrent_jobs
        try:
            memory = self._with.tokens()
            job = self._with.store.replayed(token, parameters, memory)
            if job is None:
                self._require_startable(parameters, access_key)
                self._with.store.require_slot(limit)
                job = self._with.store.create(parameters, token, access_key, limit, memory)
                self._runner.submit(job.job_id)
        except TokenReusedError:
            raise ApiError(
                "IdempotentParameterMismatchException",
                "A ClientRequestToken input parameter was reused with an operation, but at least one of the "
                "other input parameters is different from the previous call to the operation.",
            ) from None
        except TooManyJobsError:
            raise ApiError(
                "LimitExceededException", f"More than {limit} concurrent media analysis jobs"
            ) from None
        return {"JobId": job.job_id}

    def get_media_analysis_job(self, request: Answer, _access_key: str) -> Answer:
        job = self._with.store.get(request["JobId"])
        if job is None:
            raise ApiError("ResourceNotFoundException", f"Could not find job {request['JobId']}")
        return _description(job)

    def list_media_analysis_jobs(self, request: Answer, _access_key: str) -> Answer:
        before = _page_start(request.get("NextToken"))
        size = request.get("MaxResults", _DEFAULT_PAGE)
        jobs = self._with.store.page(before, size + 1)
        answer: Answer = {"MediaAnalysisJobs": [_description(job) for job in jobs[:size]]}
        if len(jobs) > size:
            answer["NextToken"] = _next_token(jobs[size - 1].number)
        return answer

    def detect_moderation_labels(self, request: Answer, access_key: str) -> Answer:
        if "HumanLoopConfig" in request:
            raise ApiError(
                "ResourceNotFoundException", "The local cloud has no human review workflows (A2I)."
            )
        adapter = _effective(self._with.adapters, request.get("ProjectVersion"))
        data = self._image_bytes(request["Image"], access_key)
        try:
            answer = analyse(data, self._with.judges, request, adapter)
        except ImageError as error:
            raise ApiError(error.api_code, error.message) from error
        self._with.store.bill_call(_source_ref(request["Image"]), hashlib.sha256(data).hexdigest())
        return answer

    def describe_projects(self, request: Answer, _access_key: str) -> Answer:
        """Projects that have an adapter; AWS pages them, here they fit one page."""
        names = request.get("ProjectNames")
        return {
            "ProjectDescriptions": [
                {
                    "ProjectArn": project.arn,
                    "CreationTimestamp": 0.0,
                    "Status": "CREATED",
                    "Feature": "CONTENT_MODERATION",
                    "AutoUpdate": "ENABLED",
                }
                for project in self._with.adapters.projects()
                if names is None or project.name in names
            ]
        }

    def describe_project_versions(self, request: Answer, _access_key: str) -> Answer:
        """The adapters of a project; AWS pages them, here they fit one page."""
        arn, names = request["ProjectArn"], request.get("VersionNames")
        project = next((each for each in self._with.adapters.projects() if each.arn == arn), None)
        if project is None:
            raise ApiError("ResourceNotFoundException", f"The project {arn} does not exist.")
        return {
            "ProjectVersionDescriptions": [
                {
                    "ProjectVersionArn": version.arn,
                    "CreationTimestamp": 0.0,
                    "Status": version.status,
                    "Feature": "CONTENT_MODERATION",
                    "BaseModelVersion": MODEL_VERSION,
                }
                for version in project.versions
                if names is None or version.name in names
            ]
        }

    def _image_bytes(self, image: Answer, access_key: str) -> bytes:
        if ("Bytes" in image) == ("S3Object" in image):
            raise ApiError(
                "InvalidParameterException", "Request has invalid parameters: give Bytes or S3Object"
            )
        if "Bytes" in image:
            data: bytes = image["Bytes"]
            return data
        bucket, name, version = _location(image["S3Object"])
        try:
            return self._with.objects.of(access_key).read(bucket, name, version, limit_bytes=MAX_OBJECT_BYTES)
        except ObjectTooLargeError as error:
            raise ApiError("ImageTooLargeException", f"Image size is too large: {error}") from error
        except StorageUnavailableError as error:
            raise ApiError("InternalServerError", f"S3 does not answer: {error}", 500) from error
        except ObjectError as error:
            raise ApiError("InvalidS3ObjectException", _UNREADABLE) from error

    def _require_startable(self, parameters: Answer, access_key: str) -> None:
        """What the service can see before it starts: the adapter, and the manifest's presence and size."""
        config = parameters["OperationsConfig"].get("DetectModerationLabels")
        if config is None:
            raise ApiError(
                "InvalidParameterException", "Request has invalid parameters: OperationsConfig is empty"
            )
        _effective(self._with.adapters, config.get("ProjectVersion"))
        bucket, name, version = _location(parameters["Input"]["S3Object"])
        try:
            size = self._with.objects.of(access_key).size(bucket, name, version)
        except StorageUnavailableError as error:
            raise ApiError("InternalServerError", f"S3 does not answer: {error}", 500) from error
        except ObjectError as error:
            raise ApiError("InvalidS3ObjectException", _UNREADABLE) from error
        if not 0 < size <= manifest.MAX_BYTES:
            raise ApiError(
                "InvalidManifestException",
                f"The manifest has {size} bytes: it must not be empty, and at most {manifest.MAX_BYTES}.",
            )


def _effective(adapters: Adapters, arn: str | None) -> str | None:
    try:
        return adapters.effective(arn)
    except UnknownAdapterError as error:
        raise ApiError("ResourceNotFoundException", str(error)) from error
    except AdapterNotReadyError as error:
        raise ApiError("ResourceNotReadyException", str(error)) from error


def _location(s3_object: Answer) -> tuple[str, str, str | None]:
    if "Bucket" not in s3_object or "Name" not in s3_object:
        raise ApiError(
            "InvalidParameterException", "Request has invalid parameters: S3Object needs Bucket and Name"
        )
    return s3_object["Bucket"], s3_object["Name"], s3_object.get("Version")


def _description(job: Job) -> Answer:
    """A job as Get and List show it."""
    optional = {
        "JobName": job.request.get("JobName"),
        "KmsKeyId": job.request.get("KmsKeyId"),
        "CompletionTimestamp": job.completed_at,
    }
    description: Answer = {
        "JobId": job.job_id,
        "OperationsConfig": job.request["OperationsConfig"],
        "Status": job.status,
        "CreationTimestamp": job.created_at,
        "Input": job.request["Input"],
        "OutputConfig": job.request["OutputConfig"],
        **{name: value for name, value in optional.items() if value is not None},
    }
    bucket = job.request["OutputConfig"]["S3Bucket"]
    if job.failure_code is not None:
        description["FailureDetails"] = {"Code": job.failure_code, "Message": job.failure_message}
    if job.results_key is not None:
        description["Results"] = {
            "S3Object": {"Bucket": bucket, "Name": job.results_key},
            "ModelVersions": {"Moderation": MODEL_VERSION},
        }
    if job.summary_key is not None:
        description["ManifestSummary"] = {"S3Object": {"Bucket": bucket, "Name": job.summary_key}}
    return description


def _source_ref(image: Answer) -> str | None:
    s3_object = image.get("S3Object")
    return f"s3://{s3_object['Bucket']}/{s3_object['Name']}" if s3_object else None


def _next_token(number: int) -> str:
    text = f"{number}:{_checksum(number)}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def _page_start(token: str | None) -> int | None:
    if token is None:
        return None
    try:
        number, _, checksum = base64.urlsafe_b64decode(token).decode().partition(":")
        if checksum == _checksum(int(number)):
            return int(number)
    except ValueError:
        pass
    raise ApiError("InvalidPaginationTokenException", "The pagination token is invalid or has expired.")


def _checksum(number: int) -> str:
    return hashlib.sha256(f"media-analysis-jobs:{number}".encode()).hexdigest()[:16]
