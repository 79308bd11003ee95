"""The day a run is about, and its place in URIs."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.s3_uri import split_s3_uri

# What strftime makes of other directives differs between platforms, or is no part of a day.
_DIRECTIVE = re.compile(r"%%|%(?:\+(?P<days>[1-9]))?(?P<part>[Ymdj])")


def day_of_run(partition_key: str | None, day: str | None) -> str:
    """
    Return the day that a run is about: its partition key, or the param ``day`` of a run made by hand.

    :raises ModlakeTerminalError: neither is given, or they differ
    """
    if partition_key and day and partition_key != day:
        raise ModlakeTerminalError(
            f"This run is of the partition {partition_key!r}, but its param day is {day!r}: leave day empty."
        )
    if not (partition_key or day):
        raise ModlakeTerminalError(
            "This run has no partition key and no param day, so it isn't known which day to moderate: "
            'trigger it with a day, for example --conf \'{"day": "2026-11-21"}\'.'
        )
    return parse_day(partition_key or day).isoformat()


def parse_day(value: object) -> date:
    """
    Return the day that a text ``YYYY-MM-DD`` names.

    :raises ModlakeTerminalError: it names none
    """
    try:
        return datetime.strptime(str(value), "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError as error:
        raise ModlakeTerminalError(
            f"{value!r} is not a day: write YYYY-MM-DD, such as 2026-11-21."
        ) from error


def end_of_day(day: date) -> datetime:
    """Return the first instant after the day, in UTC."""
    return datetime.combine(day + timedelta(days=1), time(), tzinfo=UTC)


def check_day_uri(uri: str) -> None:
    """
    Check an S3 URI whose strftime directives stand for a day, or with ``+1`` to ``+9`` for one after it.

    :raises ModlakeTerminalError: it is no S3 URI, or has a directive other than %Y, %m, %d, %j and %%
    """
    split_s3_uri(uri)
    unknown = [found for found in re.findall(r"%(?:\+.)?.?", uri) if not _DIRECTIVE.fullmatch(found)]
    if unknown:
        raise ModlakeTerminalError(
            f"{unknown[0]!r} in {uri!r} stands for no part of a day: "
            "write %Y, %m, %d or %j, as %+1d for the day after, and %% for a percent sign."
        )


def fill_day(uri: str, day: date) -> str:
    """
    Return the URI with its directives filled in: ``s3://ugc/%Y-%m-%d/`` becomes ``s3://ugc/2026-11-21/``.

    ``%+1Y-%+1m-%+1d`` is the day after, ``2026-11-22``, and so on up to ``%+9d``.

    :raises ModlakeTerminalError: see :func:`check_day_uri`
    """
    check_day_uri(uri)
    return _DIRECTIVE.sub(lambda found: _filled(found, day), uri)


def _filled(directive: re.Match[str], day: date) -> str:
    meant = day + timedelta(days=int(directive["days"] or 0))
    return meant.strftime(f"%{directive['part'] or '%'}")
