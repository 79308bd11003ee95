from __future__ import annotations

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline import listing
from modlake.pipeline.listing import check_source_allowed, list_source
from tests.support.memory_store import MemoryObjectStore


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
    assert [listed.key for listed in list_source(store, "s3://ugc/day", print)] == ["day/a.jpg"]


def test_progress_tells_count_and_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 105.0, 120.0, 121.0])
    monkeypatch.setattr(listing.time, "monotonic", lambda: next(clock))
    store = MemoryObjectStore({f"s3://ugc/day/{number}.jpg": b"x" for number in range(6)}, page_size=2)
    reports: list[str] = []
    assert len(list(list_source(store, "s3://ugc/day/", reports.append))) == 6
    assert reports == ["4 objects listed, 0 images/s"]
