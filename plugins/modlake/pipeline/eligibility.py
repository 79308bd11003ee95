"""Which listed objects Rekognition can judge, told from the listing alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

# AWS, "Guidelines and quotas in Amazon Rekognition": images in S3 up to 15 MB, as JPEG or PNG.
MAX_IMAGE_BYTES = 15 * 1024 * 1024

# fmt: off
_UNSUPPORTED_FORMATS = frozenset({
    ".webp", ".gif", ".heic", ".heif", ".bmp", ".tif", ".tiff", ".avif", ".jxl", ".jp2", ".svg", ".ico",
    ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".mp4", ".m4v", ".mov", ".webm", ".avi", ".mkv",
    ".wmv", ".flv", ".mpg", ".mpeg", ".3gp",
})
_NOT_IMAGES = frozenset({
    ".json", ".jsonl", ".ndjson", ".txt", ".md", ".log", ".csv", ".tsv", ".parquet", ".avro", ".orc",
    ".xml", ".html", ".htm", ".css", ".js", ".yaml", ".yml", ".pdf", ".doc", ".docx", ".xls", ".xlsx",
    ".ppt", ".pptx", ".zip", ".gz", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z", ".rar", ".mp3",
    ".wav", ".ogg", ".flac",
})
# fmt: on
# Keys that nothing speaks against: what most uploads are called. RE2's syntax.
_CLEAN = r"[^\x00-\x1f\x{7f}-\x{9f}/_.]"
_SURELY_ELIGIBLE_KEY = rf"^([^\x00-\x1f\x{{7f}}-\x{{9f}}]*/)?{_CLEAN}(_|{_CLEAN})*(\.(?i:jpe?g|png))?$"
# A newline would break the manifest's line; other control characters have no place in a listing either.
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class IneligibleCode(StrEnum):
    """Why an object is not sent to Rekognition; stored as error_code of the image."""

    FOLDER_MARKER = "FOLDER_MARKER"
    UNSUPPORTED_KEY = "UNSUPPORTED_KEY"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    UNSUPPORTED_FORMAT = "UNSUPPORTED_FORMAT"
    EMPTY_OBJECT = "EMPTY_OBJECT"
    TOO_LARGE = "TOO_LARGE"


@dataclass(frozen=True, slots=True)
class Ineligibility:
    """A code and a sentence for people."""

    code: IneligibleCode
    message: str


def find_ineligibilities(objects: pa.Table) -> tuple[pa.Array[Any], pa.Array[Any]]:
    """Return code and message for each row's key and size_bytes, null where the object is eligible."""
    import pyarrow as pa
    import pyarrow.compute as pc

    nothing = pa.nulls(objects.num_rows, pa.string())
    if not objects.num_rows:  # kernels of pyarrow 25 crash on columns without a chunk
        return nothing, nothing
    is_sure: Any = pc.and_(
        pc.match_substring_regex(objects["key"], _SURELY_ELIGIBLE_KEY),
        pc.and_(
            pc.greater(objects["size_bytes"], pa.scalar(0)),
            pc.less_equal(objects["size_bytes"], pa.scalar(MAX_IMAGE_BYTES)),
        ),
    )
    if pc.all(is_sure).as_py():
        return nothing, nothing
    codes: list[str | None] = [None] * objects.num_rows
    messages: list[str | None] = [None] * objects.num_rows
    unsure = pc.indices_nonzero(pc.invert(is_sure))
    rows = objects.select(["key", "size_bytes"]).take(unsure)
    columns: Any = (unsure.to_pylist(), rows["key"].to_pylist(), rows["size_bytes"].to_pylist())
    for row, key, size_bytes in zip(*columns, strict=True):
        if (found := find_ineligibility(key, size_bytes)) is not None:
            codes[row], messages[row] = found.code, found.message
    return pa.array(codes, pa.string()), pa.array(messages, pa.string())


def find_ineligibility(key: str, size_bytes: int) -> Ineligibility | None:
    """Return why an object can't be judged, or None when it is eligible.

    A key without an extension, or with one that nobody knows, is eligible: its bytes decide.
    """
    if key.endswith("/"):
        return Ineligibility(IneligibleCode.FOLDER_MARKER, "The key ends in a slash: a folder, not an image.")
    if _CONTROL_CHARACTER.search(key):
        return Ineligibility(IneligibleCode.UNSUPPORTED_KEY, "The key holds a control character.")
    return _judge_name(key) or _judge_size(size_bytes)


def _judge_name(key: str) -> Ineligibility | None:
    name = key.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    extension = f"{dot}{suffix}".lower() if stem else ""
    if name.startswith("_"):
        return Ineligibility(IneligibleCode.NOT_AN_IMAGE, f"{name} is a marker by its name.")
    if extension in _NOT_IMAGES:
        return Ineligibility(IneligibleCode.NOT_AN_IMAGE, f"{extension} is not an image format.")
    if extension in _UNSUPPORTED_FORMATS:
        return Ineligibility(
            IneligibleCode.UNSUPPORTED_FORMAT, f"Rekognition judges JPEG and PNG, not {extension}."
        )
    return None


def _judge_size(size_bytes: int) -> Ineligibility | None:
    if size_bytes == 0:
        return Ineligibility(IneligibleCode.EMPTY_OBJECT, "The object has no bytes.")
    if size_bytes > MAX_IMAGE_BYTES:
        return Ineligibility(
            IneligibleCode.TOO_LARGE, f"{size_bytes:,} bytes; Rekognition takes at most {MAX_IMAGE_BYTES:,}."
        )
    return None
