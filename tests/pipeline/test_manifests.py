from __future__ import annotations

import hashlib
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.manifests import (
    ManifestWriter,
    digest_images,
    manifest_body,
    manifest_line,
    read_manifest,
)
from modlake.pipeline.plan import ManifestLimits
from modlake.pipeline.write_behind import WriteBehind
from tests.support.memory_store import MemoryObjectStore

# What eligibility lets through: any text without control characters.
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


def write(refs: list[str], limits: ManifestLimits) -> tuple[MemoryObjectStore, ManifestWriter, list[int]]:
    store = MemoryObjectStore()
    numbers: list[int] = []
    with WriteBehind(store) as writes:
        writer = ManifestWriter(writes, lambda shard: f"s3://work/{shard}", limits)
        for first in range(0, len(refs), 7_000):
            part = pa.array(refs[first : first + 7_000], pa.string())
            numbers += writer.add(part, pa.repeat("etag", len(part)), first // 7_000).to_pylist()
        writer.close()
    return store, writer, numbers


def test_line_is_as_the_service_reads_it() -> None:
    assert manifest_line('s3://ugc/a b"é.jpg') == '{"source-ref":"s3://ugc/a b\\"é.jpg"}'


def test_lines_are_joined_without_a_trailing_newline() -> None:
    store, writer, _ = write(["s3://u/a", "s3://u/b"], ManifestLimits())
    body = b'{"source-ref":"s3://u/a"}\n{"source-ref":"s3://u/b"}'
    assert store.read("s3://work/0") == body
    (shard,) = writer.shards
    assert (shard.image_count, shard.size_bytes) == (2, len(body))
    assert shard.sha256 == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize(("images", "sizes"), [(0, []), (1, [1]), (10_000, [10_000]), (10_001, [10_000, 1])])
def test_a_manifest_holds_ten_thousand_images(images: int, sizes: list[int]) -> None:
    store, writer, numbers = write([f"s3://u/{number}" for number in range(images)], ManifestLimits())
    assert [shard.image_count for shard in writer.shards] == sizes
    assert len(store.objects) == len(sizes)
    assert numbers == [number // 10_000 for number in range(images)]
    parts = [[0, 1], [1]] if images > 10_000 else [[0, 1]] if images > 7_000 else [[0]]
    assert [shard.inventory_parts for shard in writer.shards] == parts[: len(sizes)]


def test_a_manifest_holds_fifty_megabytes() -> None:
    line = len(manifest_line("s3://u/" + "k" * 1_017))
    fitting = (50_000_000 + 1) // (line + 1)
    assert fitting * (line + 1) - 1 <= 50_000_000 < (fitting + 1) * (line + 1) - 1
    refs = [f"s3://u/{number:01017d}" for number in range(fitting + 1)]
    _, writer, _ = write(refs, ManifestLimits(images=1_000_000))
    assert [shard.image_count for shard in writer.shards] == [fitting, 1]


@given(
    keys=st.lists(KEYS, min_size=1, max_size=30), images=st.integers(1, 7), size_bytes=st.integers(400, 900)
)
def test_cuts_keep_every_key_and_both_limits(keys: list[str], images: int, size_bytes: int) -> None:
    refs = [f"s3://ugc/{key}" for key in keys]
    store, writer, numbers = write(refs, ManifestLimits(images, size_bytes))
    manifests = [read_manifest(store, shard) for shard in writer.shards]
    assert [ref for manifest in manifests for ref in manifest] == refs
    assert numbers == [shard.shard for shard in writer.shards for _ in range(shard.image_count)]
    for shard in writer.shards:
        body = store.read(shard.manifest_uri)
        lines = body.split(b"\n")
        assert len(lines) == shard.image_count <= images
        assert len(body) == shard.size_bytes <= size_bytes
        assert body == manifest_body(read_manifest(store, shard))
        assert shard.images_sha256 == digest_images((ref, "etag") for ref in read_manifest(store, shard))
        assert all(set(json.loads(line)) == {"source-ref"} for line in lines)
    # Nothing is cut early: the next line would have passed a limit.
    for shard, following in zip(writer.shards, writer.shards[1:], strict=False):
        first_of_next = store.read(following.manifest_uri).split(b"\n")[0]
        assert shard.image_count == images or shard.size_bytes + 1 + len(first_of_next) > size_bytes


def test_a_changed_manifest_is_noticed() -> None:
    store, writer, _ = write(["s3://u/a"], ManifestLimits())
    store.write("s3://work/0", b'{"source-ref":"s3://u/b"}')
    with pytest.raises(ModlakeTerminalError, match="s3://work/0"):
        read_manifest(store, writer.shards[0])
