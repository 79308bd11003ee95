"""How the files of a day are laid out, and what that means to who queries them with DuckDB."""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from modlake.pipeline.parquet import encode_parquet
from tests.bench.ledger import IMAGES_PER_FILE
from tests.bench.publishing import DAY, landed_day

QUERIES = {
    "one image": "select * from images where source_ref = '{ref}'",
    "outcomes": "select outcome, model_version, count(*) from images group by all",
    "top labels": "select l1, l2, count(*), avg(confidence) from labels group by all order by 3 desc",
    "join": (
        "select i.source_ref, l.label, i.size_bytes from labels l join images i using (source_ref) "
        "where l.confidence > 99 order by 1 limit 100"
    ),
}


def run(size: int = 1_000_000, *, home: Path, repeats: int = 5) -> dict[str, Any]:
    """Write a day of that many images in each layout and ask the same questions; the yardstick is what lands.

    Raises AssertionError when two layouts answer differently.
    """
    landed = landed_day(home, size, "newer")
    rows = {
        name: pa.concat_tables([pq.read_table(path) for path in sorted(landed.glob(f"{name}-*.parquet"))])
        for name in ("images", "labels")
    }
    ref = rows["images"]["source_ref"][size // 2].as_py()
    ways = []
    answers = []
    for name, write in LAYOUTS.items():
        folder = home / "layouts" / name.replace(" ", "-").replace(",", "")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = time.perf_counter()
        for table, content in rows.items():
            write(content, folder, table)
        seconds = time.perf_counter() - started
        times, answer = _ask(folder, ref, repeats)
        answers.append(answer)
        paths = list(folder.glob("*.parquet"))
        ways.append(
            {
                "way": name,
                "files": len(paths),
                "mb": round(sum(path.stat().st_size for path in paths) / 1e6, 2),
                "write_seconds": round(seconds, 2),
                **{f"{query}, ms": round(1000 * taken, 1) for query, taken in times.items()},
            }
        )
        shutil.rmtree(folder)
    assert all(answer == answers[0] for answer in answers)
    return {"title": f"Layouts of a day of {size:,} images", "size": size, "day": str(DAY), "ways": ways}


def _ask(folder: Path, ref: str, repeats: int) -> tuple[dict[str, float], dict[str, list[Any]]]:
    connection = duckdb.connect()
    for table in ("images", "labels"):
        connection.execute(f"create view {table} as select * from '{folder}/{table}-*.parquet'")
    times: dict[str, float] = {}
    answers: dict[str, list[Any]] = {}
    for name, query in QUERIES.items():
        taken = []
        for _ in range(repeats):
            started = time.perf_counter()
            rows = connection.execute(query.format(ref=ref)).fetchall()
            taken.append(time.perf_counter() - started)
        times[name] = statistics.median(taken)
        answers[name] = sorted(
            [round(value, 6) if isinstance(value, float) else str(value) for value in row] for row in rows
        )
    return times, answers


def _as_landed(rows: pa.Table, folder: Path, name: str) -> None:
    for number, first in enumerate(range(0, rows.num_rows, IMAGES_PER_FILE)):
        path = folder / f"{name}-{number:05d}.parquet"
        path.write_bytes(encode_parquet(rows.slice(first, IMAGES_PER_FILE)))


def _as_pyarrow_does(rows: pa.Table, folder: Path, name: str) -> None:
    for number, first in enumerate(range(0, rows.num_rows, IMAGES_PER_FILE)):
        path = folder / f"{name}-{number:05d}.parquet"
        pq.write_table(rows.slice(first, IMAGES_PER_FILE), path, compression="zstd")


def _in_one_file(rows: pa.Table, folder: Path, name: str, *, rows_per_group: int, by: str) -> None:
    pq.write_table(
        rows.sort_by(by),
        folder / f"{name}-0.parquet",
        compression="zstd",
        row_group_size=rows_per_group,
        use_dictionary=[
            column for column in rows.column_names if column not in {"key", "etag", "source_ref"}
        ],
    )


LAYOUTS = {
    "as landed": _as_landed,
    "landed, all dictionaries": _as_pyarrow_does,
    "compacted, groups of 100,000": lambda *to: _in_one_file(*to, rows_per_group=100_000, by="source_ref"),
    "compacted, groups of 10,000": lambda *to: _in_one_file(*to, rows_per_group=10_000, by="source_ref"),
    "compacted, one group": lambda *to: _in_one_file(*to, rows_per_group=10**9, by="source_ref"),
    "compacted, sorted by model": lambda *to: _in_one_file(*to, rows_per_group=100_000, by="job_id"),
}
