"""An object store in a directory, for benches of what is not about S3, and a made-up day in it."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.object_store import ListedObject, ListedPage, ObjectExistsError, ObjectNotFoundError
from modlake.pipeline.plan import Plan
from modlake.pipeline.s3_uri import split_s3_uri
from tests.bench.results_files import results_body, source_refs
from tests.support.days import finish_job
from tests.support.memory_store import LAST_MODIFIED

IMAGES_PER_SHARD = 10_000


@dataclass
class DirectoryStore:
    """Objects as files below ``root``."""

    root: Path

    def path(self, uri: str) -> Path:
        return self.root.joinpath(*split_s3_uri(uri))

    def list_objects(self, bucket: str, prefix: str) -> Iterator[list[ListedObject]]:
        home = self.root / bucket
        files = (file for file in (home / prefix).parent.rglob("*") if file.is_file())
        keys = (file.relative_to(home).as_posix() for file in files)
        yield [
            ListedObject(bucket, key, (home / key).stat().st_size, "", LAST_MODIFIED)
            for key in sorted(keys)
            if key.startswith(prefix)
        ]

    def read(self, uri: str) -> bytes:
        try:
            return self.path(uri).read_bytes()
        except FileNotFoundError:
            raise ObjectNotFoundError(f"There is no object {uri}: write it first.") from None

    def write(self, uri: str, body: bytes, *, if_absent: bool = False) -> None:
        path = self.path(uri)
        if if_absent and path.exists():
            raise ObjectExistsError(f"{uri} exists already: read it instead.")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Readers see an object whole or not at all.
        begun = path.with_name(f"{path.name}.{threading.get_ident()}")
        begun.write_bytes(body)
        begun.replace(path)

    def exists(self, uri: str) -> bool:
        return self.path(uri).exists()


@dataclass
class MadeUpDay(DirectoryStore):
    """Also lists a day of that many images, and holds the results of its jobs, without storing either.

    ``results`` are files that hold them, if there are any.
    """

    images: int = 0
    images_per_shard: int = IMAGES_PER_SHARD
    results: list[str] = field(default_factory=list)
    _known: dict[int, pa.Array[pa.StringScalar]] = field(default_factory=dict)

    def make_up_names(self) -> None:
        """Make all names now, and keep them, so that it does not count later."""
        for shard in range(-(-self.images // self.images_per_shard)):
            self._known[shard] = self._refs(shard)

    def finish_jobs(self, plan: Plan) -> None:
        for shard in plan.shards:
            finish_job(self, plan, shard.shard, b"")

    def read(self, uri: str) -> bytes:
        if uri.startswith("s3://work/out/") and uri.endswith("/r"):
            shard = int(uri.split("/")[-2])
            return Path(self.results[shard]).read_bytes() if self.results else results_body(self._refs(shard))
        return super().read(uri)

    def list_page(
        self, bucket: str, prefix: str, *, after: str = "", continuation: str = "", limit: int = 1_000
    ) -> ListedPage:
        shards = -(-self.images // self.images_per_shard)
        folders = [f"uploads/2026-11-21/{shard:05d}/" for shard in range(shards)]
        first = max(0, bisect_right(folders, max(after, prefix)) - 1)
        for shard in range(first, shards):
            refs = self._refs(shard)
            names = _names(shard, len(refs))
            row = bisect_right(names, f"s3://{bucket}/{after}") if after else 0
            row = max(row, bisect_right(names, f"s3://{bucket}/{prefix}"))
            if row < len(names):
                has_prefix = names[row].startswith(f"s3://{bucket}/{prefix}")
                page = refs.slice(row, limit) if has_prefix else refs.slice(0, 0)
                is_last = not has_prefix or (shard == shards - 1 and row + limit >= len(names))
                fitting = pc.sum(pc.starts_with(page, f"s3://{bucket}/{prefix}")).as_py() or 0
                return _page(page.slice(0, fitting), bucket, is_last=is_last or fitting < len(page))
        return _page(pa.array([], pa.string()), bucket, is_last=True)

    def _refs(self, shard: int) -> pa.Array[pa.StringScalar]:
        if shard in self._known:
            return self._known[shard]
        return _refs(shard, min(self.images_per_shard, self.images - shard * self.images_per_shard))


_refs = lru_cache(maxsize=16)(source_refs)


@lru_cache(maxsize=16)
def _names(shard: int, images: int) -> list[str]:
    return list(map(str, _refs(shard, images).to_pylist()))


def _page(refs: pa.Array[pa.StringScalar], bucket: str, *, is_last: bool) -> ListedPage:
    objects = {
        "key": pc.utf8_slice_codeunits(refs, len(f"s3://{bucket}/")),
        "size_bytes": pa.repeat(pa.scalar(250_000, pa.int64()), len(refs)),
        "etag": pc.utf8_slice_codeunits(refs, -36, -4),
        "last_modified": pa.repeat(pa.scalar(LAST_MODIFIED, pa.timestamp("us", tz="UTC")), len(refs)),
    }
    return ListedPage(pa.table(objects), is_last=is_last)
