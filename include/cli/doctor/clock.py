"""This host's clock against that of S3: a signature carries the time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from botocore.exceptions import ClientError

from cli.doctor.findings import Finding, failed, ok, warning
from cli.doctor.installation import Installation
from modlake.pipeline.s3_uri import split_s3_uri

# Rekognition, as most services, refuses a signature of another time ("Signature Version 4", troubleshooting).
MOST_SKEW = timedelta(minutes=5)
NOTABLE_SKEW = timedelta(seconds=30)
_MEND = "have a time service (chrony, systemd-timesyncd) set this host's clock"


def check(installation: Installation) -> Iterator[Finding]:
    """The difference between the Date header of an answer of S3 and this host's time."""
    skew = installation.now() - _time_of_s3(installation)
    seen = f"{abs(skew.total_seconds()):.0f} s {'ahead of' if skew > timedelta() else 'behind'} S3's"
    if abs(skew) > MOST_SKEW:
        yield failed("clock", f"{seen}: AWS refuses signatures more than 5 min off", _MEND)
    elif abs(skew) > NOTABLE_SKEW:
        yield warning("clock", f"{seen}: from 5 min on AWS refuses signatures", _MEND)
    else:
        yield ok("clock", seen)


def _time_of_s3(installation: Installation) -> datetime:
    bucket, _ = split_s3_uri(installation.variable("modlake_work_uri"))
    try:
        answer = installation.store.conn.head_bucket(Bucket=bucket)
    except ClientError as refusal:  # it carries the time all the same, above all when that was the reason
        answer = refusal.response
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
