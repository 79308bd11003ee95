from __future__ import annotations

from tests.bench.decide import run


def test_every_way_decides_the_same() -> None:
    told = run(300)
    assert told["same_decisions"]
    assert [way["way"] for way in told["ways"]] == ["columns", "pandas", "loop"]
