"""Errors whose type says whether trying again can help."""

from __future__ import annotations


class ModlakeError(Exception):
    """Base of every error that Modlake raises; the message ends in what to do about it."""


class ModlakeTransientError(ModlakeError):
    """The same call may succeed later: a task that raises it is retried."""


class ModlakeTerminalError(ModlakeError):
    """The same call will fail again until somebody changes something: no retry can help."""
