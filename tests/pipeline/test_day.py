"""The day of a run, and its place in URIs."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.day import check_day_uri, day_of_run, end_of_day, fill_day, parse_day


@pytest.mark.parametrize(
    ("partition_key", "day"),
    [("2026-11-21", None), (None, "2026-11-21"), ("2026-11-21", ""), ("2026-11-21", "2026-11-21")],
)
def test_the_day_is_the_partition_or_the_param(partition_key: str | None, day: str | None) -> None:
    assert day_of_run(partition_key, day) == "2026-11-21"


@pytest.mark.parametrize("nothing", [None, ""])
def test_neither_partition_nor_param_says_what_to_pass(nothing: str | None) -> None:
    with pytest.raises(ModlakeTerminalError, match=r'--conf \'\{"day": "2026-11-21"\}\''):
        day_of_run(None, nothing)


def test_two_days_at_once_are_refused() -> None:
    with pytest.raises(ModlakeTerminalError, match=r"2026-11-21.*2026-11-22.*leave day empty"):
        day_of_run("2026-11-21", "2026-11-22")


@pytest.mark.parametrize(
    "value", ["2026-13-01", "2026-02-30", "21.11.2026", "", "None", None, "2026-11-21T00:00"]
)
def test_what_is_no_day(value: object) -> None:
    with pytest.raises(ModlakeTerminalError, match="write YYYY-MM-DD"):
        parse_day(value)


def test_a_day_ends_at_the_next_midnight_in_utc() -> None:
    assert end_of_day(date(2026, 12, 31)) == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("uri", "filled"),
    [
        ("s3://ugc/%Y-%m-%d/", "s3://ugc/2026-03-04/"),
        ("s3://ugc/%Y/%j/100%%/", "s3://ugc/2026/063/100%/"),
        ("s3://ugc/all/", "s3://ugc/all/"),
        ("s3://ugc/%d/%+1Y-%+1m-%+1dT01-00Z", "s3://ugc/04/2026-03-05T01-00Z"),
        ("s3://ugc/%+9j/%%+1d", "s3://ugc/072/%+1d"),
    ],
)
def test_directives_are_filled_in(uri: str, filled: str) -> None:
    assert fill_day(uri, date(2026, 3, 4)) == filled


def test_a_later_day_may_be_of_the_next_year() -> None:
    assert fill_day("s3://ugc/%+1Y/%+1m/%+1d/", date(2026, 12, 31)) == "s3://ugc/2027/01/01/"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://ugc/%H/",
        "s3://ugc/%Q",
        "s3://ugc/100%",
        "ugc/%Y",
        "https://ugc/%Y",
        "s3://ugc/%+1H",
        "s3://ugc/%+0d",
        "s3://ugc/%+d",
        "s3://ugc/%+1",
        "s3://ugc/%+1%",
    ],
)
def test_uris_that_are_no_place_of_a_day(uri: str) -> None:
    with pytest.raises(ModlakeTerminalError):
        check_day_uri(uri)
