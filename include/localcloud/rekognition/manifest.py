"""Input manifests (JSON Lines with `source-ref`) and the summary of how they went."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

# Developer guide, "Guidelines and quotas": images per job and manifest size (set quotas).
MAX_LINES = 10_000
MAX_BYTES = 50 * 1000 * 1000
_S3 = "s3://"


@dataclass(frozen=True, slots=True)
class LineError:
    """Why a line has no answer; `source_ref` is None when the line does not tell it."""

    line_number: int
    source_ref: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """A line that names an image; numbers count from 1 and include blank lines."""

    line_number: int
    source_ref: str
    bucket: str
    key: str


def parse(body: bytes) -> Iterator[ManifestLine | LineError]:
    """Every line that is not blank, as an image or as the reason why it is none.

    Tolerances are ours, AWS documents none: blank lines and a byte order mark are passed over,
    unknown keys ignored, keys taken as they are (never URL-decoded).
    """
    for number, line in enumerate(body.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield _parse_line(number, line)


def _parse_line(number: int, line: bytes) -> ManifestLine | LineError:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return LineError(number, None, "ERROR_INVALID_JSON_LINE", "The JSON Line is not valid JSON.")
    source_ref = entry.get("source-ref") if isinstance(entry, dict) else None
    if source_ref is None:
        return LineError(number, None, "ERROR_MISSING_SOURCE_REF", "The source-ref key is missing.")
    text = str(source_ref)
    bucket, _, key = text.removeprefix(_S3).partition("/")
    if not text.startswith(_S3) or not bucket or not key or not encodable(text):
        return LineError(
            number,
            text if encodable(text) else None,
            "ERROR_INVALID_SOURCE_REF_FORMAT",
            "The format of the source-ref value is invalid: it must be s3://bucket/key.",
        )
    return ManifestLine(number, text, bucket, key)


def encodable(text: str) -> bool:
    """False for lone surrogates: JSON can write them as \\ud800, UTF-8 can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def summary(total: int, invalid: int, errors: Iterable[LineError], line_number_key: str) -> dict[str, Any]:
    """The manifest summary (developer guide, "Bulk analysis output manifests").

    Its example spells the line's key `line-numer`. Invalid lines are those that name no image; whether
    AWS also counts images that could not be processed is not documented.
    """
    return {
        "version": "1.0",
        "statistics": {
            "total-json-lines": total,
            "valid-json-lines": total - invalid,
            "invalid-json-lines": invalid,
        },
        "errors": [_summary_error(error, line_number_key) for error in errors],
    }


def _summary_error(error: LineError, line_number_key: str) -> dict[str, Any]:
    entry: dict[str, Any] = {line_number_key: error.line_number}
    if error.source_ref is not None:
        entry["source-ref"] = error.source_ref
    return entry | {"code": error.code, "message": error.message}
