"""The checks in their order; what breaks one leaves the others alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cli.doctor import (
    buckets,
    catalog,
    clock,
    identity,
    keys,
    objects,
    policies,
    pools,
    rekognition,
    variables,
    versions,
)
from cli.doctor.findings import Finding, failed, failure, skipped
from cli.doctor.installation import Installation
from localcloud import cloud

_CONNECTION = "check the connection, its endpoints and the network (docs/aws.md, step 3)"


@dataclass(frozen=True, slots=True)
class Check:
    """``mend`` is for errors that nobody foresaw; without the cloud a check of it is passed over."""

    subject: str
    run: Callable[[Installation], Iterator[Finding]]
    mend: str = _CONNECTION
    needs_cloud: bool = True


CHECKS = (
    Check("versions", versions.check, "install requirements.txt again", needs_cloud=False),
    Check("variables", variables.check, "set the variables (docs/aws.md, step 4)", needs_cloud=False),
    Check("pools", pools.check, "import the pools (docs/aws.md, step 5)", needs_cloud=False),
    Check("credentials", identity.check),
    Check("clock", clock.check),
    Check("buckets", buckets.check),
    Check("uploads", objects.check_uploads),
    Check("work", objects.check_work),
    Check("lake", objects.check_lake),
    Check("policies", policies.check, "set the variables (docs/aws.md, step 4)"),
    Check("rekognition", rekognition.check),
    Check("adapter", rekognition.check_adapter_status),
    Check("KMS key", keys.check),
    Check(
        "catalog",
        catalog.check,
        "correct PYICEBERG_CATALOG__MODLAKE__* (docs/aws.md, step 6), and grant the rights that "
        f"docs/doctor.md names; remove the namespaces {catalog.SCRATCH}* if one was left",
    ),
)


def examine(installation: Installation, report: Callable[[str], None]) -> Iterator[Finding]:
    """Runs every check, whatever became of the others; ``report`` is told which one runs."""
    cloud_runs = True
    if installation.cloud is not None:
        servers = cloud.status(installation.cloud)
        cloud_runs = servers.running
        if not cloud_runs:
            seen = f"S3 is {servers.s3.state}, Rekognition is {servers.rekognition.state}"
            yield failed("local cloud", seen, "start it: ./modlake cloud start; --aws examines AWS instead")
    for check in CHECKS:
        report(check.subject)
        if check.needs_cloud and not cloud_runs:
            yield skipped(check.subject, "the local cloud is not running")
        else:
            yield from _guarded(check, installation)


def _guarded(check: Check, installation: Installation) -> Iterator[Finding]:
    try:
        yield from check.run(installation)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks still have something to tell
        yield failure(check.subject, error, check.mend)
