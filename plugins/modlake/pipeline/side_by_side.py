"""Work on some items at once: Arrow, compression and the network leave Python's lock to others."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = min(8, (os.cpu_count() or 1) + 1)
"""One more than cores, as some wait for S3."""


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], at_once: int = AT_ONCE
) -> Iterator[Result]:
    """Yield what ``work`` returns for the items, in their order.

    Memory is bounded by ``at_once`` items, and one that waits to be asked for. The first error is raised when
    its turn comes; what was not begun by then is not done.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(at_once) as executor:
        try:
            for item in items:
                waiting.append(executor.submit(work, item))
                if len(waiting) > at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            executor.shutdown(cancel_futures=True)
