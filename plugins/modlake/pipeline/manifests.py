"""Manifests: the JSON Lines files that tell a media analysis job which images to judge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.plan import ManifestLimits, Shard


def manifest_line(source_ref: str) -> str:
    """Return an image's line as StartMediaAnalysisJob reads it, without a newline."""
    return json.dumps({"source-ref": source_ref}, ensure_ascii=False, separators=(",", ":"))


def read_manifest(store: ObjectStore, shard: Shard) -> list[str]:
    """Return the source_refs of a shard's manifest, in its order.

    Raises ModlakeTerminalError when the file is not the one that was planned.
    """
    body = store.read(shard.manifest_uri)
    if hashlib.sha256(body).hexdigest() != shard.sha256:
        raise ModlakeTerminalError(
            f"{shard.manifest_uri} was changed after it was planned: its SHA-256 is not {shard.sha256}. "
            "Clear the plan task of that day to cut new manifests."
        )
    return manifest_images(body)


def manifest_body(source_refs: Iterable[str]) -> bytes:
    """Return the manifest that asks for these images."""
    return "\n".join(map(manifest_line, source_refs)).encode()


def manifest_images(body: bytes) -> list[str]:
    """Return the source_refs of a manifest of ours, in its order."""
    return [json.loads(line)["source-ref"] for line in body.split(b"\n")]


def digest_images(images: Iterable[tuple[str, str]]) -> str:
    """Digest source_refs and ETags, in their order."""
    sha256 = hashlib.sha256()
    for image in images:
        sha256.update(json.dumps(image).encode() + b"\n")
    return sha256.hexdigest()


class ManifestWriter:
    """Cuts a stream of images into manifests and writes each as it fills; holds one in memory."""

    def __init__(
        self, store: ObjectStore, manifest_uri: Callable[[int], str], limits: ManifestLimits
    ) -> None:
        self._store = store
        self._manifest_uri = manifest_uri
        self._limits = limits
        self._lines: list[bytes] = []
        self._images: list[tuple[str, str]] = []
        self._size_bytes = 0
        self._inventory_parts: set[int] = set()
        self.shards: list[Shard] = []

    def add(self, source_ref: str, etag: str, inventory_part: int) -> int:
        """Append an image that ``inventory_part`` records; return the number of its shard."""
        line = manifest_line(source_ref).encode()
        newline = 1 if self._lines else 0
        is_full = len(self._lines) >= self._limits.images
        if is_full or self._size_bytes + newline + len(line) > self._limits.size_bytes:
            self.close()
            newline = 0
        self._lines.append(line)
        self._images.append((source_ref, etag))
        self._size_bytes += newline + len(line)
        self._inventory_parts.add(inventory_part)
        return len(self.shards)

    def close(self) -> None:
        """Write the manifest begun, if there is one."""
        if not self._lines:
            return
        number = len(self.shards)
        body = b"\n".join(self._lines)
        uri = self._manifest_uri(number)
        self._store.write(uri, body)
        self.shards.append(
            Shard(
                shard=number,
                manifest_uri=uri,
                image_count=len(self._lines),
                size_bytes=len(body),
                sha256=hashlib.sha256(body).hexdigest(),
                images_sha256=digest_images(self._images),
                inventory_parts=sorted(self._inventory_parts),
            )
        )
        self._lines, self._images, self._size_bytes, self._inventory_parts = [], [], 0, set()
