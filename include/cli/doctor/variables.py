"""Whether the pipeline's variables are there and can be what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cli.doctor.findings import Finding, attempt
from cli.doctor.installation import Installation
from cli.settings import yesterday
from modlake.operators.arguments import PLAN_ARGUMENTS, InvalidValueError
from modlake.pipeline.day import fill_day
from modlake.pipeline.listing import check_source_allowed

# The variable, the argument of the operators that it fills, and an example.
VARIABLES = {
    "modlake_ugc_uri": ("source_uri", "s3://acme-uploads/uploads/%Y-%m-%d/"),
    "modlake_ugc_marker_uri": ("source_uri", "s3://acme-uploads/complete/%Y-%m-%d"),
    "modlake_work_uri": ("work_uri", "s3://acme-modlake/"),
    "modlake_allowed_ugc_uris": ("allowed_uris", '["s3://acme-uploads/uploads/"]'),
    "modlake_price_per_image_usd": ("price_per_image_usd", "0.001"),
}
RATE = "modlake_detect_requests_per_second"
RATE_SHARE = "modlake_detect_rate_share"


def rate_share(value: str) -> float:
    """The part of the rate of single calls that a slot of their pool may use."""
    share: float = PLAN_ARGUMENTS["detect_requests_per_second"](value)
    if share > 1:
        raise InvalidValueError(f"{value!r} is more than all of the rate: write a number above 0, up to 1.")
    return share


# The variable that may be left out, what reads it, and an example.
OPTIONAL: dict[str, tuple[Callable[[str], Any], str]] = {
    "modlake_inventory_uri": (
        PLAN_ARGUMENTS["inventory_uri"],
        "s3://acme-reports/ugc/nightly/%+1Y-%+1m-%+1dT01-00Z/manifest.json",
    ),
    "modlake_set_aside_uri": (PLAN_ARGUMENTS["set_aside_uri"], "s3://acme-modlake/set-aside/%Y-%m-%d/"),
    RATE: (PLAN_ARGUMENTS["detect_requests_per_second"], "20"),
    RATE_SHARE: (rate_share, "0.5"),
}


def check(installation: Installation) -> Iterator[Finding]:
    """Each variable, read as the operators read it, and the allow-list against the place of the uploads."""
    for name, (argument, example) in VARIABLES.items():
        yield _variable(installation, name, PLAN_ARGUMENTS[argument], example)
    for name, (reader, example) in OPTIONAL.items():
        if installation.variables.values.get(name):
            yield _variable(installation, name, reader, example)
    yield _allowed(installation)


def _variable(installation: Installation, name: str, reader: Callable[[str], Any], example: str) -> Finding:
    def read() -> str:
        value = installation.variable(name)
        reader(value)
        return f"{value} ({installation.variables.place})"

    return attempt(f"variable {name}", read, f"set it, for example to {example} (docs/aws.md, step 4)")


def _allowed(installation: Installation) -> Finding:
    def compare() -> str:
        source = fill_day(installation.variable("modlake_ugc_uri"), yesterday())
        allowed = PLAN_ARGUMENTS["allowed_uris"](installation.variable("modlake_allowed_ugc_uris"))
        check_source_allowed(source, allowed)
        return f"{source} lies in an allowed place"

    return attempt(
        "allow-list", compare, "set modlake_allowed_ugc_uris to a list that covers modlake_ugc_uri"
    )
