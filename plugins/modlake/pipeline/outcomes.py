"""What became of an image of a day: exactly one of these."""

from __future__ import annotations

import re
from enum import StrEnum


class Outcome(StrEnum):
    """``images.outcome``: judged in this run, carried over from another, unfit, or lost with a reason."""

    JUDGED = "judged"
    REUSED = "reused"
    INELIGIBLE = "ineligible"
    FAILED = "failed"


ANSWERED = (Outcome.JUDGED, Outcome.REUSED)
"""Outcomes of images whose labels, or lack of labels, somebody has vouched for."""


class FailureCode(StrEnum):
    """``images.error_code`` of images that failed without a code from Rekognition."""

    NO_ANSWER = "NO_ANSWER"
    UNACCOUNTED = "UNACCOUNTED"
    ERROR_WITHOUT_CODE = "ERROR_WITHOUT_CODE"
    REPLACED = "REPLACED"
    REWRITTEN = "REWRITTEN"


# AWS documents no codes of single images. These are the names that its APIs and SDKs have for trouble that
# passes: of the service, of the pace, of the way there. A code that nobody knows says nothing of the kind.
_PASSING_TROUBLE = frozenset(
    {
        "CONNECTIONCLOSED",
        "CONNECTTIMEOUT",
        "ENDPOINTCONNECTION",
        "INTERNAL",
        "INTERNALFAILURE",
        "INTERNALSERVER",
        "PROVISIONEDTHROUGHPUTEXCEEDED",
        "READTIMEOUT",
        "REQUESTLIMITEXCEEDED",
        "REQUESTTIMEOUT",
        "RESPONSESTREAMING",
        "SERVICEUNAVAILABLE",
        "SLOWDOWN",
        "THROTTLED",
        "THROTTLING",
        "TIMEOUT",
        "TOOMANYREQUESTS",
    }
)


def is_worth_a_retry(error_code: str) -> bool:
    """Tell whether asking again can help an image that failed with this code.

    Such an image also makes its day incomplete, while one that is corrupt, say, has got its answer. Codes are
    compared without case, punctuation, ``ERROR_`` before and ``Error`` or ``Exception`` behind the name.
    """
    if error_code in {FailureCode.NO_ANSWER, FailureCode.UNACCOUNTED}:
        return True
    name = re.sub(r"[^A-Z]", "", error_code.upper()).removeprefix("ERROR")
    return name.removesuffix("EXCEPTION").removesuffix("ERROR") in _PASSING_TROUBLE
