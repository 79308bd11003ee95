"""Reads the output of `airflow dags test` as it comes: which task runs, what it says, why it fails."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

ERROR_LINES = 25

_TASK = re.compile(r"\[DAG TEST\] starting task_id=(?P<task>\S+) map_index=(?P<index>-?\d+)")
# The pipeline's own messages, not what Airflow says about itself.
_MESSAGE = re.compile(r"\[info +\] (?P<message>.+?) +\[[\w.]*\bmodlake\b[\w.]*\]")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT")


class DagTestLog:
    """Tells `report` what is going on, and `complain` why a task failed; Airflow may try it again."""

    def __init__(self, report: Callable[[str], None], complain: Callable[[str], None]) -> None:
        self._report = report
        self._complain = complain
        self._task = ""
        self._traceback: list[str] | None = None
        self._recent: deque[str] = deque(maxlen=ERROR_LINES)
        self._failure = ""

    def feed(self, line: str) -> None:
        self._recent.append(line)
        if self._traceback is not None:
            if not _TIMESTAMP.match(line):
                self._traceback.append(line)
                return
            self._end_traceback()
        if started := _TASK.search(line):
            index = int(started["index"])
            # Within a task group the id is `group.task`.
            self._task = started["task"].rpartition(".")[2] + (f"[{index}]" if index >= 0 else "")
            self._report(self._task)
        elif message := _MESSAGE.search(line):
            self._report(f"{self._task}: {message['message']}" if self._task else message["message"])
        elif "Task failed with exception" in line:
            self._traceback = []

    def last_lines(self) -> str:
        """The end of the last failure's traceback, or of everything when no task has failed."""
        if self._traceback is not None:
            self._end_traceback()
        return self._failure or "".join(self._recent).rstrip()

    def _end_traceback(self) -> None:
        lines = "".join(self._traceback or []).rstrip().splitlines()
        self._traceback = None
        self._failure = "\n".join([f"{self._task}:", *lines[-ERROR_LINES:]])
        self._complain(f"{self._task} failed: {lines[-1] if lines else 'no reason given'}")
