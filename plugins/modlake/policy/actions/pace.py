"""How fast a batch acts."""

from __future__ import annotations

import threading
import time


class Pace:
    """Lets ``per_second`` actions begin in a second, evenly, whatever the number of threads."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._next_at = 0.0
        self._lock = threading.Lock()

    def take(self) -> None:
        """Wait for a turn."""
        with self._lock:
            turn = max(self._next_at, time.monotonic())
            self._next_at = turn + self._interval
        time.sleep(max(0.0, turn - time.monotonic()))
