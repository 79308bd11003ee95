"""Listing the objects of a day, from allowed places only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.object_store import ListedObject, ObjectStore
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri

_SECONDS_BETWEEN_REPORTS = 10.0


def check_source_allowed(source_uri: str, allowed_uris: list[str]) -> None:
    """Raise ModlakeTerminalError unless the source is one of the allowed prefixes, or lies below one.

    The job reads S3 with our rights: a source from outside would copy foreign images into the service.
    """
    if not any(as_folder_uri(source_uri).startswith(as_folder_uri(allowed)) for allowed in allowed_uris):
        raise ModlakeTerminalError(
            f"{source_uri} lies outside the allowed sources {allowed_uris}. "
            "Correct modlake_ugc_uri, or add the prefix to modlake_allowed_ugc_uris."
        )


def list_source(store: ObjectStore, source_uri: str, report: Callable[[str], None]) -> Iterator[ListedObject]:
    """Yield the objects below ``source_uri`` in listing order, telling the pace every few seconds."""
    started = reported = time.monotonic()
    listed = 0
    for page in store.list_objects(*split_s3_uri(as_folder_uri(source_uri))):
        yield from page
        listed += len(page)
        now = time.monotonic()
        if now - reported >= _SECONDS_BETWEEN_REPORTS:
            report(f"{listed:,} objects listed, {listed / (now - started):,.0f} images/s")
            reported = now
