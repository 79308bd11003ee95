"""Writing while the next is being made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from modlake.pipeline.object_store import ObjectStore

_WRITERS = 4
# What waits is in memory.
_WAITING = 8


class WriteBehind:
    """Writes objects in threads, a few at once. Leaving the block awaits them; a failure is raised."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._executor = ThreadPoolExecutor(_WRITERS)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._executor.shutdown(cancel_futures=error is not None)
        if error is None:
            for future in self._waiting:
                future.result()

    def write(self, uri: str, make_body: Callable[[], bytes]) -> None:
        """Write what ``make_body`` returns, which is called in the thread that writes."""
        if len(self._waiting) >= _WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._executor.submit(lambda: self._store.write(uri, make_body())))
