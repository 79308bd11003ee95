from __future__ import annotations

import pytest

from modlake.pipeline.outcomes import FailureCode, is_worth_a_retry


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
