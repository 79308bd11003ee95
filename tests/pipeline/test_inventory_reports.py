from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline import object_tables, scratch
from modlake.pipeline.listing import check_inventory_covers, list_source
from tests.support.days import DAY, plan_day, upload
from tests.support.memory_store import LAST_MODIFIED, MemoryObjectStore

MANIFEST = "s3://reports/ugc/nightly/2026-11-22T01-00Z/manifest.json"
KEYS = ["b.jpg", "a/1.jpg", "a b+c%.jpg", 'é,"quoted".png', "new\nline.jpg", "x.webp", "a-1.jpg"]
FIELDS = ["Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size", "LastModifiedDate", "ETag"]
PARQUET_FIELDS = [
    "bucket",
    "key",
    "version_id",
    "is_latest",
    "is_delete_marker",
    "size",
    "last_modified_date",
    "e_tag",
]


@pytest.fixture(autouse=True)
def few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_tables, "ROWS_PER_SORT", 3)
    monkeypatch.setattr(scratch, "_SAMPLED", 1)


@pytest.fixture
def store() -> MemoryObjectStore:
    store = MemoryObjectStore()
    upload(store, KEYS)
    return store


def rows(store: MemoryObjectStore) -> list[list[Any]]:
    """Return what a report of the bucket holds, in no order: its objects, older versions and deleted ones."""
    told: list[list[Any]] = []
    for page in store.list_objects("ugc", ""):
        for each in page:
            told.append(["ugc", each.key, "v2", True, False, each.size_bytes, each.last_modified, each.etag])
            told.append(["ugc", each.key, "v1", False, False, 1, datetime(2026, 1, 1, tzinfo=UTC), "old"])
    told.append(["ugc", f"uploads/{DAY}/deleted.jpg", "v3", True, True, None, LAST_MODIFIED, None])
    told.append(["ugc", "uploads/2026-11-20/other-day.jpg", "v1", True, False, 1, LAST_MODIFIED, "e"])
    return sorted(told, key=lambda row: hashlib.md5(str(row).encode()).hexdigest())


def as_csv(row: list[Any]) -> list[str]:
    bucket, key, version, is_latest, is_deleted, size, written, etag = row
    time = written.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    flags = [str(is_latest).lower(), str(is_deleted).lower()]
    return [
        bucket,
        quote_plus(key, safe="/"),
        version,
        *flags,
        "" if size is None else str(size),
        time,
        etag or "",
    ]


def csv_file(of: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(map(as_csv, of))
    return gzip.compress(text.getvalue().encode())


def parquet_file(of: list[list[Any]]) -> bytes:
    table = pa.table(list(map(list, zip(*of, strict=True))), PARQUET_FIELDS)
    written = table["last_modified_date"].cast(pa.timestamp("ms", tz="UTC"))
    sink = io.BytesIO()
    pq.write_table(table.set_column(6, "last_modified_date", written), sink)
    return sink.getvalue()


def write_report(store: MemoryObjectStore, file_format: str, **changes: Any) -> str:
    told = rows(store)
    files = []
    for number, part in enumerate((told[::2], told[1::2])):
        body = (csv_file if file_format == "CSV" else parquet_file)(part)
        key = f"ugc/nightly/data/{number}.{file_format.lower()}"
        store.write(f"s3://reports/{key}", body)
        files.append({"key": key, "size": len(body), "MD5checksum": hashlib.md5(body).hexdigest()})
    manifest = {
        "sourceBucket": "ugc",
        "destinationBucket": "arn:aws:s3:::reports",
        "version": "2016-11-30",
        "creationTimestamp": "1795395600000",
        "fileFormat": file_format,
        "fileSchema": ", ".join(FIELDS) if file_format == "CSV" else "message s3.inventory { … }",
        "files": files,
    }
    body = json.dumps(manifest | changes).encode()
    store.write(MANIFEST, body)
    store.write(MANIFEST.replace(".json", ".checksum"), hashlib.md5(body).hexdigest().encode() + b"\n")
    return MANIFEST


def listed(store: MemoryObjectStore, inventory_uri: str | None = None) -> list[dict[str, Any]]:
    stretches = list_source(store, f"s3://ugc/uploads/{DAY}/", lambda _: None, inventory_uri)
    ordered = sorted(stretches, key=lambda stretch: stretch.position)
    return [row for stretch in ordered for row in stretch.objects.to_pylist()]


@pytest.mark.parametrize("file_format", ["CSV", "Parquet"])
def test_a_report_tells_what_a_listing_does(store: MemoryObjectStore, file_format: str) -> None:
    assert listed(store, write_report(store, file_format)) == listed(store)
    assert len(listed(store)) == len(KEYS)


@pytest.mark.parametrize("partition", ["aws-us-gov", "aws-cn"])
def test_reports_lie_in_any_partition(store: MemoryObjectStore, partition: str) -> None:
    uri = write_report(store, "CSV", destinationBucket=f"arn:{partition}:s3:::reports")
    assert listed(store, uri) == listed(store)


def test_the_same_objects_give_the_same_plan(store: MemoryObjectStore) -> None:
    by_listing = plan_day(store)
    by_report = plan_day(store, run_id="run-2", inventory_uri=write_report(store, "CSV"))
    assert by_report.listing_sha256 == by_listing.listing_sha256
    assert [shard.images_sha256 for shard in by_report.shards] == [
        shard.images_sha256 for shard in by_listing.shards
    ]


def test_an_empty_report_is_an_empty_day() -> None:
    store = MemoryObjectStore()
    assert listed(store, write_report(store, "Parquet")) == []


@pytest.mark.parametrize("uri", ["s3://up/day/", "s3://up/day/1.parquet"])
def test_files_of_somebody_upstream_tell_of_a_day(store: MemoryObjectStore, uri: str) -> None:
    told = [row for row in rows(store) if row[2] == "v2"]
    table = pa.table(
        {
            "key": [row[1] for row in told],
            "bucket": [row[0] for row in told],
            "size": [row[5] for row in told],
            "etag": [f'"{row[7]}"' for row in told],
            "last_modified": [row[6] for row in told],
            "owner": ["u"] * len(told),
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    store.write("s3://up/day/1.parquet", sink.getvalue())
    store.write("s3://up/day/_SUCCESS", b"")
    assert listed(store, uri) == listed(store)


def test_an_upstream_that_has_not_written_yet_is_no_empty_day(store: MemoryObjectStore) -> None:
    store.write("s3://up/day/_temporary/1.json", b"{}")
    with pytest.raises(ModlakeTerminalError, match=r"no Parquet file below s3://up/day/.*Wait for it"):
        listed(store, "s3://up/day/")


def test_a_report_of_another_bucket_is_refused(store: MemoryObjectStore) -> None:
    with pytest.raises(ModlakeTerminalError, match=r"bucket 'other', but the day lies in 'ugc'"):
        listed(store, write_report(store, "CSV", sourceBucket="other"))


def in_milliseconds(*time: int) -> str:
    return str(int(datetime(*time, tzinfo=UTC).timestamp() * 1_000))


@pytest.mark.parametrize("began", [(2026, 11, 22), (2026, 11, 22, 1), (2027, 3, 1)])
def test_a_report_that_began_after_the_day_covers_it(
    store: MemoryObjectStore, began: tuple[int, ...]
) -> None:
    uri = write_report(store, "CSV", creationTimestamp=in_milliseconds(*began))
    check_inventory_covers(store, uri, DAY)


@pytest.mark.parametrize("began", [(2026, 11, 21, 1), (2026, 11, 21, 23, 59, 59)])
def test_a_report_that_began_before_the_days_end_is_refused(
    store: MemoryObjectStore, began: tuple[int, ...]
) -> None:
    uri = write_report(store, "CSV", creationTimestamp=in_milliseconds(*began))
    with pytest.raises(ModlakeTerminalError, match=r"before the end of 2026-11-21.*2026-11-22 00:00 UTC"):
        check_inventory_covers(store, uri, DAY)


def break_file(store: MemoryObjectStore) -> None:
    store.objects["s3://reports/ugc/nightly/data/0.csv"] += b" "


def break_manifest(store: MemoryObjectStore) -> None:
    store.objects[MANIFEST] += b" "


def forget_checksum(store: MemoryObjectStore) -> None:
    del store.objects[MANIFEST.replace(".json", ".checksum")]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_file, "data/0.csv is not the file"),
        (break_manifest, "does not match"),
        (forget_checksum, "not there yet"),
    ],
)
def test_a_report_that_is_not_whole_is_refused(store: MemoryObjectStore, damage: Any, message: str) -> None:
    uri = write_report(store, "CSV")
    damage(store)
    with pytest.raises(ModlakeTerminalError, match=message):
        listed(store, uri)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fileFormat": "ORC"}, "CSV or Parquet"),
        (
            {"fileSchema": "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, X, Y"},
            "ETag, LastModifiedDate",
        ),
    ],
)
def test_a_report_that_tells_too_little_is_refused(
    store: MemoryObjectStore, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(ModlakeTerminalError, match=message):
        listed(store, write_report(store, "CSV", **changes))


def test_an_object_told_twice_is_refused(store: MemoryObjectStore) -> None:
    uri = write_report(store, "CSV", fileSchema=", ".join(FIELDS).replace("IsLatest", "X"))
    with pytest.raises(ModlakeTerminalError, match="more than once"):
        listed(store, uri)
