"""Listing a day and writing its manifests and inventory, end to end, from SeaweedFS to SeaweedFS.

Each way lists every object below the day's prefix, leaves out what is no image by its name, writes
manifests of 10,000 lines and an inventory as Parquet in parts of 10,000 rows. The inventory holds what the
way's listing tells: S3Hook.list_keys and awswrangler's list_objects give names only.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

from tests.bench.bench_cloud import UGC, WORK, bench_cloud, found_by_every_library, seed_day
from tests.bench.harness import Way, compare

IMAGES_PER_MANIFEST = 10_000
ROWS_PER_PART = 10_000
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
DAY = date(2026, 11, 21)

WAYS = [
    Way("modlake", "build_plan: ranges in parallel, columns; also digests and a plan", f"{__name__}:modlake"),
    Way("boto3", "list_objects_v2 paginator, a loop, put_object", f"{__name__}:boto3_paginator"),
    Way("S3Hook.list_keys", "Airflow's hook; names only", f"{__name__}:airflow_hook"),
    Way("s3fs find", "find(detail=True)", f"{__name__}:s3fs_find"),
    Way("awswrangler", "s3.list_objects; names only", f"{__name__}:awswrangler_list"),
    Way(
        "obstore",
        "list as Arrow, columns; fails at a key like a//b.jpg, and takes folder/ for folder",
        f"{__name__}:obstore_list",
    ),
]


def run(
    size: int = 200_000, *, home: Path, repeats: int = 3, isolated: bool = True, is_flat: bool = False
) -> dict[str, Any]:
    """List a day of that many keys in each way; the yardstick is boto3."""
    with bench_cloud(home / "cloud") as settings, found_by_every_library(settings):
        prefix = seed_day(settings, size, is_flat=is_flat)
        return compare(
            f"List a day of {size:,} keys ({'flat' if is_flat else 'in hours'}), write manifests",
            "keys",
            size,
            WAYS,
            {"prefix": prefix},
            yardstick="boto3",
            repeats=repeats,
            isolated=isolated,
        )


def modlake(prefix: str, turn: str) -> Callable[[], list[str]]:
    import modlake.pipeline.fates  # noqa: F401 imported when first used
    from modlake.hooks.object_store import S3ObjectStoreHook
    from modlake.pipeline.plan import AnalysisParameters, build_plan

    store = S3ObjectStoreHook(aws_conn_id=None)
    store.exists(f"s3://{WORK}/warm-up")
    store.list_page(WORK, "warm-up")

    def work() -> list[str]:
        plan = build_plan(
            store,
            day=DAY,
            source_uri=f"s3://{UGC}/{prefix}",
            work_uri=f"s3://{WORK}/bench/{turn}/",
            run_id=turn,
            airflow_run_id="bench",
            parameters=AnalysisParameters(min_confidence=50.0, adapter_arn=None),
            allowed_uris=[f"s3://{UGC}/"],
            price_per_image_usd=0.001,
            max_cost_usd=None,
            shards_per_group=5,
            report=lambda _: None,
        )
        return [shard.manifest_uri for shard in plan.shards]

    return _checked(work)


def boto3_paginator(prefix: str, turn: str) -> Callable[[], list[str]]:
    import boto3

    s3 = boto3.client("s3")

    def rows() -> Iterator[dict[str, Any]]:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=UGC, Prefix=prefix):
            for entry in page.get("Contents", ()):
                yield {
                    "source_ref": f"s3://{UGC}/{entry['Key']}",
                    "size_bytes": entry["Size"],
                    "etag": entry["ETag"].strip('"'),
                    "last_modified": entry["LastModified"],
                }

    return _checked(lambda: write_all(rows(), turn))


def airflow_hook(prefix: str, turn: str) -> Callable[[], list[str]]:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    hook = S3Hook(aws_conn_id=None)
    _ = hook.conn

    def work() -> list[str]:
        keys = hook.list_keys(UGC, prefix)
        return write_all(({"source_ref": f"s3://{UGC}/{key}"} for key in keys), turn)

    return _checked(work)


def s3fs_find(prefix: str, turn: str) -> Callable[[], list[str]]:
    import s3fs

    files = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    files.exists(f"{WORK}/warm-up")

    def work() -> list[str]:
        found = files.find(f"{UGC}/{prefix}", detail=True)
        rows = (
            {
                "source_ref": f"s3://{name}",
                "size_bytes": entry["size"],
                "etag": entry["ETag"].strip('"'),
                "last_modified": entry["LastModified"],
            }
            for name, entry in found.items()
        )
        return write_all(rows, turn)

    return _checked(work)


def awswrangler_list(prefix: str, turn: str) -> Callable[[], list[str]]:
    import awswrangler as wr

    def work() -> list[str]:
        return write_all(({"source_ref": uri} for uri in wr.s3.list_objects(f"s3://{UGC}/{prefix}")), turn)

    return _checked(work)


def obstore_list(prefix: str, turn: str) -> Callable[[], list[str]]:
    import boto3
    import obstore
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from obstore.store import S3Store

    s3 = boto3.client("s3")
    store = S3Store(UGC, client_options={"allow_http": True})
    list(obstore.list(store, "warm-up"))

    def work() -> list[str]:
        pages = obstore.list(store, prefix, chunk_size=1_000, return_arrow=True)
        rows: Any = pa.Table.from_batches([pa.record_batch(page) for page in pages]).combine_chunks()
        rows = rows.append_column(
            "source_ref", pc.binary_join_element_wise(pa.scalar(f"s3://{UGC}/"), rows["path"], "")
        )
        is_image = pc.match_substring_regex(
            rows["path"], f"(?i)({'|'.join(map(re.escape, IMAGE_SUFFIXES))})$"
        )
        rows = rows.append_column("fate", pc.if_else(is_image, "eligible", "ineligible"))
        for part, first in enumerate(range(0, len(rows), ROWS_PER_PART)):
            body = io.BytesIO()
            pq.write_table(rows.slice(first, ROWS_PER_PART), body, compression="zstd")
            key = f"bench/{turn}/inventory/part-{part:05d}.parquet"
            s3.put_object(Bucket=WORK, Key=key, Body=body.getvalue())
        lines = pc.binary_join_element_wise(
            '{"source-ref": "', rows["source_ref"].filter(is_image).combine_chunks(), '"}', ""
        )
        manifests = []
        for number, first in enumerate(range(0, len(lines), IMAGES_PER_MANIFEST)):
            key = f"bench/{turn}/manifests/{number:05d}.jsonl"
            whole = pa.array([lines.slice(first, IMAGES_PER_MANIFEST)], pa.list_(pa.string()))
            s3.put_object(Bucket=WORK, Key=key, Body=bytes(pc.binary_join(whole, "\n")[0].as_buffer()))
            manifests.append(f"s3://{WORK}/{key}")
        return manifests

    return _checked(work)


def write_all(rows: Iterable[dict[str, Any]], turn: str) -> list[str]:
    """Write manifests and inventory as a task of one's own would: row by row, part by part."""
    import boto3
    import pyarrow as pa
    import pyarrow.parquet as pq

    s3 = boto3.client("s3")
    manifests: list[str] = []
    lines: list[str] = []
    inventory: list[dict[str, Any]] = []
    parts = 0

    def write_manifest() -> None:
        key = f"bench/{turn}/manifests/{len(manifests):05d}.jsonl"
        s3.put_object(Bucket=WORK, Key=key, Body="\n".join(lines).encode())
        manifests.append(f"s3://{WORK}/{key}")
        lines.clear()

    def write_part() -> None:
        nonlocal parts
        body = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(inventory), body, compression="zstd")
        s3.put_object(
            Bucket=WORK, Key=f"bench/{turn}/inventory/part-{parts:05d}.parquet", Body=body.getvalue()
        )
        parts += 1
        inventory.clear()

    for row in rows:
        is_image = row["source_ref"].lower().endswith(IMAGE_SUFFIXES)
        inventory.append({**row, "fate": "eligible" if is_image else "ineligible"})
        if is_image:
            lines.append(json.dumps({"source-ref": row["source_ref"]}))
        if len(lines) == IMAGES_PER_MANIFEST:
            write_manifest()
        if len(inventory) == ROWS_PER_PART:
            write_part()
    if lines:
        write_manifest()
    if inventory:
        write_part()
    return manifests


class _Work:
    """The work, and what tells whether it was done: number and digest of the images in its manifests."""

    def __init__(self, work: Callable[[], list[str]]) -> None:
        self._work = work

    def __call__(self) -> list[str]:
        return self._work()

    def check(self, manifests: list[str]) -> dict[str, Any]:
        import boto3

        s3 = boto3.client("s3")
        refs: list[str] = []
        for uri in manifests:
            body = s3.get_object(Bucket=WORK, Key=uri.removeprefix(f"s3://{WORK}/"))["Body"].read()
            refs += [json.loads(line)["source-ref"] for line in body.splitlines()]
        return {
            "manifests": len(manifests),
            "images": len(refs),
            "sha256": hashlib.sha256("\n".join(sorted(refs)).encode()).hexdigest(),
        }


def _checked(work: Callable[[], list[str]]) -> _Work:
    return _Work(work)
