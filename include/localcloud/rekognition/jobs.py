"""Media analysis jobs on disk: what was asked, how far it got, and what is billed."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.faults.plan import TOKENS_KEPT, TokenMemory
from localcloud.rekognition.manifest import LineError, ManifestLine

UNFINISHED = ("CREATED", "QUEUED", "IN_PROGRESS")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    token TEXT UNIQUE,
    request TEXT NOT NULL,
    access_key TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    started_at REAL,
    completed_at REAL,
    failure_code TEXT,
    failure_message TEXT,
    results_key TEXT,
    summary_key TEXT
);
-- What is already known of a job in progress: a restart goes on from here.
CREATE TABLE IF NOT EXISTS progress (
    job_id TEXT NOT NULL,
    line_number INTEGER NOT NULL,
    source_ref TEXT NOT NULL,
    answer TEXT,
    error_code TEXT,
    error_message TEXT,
    PRIMARY KEY (job_id, line_number)
) WITHOUT ROWID;
-- Every image that is paid for: the successfully processed ones. Job and line are null for a call of
-- DetectModerationLabels, source_ref for one that sent the image's bytes.
CREATE TABLE IF NOT EXISTS bill (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT,
    line_number INTEGER,
    source_ref TEXT,
    sha256 TEXT,
    billed_at REAL NOT NULL,
    UNIQUE (job_id, line_number)
);
"""


class TokenReusedError(Exception):
    """The ClientRequestToken came with other parameters before."""


class TooManyJobsError(Exception):
    """The account already has as many unfinished jobs as it may."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job; times are epoch seconds, `request` is the StartMediaAnalysisJob request without its token."""

    number: int
    job_id: str
    request: dict[str, Any]
    access_key: str
    status: str
    created_at: float
    started_at: float | None
    completed_at: float | None
    failure_code: str | None
    failure_message: str | None
    results_key: str | None
    summary_key: str | None


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """What became of one manifest line: an answer, or an error; `sha256` is that of the image judged."""

    line: ManifestLine
    answer: dict[str, Any] | None = None
    error: LineError | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class BilledImage:
    """One image paid for; `request` is that of its job, None for a call of DetectModerationLabels."""

    source_ref: str | None
    sha256: str | None
    job_id: str | None
    request: dict[str, Any] | None


class JobStore:
    """Jobs in SQLite; every method is one transaction and may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._lock = threading.RLock()
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def replayed(
        self, token: str | None, request: dict[str, Any], memory: TokenMemory = TOKENS_KEPT
    ) -> Job | None:
        """The job this token started; raises TokenReusedError if its parameters were others."""
        if token is None:
            return None
        row = self._one("SELECT * FROM jobs WHERE token = ?", token)
        if row is None or _is_forgotten(row, memory):
            return None
        job = _job(row)
        if job.request != request:
            raise TokenReusedError
        return job

    def create(
        self,
        request: dict[str, Any],
        token: str | None,
        access_key: str,
        limit: int,
        memory: TokenMemory = TOKENS_KEPT,
    ) -> Job:
        """A new job in state CREATED, or the one this token already started.

        Raises TokenReusedError, TooManyJobsError.
        """
        with self._transaction():
            job = self.replayed(token, request, memory)
            if job is None:
                self.require_slot(limit)
                self._connection.execute("UPDATE jobs SET token = NULL WHERE token = ?", (token,))
                self._connection.execute(
                    "INSERT INTO jobs (job_id, token, request, access_key, status, created_at) "
                    "VALUES (?, ?, ?, ?, 'CREATED', ?)",
                    (secrets.token_hex(32), token, json.dumps(request), access_key, time.time()),
                )
                row = self._one("SELECT * FROM jobs WHERE number = last_insert_rowid()")
                assert row is not None
                job = _job(row)
            return job

    def require_slot(self, limit: int) -> None:
        """Raise TooManyJobsError when `limit` jobs are unfinished."""
        row = self._one("SELECT count(*) FROM jobs WHERE status IN (?, ?, ?)", *UNFINISHED)
        assert row is not None
        if row[0] >= limit:
            raise TooManyJobsError

    def get(self, job_id: str) -> Job | None:
        row = self._one("SELECT * FROM jobs WHERE job_id = ?", job_id)
        return _job(row) if row else None

    def page(self, before: int | None, size: int) -> list[Job]:
        """Jobs newest first, those with a number below `before`."""
        rows = self._all(
            "SELECT * FROM jobs WHERE number < ? ORDER BY number DESC LIMIT ?", before or 2**62, size
        )
        return [_job(row) for row in rows]

    def unfinished(self) -> list[Job]:
        """Unfinished jobs, oldest first."""
        rows = self._all("SELECT * FROM jobs WHERE status IN (?, ?, ?) ORDER BY number", *UNFINISHED)
        return [_job(row) for row in rows]

    def queue(self, job_id: str) -> None:
        """CREATED becomes QUEUED; a job taken up again after a restart keeps its status."""
        self._update(job_id, "status = CASE status WHEN 'CREATED' THEN 'QUEUED' ELSE status END")

    def begin(self, job_id: str) -> None:
        """IN_PROGRESS; a job that is taken up again keeps the time it first started."""
        self._update(job_id, "status = 'IN_PROGRESS', started_at = coalesce(started_at, ?)", time.time())

    def known_lines(self, job_id: str) -> set[int]:
        """The lines whose outcome is already known."""
        return {row[0] for row in self._all("SELECT line_number FROM progress WHERE job_id = ?", job_id)}

    def record(self, job_id: str, outcomes: Iterable[ImageOutcome]) -> None:
        """Keep outcomes and bill the answered images, in one transaction."""
        now = time.time()
        with self._transaction():
            for outcome in outcomes:
                line, error = outcome.line, outcome.error
                answer = None if outcome.answer is None else json.dumps(outcome.answer, ensure_ascii=False)
                self._connection.execute(
                    "INSERT OR IGNORE INTO progress VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        job_id,
                        line.line_number,
                        line.source_ref,
                        answer,
                        error.code if error else None,
                        error.message if error else None,
                    ),
                )
                if answer is not None:
                    self._connection.execute(
                        "INSERT OR IGNORE INTO bill (job_id, line_number, source_ref, sha256, billed_at) "
                        "VALUES (?, ?, ?, ?, ?)",
                        (job_id, line.line_number, line.source_ref, outcome.sha256, now),
                    )

    def bill_call(self, source_ref: str | None, sha256: str) -> None:
        """Bill an image that DetectModerationLabels has answered for."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO bill (source_ref, sha256, billed_at) VALUES (?, ?, ?)",
                (source_ref, sha256, time.time()),
            )

    def billed(self) -> list[BilledImage]:
        """The whole bill, in its order."""
        rows = self._all(
            "SELECT bill.source_ref, bill.sha256, bill.job_id, jobs.request FROM bill "
            "LEFT JOIN jobs USING (job_id) ORDER BY bill.number"
        )
        return [
            BilledImage(ref, sha256, job_id, None if request is None else json.loads(request))
            for ref, sha256, job_id, request in rows
        ]

    def outcomes(self, job_id: str) -> Iterator[tuple[int, str, dict[str, Any] | None, LineError | None]]:
        """(line number, source-ref, answer, error) of every known line, in the manifest's order."""
        after = 0
        while rows := self._all(
            "SELECT * FROM progress WHERE job_id = ? AND line_number > ? ORDER BY line_number LIMIT 500",
            job_id,
            after,
        ):
            for row in rows:
                number, source_ref = row["line_number"], row["source_ref"]
                if row["answer"] is not None:
                    yield number, source_ref, json.loads(row["answer"]), None
                else:
                    error = LineError(number, source_ref, row["error_code"], row["error_message"])
                    yield number, source_ref, None, error
            after = rows[-1]["line_number"]

    def succeed(self, job_id: str, results_key: str, summary_key: str | None) -> None:
        with self._transaction():
            self._update(
                job_id,
                "status = 'SUCCEEDED', completed_at = ?, results_key = ?, summary_key = ?",
                time.time(),
                results_key,
                summary_key,
            )
            self._connection.execute("DELETE FROM progress WHERE job_id = ?", (job_id,))

    def fail(self, job_id: str, code: str, message: str) -> None:
        with self._transaction():
            self._update(
                job_id,
                "status = 'FAILED', completed_at = ?, failure_code = ?, failure_message = ?",
                time.time(),
                code,
                message,
            )
            self._connection.execute("DELETE FROM progress WHERE job_id = ?", (job_id,))

    def _update(self, job_id: str, assignments: str, *values: Any) -> None:
        with self._lock:
            self._connection.execute(f"UPDATE jobs SET {assignments} WHERE job_id = ?", (*values, job_id))  # noqa: S608 our own column names

    def _one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        rows = self._all(sql, *values)
        return rows[0] if rows else None

    def _all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _is_forgotten(row: sqlite3.Row, memory: TokenMemory) -> bool:
    if memory.lifetime_seconds is not None and time.time() - row["created_at"] > memory.lifetime_seconds:
        return True
    return memory.after_failed == "new" and row["status"] == "FAILED"


def _job(row: sqlite3.Row) -> Job:
    fields = {name: row[name] for name in row.keys() if name not in ("token", "request")}  # noqa: SIM118 a Row iterates over values
    return Job(request=json.loads(row["request"]), **fields)
