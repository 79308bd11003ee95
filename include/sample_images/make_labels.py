"""Writes labels.json from answers.csv: `PYTHONPATH=plugins:include python -m sample_images.make_labels`."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, TypedDict

FOLDER = Path(__file__).parent
CONTENT_TYPES = ("Animated", "Illustrated")
MODEL_VERSION = "7.0-localcloud"


class TaxonomyNode(TypedDict):
    name: str
    parent: str
    level: int


def answer_book() -> dict[str, Any]:
    """labels.json as answers.csv says: {"model_version", "answers": {SHA-256 of a file: its answer}}."""
    labels_by_file: dict[str, dict[str, float]] = {}
    with (FOLDER / "answers.csv").open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            labels = labels_by_file.setdefault(row["file"], {})
            if row["label"]:
                labels[row["label"]] = float(row["confidence"])
    taxonomy = _taxonomy()
    return {
        "model_version": MODEL_VERSION,
        "answers": {
            hashlib.sha256((FOLDER / file).read_bytes()).hexdigest(): {
                "file": file,
                "ModerationLabels": _moderation_labels(labels, taxonomy),
                "ContentTypes": [
                    {"Name": name, "Confidence": labels[name]} for name in CONTENT_TYPES if name in labels
                ],
            }
            for file, labels in labels_by_file.items()
        },
    }


def _moderation_labels(
    labels: dict[str, float], taxonomy: dict[str, TaxonomyNode]
) -> list[dict[str, str | int | float]]:
    """The labels with their ancestors; an ancestor is as certain as the most certain label below it."""
    confidences: dict[str, float] = {}
    for label, confidence in labels.items():
        if label not in CONTENT_TYPES:
            for name in _path(label, taxonomy):
                confidences[name] = max(confidence, confidences.get(name, 0.0))
    ordered = sorted(confidences, key=lambda name: (-confidences[name], taxonomy[name]["level"]))
    return [
        {
            "Name": name,
            "ParentName": taxonomy[name]["parent"],
            "TaxonomyLevel": taxonomy[name]["level"],
            "Confidence": confidences[name],
        }
        for name in ordered
    ]


def _path(label: str, taxonomy: dict[str, TaxonomyNode]) -> Iterable[str]:
    while label:
        yield label
        label = taxonomy[label]["parent"]


def _taxonomy() -> dict[str, TaxonomyNode]:
    text = resources.files("modlake.data").joinpath("moderation_taxonomy_v7.json").read_text(encoding="utf-8")
    nodes: list[TaxonomyNode] = json.loads(text)
    return {node["name"]: node for node in nodes}


if __name__ == "__main__":
    (FOLDER / "labels.json").write_text(
        json.dumps(answer_book(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
