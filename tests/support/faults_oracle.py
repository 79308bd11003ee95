"""What must be true whatever broke: the tables by the uploads, the bill, and the jobs."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NoSuchTableError

from cli.lake_environment import PREFIX, lake_environment
from localcloud.rekognition.jobs import JobStore
from localcloud.settings import CloudSettings
from tests.support.faults import CORRUPT, LABELS_OF, MIN_CONFIDENCE, UGC

# What two runs of equal days may differ in.
OF_THE_RUN = ("day", "run_id", "job_id", "judged_at", "last_modified")


@dataclass(frozen=True)
class Expected:
    """An image's outcome, and its labels with their confidences."""

    outcome: str
    labels: frozenset[tuple[str, float]] = frozenset()

    @property
    def is_judged(self) -> bool:
        """Whether it has its labels, from this run's job or an earlier one."""
        return self.outcome in ("judged", "reused")


def expected(day: date, contents: Mapping[str, bytes]) -> dict[str, Expected]:
    """Return by source_ref what the uploads of a day must come to, by the answer book and nothing else."""
    return {f"s3://{UGC}/uploads/{day}/{name}": _expected(name, body) for name, body in contents.items()}


def _expected(name: str, body: bytes) -> Expected:
    if not body or name.endswith((".gif", ".json")):
        return Expected("ineligible")
    if body == CORRUPT:
        return Expected("failed")
    return Expected("judged", frozenset(each for each in LABELS_OF[body] if each[1] >= MIN_CONFIDENCE))


class Lake:
    """The tables as a reader finds them, without faults on the way."""

    def __init__(self, calm: CloudSettings) -> None:
        self._properties = {
            name.removeprefix(PREFIX).lower().replace("__", ".").replace("_", "-"): value
            for name, value in lake_environment(calm, {}).items()
        }

    def catalog(self) -> Catalog:
        return load_catalog("modlake", **self._properties)

    def rows(self, table: str, day: date, snapshot_id: int | None = None) -> list[dict[str, Any]]:
        try:
            loaded = self.catalog().load_table(f"moderation.{table}")
        except NoSuchTableError:
            return []
        scan = loaded.scan(row_filter=f"day == '{day}'", snapshot_id=snapshot_id)
        return list(scan.to_arrow().to_pylist())

    def outcomes(self, day: date) -> dict[str, Expected]:
        """Return by source_ref what the tables hold."""
        labels: dict[str, set[tuple[str, float]]] = {}
        for row in self.rows("labels", day):
            labels.setdefault(row["source_ref"], set()).add((row["label"], row["confidence"]))
        images = self.rows("images", day)
        assert len({row["source_ref"] for row in images}) == len(images), "an image has two rows"
        return {
            row["source_ref"]: Expected(row["outcome"], frozenset(labels.get(row["source_ref"], ())))
            for row in images
        }

    def content(self, day: date) -> dict[str, list[str]]:
        """Return the rows of all tables without what tells one run from another."""
        found = {}
        for table in ("images", "labels", "jobs", "runs"):
            rows = self.rows(table, day)
            found[table] = sorted(_without_run(table, row, day) for row in rows)
        return found


def _without_run(table: str, row: dict[str, Any], day: date) -> str:
    dropped: tuple[str, ...] = OF_THE_RUN
    if table == "jobs":
        kept = ("shard", "engine", "status", "image_count", "judged_count", "failed_count", "model_version")
        return json.dumps({name: row[name] for name in kept})
    if table == "runs":
        dropped = (*dropped, "published_at", "content_digest", *(name for name in row if "snapshot" in name))
    text = json.dumps({name: value for name, value in row.items() if name not in dropped}, default=str)
    return text.replace(day.isoformat(), "DAY")


@dataclass(frozen=True)
class Bill:
    """The stand-in's own account of what was paid for."""

    images: list[tuple[str, str, str, str]]
    """(analysis, source_ref, sha256, job id); an analysis is a manifest with its parameters."""

    @classmethod
    def read(cls, settings: CloudSettings) -> Bill:
        store = JobStore(settings.cloud_dir / "rekognition.sqlite")
        try:
            billed = store.billed()
        finally:
            store.close()
        return cls(
            [
                (
                    _analysis((image.request or {}).get("JobName", "")),
                    image.source_ref or "",
                    image.sha256 or "",
                    image.job_id or "",
                )
                for image in billed
            ]
        )

    def of_day(self, day: date) -> Counter[str]:
        """Return how often each image of a day was paid for."""
        return Counter(ref for _, ref, _, _ in self.images if f"/uploads/{day}/" in ref)

    def duplicates(self) -> list[tuple[str, str]]:
        """Return the (analysis, image) that were paid for more than once."""
        counts = Counter((analysis, ref) for analysis, ref, _, _ in self.images)
        return sorted(pair for pair, count in counts.items() if count > 1)


def _analysis(job_name: str) -> str:
    """Return the fingerprint that a job's name carries."""
    return job_name.rsplit("-g", 1)[0].rsplit("-", 1)[-1]


def jobs_alive_together(settings: CloudSettings) -> list[tuple[str, str]]:
    """Return pairs of jobs of one analysis that were alive at the same time."""
    path = settings.cloud_dir / "rekognition.sqlite"
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT job_id, request, created_at, completed_at FROM jobs ORDER BY number")
        by_analysis: dict[str, list[tuple[str, float, float]]] = {}
        for job_id, request, created, completed in rows:
            name = _analysis(json.loads(request).get("JobName", ""))
            by_analysis.setdefault(name, []).append((job_id, created, completed or float("inf")))
    return [
        (earlier[0], later[0])
        for jobs in by_analysis.values()
        for number, earlier in enumerate(jobs)
        for later in jobs[number + 1 :]
        if later[1] < earlier[2]
    ]


def digest(rows: list[dict[str, Any]]) -> str:
    return hashlib.sha256("\n".join(sorted(map(repr, rows))).encode()).hexdigest()
