"""Tables of images and labels, in the lake's columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from modlake.pipeline import landed_schemas
from modlake.pipeline.taxonomy import known_labels
from modlake.policy.evaluation import IMAGE_COLUMNS, LABEL_COLUMNS

ADAPTER = "arn:aws:rekognition:us-east-1:111122223333:project/m/version/v/1"

_IMAGES = pa.schema([landed_schemas.IMAGES.field(name) for name in IMAGE_COLUMNS])
_LABELS = pa.schema([landed_schemas.LABELS.field(name) for name in LABEL_COLUMNS])


def image_table(images: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Judged by the base model 7.0 with a min_confidence of 50, unless an image says otherwise."""
    usual = {"outcome": "judged", "model_version": "7.0", "min_confidence": 50.0}
    rows = [{name: (usual | dict(image)).get(name) for name in IMAGE_COLUMNS} for image in images]
    return pa.Table.from_pylist(rows, _IMAGES)


def label_table(labels: Iterable[tuple[str, str, float | None]]) -> pa.Table:
    """Rows of (source_ref, label, confidence), with the path that the taxonomy tells."""
    rows = []
    for source_ref, label, confidence in labels:
        path = known_labels()[label].path
        levels = dict(zip(("l1", "l2", "l3"), path + (None,) * (3 - len(path)), strict=True))
        told = {"source_ref": source_ref, "label": label, "confidence": confidence}
        rows.append(told | levels | {"taxonomy_level": len(path)})
    return pa.Table.from_pylist(rows, _LABELS)
