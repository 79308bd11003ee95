"""Where something may come between the runner and a job (rehearsing faults, watching)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from localcloud.rekognition.jobs import Job


class JobFailure(Exception):  # noqa: N818 the API's word: FailureDetails
    """Ends a job as FAILED with these FailureDetails."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class JobHook:
    """Does nothing; override what is needed. Raising JobFailure fails the job."""

    def on_start(self, job: Job) -> None:
        """Before the manifest is read."""

    def seconds(self, job: Job) -> float:  # noqa: ARG002 for those that override it
        """How long the job takes at least; asked again and again while it lasts."""
        return 0.0

    def result_lines(self, job: Job, lines: Iterator[str]) -> Iterator[str]:  # noqa: ARG002 for those that override it
        """The lines that results.jsonl will hold, in order, without line ends."""
        return lines

    def summary(self, job: Job, summary: dict[str, Any]) -> dict[str, Any] | None:  # noqa: ARG002 for those that override it
        """What manifest-summary.json will hold; None leaves it out."""
        return summary
