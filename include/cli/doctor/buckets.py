"""Whether the buckets are there, in the region in which Rekognition is called."""

from __future__ import annotations

from collections.abc import Iterator

from botocore.exceptions import ClientError

from cli.doctor.findings import Finding, failed, ok
from cli.doctor.installation import Installation
from modlake.pipeline.s3_uri import split_s3_uri

VARIABLES = ("modlake_ugc_uri", "modlake_ugc_marker_uri", "modlake_work_uri")


def check(installation: Installation) -> Iterator[Finding]:
    """Each bucket of the variables and of the warehouse, once."""
    uris = [installation.variables.values.get(name, "") for name in VARIABLES]
    places = [uri for uri in (*uris, installation.warehouse) if uri.startswith("s3://")]
    for bucket in dict.fromkeys(split_s3_uri(uri)[0] for uri in places):
        yield _bucket(installation, bucket)


def _bucket(installation: Installation, bucket: str) -> Finding:
    subject = f"bucket {bucket}"
    try:
        answer = installation.store.conn.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    region = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
    if region not in {None, installation.region}:
        return failed(
            subject,
            f"is in {region}, Rekognition is called in {installation.region}",
            "use a bucket in Rekognition's region, or set region_name of the connection to the bucket's",
        )
    match answer["ResponseMetadata"]["HTTPStatusCode"]:
        case 200:
            return ok(subject, f"in {region}" if region else "is there (the server names no region)")
        case 404:
            return failed(subject, "does not exist", "create it, or correct the variable that names it")
        case 403:
            mend = "allow s3:ListBucket on it (include/iam/modlake-policy.json), or correct its name"
            return failed(subject, "access is denied", mend)
        case status:
            return failed(subject, f"S3 answers HTTP {status}", "look that up in S3's error responses")
