"""The KMS key that encrypts what bulk analysis copies and writes."""

from __future__ import annotations

from collections.abc import Iterator

from botocore.exceptions import BotoCoreError, ClientError

from cli.doctor.findings import Finding, failed, ok, skipped
from cli.doctor.installation import Installation


def check(installation: Installation) -> Iterator[Finding]:
    """Whether the given key is there and enabled."""
    key_id = installation.kms_key_id
    if key_id is None:
        yield skipped("KMS key", "none was given; --kms-key-id names one")
    elif installation.cloud:
        yield skipped("KMS key", "the local cloud has no KMS")
    else:
        yield _key(installation, key_id)


def _key(installation: Installation, key_id: str) -> Finding:
    try:
        described = installation.client("kms").describe_key(KeyId=key_id)["KeyMetadata"]
    except (ClientError, BotoCoreError) as error:
        mend = "check the key, its region and account, and allow kms:DescribeKey (include/iam/README.md)"
        return failed("KMS key", str(error), mend)
    if described["KeyState"] != "Enabled":
        return failed(
            "KMS key", f"{described['Arn']} is {described['KeyState']}", "enable it, or give another"
        )
    return ok("KMS key", f"{described['Arn']} is Enabled")
