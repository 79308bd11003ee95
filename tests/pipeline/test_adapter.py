from __future__ import annotations

import pytest

from modlake.pipeline.adapter import AdapterNotReadyError, AdapterUnusableError, check_adapter
from tests.support.days import PROJECT_VERSION


def test_a_trained_adapter_is_fine() -> None:
    said: list[str] = []
    check_adapter(PROJECT_VERSION, {"Status": "TRAINING_COMPLETED"}, said.append)
    assert said == []


def test_a_deprecated_adapter_is_warned_of_with_what_aws_says_of_it() -> None:
    said: list[str] = []
    described = {"Status": "DEPRECATED", "StatusMessage": "Expires on 2027-01-31"}
    check_adapter(PROJECT_VERSION, described, said.append)
    (warning,) = said
    assert all(part in warning for part in (PROJECT_VERSION, "2027-01-31", "60 to 90 days", "Train"))


@pytest.mark.parametrize("status", ["EXPIRED", "TRAINING_FAILED", "DELETING", "STOPPED", "NEW", ""])
def test_an_adapter_that_judges_nothing_is_terminal(status: str) -> None:
    with pytest.raises(AdapterUnusableError, match=f"(?s){PROJECT_VERSION}.*adapter_arn") as caught:
        check_adapter(PROJECT_VERSION, {"Status": status}, print)
    assert caught.value.status == status


def test_an_adapter_in_training_is_waited_for() -> None:
    with pytest.raises(AdapterNotReadyError, match="Wait"):
        check_adapter(PROJECT_VERSION, {"Status": "TRAINING_IN_PROGRESS"}, print)
