"""Each bench once, tiny: all ways must come to the same; how long they take is not looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.__main__ import BENCHES, run, table_of
from tests.bench.bench_cloud import bench_cloud
from tests.bench.plots import plot

NEEDS_A_CLOUD = {"listing", "flat-listing", "landing"}
NEEDS_MINUTES = {"orchestration"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def s3(home: Path) -> Iterator[None]:
    with bench_cloud(home / "cloud"):
        yield


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.integration] * (name in NEEDS_A_CLOUD))
        for name in sorted(BENCHES.keys() - NEEDS_MINUTES)
    ],
)
def test_all_ways_do_the_same(name: str, home: Path, request: pytest.FixtureRequest) -> None:
    if name in NEEDS_A_CLOUD:
        request.getfixturevalue("s3")
    told = run(name, home, smoke=True)  # asserts it
    assert len(told["ways"]) > 1
    assert told.get("same_decisions", True)
    assert len(table_of(told).rows) == len(told["ways"])
    json.dumps(told, default=str)
    assert plot(told, home / "plot.png").stat().st_size > 5_000
