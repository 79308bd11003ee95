"""Which listed objects Rekognition can judge, told from the listing alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from modlake.pipeline.object_store import ListedObject

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


def find_ineligibility(listed: ListedObject) -> Ineligibility | None:
    """Return why the object can't be judged, or None when it is eligible.

    A key without an extension, or with one that nobody knows, is eligible: its bytes decide.
    """
    if listed.key.endswith("/"):
        return Ineligibility(IneligibleCode.FOLDER_MARKER, "The key ends in a slash: a folder, not an image.")
    if _CONTROL_CHARACTER.search(listed.key):
        return Ineligibility(IneligibleCode.UNSUPPORTED_KEY, "The key holds a control character.")
    return _judge_name(listed.key) or _judge_size(listed.size_bytes)


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
