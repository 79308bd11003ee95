"""What the identity may do with objects, tried on scratch objects and on one upload."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

from cli.doctor.findings import Finding, Status, attempt, ok, skipped, warning
from cli.doctor.installation import Installation
from cli.settings import yesterday
from modlake.exceptions import ModlakeError, ModlakeTerminalError
from modlake.hooks.object_store import explained
from modlake.pipeline.day import fill_day
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri

if TYPE_CHECKING:
    from modlake.hooks.object_store import S3ObjectStoreHook

_POLICY = "compare the identity's policy with include/iam/modlake-policy.json"
_BODY = b"modlake doctor"


def check_uploads(installation: Installation) -> Iterator[Finding]:
    """Lists the uploads, reads the first byte of one, and looks for a day's marker."""
    store = installation.store
    # What comes before the first directive is the same every day.
    bucket, prefix = split_s3_uri(installation.variable("modlake_ugc_uri").partition("%")[0])
    found: list[str] = []

    def list_uploads() -> str:
        page = next(store.list_objects(bucket, prefix), [])
        found.extend(each.source_ref for each in page if each.size_bytes)
        return f"s3://{bucket}/{prefix} can be listed"

    yield attempt("uploads: s3:ListBucket", list_uploads, _POLICY)
    if found:
        yield attempt("uploads: s3:GetObject", lambda: _first_byte(store, found[0]), _POLICY)
    else:
        yield skipped("uploads: s3:GetObject", f"no object was found below s3://{bucket}/{prefix}")
    yield attempt("marker: s3:ListBucket", lambda: _marker(installation), _POLICY)


def check_work(installation: Installation) -> Iterator[Finding]:
    """A scratch object in the work bucket."""
    yield from _scratch(installation.store, "work", installation.variable("modlake_work_uri"))


def check_lake(installation: Installation) -> Iterator[Finding]:
    """A scratch object in the warehouse, where that is a bucket of one's own."""
    if installation.warehouse.startswith("s3://"):
        yield from _scratch(installation.store, "lake", installation.warehouse)
    else:
        where = installation.warehouse or "not set"
        yield skipped(
            "lake", f"the warehouse is {where}, no place in a bucket; see the finding on the catalog"
        )


def _first_byte(store: S3ObjectStoreHook, uri: str) -> str:
    bucket, key = split_s3_uri(uri)
    with explained("s3:GetObject", uri):
        store.conn.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].read()
    return f"{uri!r} can be read"  # a key may hold a line break, a finding is one line


def _marker(installation: Installation) -> str:
    uri = fill_day(installation.variable("modlake_ugc_marker_uri"), yesterday())
    return f"{uri} is {'there' if installation.store.exists(uri) else 'not there yet'}"


def _scratch(store: S3ObjectStoreHook, place: str, folder: str) -> Iterator[Finding]:
    uri = f"{as_folder_uri(folder)}doctor/{uuid4().hex}"

    def put() -> str:
        store.write(uri, _BODY)
        return f"{uri} was written"

    def look() -> str:
        store.exists(uri)
        return f"{folder} can be listed"

    def get() -> str:
        if store.read(uri) != _BODY:
            raise ModlakeTerminalError(f"{uri} does not hold what was written to it.")
        return "the same was read"

    written = attempt(f"{place}: s3:PutObject", put, _POLICY)
    yield written
    yield attempt(f"{place}: s3:ListBucket", look, _POLICY)
    if written.status is Status.ok:
        yield attempt(f"{place}: s3:GetObject", get, _POLICY)
        yield _removed(store, f"{place}: s3:DeleteObject", uri)
    else:
        yield skipped(f"{place}: s3:GetObject", "no scratch object could be written")
        yield skipped(f"{place}: s3:DeleteObject", "no scratch object could be written")


def _removed(store: S3ObjectStoreHook, subject: str, uri: str) -> Finding:
    """Only the maintenance of the lake deletes, so a night gets by without the permission."""
    try:
        store.delete([uri])
    except ModlakeError as error:
        mend = "remove it by hand; allow s3:DeleteObject if maintain_lake is to act (docs/maintenance.md)"
        return warning(subject, f"{uri} was left behind: {error.__cause__ or error}", mend)
    return ok(subject, "the scratch object was removed")
