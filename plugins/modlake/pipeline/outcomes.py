"""What became of an image of a day: exactly one of these."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """``images.outcome``: judged in this run, carried over from another, unfit, or lost with a reason."""

    JUDGED = "judged"
    REUSED = "reused"
    INELIGIBLE = "ineligible"
    FAILED = "failed"


class FailureCode(StrEnum):
    """``images.error_code`` of images that failed without a code from Rekognition."""

    NO_ANSWER = "NO_ANSWER"
    UNACCOUNTED = "UNACCOUNTED"
    ERROR_WITHOUT_CODE = "ERROR_WITHOUT_CODE"
