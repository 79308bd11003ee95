from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.pipeline import listing
from modlake.pipeline.listing import Stretch, check_source_allowed, list_source
from modlake.pipeline.object_store import ListedPage
from tests.support.memory_store import LAST_MODIFIED, MemoryObjectStore

PAGE = 3


def by_utf8(key: str) -> bytes:
    """S3's order."""
    return key.encode()


def by_folder(key: str) -> bytes:
    """SeaweedFS's order."""
    return key.replace("/", "\0").encode()


@dataclass
class PagedStore(MemoryObjectStore):
    """Lists from any key on, in pages of three."""

    keys: tuple[str, ...] = ()
    order: Callable[[str], bytes] = by_utf8
    requests: int = 0
    probes: int = 0

    def list_page(
        self, bucket: str, prefix: str, *, after: str = "", continuation: str = "", limit: int = PAGE
    ) -> ListedPage:
        self.requests += limit == PAGE
        self.probes += limit == 1
        found = sorted((key for key in self.keys if key.startswith(prefix)), key=self.order)
        found = [key for key in found if self.order(key) > self.order(after)]
        page = found[:limit]
        objects = {
            "key": pa.array(page, pa.string()),
            "size_bytes": pa.repeat(pa.scalar(1, pa.int64()), len(page)),
            "etag": pa.repeat("e", len(page)),
            "last_modified": pa.repeat(pa.scalar(LAST_MODIFIED, pa.timestamp("us", "UTC")), len(page)),
        }
        return ListedPage(pa.table(objects), is_last=len(found) <= limit)


def keys(stretches: Iterable[Stretch]) -> list[str]:
    """Return the listed keys in the order that positions tell."""
    ordered = sorted(stretches, key=lambda stretch: stretch.position)
    return [key for stretch in ordered for key in stretch.objects["key"].to_pylist()]


@pytest.mark.parametrize(
    "allowed", ["s3://ugc/uploads/", "s3://ugc/uploads", "s3://ugc/", "s3://ugc", "s3://ugc/uploads/d"]
)
def test_sources_at_or_below_an_allowed_prefix_pass(allowed: str) -> None:
    check_source_allowed("s3://ugc/uploads/d/", ["s3://other/", allowed])


@pytest.mark.parametrize(
    "source", ["s3://ugc/uploads-secret/d/", "s3://ugc2/uploads/d/", "s3://ugc/", "s3://ugc/upload"]
)
def test_sources_outside_are_refused(source: str) -> None:
    with pytest.raises(ModlakeTerminalError, match="modlake_allowed_ugc_uris"):
        check_source_allowed(source, ["s3://ugc/uploads"])


def test_a_prefix_without_slash_lists_its_folder_only() -> None:
    store = MemoryObjectStore({"s3://ugc/day/a.jpg": b"x", "s3://ugc/day-2/b.jpg": b"x"})
    assert keys(list_source(store, "s3://ugc/day", print)) == ["day/a.jpg"]


def test_progress_tells_count_and_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 105.0, 120.0, 121.0])
    monkeypatch.setattr(listing.time, "monotonic", lambda: next(clock))
    store = MemoryObjectStore({f"s3://ugc/day/{number}.jpg": b"x" for number in range(6)}, page_size=2)
    reports: list[str] = []
    assert len(keys(list_source(store, "s3://ugc/day/", reports.append))) == 6
    assert reports == ["4 objects listed, 0 images/s"]


# Few characters, so that keys share beginnings, are folders of each other, and stand where orders differ.
KEYS = st.sets(st.text(st.sampled_from("ab/-0é\U0010ffff"), min_size=1, max_size=6), max_size=150)


@settings(deadline=None)
@given(st.sampled_from([by_utf8, by_folder]), KEYS)
def test_blocks_side_by_side_list_what_one_listing_does(
    order: Callable[[str], bytes], names: set[str]
) -> None:
    day = [f"day/{name}" for name in names]
    store = PagedStore(keys=(*day, "day", "day-2/x"), order=order)
    assert keys(list_source(store, "s3://ugc/day", print)) == sorted(day, key=order)


@pytest.mark.parametrize(
    "name",
    [
        lambda number: f"{number % 24:02d}/{number:05d}.jpg",
        lambda number: f"{number * 2654435761 % 2**32:08x}.jpg",
        lambda number: f"IMG_2026-11-21_{number:06d}.jpg",
    ],
    ids=["hours", "hashes", "numbers"],
)
def test_a_long_listing_is_cut_and_costs_few_requests_more(name: Callable[[int], str]) -> None:
    names = sorted(f"day/{name(number)}" for number in range(2_000))
    store = PagedStore(keys=tuple(names))
    stretches = list(list_source(store, "s3://ugc/day", print))
    assert keys(stretches) == names
    assert len({stretch.position[:3] for stretch in stretches}) >= listing.LISTERS
    assert store.requests < 2_000 / PAGE * 1.3
    assert store.probes < 2_000 / PAGE


@pytest.mark.parametrize(
    ("folder", "below"),
    [
        ("day/", "f" * 246),
        ("x" * 240 + "/2026-11-21/", ""),
    ],
    ids=["keys that part at their 251st character", "days that do"],
)
def test_keys_too_long_to_be_cut_are_listed_once(folder: str, below: str) -> None:
    day = sorted(
        f"{folder}{below}{part}/{number:03d}.jpg" for part in "abcdefghijkl" for number in range(200)
    )
    other_day = [key.replace("2026-11-21", "2026-11-22") for key in day]
    store = PagedStore(keys=tuple({*day, *other_day}))
    assert keys(list_source(store, f"s3://ugc/{folder}", print)) == day


def test_a_failed_request_ends_the_listing() -> None:
    @dataclass
    class FailingStore(PagedStore):
        def list_page(
            self, bucket: str, prefix: str, *, after: str = "", continuation: str = "", limit: int = PAGE
        ) -> ListedPage:
            if self.requests == 20:
                raise ModlakeTransientError("S3 can't serve it now: try again later.")
            return super().list_page(bucket, prefix, after=after, continuation=continuation, limit=limit)

    store = FailingStore(keys=tuple(f"day/{number}" for number in range(1_000)))
    with pytest.raises(ModlakeTransientError):
        list(list_source(store, "s3://ugc/day", print))
