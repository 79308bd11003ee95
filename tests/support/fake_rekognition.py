"""A media analysis service in memory, as an API object or over HTTP, which does what a test tells it to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from botocore.exceptions import ClientError

from modlake.hooks.rekognition import typed_error

LOST = "reply lost after effect"
CREATED_AT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


class Refused(Exception):  # noqa: N818 - an answer, not an error of the fake
    def __init__(self, code: str, http_status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.http_status = http_status


@dataclass
class FakeRekognition:
    """
    :param script: statuses a job passes through, one a look; ``FAILED:CODE`` fails with that code
    :param scripts: scripts for the next jobs, before ``script`` serves the others
    :param faults: by operation, what the next calls meet: an error code, LOST, or None for an ordinary answer
    :param slots: jobs that may run at once
    :param adapters: by ARN, descriptions of adapters
    """

    script: tuple[str, ...] = ("CREATED", "IN_PROGRESS", "SUCCEEDED")
    scripts: list[tuple[str, ...]] = field(default_factory=list)
    faults: dict[str, list[str | None]] = field(default_factory=dict)
    slots: int | None = None
    forgets_tokens: bool = False
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    started: list[dict[str, Any]] = field(default_factory=list)
    adapters: dict[str, dict[str, Any]] = field(default_factory=dict)
    _tokens: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)
    _left: dict[str, list[str]] = field(default_factory=dict)

    def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(operation)
        faults = self.faults.get(operation, [])
        fault = faults.pop(0) if faults else None
        if fault is not None and fault != LOST:
            raise Refused(fault, 500 if fault in {"InternalServerError", "ThrottlingException"} else 400)
        answer: dict[str, Any] = getattr(self, f"_{operation}")(request)
        if fault == LOST:
            raise Refused("ServiceUnavailable", 503)
        return answer

    def _StartMediaAnalysisJob(self, request: dict[str, Any]) -> dict[str, Any]:
        token = request["ClientRequestToken"]
        if token in self._tokens and not self.forgets_tokens:
            known, job_id = self._tokens[token]
            if known != request:
                raise Refused("IdempotentParameterMismatchException")
            return {"JobId": job_id}
        if self.slots is not None and len(self._running()) >= self.slots:
            raise Refused("LimitExceededException")
        job_id = f"{len(self.jobs):032x}"
        self._tokens[token] = (request, job_id)
        self.started.append(request)
        parameters = {name: value for name, value in request.items() if name != "ClientRequestToken"}
        self.jobs[job_id] = {
            **parameters,
            "JobId": job_id,
            "Status": "CREATED",
            "CreationTimestamp": CREATED_AT,
        }
        self._left[job_id] = list(self.scripts.pop(0) if self.scripts else self.script)
        return {"JobId": job_id}

    def _GetMediaAnalysisJob(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["JobId"] not in self.jobs:
            raise Refused("ResourceNotFoundException")
        return self._looked_at(request["JobId"])

    def _ListMediaAnalysisJobs(self, request: dict[str, Any]) -> dict[str, Any]:
        newest_first = list(reversed(self.jobs))
        first = int(request.get("NextToken", 0))
        last = first + request.get("MaxResults", 100)
        page: dict[str, Any] = {
            "MediaAnalysisJobs": [self._looked_at(job_id) for job_id in newest_first[first:last]]
        }
        if last < len(newest_first):
            page["NextToken"] = str(last)
        return page

    def _DetectModerationLabels(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"ModerationLabels": [], "ModerationModelVersion": "7.0", "ContentTypes": []}

    def _DescribeProjects(self, request: dict[str, Any]) -> dict[str, Any]:
        assert request["Features"] == ["CONTENT_MODERATION"]
        names = {arn.split("/")[1] for arn in self.adapters} & set(request["ProjectNames"])
        return {"ProjectDescriptions": [{"ProjectArn": _project_arn(name)} for name in sorted(names)]}

    def _DescribeProjectVersions(self, request: dict[str, Any]) -> dict[str, Any]:
        return {
            "ProjectVersionDescriptions": [
                {"ProjectVersionArn": arn, **described}
                for arn, described in self.adapters.items()
                if _project_arn(arn.split("/")[1]) == request["ProjectArn"]
                and arn.split("/")[3] in request["VersionNames"]
            ]
        }

    def _running(self) -> list[str]:
        return [job_id for job_id, job in self.jobs.items() if job["Status"] not in {"SUCCEEDED", "FAILED"}]

    def _looked_at(self, job_id: str) -> dict[str, Any]:
        job = self.jobs[job_id]
        if self._left[job_id]:
            job["Status"], _, code = self._left[job_id].pop(0).partition(":")
            output = job["OutputConfig"]
            if job["Status"] in {"SUCCEEDED", "FAILED"}:
                job["CompletionTimestamp"] = CREATED_AT + timedelta(seconds=100)
            if job["Status"] == "FAILED":
                job["FailureDetails"] = {"Code": code, "Message": "as scripted"}
            if job["Status"] == "SUCCEEDED":
                place = {
                    "Bucket": output["S3Bucket"],
                    "Name": f"{output.get('S3KeyPrefix', '')}{job_id}/r.jsonl",
                }
                job["Results"] = {"S3Object": place, "ModelVersions": {"Moderation": "7.0"}}
                job["ManifestSummary"] = {"S3Object": {**place, "Name": place["Name"] + ".summary"}}
        return dict(job)

    # MediaAnalysisApi, without a wire
    def start_media_analysis_job(self, **request: Any) -> str:
        return str(self._typed("StartMediaAnalysisJob", request)["JobId"])

    def get_media_analysis_job(self, job_id: str) -> dict[str, Any]:
        return self._typed("GetMediaAnalysisJob", {"JobId": job_id})

    def iter_media_analysis_jobs(self, *, max_pages: int) -> Iterator[dict[str, Any]]:
        yield from self._typed("ListMediaAnalysisJobs", {"MaxResults": 100 * max_pages})["MediaAnalysisJobs"]

    def find_media_analysis_job(self, job_name: str, *, max_pages: int) -> dict[str, Any] | None:
        jobs = self._typed("ListMediaAnalysisJobs", {"MaxResults": 100 * max_pages})["MediaAnalysisJobs"]
        return next((job for job in jobs if job.get("JobName") == job_name), None)

    def _typed(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return self.call(operation, request)
        except Refused as refused:
            response: Any = {
                "Error": {"Code": refused.code, "Message": "as scripted"},
                "ResponseMetadata": {"HTTPStatusCode": refused.http_status},
            }
            raise typed_error(ClientError(response, operation), operation, "the fake") from refused


class Service(Protocol):
    """Answers the calls of an AWS service; raises Refused for an error."""

    def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]: ...


def _project_arn(name: str) -> str:
    return f"arn:aws:rekognition:us-east-1:123456789012:project/{name}/1690000000000"


@contextmanager
def served(fake: Service) -> Iterator[str]:
    """Serve a fake in AWS JSON 1.1 on a free port of 127.0.0.1; yield its endpoint URL."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            _, _, operation = self.headers["X-Amz-Target"].rpartition(".")
            try:
                with lock:
                    status, answer = 200, fake.call(operation, request)
            except Refused as refused:
                status, answer = refused.http_status, {"__type": refused.code, "Message": "as scripted"}
            body = json.dumps(answer, default=datetime.timestamp).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class FakeTime:
    """``time`` and ``asyncio`` for a module under test: sleeping takes no time, and is written down."""

    now: float = 1_000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += max(0.0, seconds)

    @property
    def asynchronous(self) -> Any:
        async def sleep(seconds: float) -> None:
            self.sleep(seconds)

        fakes = {"sleep": staticmethod(sleep), "to_thread": staticmethod(asyncio.to_thread)}
        return type("FakeAsyncio", (), fakes)


def connection_to(endpoint_url: str) -> str:
    """Return the JSON of an Airflow connection to a served fake."""
    return json.dumps(
        {
            "conn_type": "aws",
            "login": "test",
            "password": "test",
            "extra": {"region_name": "us-east-1", "endpoint_url": endpoint_url},
        }
    )
