"""Who calls AWS."""

from __future__ import annotations

from collections.abc import Iterator

from botocore.exceptions import BotoCoreError, ClientError

from cli.doctor.findings import Finding, failed, ok, skipped
from cli.doctor.installation import CONNECTION, Installation

_RENEW = f"renew the credentials of the connection ({CONNECTION}), or give this host a role"


def check(installation: Installation) -> Iterator[Finding]:
    """The credentials that are found, and whom STS takes them for, where STS can be reached."""
    credentials = installation.rekognition.get_session().get_credentials()
    if credentials is None:
        yield failed("credentials", "none are found", f"set {CONNECTION} or AWS_*, or give this host a role")
        return
    access_key = credentials.get_frozen_credentials().access_key
    source = "the connection aws_default" if credentials.method == "explicit" else credentials.method
    yield ok("credentials", f"access key …{access_key[-4:]}, from {source}, region {installation.region}")
    yield skipped("identity", "the local cloud has no STS") if installation.cloud else _caller(installation)


def _caller(installation: Installation) -> Finding:
    try:
        return ok("identity", str(installation.client("sts").get_caller_identity()["Arn"]))
    except ClientError as error:
        return failed("identity", str(error), _RENEW)
    except BotoCoreError as error:
        # A private network needs an endpoint for STS only if somebody assumes a role.
        return skipped("identity", f"STS can't be reached: {error}")
