"""How long a day's images take to be looked up among those judged before, and how much memory.

    export PYTHONPATH=plugins
    python tests/bench/ledger.py build  /tmp/ledger --images 10000000
    python tests/bench/ledger.py lookup /tmp/ledger --images 1000000 --known 0.5 --mode object

``build`` makes a lake of days of 100,000 images, in files of 10,000 as they land, a fifth of them with three
labels. Keys are random, so that every file spans the whole listing: the worst case, in which statistics set
nothing aside. ``lookup`` lists that many images under the same prefix, the given share of them judged before;
with ``--mode dated`` below a prefix of its own, as a day's uploads mostly are. It reads a local disk, not S3.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import parquet_file_to_data_file

from modlake.lake.catalog import ensure_tables
from modlake.lake.ledger import LakeLedger
from modlake.lake.schemas import RUNS_TABLE
from modlake.pipeline import landed_schemas
from modlake.pipeline.fates import PARTS_PER_BATCH
from modlake.pipeline.inventory import ROWS_PER_PART
from modlake.pipeline.reuse import Wanted

IMAGES_PER_FILE = 10_000
FILES_PER_DAY = 10
FIRST_DAY = date(2026, 1, 1)
PREFIX = "s3://modlake-ugc/uploads/"


def open_lake(home: Path) -> SqlCatalog:
    catalog = SqlCatalog("modlake", uri=f"sqlite:///{home}/catalog.db", warehouse=f"file://{home}/warehouse")
    ensure_tables(catalog)
    return catalog


def hexadecimal(seed: list[int], count: int) -> list[str]:
    """Return random texts of 32 hexadecimal digits, the same for the same seed."""
    digits = np.random.default_rng(seed).bytes(16 * count).hex()
    return [digits[first : first + 32] for first in range(0, len(digits), 32)]


def judged_images(number: int) -> tuple[list[str], list[str]]:
    """Return names and ETags of a file's images, in key order."""
    return sorted(hexadecimal([1, number], IMAGES_PER_FILE)), hexadecimal([2, number], IMAGES_PER_FILE)


def image_rows(number: int, day: date) -> pa.Table:
    names, etags = judged_images(number)
    return landed_schemas.assemble(
        landed_schemas.IMAGES,
        len(names),
        {
            "day": day,
            "source_ref": pa.array([f"{PREFIX}{name}.jpg" for name in names]),
            "bucket": "modlake-ugc",
            "key": pa.array([f"uploads/{name}.jpg" for name in names]),
            "size_bytes": 250_000,
            "etag": pa.array(etags),
            "last_modified": datetime.combine(day, datetime.min.time(), UTC),
            "outcome": "judged",
            "label_count": pa.array([3 if row % 5 == 0 else 0 for row in range(len(names))]),
            "top_label": "Violence",
            "top_confidence": 90.0,
            "model_version": "7.0",
            "min_confidence": 50.0,
            "engine": "bulk",
            "job_id": f"job-{number}",
            "run_id": f"run-{day}",
            "judged_at": datetime.combine(day, datetime.min.time(), UTC),
        },
    )


def label_rows(images: pa.Table, day: date) -> pa.Table:
    refs = [ref for ref in images["source_ref"].to_pylist()[::5] for _ in range(3)]
    return landed_schemas.assemble(
        landed_schemas.LABELS,
        len(refs),
        {
            "day": day,
            "source_ref": pa.array(refs),
            "label": pa.array(["Violence", "Weapons", "Weapon Violence"] * (len(refs) // 3)),
            "taxonomy_level": 1,
            "l1": "Violence",
            "confidence": 90.0,
            "model_version": "7.0",
            "job_id": images["job_id"][0].as_py(),
            "run_id": f"run-{day}",
        },
    )


def build(home: Path, images: int) -> None:
    catalog = open_lake(home)
    written: dict[str, list[str]] = {"images": [], "labels": []}
    days = images // (IMAGES_PER_FILE * FILES_PER_DAY)
    for number in range(days * FILES_PER_DAY):
        day = FIRST_DAY + timedelta(days=number // FILES_PER_DAY)
        rows = image_rows(number, day)
        for name, table in (("images", rows), ("labels", label_rows(rows, day))):
            path = home / "landed" / f"{name}-{number:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path, compression="zstd")
            written[name].append(f"file://{path}")
        if number % FILES_PER_DAY == FILES_PER_DAY - 1:
            for name, uris in written.items():
                append_files(catalog, name, uris)
                uris.clear()
    runs = [
        dict.fromkeys(("listed", "judged", "reused", "ineligible", "failed", "labels"), 0)
        | {"day": FIRST_DAY + timedelta(days=number), "model_versions": [], "content_digest": ""}
        | {"run_id": f"run-{FIRST_DAY + timedelta(days=number)}", "published_at": datetime.now(UTC)}
        for number in range(days)
    ]
    catalog.load_table(RUNS_TABLE.identifier).append(pa.Table.from_pylist(runs, RUNS_TABLE.row_schema))


def append_files(catalog: SqlCatalog, name: str, uris: list[str]) -> None:
    table = catalog.load_table(f"moderation.{name}")
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        for uri in uris:
            append.append_data_file(parquet_file_to_data_file(table.io, table.metadata, uri))


def listing(images: int, known: float, mode: str) -> pa.Table:
    """Return what a day lists, in key order: source_ref, etag, size_bytes."""
    names, etags = hexadecimal([3], images), hexadecimal([4], images)
    files = int(images * known) // IMAGES_PER_FILE
    for number in range(files):
        first = number * IMAGES_PER_FILE
        # Files from all over the years.
        theirs = judged_images(number * 7919 % 1000)
        names[first : first + IMAGES_PER_FILE], etags[first : first + IMAGES_PER_FILE] = theirs
    if mode == "content":
        names = hexadecimal([5], images)
    prefix = f"{PREFIX}today/" if mode == "dated" else PREFIX
    table = pa.table(
        {
            "source_ref": pa.array([f"{prefix}{name}.jpg" for name in names]),
            "etag": pa.array(etags),
            "size_bytes": pa.repeat(pa.scalar(250_000, pa.int64()), images),
        }
    )
    return table.sort_by("source_ref").combine_chunks()


def look_up(home: Path, images: int, known: float, mode: str) -> dict[str, Any]:
    listed = listing(images, known, mode)
    wanted = Wanted("7.0", None, 50.0, by_content=mode == "content")
    before = peak_mb()
    started = time.perf_counter()
    span = (listed["source_ref"][0].as_py(), listed["source_ref"][-1].as_py())
    lookup = LakeLedger(open_lake(home)).judgements(wanted, span)
    planned = time.perf_counter()
    found = labels = 0
    batch = PARTS_PER_BATCH * ROWS_PER_PART
    for first in range(0, images, batch):
        judgements = lookup(listed.slice(first, batch))
        found += judgements.images.num_rows
        labels += judgements.labels.num_rows
    return {
        "mode": mode,
        "listed": images,
        "found": found,
        "labels": labels,
        "seconds": round(time.perf_counter() - started, 1),
        "of them planning": round(planned - started, 1),
        "peak_mb": round(peak_mb()),
        "of them before": round(before),
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["build", "lookup"])
    parser.add_argument("home", type=Path)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--known", type=float, default=0.5)
    parser.add_argument("--mode", choices=["object", "dated", "content"], default="object")
    arguments = parser.parse_args()
    if arguments.step == "build":
        arguments.home.mkdir(parents=True)
        build(arguments.home, arguments.images)
    else:
        told = look_up(arguments.home, arguments.images, arguments.known, arguments.mode)
        print(json.dumps(told))  # noqa: T201


if __name__ == "__main__":
    main()
