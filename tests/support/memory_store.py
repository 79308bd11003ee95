"""An object store for tests: S3 as a dict."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from modlake.exceptions import ModlakeTransientError
from modlake.pipeline.object_store import ListedObject, ObjectExistsError, ObjectNotFoundError
from modlake.pipeline.s3_uri import split_s3_uri

LAST_MODIFIED = datetime(2026, 11, 21, 12, 30, 15, tzinfo=UTC)


@dataclass
class MemoryObjectStore:
    """
    The ObjectStore protocol in memory.

    :param page_size: how many objects a page of a listing holds
    :param refused: ends of URIs, for each of which the next write finds S3 busy
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    page_size: int = 1_000
    refused: list[str] = field(default_factory=list)

    def list_objects(self, bucket: str, prefix: str) -> Iterator[list[ListedObject]]:
        beginning = f"s3://{bucket}/{prefix}"
        uris = sorted((uri for uri in self.objects if uri.startswith(beginning)), key=str.encode)
        for first in range(0, len(uris), self.page_size):
            yield [self._entry(uri) for uri in uris[first : first + self.page_size]]

    def read(self, uri: str) -> bytes:
        try:
            return self.objects[uri]
        except KeyError:
            raise ObjectNotFoundError(f"{uri} does not exist. Check the URI.") from None

    def write(self, uri: str, body: bytes, *, if_absent: bool = False) -> None:
        split_s3_uri(uri)
        for end in filter(uri.endswith, self.refused):
            self.refused.remove(end)
            raise ModlakeTransientError(f"S3 can't write {uri} now (SlowDown). Try again later.")
        if if_absent and uri in self.objects:
            raise ObjectExistsError(f"{uri} exists. Read it instead.")
        self.objects[uri] = bytes(body)

    def exists(self, uri: str) -> bool:
        return uri in self.objects

    def _entry(self, uri: str) -> ListedObject:
        bucket, key = split_s3_uri(uri)
        body = self.objects[uri]
        return ListedObject(
            bucket, key, len(body), hashlib.md5(body, usedforsecurity=False).hexdigest(), LAST_MODIFIED
        )
