"""How long a day's images take to be looked up among those judged before, and how much memory.

    export PYTHONPATH=plugins:include
    python -m tests.bench.ledger <folder> --judged 10000000 --images 1000000 --known 0.5

The lake, built once, has days of 100,000 images in files of 10,000 as they land, a fifth of them with three
labels. Keys are random, so that every file spans the whole listing: the worst case, in which statistics set
nothing aside. That many images are listed under the same prefix, the given share of them judged before
(``object``), by other names (``content``), or none of them, below a prefix of their own, as a day's uploads
mostly are (``dated``). It reads a local disk, not S3. All ways must find as many images and labels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import parquet_file_to_data_file

from modlake.lake.catalog import ensure_tables
from modlake.lake.ledger import LakeLedger
from modlake.lake.schemas import RUNS_TABLE
from modlake.pipeline import landed_schemas
from modlake.pipeline.fates import BATCHES_AT_ONCE, PARTS_PER_BATCH
from modlake.pipeline.inventory import ROWS_PER_PART
from modlake.pipeline.parquet import encode_parquet
from modlake.pipeline.reuse import Wanted
from modlake.pipeline.side_by_side import side_by_side
from tests.bench.harness import Way, compare

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
            path.write_bytes(encode_parquet(table))
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


def find_with_modlake(catalog: SqlCatalog, listed: pa.Table, by_content: bool) -> tuple[int, int]:
    """Return how many of the listed images were judged before, and how many labels they have."""
    span = (listed["source_ref"][0].as_py(), listed["source_ref"][-1].as_py())
    lookup = LakeLedger(catalog).judgements(Wanted("7.0", None, 50.0, by_content=by_content), span)
    found = labels = 0

    def batches() -> Iterator[pa.Table]:
        size = PARTS_PER_BATCH * ROWS_PER_PART
        return (listed.slice(first, size) for first in range(0, listed.num_rows, size))

    with lookup.over(batches, listed.num_rows) as find:
        for judgements in side_by_side(find, batches(), BATCHES_AT_ONCE):
            found += judgements.images.num_rows
            labels += judgements.labels.num_rows
    return found, labels


def find_with_duckdb(catalog: SqlCatalog, listed: pa.Table, by_content: bool) -> tuple[int, int]:
    """Join the listing to the tables' files; the columns that a row needs to be carried over are read."""
    import duckdb

    with duckdb.connect() as database:
        database.register("listed", listed)
        for name in ("images", "labels"):
            files = [file.removeprefix("file://") for file in table_files(catalog, name)]
            database.read_parquet(files).create_view(name)
        same = "same.etag = listed.etag AND same.size_bytes = listed.size_bytes"
        found = database.sql(
            f"""
            SELECT listed.source_ref AS listed_ref, same.*
            FROM listed JOIN images AS same
                ON {same if by_content else f"same.source_ref = listed.source_ref AND {same}"}
            WHERE same.outcome = 'judged' AND same.model_version = '7.0' AND same.adapter_arn IS NULL
                AND same.min_confidence <= 50
            QUALIFY row_number() OVER (
                PARTITION BY listed.source_ref ORDER BY judged_at DESC, day DESC, same.source_ref
            ) = 1
            """
        ).to_arrow_table()
        labels = database.sql(
            "SELECT labels.*, found.listed_ref FROM labels JOIN found USING (day, run_id, source_ref)"
        ).to_arrow_table()
        return found.num_rows, labels.num_rows


def find_with_pandas(catalog: SqlCatalog, listed: pa.Table, by_content: bool) -> tuple[int, int]:
    """Read the tables, with the columns that a row needs to be carried over, and merge."""
    import pandas as pd

    filters = [("outcome", "==", "judged"), ("model_version", "==", "7.0"), ("min_confidence", "<=", 50.0)]
    images = pd.concat(
        pd.read_parquet(file, filters=filters, dtype_backend="pyarrow")
        for file in table_files(catalog, "images")
    )
    images = images[images["adapter_arn"].isna()]
    asked = listed.to_pandas(types_mapper=pd.ArrowDtype)
    if by_content:
        found = asked.rename(columns={"source_ref": "listed_ref"}).merge(images, on=["etag", "size_bytes"])
    else:
        found = asked.merge(images, on=["source_ref", "etag", "size_bytes"])
        found["listed_ref"] = found["source_ref"]
    newest = found.sort_values(["judged_at", "day"], ascending=False).drop_duplicates("listed_ref")
    labels = pd.concat(
        pd.read_parquet(file, dtype_backend="pyarrow") for file in table_files(catalog, "labels")
    )
    of_found = labels.merge(newest[["day", "run_id", "source_ref", "listed_ref"]])
    return len(newest), len(of_found)


def table_files(catalog: SqlCatalog, name: str) -> list[str]:
    table = catalog.load_table(f"moderation.{name}")
    return [task.file.file_path for task in table.scan().plan_files()]


MODES = ("dated", "object", "content")

WAYS = [
    Way(
        "modlake",
        "LakeLedger: files set aside by statistics, keys first, batches",
        "tests.bench.ledger:modlake",
    ),
    Way("duckdb", "joins over the tables' files", "tests.bench.ledger:duckdb_join"),
    Way("pandas", "the tables in memory, merges", "tests.bench.ledger:pandas_merge"),
]


def run(
    size: int = 10_000_000,
    *,
    home: Path,
    images: int = 1_000_000,
    known: float = 0.5,
    modes: Sequence[str] = MODES,
    repeats: int = 1,
    isolated: bool = True,
) -> dict[str, Any]:
    """Look a listing up among ``size`` judged images, in each mode and way; the yardstick is DuckDB.

    The lake is built below ``home`` unless it is there.
    """
    lake = home / f"ledger-{size}"
    if not (lake / "catalog.db").exists():
        lake.mkdir(parents=True, exist_ok=True)
        build(lake, size)
    compared = {
        mode: compare(
            mode,
            "images",
            images,
            WAYS,
            {"home": str(lake), "images": images, "known": known, "mode": mode},
            yardstick="duckdb",
            repeats=repeats,
            isolated=isolated,
        )
        for mode in modes
    }
    return {
        "title": f"Look {images:,} images up among {size:,} judged ones",
        "unit": "images",
        "size": images,
        "yardstick": "duckdb",
        "ways": [
            {**way, "way": f"{way['way']}, {mode}"} for mode, told in compared.items() for way in told["ways"]
        ],
    }


def modlake(home: str, images: int, known: float, mode: str, turn: str) -> Callable[[], tuple[int, int]]:
    return _prepared(find_with_modlake, home, images, known, mode)


def duckdb_join(home: str, images: int, known: float, mode: str, turn: str) -> Callable[[], tuple[int, int]]:
    return _prepared(find_with_duckdb, home, images, known, mode)


def pandas_merge(home: str, images: int, known: float, mode: str, turn: str) -> Callable[[], tuple[int, int]]:
    return _prepared(find_with_pandas, home, images, known, mode)


def _prepared(
    find: Callable[[SqlCatalog, pa.Table, bool], tuple[int, int]],
    home: str,
    images: int,
    known: float,
    mode: str,
) -> Callable[[], tuple[int, int]]:
    listed = listing(images, known, mode)
    catalog = open_lake(Path(home))
    return lambda: find(catalog, listed, mode == "content")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("home", type=Path)
    parser.add_argument("--judged", type=int, default=10_000_000)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--known", type=float, default=0.5)
    parser.add_argument("--modes", choices=MODES, nargs="+", default=MODES)
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args()
    told = run(
        asked.judged,
        home=asked.home,
        images=asked.images,
        known=asked.known,
        modes=asked.modes,
        repeats=asked.repeats,
    )
    print(json.dumps(told, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
