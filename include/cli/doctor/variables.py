"""Whether the pipeline's variables are there and can be what they are."""

from __future__ import annotations

from collections.abc import Iterator

from cli.doctor.findings import Finding, attempt
from cli.doctor.installation import Installation
from cli.settings import yesterday
from modlake.operators.plan_values import PLAN_VALUES
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


def check(installation: Installation) -> Iterator[Finding]:
    """Each variable, read as the operators read it, and the allow-list against the place of the uploads."""
    for name, (argument, example) in VARIABLES.items():
        yield _variable(installation, name, argument, example)
    yield _allowed(installation)


def _variable(installation: Installation, name: str, argument: str, example: str) -> Finding:
    def read() -> str:
        value = installation.variable(name)
        PLAN_VALUES[argument](value)
        return f"{value} ({installation.variables.place})"

    return attempt(f"variable {name}", read, f"set it, for example to {example} (docs/aws.md, step 4)")


def _allowed(installation: Installation) -> Finding:
    def compare() -> str:
        source = fill_day(installation.variable("modlake_ugc_uri"), yesterday())
        allowed = PLAN_VALUES["allowed_uris"](installation.variable("modlake_allowed_ugc_uris"))
        check_source_allowed(source, allowed)
        return f"{source} lies in an allowed place"

    return attempt(
        "allow-list", compare, "set modlake_allowed_ugc_uris to a list that covers modlake_ugc_uri"
    )
