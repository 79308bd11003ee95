"""Published days made by hand: rows of images and labels, without a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog

from modlake.lake.days import replace_with_rows
from modlake.lake.schemas import IMAGES_TABLE, LABELS_TABLE, RUNS_TABLE
from modlake.pipeline.taxonomy import known_labels
from modlake.policy.policy import Brake, HasLabel, Policy, Rule, Status, Verdict

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
BLOCKED, REVIEWED = "Explicit", "Weapons"


def publish_labels(
    catalog: Catalog,
    day: date,
    labels: Mapping[str, Mapping[str, float | None]],
    *,
    run_id: str = "run-1",
    bucket: str = "ugc",
    images: Mapping[str, Mapping[str, Any]] | None = None,
    published_at: datetime = NOON,
) -> None:
    """Let a day consist of images with these labels by confidence; ``images`` changes columns of some."""
    image_rows = [
        _image(day, bucket, key, run_id) | {"label_count": len(found)} | dict((images or {}).get(key, {}))
        for key, found in labels.items()
    ]
    label_rows = [
        _label(day, ref(key, bucket), name, confidence, run_id)
        for key, found in labels.items()
        for name, confidence in found.items()
    ]
    run = {
        "day": day,
        "run_id": run_id,
        "listed": len(image_rows),
        "judged": len(image_rows),
        "reused": 0,
        "ineligible": 0,
        "failed": 0,
        "labels": len(label_rows),
        "model_versions": ["7.0"],
        "published_at": published_at,
        "content_digest": run_id,
    }
    for table, rows in ((IMAGES_TABLE, image_rows), (LABELS_TABLE, label_rows), (RUNS_TABLE, [run])):
        in_order = pa.Table.from_pylist(rows, table.row_schema)
        replace_with_rows(catalog.load_table(table.identifier), day, in_order, {})


def ref(key: str, bucket: str = "ugc") -> str:
    return f"s3://{bucket}/{key}"


def _image(day: date, bucket: str, key: str, run_id: str) -> dict[str, Any]:
    return {
        "day": day,
        "source_ref": ref(key, bucket),
        "bucket": bucket,
        "key": key,
        "size_bytes": 1,
        "etag": f"etag-{key}",
        "last_modified": NOON,
        "outcome": "judged",
        "model_version": "7.0",
        "min_confidence": 50.0,
        "engine": "bulk",
        "run_id": run_id,
    }


def _label(day: date, source_ref: str, name: str, confidence: float | None, run_id: str) -> dict[str, Any]:
    path = known_labels()[name].path
    return {
        "day": day,
        "source_ref": source_ref,
        "label": name,
        "taxonomy_level": len(path),
        **dict(zip(("l1", "l2", "l3"), path, strict=False)),
        "confidence": confidence,
        "run_id": run_id,
    }


def policy(
    name: str = "house",
    *,
    status: Status = "live",
    block_at: float | None = 80.0,
    review_at: float | None = 80.0,
    brake: Brake | None = None,
    actions: Mapping[str, tuple[str, ...]] | None = None,
) -> Policy:
    """A policy that blocks ``Explicit`` by the rule nudity, and has ``Weapons`` reviewed by the rule arms."""
    rules = [Rule("nudity", Verdict.BLOCK, HasLabel(frozenset({BLOCKED}), block_at), "Nudity | sex")]
    if review_at is not None:
        rules.append(Rule("arms", Verdict.REVIEW, HasLabel(frozenset({REVIEWED}), review_at)))
    return Policy(
        name=name,
        status=status,
        match="most_severe",
        rules=tuple(rules),
        actions={"block": ("tag", "quarantine"), "review": ("tag", "review_queue")}
        if actions is None
        else actions,
        brake=brake,
    )


TARGETS = {
    "tag": {"key": "moderation"},
    "quarantine": {"uri": "s3://quarantine/"},
    "review_queue": {"uri": "s3://work/review/"},
    "notify_sns": {"topic_arn": "arn:aws:sns:us-east-1:111122223333:moderation"},
}
