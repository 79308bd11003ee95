"""A task of single calls that is told to stop before its engine runs.

Airflow kills a task some seconds after it has told it to: calls made in that time may be paid for in vain.
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest

from modlake.operators.rekognition_synchronous import SynchronousJudge
from modlake.pipeline.synchronous.engine import SynchronousAnalysisStoppedError
from tests.support.days import plan_day, upload
from tests.support.memory_store import MemoryObjectStore

MODULE = "modlake.operators.rekognition_synchronous"
ANSWER = {"ModerationLabels": [], "ModerationModelVersion": "7.0"}


@pytest.fixture
def detect() -> Iterator[mock.AsyncMock]:
    """Stands for the client's call."""
    call = mock.AsyncMock(return_value=ANSWER)
    client = mock.MagicMock()
    client.__aenter__.return_value = mock.Mock(detect_moderation_labels=call)
    with mock.patch(f"{MODULE}.paced_client", return_value=client):
        yield call


def judge() -> SynchronousJudge:
    store = MemoryObjectStore()
    upload(store, ["a.jpg", "b.jpg"])
    context = {"ti": mock.Mock(id="ti")}
    return SynchronousJudge(mock.Mock(), store, plan_day(store), context, lambda _: None, 50)  # type: ignore[arg-type]


def test_it_judges_unless_it_is_told_to_stop(detect: mock.AsyncMock) -> None:
    made = judge()
    made.judge(made._plan.shards, rate_share=1.0)
    assert detect.await_count == 2


def test_told_before_it_begins_it_makes_no_call(detect: mock.AsyncMock) -> None:
    made = judge()
    made.stop()
    with pytest.raises(SynchronousAnalysisStoppedError, match="Clear it to go on"):
        made.judge(made._plan.shards, rate_share=1.0)
    detect.assert_not_awaited()


def test_told_while_the_engine_is_made_it_makes_no_call(detect: mock.AsyncMock) -> None:
    made = judge()
    with (
        mock.patch(f"{MODULE}.AsyncDetection", side_effect=lambda *_: made.stop()),
        pytest.raises(SynchronousAnalysisStoppedError),
    ):
        made.judge(made._plan.shards, rate_share=1.0)
    detect.assert_not_awaited()
