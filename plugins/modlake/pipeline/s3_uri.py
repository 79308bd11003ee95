"""S3 URIs by plain string splitting: URL parsers would mangle keys that hold ``%``, ``#`` or ``?``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modlake.exceptions import ModlakeTerminalError

_SCHEME = "s3://"


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``; the key may be empty.

    Raises ModlakeTerminalError when the text is not an S3 URI.
    """
    bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
    if not uri.startswith(_SCHEME) or not bucket:
        raise ModlakeTerminalError(f"{uri!r} is not an S3 URI. Write it as s3://bucket/key.")
    return bucket, key


def as_folder_uri(uri: str) -> str:
    """Return the URI with exactly the one trailing slash that lets names be appended."""
    split_s3_uri(uri)
    return uri if uri.endswith("/") else f"{uri}/"


def s3_object_uri(place: Mapping[str, Any] | None) -> str | None:
    """Return the URI of the ``S3Object`` in a member of Rekognition's answers, None where it has none."""
    s3_object = (place or {}).get("S3Object")
    return f"s3://{s3_object['Bucket']}/{s3_object['Name']}" if s3_object else None
