"""A lake on disk with an image of each fate, for the commands that read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog

from modlake.lake.catalog import ensure_tables
from modlake.lake.schemas import (
    DECISIONS_TABLE,
    IMAGES_TABLE,
    JOBS_TABLE,
    LABELS_TABLE,
    RUNS_TABLE,
    LakeTable,
)

DAY = date(2026, 11, 21)
PREFIX = "s3://modlake-ugc/uploads/2026-11-21/"
NIGHT = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)


def make_lake(home: Path) -> Catalog:
    home.mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog("modlake", uri=f"sqlite:///{home}/catalog.db", warehouse=f"file://{home}/warehouse")
    ensure_tables(catalog)
    return catalog


@contextmanager
def configured(catalog: Catalog) -> Iterator[None]:
    """Make it the one that the commands open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYICEBERG_CATALOG__MODLAKE__TYPE", "sql")
        # pyiceberg has read the environment when it was imported, long before this test.
        patch.setattr("modlake.lake.catalog.open_catalog", lambda: catalog)
        yield


def append(catalog: Catalog, table: LakeTable, rows: list[dict[str, Any]]) -> None:
    """Add rows, in which what isn't given is null."""
    catalog.load_table(table.identifier).append(pa.Table.from_pylist(rows, table.row_schema))


def image(source_ref: str, outcome: str, **values: Any) -> dict[str, Any]:
    bucket, _, key = source_ref.removeprefix("s3://").partition("/")
    return {
        "day": DAY,
        "source_ref": source_ref,
        "bucket": bucket,
        "key": key,
        "size_bytes": 1_234_567,
        "etag": "398533d48111e9f664b1f64cb10c4b63",
        "last_modified": datetime(2026, 11, 21, 12, 30, tzinfo=UTC),
        "outcome": outcome,
        "run_id": "run-1",
        **values,
    }


JUDGED: dict[str, Any] = {
    "model_version": "7.0",
    "min_confidence": 50.0,
    "engine": "bulk",
    "job_id": "job-1",
    "judged_at": NIGHT,
    "label_count": 2,
    "top_label": "Weapons",
    "top_confidence": 98.4,
    "illustrated_confidence": 71.2,
}


def decision(source_ref: str, verdict: str, **values: Any) -> dict[str, Any]:
    return {
        "day": DAY,
        "source_ref": source_ref,
        "verdict": verdict,
        "policy": "default",
        "policy_version": "0123456789ab",
        "rule": None,
        "reasons": [],
        "mode": "live",
        "decided_at": datetime(2026, 11, 22, 2, 0, tzinfo=UTC),
        "run_id": "run-1",
        **values,
    }


def fill(catalog: Catalog) -> None:
    """Publish a day with an image of each outcome, and decisions on it."""
    append(
        catalog,
        IMAGES_TABLE,
        [
            image(f"{PREFIX}judged %.jpg", "judged", **JUDGED),
            image(f"{PREFIX}clean.jpg", "judged", **JUDGED | {"label_count": 0, "top_label": None}),
            image(f"{PREFIX}reused.jpg", "reused", reused_from="2026-11-20", **JUDGED | {"job_id": None}),
            image(f"{PREFIX}wave.gif", "ineligible", error_code="FORMAT", error_message="GIF is not judged"),
            image(f"{PREFIX}lost.jpg", "failed", error_code="INTERNAL_ERROR", error_message="No answer came"),
        ],
    )
    label = {"day": DAY, "source_ref": f"{PREFIX}judged %.jpg", "model_version": "7.0", "run_id": "run-1"}
    append(
        catalog,
        LABELS_TABLE,
        [
            label | {"label": "Violence", "taxonomy_level": 1, "l1": "Violence", "confidence": 98.4},
            label
            | {
                "label": "Weapons",
                "parent_label": "Violence",
                "taxonomy_level": 2,
                "l1": "Violence",
                "l2": "Weapons",
                "confidence": 98.4,
            },
        ],
    )
    job = {
        "day": DAY,
        "run_id": "run-1",
        "shard": 0,
        "job_id": "job-1",
        "job_name": "modlake-1",
        "engine": "bulk",
        "status": "SUCCEEDED",
        "image_count": 3,
        "judged_count": 2,
        "failed_count": 1,
        "started_at": NIGHT,
        "completed_at": NIGHT,
        "estimated_cost_usd": 0.002,
    }
    append(catalog, JOBS_TABLE, [job])
    counts = {"listed": 5, "judged": 2, "reused": 1, "ineligible": 1, "failed": 1, "labels": 2}
    run = {"day": DAY, "run_id": "run-1", "model_versions": ["7.0"], "published_at": NIGHT} | counts
    append(catalog, RUNS_TABLE, [run | {"content_digest": "d"}])
    reasons = [{"label": "Weapons", "confidence": 98.4}, {"label": "Violence", "confidence": None}]
    append(
        catalog,
        DECISIONS_TABLE,
        [
            decision(f"{PREFIX}judged %.jpg", "block", rule="weapons", reasons=reasons),
            decision(f"{PREFIX}judged %.jpg", "review", rule="all", mode="shadow", policy="next"),
            decision(f"{PREFIX}clean.jpg", "allow"),
            decision(f"{PREFIX}lost.jpg", "review"),
        ],
    )
