from __future__ import annotations

import pytest

from modlake.pipeline.outcomes import FailureCode, is_worth_a_retry, unanswered_codes


@pytest.mark.parametrize(
    "code",
    [
        "NO_ANSWER",
        "UNACCOUNTED",
        "INTERNAL_ERROR",
        "ERROR_INTERNAL",
        "InternalServerError",
        "THROTTLED",
        "ThrottlingException",
        "ProvisionedThroughputExceededException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "REQUEST_TIMEOUT",
        "ERROR_TIMEOUT",
        "ReadTimeoutError",
        "ConnectTimeoutError",
        "EndpointConnectionError",
        "SlowDown",
    ],
)
def test_trouble_that_passes(code: str) -> None:
    assert is_worth_a_retry(code)


@pytest.mark.parametrize(
    "code",
    [
        "ERROR_INVALID_IMAGE",
        "ERROR_INVALID_IMAGE_DIMENSIONS",
        "InvalidImageFormatException",
        "ImageTooLargeException",
        "ACCESS_DENIED",
        "INVALID_S3_OBJECT",
        "ERROR_WITHOUT_CODE",
        "SOMETHING_NEW",
        "NOT_INTERNAL",
        "",
        "ERROR",
    ],
)
def test_answers_and_codes_that_nobody_knows(code: str) -> None:
    assert not is_worth_a_retry(code)


def test_codes_of_ours_are_decided_on() -> None:
    assert {code for code in FailureCode if is_worth_a_retry(code)} == {"NO_ANSWER", "UNACCOUNTED"}


@pytest.mark.parametrize(
    ("out_of_reach", "images", "is_lost"),
    [
        (1, 1, False),
        (2, 3, False),
        (3, 3, True),
        (10, 15, False),
        (11, 15, True),
        (11, 100, True),
        (20, 200, False),
        (21, 200, True),
    ],
)
def test_many_images_out_of_reach_were_not_deleted(out_of_reach: int, images: int, is_lost: bool) -> None:
    codes = {"InvalidS3ObjectException": out_of_reach - 1, "ERROR_ACCESS_DENIED": 1}
    expected = set(codes) if is_lost else set()
    assert unanswered_codes(codes | {"INVALID_IMAGE": 50}, images) == expected
    assert unanswered_codes(codes | {"THROTTLED": 1}, images) == expected | {"THROTTLED"}
