"""Results and manifest summary in the shape of a bulk job (AWS, "Bulk analysis output manifests")."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ImageFailure:
    """Why an image has no judgement; ``is_final`` when asking again can't help."""

    source_ref: str
    code: str
    message: str
    is_final: bool


def result_line(source_ref: str, answer: Mapping[str, Any]) -> bytes:
    """Return an image's line of a results file: DetectModerationLabels' answer as it was given."""
    answered = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
    return compact_json({"source-ref": source_ref, "detect-moderation-labels": answered})


def manifest_summary(image_count: int, failures: Mapping[int, ImageFailure]) -> bytes:
    """Return a manifest summary; ``failures`` by line of the manifest, counted from 1.

    Every line of a manifest of ours names an image, so none counts as invalid, as in the local cloud;
    whether AWS counts images that could not be judged is undocumented.
    """
    statistics = {"total-json-lines": image_count, "valid-json-lines": image_count, "invalid-json-lines": 0}
    errors = [
        {
            "line-numer": line,  # AWS's spelling
            "source-ref": failure.source_ref,
            "code": failure.code,
            "message": failure.message,
        }
        for line, failure in sorted(failures.items())
    ]
    return compact_json({"version": "1.0", "statistics": statistics, "errors": errors})


def join_lines(lines: Iterable[bytes]) -> bytes:
    """Return the body of a JSON Lines file."""
    return b"".join(line + b"\n" for line in lines)


def compact_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
