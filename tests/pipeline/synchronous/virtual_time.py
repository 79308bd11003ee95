"""An event loop whose clock jumps to the next thing to do, so that minutes pass in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")
BEGINNING = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)


class _JumpingSelector(selectors.DefaultSelector):
    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("Deadlock: every task waits for another one")
        if not ready and timeout:
            self.passed += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Work for threads is done at once, in the loop's own thread: no time passes meanwhile."""

    def __init__(self, started_at: float = 0.0) -> None:
        self._jumping = _JumpingSelector()
        self._started_at = started_at
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._started_at + self._jumping.passed

    def pass_by(self, seconds: float) -> None:
        """Let time pass in which nothing is done."""
        self._jumping.passed += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:  # noqa: BLE001 - the caller's to handle
            future.set_exception(error)
        return future

    def now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.time())


def run_virtually(work: Callable[[], Coroutine[Any, Any, T]], started_at: float = 0.0) -> tuple[T, float]:
    """Run a coroutine; return its result and the time at which it ended, in seconds."""
    loop = VirtualTimeLoop(started_at)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(work())
        return result, loop.time()
