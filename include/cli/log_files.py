"""The ends of log files, for messages that have to show why something failed."""

from __future__ import annotations

from collections import deque
from pathlib import Path


def last_lines(path: Path, count: int) -> str:
    """The last lines of a text file; nothing when there is no such file."""
    if not path.exists():
        return ""
    with path.open(errors="replace") as lines:
        return "".join(deque(lines, maxlen=count)).rstrip()
