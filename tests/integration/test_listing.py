"""Blocks of keys listed side by side from SeaweedFS, whose order is not S3's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.pipeline.listing import list_source
from modlake.pipeline.object_store import ListedPage
from tests.bench.bench_cloud import found_by_every_library
from tests.support.cloud import running_cloud
from tests.support.memory_store import MemoryObjectStore

pytestmark = pytest.mark.integration

PIECES = [
    "a",
    "b",
    "/",
    "-",
    ".",
    "0",
    "9",
    " ",
    "+",
    "%",
    "&",
    "'",
    '"',
    "é",
    "日",
    "😀",
    "A",
    "_",
    "~",
    "\n",
]


@pytest.fixture(scope="module")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3ObjectStoreHook]:
    home: Path = tmp_path_factory.mktemp("cloud")
    with running_cloud(home) as settings, found_by_every_library(settings):
        yield S3ObjectStoreHook(aws_conn_id=None)


@dataclass
class ShortPages(MemoryObjectStore):
    """The hook in pages of five keys."""

    hook: S3ObjectStoreHook | None = None

    def list_page(
        self, bucket: str, prefix: str, *, after: str = "", continuation: str = "", limit: int = 5
    ) -> ListedPage:
        assert self.hook is not None
        return self.hook.list_page(bucket, prefix, after=after, continuation=continuation, limit=limit)


def names(dice: random.Random) -> set[str]:
    """Return names that begin alike, are folders of each other, and stand where orders differ."""
    made = {"".join(dice.choices(PIECES, k=dice.randint(1, 7))).strip("/") for _ in range(400)}
    made |= {f"{name}/{number}.jpg" for name in sorted(made)[::5] for number in range(3)}
    parts = [name.split("/") for name in made]
    return {"/".join(part) for part in parts if all(part) and not {".", ".."} & set(part)}


def test_blocks_hold_every_key_once_in_the_order_of_one_listing(hook: S3ObjectStoreHook) -> None:
    dice = random.Random(3)
    for number in range(2):
        for name in names(dice):
            hook.write(f"s3://modlake-ugc/{number}/{name}", b"x")
    for number in range(2):
        one_by_one = [each.key for page in hook.list_objects("modlake-ugc", f"{number}/") for each in page]
        stretches = list(list_source(ShortPages(hook=hook), f"s3://modlake-ugc/{number}/", print))
        ordered = sorted(stretches, key=lambda stretch: stretch.position)
        assert [key for each in ordered for key in each.objects["key"].to_pylist()] == one_by_one
        assert len(one_by_one) > 100
        assert len({stretch.position[:3] for stretch in stretches}) > 5
