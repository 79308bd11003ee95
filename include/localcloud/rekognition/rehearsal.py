"""Jobs that misbehave by the plan of faults."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from starlette.responses import Response

from localcloud.faults.middleware import Scope
from localcloud.faults.plan import CallFault, JobFault, Service
from localcloud.faults.source import FaultSource
from localcloud.rekognition import protocol
from localcloud.rekognition.hooks import JobFailure, JobHook
from localcloud.rekognition.jobs import Job

Line = dict[str, Any]
_STATUS = {"InternalServerError": 500, "ServiceUnavailable": 503}
_ANSWER = "detect-moderation-labels"


class RekognitionDialect:
    """How faults refuse calls of Rekognition."""

    service: Service = "rekognition"

    def call_of(self, scope: Scope) -> tuple[str, str] | None:
        target = dict(scope["headers"]).get(b"x-amz-target", b"").decode("latin-1")
        return (target.rpartition(".")[2], "") if target else None

    def refusal(self, scope: Scope, fault: CallFault) -> Response:  # noqa: ARG002 the protocol names it
        code = fault.error or ""
        status = fault.status or _STATUS.get(code, 400)
        return protocol.error_answer(protocol.ApiError(code, fault.message, status))


class RehearsedFaults(JobHook):
    """Does to a job what the plan decided for it."""

    def __init__(self, source: FaultSource) -> None:
        self._source = source

    def on_start(self, job: Job) -> None:
        for fault in self._source.job_faults(job.job_id):
            if fault.fail is not None:
                self._record(fault, job)
                raise JobFailure(fault.fail, fault.message)
            if fault.seconds is not None or fault.stuck:
                self._record(fault, job)

    def seconds(self, job: Job) -> float:
        faults = self._source.job_faults(job.job_id)
        if any(fault.stuck for fault in faults):
            return math.inf
        return max((fault.seconds or 0.0 for fault in faults), default=0.0)

    def result_lines(self, job: Job, lines: Iterator[str]) -> Iterator[str]:
        for fault in self._source.job_faults(job.job_id):
            if fault.results is not None:
                self._record(fault, job)
                lines = iter(_DISTORTIONS[fault.results](list(lines), fault.lines))
        return lines

    def summary(self, job: Job, summary: dict[str, Any]) -> dict[str, Any] | None:
        for fault in self._source.job_faults(job.job_id):
            if fault.summary is not None:
                self._record(fault, job)
                if fault.summary == "absent":
                    return None
                summary = summary | {"errors": [_respelt(e, fault.summary) for e in summary["errors"]]}
        return summary

    def _record(self, fault: JobFault, job: Job) -> None:
        self._source.record(fault.kind, f"job {job.job_id} {job.request.get('JobName', '')}".rstrip())


def _respelt(error: dict[str, Any], spelling: str) -> dict[str, Any]:
    if spelling == "without-source-ref":
        return {name: value for name, value in error.items() if name != "source-ref"}
    number = error.get("line-numer", error.get("line-number"))
    rest = {name: value for name, value in error.items() if name not in ("line-numer", "line-number")}
    return {spelling: number} | rest


def _in_lines(change: Callable[[Line], Line | None]) -> Callable[[list[str], int], list[str]]:
    """Change the last lines that hold an answer; None drops a line."""

    def distort(lines: list[str], count: int) -> list[str]:
        kept = len(lines) - count
        changed = [json.loads(line) if number >= kept else line for number, line in enumerate(lines)]
        return [
            line if isinstance(line, str) else _written(new)
            for line in changed
            if (new := line if isinstance(line, str) else change(line)) is not None
        ]

    return distort


def _written(line: Line | str) -> str:
    return line if isinstance(line, str) else json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def _with_answer(change: Callable[[Line], Line]) -> Callable[[list[str], int], list[str]]:
    return _in_lines(lambda line: line | {_ANSWER: change(line[_ANSWER])} if _ANSWER in line else line)


def _foreign(line: Line) -> Line:
    return line | {"source-ref": "s3://somebody-elses/image.jpg"}


def _nan(answer: Line) -> Line:
    labels = answer["ModerationLabels"] or [{"Name": "Explicit", "ParentName": "", "TaxonomyLevel": 1}]
    return answer | {"ModerationLabels": [label | {"Confidence": math.nan} for label in labels]}


def _unknown_label(answer: Line) -> Line:
    label = {"Confidence": 99.0, "Name": "Rehearsed Label", "ParentName": "Nowhere", "TaxonomyLevel": 4}
    return answer | {"ModerationLabels": [*answer["ModerationLabels"], label]}


def _contradicting(lines: list[str], count: int) -> list[str]:
    return [*lines, *_with_answer(_unknown_label)(lines, count)[-count:]]


def _truncated(lines: list[str], _: int) -> list[str]:
    return [*lines[:-1], *(line[: len(line) // 2] for line in lines[-1:])]


_DISTORTIONS: dict[str, Callable[[list[str], int], list[str]]] = {
    "missing": lambda lines, count: lines[: max(0, len(lines) - count)],
    "doubled": lambda lines, count: [*lines, *lines[-count:]],
    "contradicting": _contradicting,
    "truncated": _truncated,
    "foreign": lambda lines, count: [*lines, *_in_lines(_foreign)(lines, count)[-count:]],
    "unanswered": _in_lines(lambda line: {name: value for name, value in line.items() if name != _ANSWER}),
    "unknown-keys": _in_lines(lambda line: line | {"rehearsed": {"key": [1]}}),
    "unknown-labels": _with_answer(_unknown_label),
    "nan": _with_answer(_nan),
    "crlf": lambda lines, _: [f"{line}\r" for line in lines],
    "bom": lambda lines, _: [f"\ufeff{line}" if number == 0 else line for number, line in enumerate(lines)],
    "other-model": _with_answer(lambda answer: answer | {"ModerationModelVersion": "8.0-rehearsed"}),
    "adapter-expired": _with_answer(
        lambda answer: {name: value for name, value in answer.items() if name != "ProjectVersion"}
    ),
}
