"""How the arguments of a plan are read."""

from __future__ import annotations

from typing import Any

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.operators.arguments import PLAN_ARGUMENTS, is_known_later


@pytest.mark.parametrize(
    ("argument", "value", "read"),
    [
        ("allowed_uris", '["s3://ugc/"]', ["s3://ugc/"]),
        ("allowed_uris", ("s3://ugc/", "s3://b/c/"), ["s3://ugc/", "s3://b/c/"]),
        ("min_confidence", "72.5", 72.5),
        ("min_confidence", 0, 0.0),
        ("adapter_arn", "", None),
        ("adapter_arn", None, None),
        ("kms_key_id", "", None),
        ("kms_key_id", "alias/labels", "alias/labels"),
        ("max_cost_usd", None, None),
        ("max_cost_usd", "", None),
        ("max_cost_usd", 0, 0.0),
        ("fresh", "True", True),
        ("fresh", False, False),
    ],
)
def test_values_as_they_are_written_or_rendered(argument: str, value: Any, read: Any) -> None:
    assert PLAN_ARGUMENTS[argument](value) == read


@pytest.mark.parametrize(
    ("argument", "value", "advice"),
    [
        ("allowed_uris", {}, "write a list such as"),
        ("allowed_uris", [5], "s3://bucket/key"),
        ("min_confidence", "nan", "from 0 to 100"),
        ("kms_key_id", "not a key", "KMS key id"),
        ("price_per_image_usd", "nan", "0 or more"),
        ("max_cost_usd", -0.01, "0 or more"),
        ("fresh", None, "true or false"),
    ],
)
def test_what_can_not_be_read_says_what_to_write(argument: str, value: Any, advice: str) -> None:
    with pytest.raises(ModlakeTerminalError, match=advice):
        PLAN_ARGUMENTS[argument](value)


@pytest.mark.parametrize(
    ("value", "later"),
    [
        ("{{ ds }}", True),
        ("a{% if x %}b{% endif %}", True),
        (["s3://ugc/", "{{ ds }}"], True),
        (object(), True),
        ("s3://ugc/", False),
        (["s3://ugc/"], False),
        (None, False),
        (0.5, False),
    ],
)
def test_templates_and_outputs_are_known_later(value: object, later: bool) -> None:
    assert is_known_later(value) is later
