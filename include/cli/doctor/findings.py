"""What a check has found, and what mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from botocore.exceptions import BotoCoreError, ClientError

from modlake.exceptions import ModlakeError


class Status(StrEnum):
    ok = "ok"
    warning = "warning"
    failed = "failed"
    skipped = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``mend`` is empty where nothing needs to be done."""

    subject: str
    status: Status
    seen: str
    mend: str = ""


def ok(subject: str, seen: str) -> Finding:
    return Finding(subject, Status.ok, seen)


def warning(subject: str, seen: str, mend: str) -> Finding:
    return Finding(subject, Status.warning, seen, mend)


def failed(subject: str, seen: str, mend: str) -> Finding:
    return Finding(subject, Status.failed, seen, mend)


def skipped(subject: str, reason: str) -> Finding:
    return Finding(subject, Status.skipped, reason)


def failure(subject: str, error: Exception, mend: str) -> Finding:
    """What an error says; ``mend`` is for errors that don't say themselves what to do."""
    text = " ".join(str(error).split())  # a finding is one line
    seen, _, said = text.partition(" Mend: ")
    if said:
        return failed(subject, seen, said)
    if isinstance(error, ModlakeError) and isinstance(error.__cause__, ClientError | BotoCoreError):
        return failed(subject, " ".join(str(error.__cause__).split()), text)
    if isinstance(error, ModlakeError):
        return failed(subject, text, mend)
    return failed(subject, f"{type(error).__name__}: {text}", mend)


def attempt(subject: str, call: Callable[[], str], mend: str) -> Finding:
    """Makes a call that answers what was seen; an error of ours becomes a failed finding."""
    try:
        return ok(subject, call())
    except ModlakeError as error:
        return failure(subject, error, mend)
