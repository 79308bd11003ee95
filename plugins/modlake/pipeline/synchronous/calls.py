"""Calls at the account's pace: each attempt passes the token bucket, and is repeated where that helps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from modlake.pipeline.synchronous.detection import (
    CallFailedError,
    ImageFailedError,
    ModerationApi,
    NoAnswerError,
    ThrottledError,
)
from modlake.pipeline.synchronous.progress import Tally
from modlake.pipeline.synchronous.rate import AdaptiveRate, TokenBucket

TRIES = 10


class PacedCalls:
    """DetectModerationLabels within the quota; counts its calls in ``tally``.

    ``under_way`` are the tasks whose call has been sent and not been answered. ``judged_at`` is when the last
    image was judged or refused, on the event loop's clock.
    """

    def __init__(self, api: ModerationApi, tally: Tally) -> None:
        self._api = api
        self._tally = tally
        self._rate = AdaptiveRate(tally.share_per_second, tally.started_at)
        self._bucket = TokenBucket(self._rate)
        self.under_way: set[asyncio.Task[Any]] = set()
        self.judged_at = tally.started_at

    async def detect(self, source_ref: str, require_permission: Callable[[], None]) -> dict[str, Any]:
        """Judge an image.

        ``require_permission`` is called before each attempt, and raises what forbids it. Raises
        CallFailedError when 10 attempts failed, and what the API raises otherwise.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(CallFailedError),
            stop=stop_after_attempt(TRIES),
            wait=_pause,
            sleep=asyncio.sleep,
            reraise=True,
        )
        answer: dict[str, Any] = await retrying(self._attempt, source_ref, require_permission)
        return answer

    async def _attempt(self, source_ref: str, require_permission: Callable[[], None]) -> dict[str, Any]:
        await self._bucket.take()
        while True:
            try:
                return await self._send(source_ref, require_permission)
            except ThrottledError:
                # A refusal has used nothing of the quota, so the turn holds for another call.
                if self._rate.is_too_high:
                    raise

    async def _send(self, source_ref: str, require_permission: Callable[[], None]) -> dict[str, Any]:
        require_permission()
        self._tally.calls += 1
        task = asyncio.current_task()
        assert task is not None
        self.under_way.add(task)
        try:
            answer = await self._api.detect_moderation_labels(source_ref)
        except ThrottledError:
            self._tally.throttled += 1
            self._rate.observe(throttled=True, now=_now())
            raise
        except ImageFailedError:
            self._take_note_of_answer()
            raise
        finally:
            self.under_way.discard(task)
        if "ModerationLabels" not in answer:
            raise NoAnswerError("Rekognition's answer has no ModerationLabels.")
        self._take_note_of_answer()
        return answer

    def _take_note_of_answer(self) -> None:
        self.judged_at = _now()
        self._rate.observe(throttled=False, now=self.judged_at)


def _now() -> float:
    return asyncio.get_running_loop().time()


_exponential = wait_random_exponential(multiplier=0.5, max=30)


def _pause(state: RetryCallState) -> float:
    """A throttled call waits for its turn in the bucket alone, whose rate falls when that is not enough."""
    if state.outcome is not None and isinstance(state.outcome.exception(), ThrottledError):
        return 0
    return _exponential(state)
