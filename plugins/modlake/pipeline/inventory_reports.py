"""Reading S3 Inventory reports, CSV or Parquet (Amazon S3, "Locating your inventory list")."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.columns import Column
from modlake.pipeline.day import end_of_day
from modlake.pipeline.object_store import ObjectNotFoundError, ObjectStore
from modlake.pipeline.object_tables import as_objects
from modlake.pipeline.parquet import decode_parquet

_MANIFEST_NAME = "manifest.json"
_CHECKSUM_NAME = "manifest.checksum"

# Ours by the names in a CSV's fileSchema; Parquet's columns are called as in the second column.
_COLUMNS = {
    "Bucket": ("bucket", "bucket"),
    "Key": ("key", "key"),
    "Size": ("size", "size_bytes"),
    "ETag": ("e_tag", "etag"),
    "LastModifiedDate": ("last_modified_date", "last_modified"),
}
_VERSIONS = {
    "IsLatest": ("is_latest", "is_latest"),
    "IsDeleteMarker": ("is_delete_marker", "is_delete_marker"),
}


def is_report(uri: str) -> bool:
    """Tell whether a URI names the manifest of a report."""
    return uri.endswith(f"/{_MANIFEST_NAME}")


def check_report_covers(store: ObjectStore, manifest_uri: str, day: date) -> None:
    """Raise ModlakeTerminalError when a report began before the end of the day, and so lacks uploads."""
    began = datetime.fromtimestamp(int(_read_manifest(store, manifest_uri)["creationTimestamp"]) / 1_000, UTC)
    end = end_of_day(day)
    if began < end:
        raise ModlakeTerminalError(
            f"{manifest_uri} began at {began:%Y-%m-%d %H:%M} UTC, before the end of {day}: what was uploaded "
            f"later is missing. Name a report that began at {end:%Y-%m-%d %H:%M} UTC or later; in its URI "
            "%+1Y, %+1m and %+1d stand for the day after."
        )


def read_inventory_report(store: ObjectStore, manifest_uri: str, source_bucket: str) -> Iterator[pa.Table]:
    """Yield the objects that a report tells of, file by file: ``bucket`` and the columns of ``OBJECTS``.

    Of objects in versions the latest ones are told, without those that were deleted. Every file is compared
    with the checksum in the report's manifest, and that with ``manifest.checksum``.

    Raises ModlakeTerminalError when the report is of another bucket, is not whole, lacks a column, or is of
    no known format.
    """
    manifest = _read_manifest(store, manifest_uri)
    if manifest["sourceBucket"] != source_bucket:
        raise ModlakeTerminalError(
            f"{manifest_uri} tells of the bucket {manifest['sourceBucket']!r}, but the day lies in "
            f"{source_bucket!r}: name a report of that bucket."
        )
    # An ARN, whose partition differs: arn:aws:s3:::bucket, arn:aws-us-gov:s3:::bucket.
    destination = str(manifest["destinationBucket"]).rpartition(":::")[2]
    read = {"CSV": _read_csv, "Parquet": _read_parquet}.get(manifest["fileFormat"])
    if read is None:
        raise ModlakeTerminalError(
            f"{manifest_uri} is of format {manifest['fileFormat']}: set the inventory up with CSV or Parquet."
        )
    for file in manifest["files"]:
        uri = f"s3://{destination}/{file['key']}"
        body = store.read(uri)
        if hashlib.md5(body, usedforsecurity=False).hexdigest() != file["MD5checksum"]:
            raise ModlakeTerminalError(
                f"{uri} is not the file that {manifest_uri} names: its MD5 differs. Take another report."
            )
        yield _objects(read(body, manifest, uri))


def _read_manifest(store: ObjectStore, manifest_uri: str) -> dict[str, Any]:
    body = store.read(manifest_uri)
    checksum_uri = f"{manifest_uri.removesuffix(_MANIFEST_NAME)}{_CHECKSUM_NAME}"
    try:
        checksum = store.read(checksum_uri).decode().strip()
    except ObjectNotFoundError as error:
        raise ModlakeTerminalError(
            f"{checksum_uri} is not there yet, so the report is not whole: S3 writes it last. Wait for it."
        ) from error
    if hashlib.md5(body, usedforsecurity=False).hexdigest() != checksum:
        raise ModlakeTerminalError(f"{manifest_uri} does not match {checksum_uri}: take another report.")
    manifest: dict[str, Any] = json.loads(body)
    return manifest


def _read_csv(body: bytes, manifest: dict[str, Any], uri: str) -> pa.Table:
    names = [name.strip() for name in manifest["fileSchema"].split(",")]
    _require_columns(names, [*_COLUMNS], uri)
    wanted = [*_COLUMNS, *(name for name in _VERSIONS if name in names)]
    table = pyarrow.csv.read_csv(
        io.BytesIO(gzip.decompress(body)),
        read_options=pyarrow.csv.ReadOptions(column_names=names),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=wanted,
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            null_values=[""],
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
    )
    names_of_ours = {name: ours for name, (_, ours) in (_COLUMNS | _VERSIONS).items()}
    table = table.rename_columns([names_of_ours[name] for name in table.column_names])
    return table.set_column(table.schema.get_field_index("key"), "key", _decoded(table["key"]))


def _read_parquet(body: bytes, _: dict[str, Any], uri: str) -> pa.Table:
    table = decode_parquet(body)
    _require_columns(table.column_names, [theirs for theirs, _ in _COLUMNS.values()], uri)
    ours = {theirs: ours for theirs, ours in (_COLUMNS | _VERSIONS).values() if theirs in table.column_names}
    return table.select(list(ours)).rename_columns(list(ours.values()))


def _require_columns(found: list[str], wanted: list[str], uri: str) -> None:
    if missing := sorted(set(wanted) - set(found)):
        raise ModlakeTerminalError(
            f"{uri} has no {', '.join(missing)}: add it to the optional fields of the inventory."
        )


def _decoded(keys: Column) -> Column:
    """Keys are URL-encoded in CSV."""
    if not pc.any(pc.match_substring_regex(keys, "[%+]")).as_py():
        return keys
    return pa.array([unquote_plus(key) for key in keys.to_pylist()], pa.string())


def _objects(table: pa.Table) -> pa.Table:
    # Null where the bucket has no versions.
    if "is_latest" in table.column_names:
        table = table.filter(_flag(table["is_latest"], default=True))
    if "is_delete_marker" in table.column_names:
        is_deleted = _flag(table["is_delete_marker"], default=False)
        is_there: Column = pc.invert(is_deleted)
        table = table.filter(is_there)
    return as_objects(table)


def _flag(column: Column, *, default: bool) -> Column:
    flags: Column = column.cast(pa.bool_())
    return pc.fill_null(flags, default)
