"""What became of an image of a day: exactly one of these."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
_OUT_OF_REACH = frozenset({"ACCESSDENIED", "INVALIDS3OBJECT"})
# So many are not deleted between listing and judging: access to them was lost.
_MANY, _MANY_SHARE = 10, 0.1


def unanswered_codes(failed_by_code: Mapping[str, int], image_count: int, *, others: int = 0) -> set[str]:
    """Return those codes of failed images which leave them without an answer.

    ``failed_by_code`` counts the failed among ``image_count`` images that were asked for, of a manifest or a
    day that has so many ``others``. Passing trouble always does. That an image is out of reach is its own
    answer, unless it is said of more than ten images and more than a tenth of all; or of all of several,
    where there are no others.
    """
    out_of_reach = {code for code in failed_by_code if is_out_of_reach(code)}
    slack = _MANY if others else max(1, min(_MANY, image_count - 1))
    few = max(slack, _MANY_SHARE * image_count)
    if sum(failed_by_code[code] for code in out_of_reach) <= few:
        out_of_reach = set()
    return out_of_reach | {code for code in failed_by_code if is_worth_a_retry(code)}


def is_out_of_reach(error_code: str) -> bool:
    """Tell whether an image failed because its object could not be read: deleted, or access denied."""
    return _name(error_code) in _OUT_OF_REACH


def is_worth_a_retry(error_code: str) -> bool:
    """Tell whether asking again can help an image that failed with this code, whatever befell the others.

    Such an image also makes its day incomplete, while one that is corrupt, say, has got its answer.
    """
    return error_code in {FailureCode.NO_ANSWER, FailureCode.UNACCOUNTED} or (
        _name(error_code) in _PASSING_TROUBLE
    )


def _name(error_code: str) -> str:
    """Leave out case, punctuation, ``ERROR_`` before and ``Error`` or ``Exception`` behind the name."""
    name = re.sub(r"[^A-Z0-9]", "", error_code.upper()).removeprefix("ERROR")
    return name.removesuffix("EXCEPTION").removesuffix("ERROR")
