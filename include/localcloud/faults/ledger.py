"""What the plan of misbehaviour has seen and done so far, on disk: a killed server counts on."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FILE_NAME = "faults.sqlite"

_SCHEMA = """
-- Per plan and rule: events seen, and those of them that were hit.
CREATE TABLE IF NOT EXISTS rules (
    plan TEXT NOT NULL,
    rule TEXT NOT NULL,
    seen INTEGER NOT NULL,
    hits INTEGER NOT NULL,
    PRIMARY KEY (plan, rule)
) WITHOUT ROWID;
-- The rules that befall a job, decided when it first starts.
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY,
    plan TEXT NOT NULL,
    rules TEXT NOT NULL
) WITHOUT ROWID;
-- Everything that went wrong on purpose.
CREATE TABLE IF NOT EXISTS faults (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL
);
"""


class FaultLedger:
    """Shared by the servers of a cloud, and by those who watch; every method is one transaction."""

    def __init__(self, cloud_dir: Path) -> None:
        cloud_dir.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            cloud_dir / FILE_NAME, check_same_thread=False, isolation_level=None, timeout=30
        )
        self._lock = threading.Lock()
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")  # counts, not treasure
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def take(self, plan: str, rule: str, is_due: Callable[[int, int], bool]) -> bool:
        """Count an event that a rule sees; `is_due` gets its number and the hits before it."""
        with self._transaction() as database:
            row = database.execute(
                "SELECT seen, hits FROM rules WHERE plan = ? AND rule = ?", (plan, rule)
            ).fetchone()
            seen, hits = row or (0, 0)
            due = is_due(seen + 1, hits)
            database.execute(
                "INSERT OR REPLACE INTO rules VALUES (?, ?, ?, ?)", (plan, rule, seen + 1, hits + due)
            )
            return due

    def decided(self, job_id: str) -> tuple[str, list[int]] | None:
        """The plan and the numbers of its rules that befall a job; None before that is decided."""
        with self._transaction() as database:
            row = database.execute("SELECT plan, rules FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
            return None if row is None else (row[0], json.loads(row[1]))

    def decide(self, job_id: str, plan: str, rules: list[int]) -> None:
        with self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO jobs VALUES (?, ?, ?)", (job_id, plan, json.dumps(rules)))

    def record(self, kind: str, subject: str) -> None:
        """Note that something went wrong on purpose."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO faults (at, kind, subject) VALUES (?, ?, ?)", (time.time(), kind, subject[:500])
            )

    def recorded(self, after: int = 0) -> list[tuple[int, str, str]]:
        """(number, kind, subject) of what went wrong, in its order, those above a number."""
        with self._transaction() as database:
            return database.execute(
                "SELECT number, kind, subject FROM faults WHERE number > ? ORDER BY number", (after,)
            ).fetchall()

    def counts(self) -> dict[str, int]:
        """How often what went wrong."""
        with self._transaction() as database:
            return dict(database.execute("SELECT kind, count(*) FROM faults GROUP BY kind ORDER BY kind"))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
