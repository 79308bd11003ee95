"""Which calls are repeated, how often, and how long is waited."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.synchronous.calls import TRIES, PacedCalls
from modlake.pipeline.synchronous.detection import ImageFailedError, NoAnswerError
from modlake.pipeline.synchronous.progress import Tally
from tests.pipeline.synchronous.virtual_time import run_virtually

ANSWER: dict[str, Any] = {"ModerationLabels": []}


class Api:
    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)

    async def detect_moderation_labels(self, source_ref: str) -> dict[str, Any]:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return dict(outcome)


def ask(api: Api) -> tuple[dict[str, Any], float, Tally]:
    tally = Tally(image_count=1, share_per_second=1_000, started_at=0)

    async def detect() -> dict[str, Any]:
        return await PacedCalls(api, tally).detect("s3://ugc/a.jpg", lambda: None)

    answer, seconds = run_virtually(detect)
    return answer, seconds, tally


def test_an_answer_without_a_judgement_is_none() -> None:
    answer, _, tally = ask(Api({}, ANSWER))
    assert answer == ANSWER
    assert tally.calls == 2


def test_the_waits_grow_and_the_tries_end() -> None:
    failures = [NoAnswerError("no") for _ in range(TRIES)]
    api = Api(*failures, ANSWER)
    tally = Tally(image_count=1, share_per_second=1_000, started_at=0)

    async def detect() -> float:
        with pytest.raises(NoAnswerError):
            await PacedCalls(api, tally).detect("s3://ugc/a.jpg", lambda: None)
        return asyncio.get_running_loop().time()

    seconds, _ = run_virtually(detect)
    assert api.outcomes == [ANSWER]
    assert 5 < seconds < 150


@pytest.mark.parametrize(
    "error", [ImageFailedError("bad", code="X", is_final=True), ModlakeTerminalError("denied")]
)
def test_what_no_repetition_mends_is_raised_at_once(error: Exception) -> None:
    with pytest.raises(type(error)):
        ask(Api(error, ANSWER))


def test_a_call_that_is_no_longer_permitted_is_not_sent() -> None:
    api = Api(ANSWER)

    def forbid() -> None:
        raise ModlakeTerminalError("not now")

    async def detect() -> None:
        tally = Tally(image_count=1, share_per_second=1_000, started_at=0)
        await PacedCalls(api, tally).detect("s3://ugc/a.jpg", forbid)

    with pytest.raises(ModlakeTerminalError, match="not now"):
        run_virtually(detect)
    assert api.outcomes == [ANSWER]
