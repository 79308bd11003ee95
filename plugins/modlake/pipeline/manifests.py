"""Manifests: the JSON Lines files that tell a media analysis job which images to judge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.columns import Column
from modlake.pipeline.digests import TableDigest
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.plan import ManifestLimits, Shard
from modlake.pipeline.write_behind import WriteBehind


def manifest_line(source_ref: str) -> str:
    """Return an image's line as StartMediaAnalysisJob reads it, without a newline."""
    return json.dumps({"source-ref": source_ref}, ensure_ascii=False, separators=(",", ":"))


def read_manifest(store: ObjectStore, shard: Shard) -> list[str]:
    """Return the source_refs of a shard's manifest, in its order.

    Raises ModlakeTerminalError when the file is not the one that was planned.
    """
    return manifest_images(read_manifest_body(store, shard))


def read_manifest_body(store: ObjectStore, shard: Shard) -> bytes:
    """Return a shard's manifest, if it is the one that was planned; raise ModlakeTerminalError otherwise."""
    body = store.read(shard.manifest_uri)
    if hashlib.sha256(body).hexdigest() != shard.sha256:
        raise ModlakeTerminalError(
            f"{shard.manifest_uri} was changed after it was planned: its SHA-256 is not {shard.sha256}. "
            "Clear the plan task of that day to cut new manifests."
        )
    return body


def manifest_body(source_refs: Iterable[str]) -> bytes:
    """Return the manifest that asks for these images."""
    return "\n".join(map(manifest_line, source_refs)).encode()


def manifest_body_of(source_refs: Column) -> bytes:
    """Return the manifest that asks for a column of images, whose keys hold no control characters."""
    return _joined(_concatenated(_manifest_lines(source_refs)))


def manifest_images(body: bytes) -> list[str]:
    """Return the source_refs of a manifest of ours, in its order."""
    return [json.loads(line)["source-ref"] for line in body.split(b"\n")]


def digest_images(images: Iterable[tuple[str, str]]) -> str:
    """Digest source_refs and ETags, in their order."""
    source_refs, etags = zip(*images, strict=True)
    return _digest_images(pa.array(source_refs, pa.string()), pa.array(etags, pa.string()))


def _digest_images(source_refs: Column, etags: Column) -> str:
    digest = TableDigest()
    digest.update(pa.table({"source_ref": source_refs, "etag": etags}))
    return digest.hexdigest()


def _manifest_lines(source_refs: Column) -> Column:
    """Return what :func:`manifest_line` does, of texts without control characters."""
    escaped = source_refs
    for character in ("\\", '"'):
        if _may_hold(escaped, character):
            escaped = pc.replace_substring(escaped, character, f"\\{character}")
    return pc.binary_join_element_wise(pa.scalar('{"source-ref":"'), escaped, pa.scalar('"}'), pa.scalar(""))


def _may_hold(texts: Column, character: str) -> bool:
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    return any(character.encode() in bytes(chunk.buffers()[2] or b"") for chunk in chunks)


@dataclass(frozen=True, slots=True)
class _Images:
    lines: Column
    source_refs: Column
    etags: Column

    def slice(self, first: int, length: int | None = None) -> _Images:
        return _Images(
            self.lines.slice(first, length),
            self.source_refs.slice(first, length),
            self.etags.slice(first, length),
        )


class ManifestWriter:
    """Cuts a stream of images into manifests and writes each as it fills; holds one in memory."""

    def __init__(
        self, writer: WriteBehind, manifest_uri: Callable[[int], str], limits: ManifestLimits
    ) -> None:
        self._writer = writer
        self._manifest_uri = manifest_uri
        self._limits = limits
        self._held: list[_Images] = []
        self._held_count = 0
        # Every line with a newline, of which the last one is not written.
        self._held_bytes = 0
        self._inventory_parts: set[int] = set()
        self.shards: list[Shard] = []

    def add(self, source_refs: Column, etags: Column, inventory_part: int) -> pa.Array[Any]:
        """Append images that ``inventory_part`` records; return the numbers of their shards.

        Their keys hold no control characters.
        """
        numbers: list[pa.Array[Any]] = [pa.array([], pa.int64())]
        rest = _Images(_manifest_lines(source_refs), source_refs, etags)
        sizes: Column = pc.add(pc.cast(pc.binary_length(rest.lines), pa.int64()), pa.scalar(1))
        ends: Column = pc.cumulative_sum(sizes)
        done, done_bytes = 0, 0
        while done < len(source_refs):
            room = self._limits.size_bytes + 1 - self._held_bytes + done_bytes
            is_fitting: Column = pc.less_equal(ends, pa.scalar(room))
            fitting = (pc.sum(is_fitting).as_py() or 0) - done
            count = min(fitting, self._limits.images - self._held_count)
            if count <= 0 and self._held:
                self.close()
                continue
            count = max(count, 1)
            self._held.append(rest.slice(done, count))
            self._held_count += count
            done += count
            end_bytes = ends[done - 1].as_py()
            self._held_bytes += end_bytes - done_bytes
            done_bytes = end_bytes
            self._inventory_parts.add(inventory_part)
            numbers.append(pa.repeat(pa.scalar(len(self.shards), pa.int64()), count))
        return pa.concat_arrays(numbers)

    def close(self) -> None:
        """Write the manifest begun, if there is one."""
        if not self._held:
            return
        number = len(self.shards)
        body = _joined(_concatenated(*(images.lines for images in self._held)))
        uri = self._manifest_uri(number)
        self._writer.write(uri, lambda: body)
        self.shards.append(
            Shard(
                shard=number,
                manifest_uri=uri,
                image_count=self._held_count,
                size_bytes=len(body),
                sha256=hashlib.sha256(body).hexdigest(),
                images_sha256=_digest_images(
                    _concatenated(*(images.source_refs for images in self._held)),
                    _concatenated(*(images.etags for images in self._held)),
                ),
                inventory_parts=sorted(self._inventory_parts),
            )
        )
        self._held, self._held_count, self._held_bytes, self._inventory_parts = [], 0, 0, set()


def _concatenated(*columns: Column) -> pa.Array[Any]:
    chunks = [chunk for column in columns for chunk in getattr(column, "chunks", [column])]
    return pa.chunked_array(chunks, pa.string()).combine_chunks()


def _joined(lines: pa.Array[Any]) -> bytes:
    whole = pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines)
    body: Column = pc.binary_join(whole, "\n")
    return bytes(body[0].as_buffer())
