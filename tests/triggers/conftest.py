"""What tests of triggers share."""

from __future__ import annotations

import pytest

from modlake.triggers import rekognition
from tests.support.fake_rekognition import FakeTime


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The time of the triggers for Rekognition."""
    clock = FakeTime()
    monkeypatch.setattr(rekognition, "time", clock)
    monkeypatch.setattr(rekognition, "asyncio", clock.asynchronous)
    return clock
