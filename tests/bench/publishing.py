"""Publishing a day: swapping landed files in, against pyiceberg's overwrite, which writes the rows anew.

The lake holds an older run of the day, which is replaced. It lies on a local disk, its catalog in SQLite.
What overwrite writes is in memory before the clock runs; ``publish_day`` reads the footers of the landed
files, writes ``jobs`` and ``runs`` besides, and looks whether anybody else came in between.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modlake.lake.schemas import JOBS_TABLE
from modlake.pipeline.audit import Audit
from modlake.pipeline.parquet import encode_parquet
from modlake.pipeline.plan import AnalysisParameters, Plan
from tests.bench.harness import Way, compare
from tests.bench.ledger import IMAGES_PER_FILE, image_rows, label_rows, open_lake

DAY = date(2026, 11, 21)
_JOB_COLUMNS = JOBS_TABLE.row_schema.names
FILTER = f"day = '{DAY}'"

WAYS = [
    Way("modlake", "publish_day: landed files become the day, four tables", f"{__name__}:modlake"),
    Way("pyiceberg overwrite", "images and labels, rows in memory", f"{__name__}:overwrite"),
    Way("read and overwrite", "the same, rows read from the landed files", f"{__name__}:read_and_overwrite"),
]


def run(size: int = 1_000_000, *, home: Path, repeats: int = 3, isolated: bool = True) -> dict[str, Any]:
    """Publish a day of that many images in each way; the yardstick is overwrite."""
    for run_id in ("older", "newer"):
        landed = landed_day(home, size, run_id).parent
    return compare(
        f"Publish a day of {size:,} images over an older run of it",
        "images",
        size,
        WAYS,
        {"home": str(home), "landed": str(landed)},
        yardstick="pyiceberg overwrite",
        repeats=repeats,
        isolated=isolated,
    )


def landed_day(home: Path, images: int, run_id: str) -> Path:
    """Write the files of a landed day, unless they are there; return their folder."""
    folder = home / f"landed-{images}" / run_id
    if folder.exists():
        return folder
    begun = folder.with_suffix(".begun")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    for number in range(-(-images // IMAGES_PER_FILE)):
        rows = image_rows(number, DAY).slice(0, images - number * IMAGES_PER_FILE)
        for name, table in (("images", rows), ("labels", label_rows(rows, DAY))):
            place = table.schema.get_field_index("run_id")
            own = table.set_column(place, table.schema.field(place), pa.repeat(run_id, table.num_rows))
            begun.joinpath(f"{name}-{number:05d}.parquet").write_bytes(encode_parquet(own))
    return begun.rename(folder)


class Work:
    """Publishes the day; afterwards the rows in the tables are counted."""

    def __init__(self, catalog: Any, work: Callable[[], object]) -> None:
        self._catalog = catalog
        self._work = work

    def __call__(self) -> None:
        self._work()

    def check(self, _: None) -> dict[str, Any]:
        return {
            name: self._catalog.load_table(f"moderation.{name}").scan(FILTER).count()
            for name in ("images", "labels")
        }


def modlake(home: str, landed: str, turn: str) -> Work:
    from modlake.lake.publish import publish_day

    catalog = _lake_with_an_older_run(Path(home, turn), Path(landed))
    plan, audit = _plan("newer"), _audit("newer", Path(landed, "newer"))
    return Work(catalog, lambda: publish_day(catalog, plan, audit))


def overwrite(home: str, landed: str, turn: str) -> Work:
    catalog = _lake_with_an_older_run(Path(home, turn), Path(landed))
    rows = {name: _read(landed, name) for name in ("images", "labels")}

    def work() -> None:
        for name in rows:
            catalog.load_table(f"moderation.{name}").overwrite(rows[name], overwrite_filter=FILTER)

    return Work(catalog, work)


def read_and_overwrite(home: str, landed: str, turn: str) -> Work:
    catalog = _lake_with_an_older_run(Path(home, turn), Path(landed))

    def work() -> None:
        for name in ("images", "labels"):
            rows = _read(landed, name)
            catalog.load_table(f"moderation.{name}").overwrite(rows, overwrite_filter=FILTER)

    return Work(catalog, work)


def _read(landed: str, name: str) -> pa.Table:
    paths = sorted(Path(landed, "newer").glob(f"{name}-*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in paths])


def _lake_with_an_older_run(home: Path, landed: Path) -> Any:
    from modlake.lake.publish import publish_day

    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    catalog = open_lake(home)
    publish_day(catalog, _plan("older"), _audit("older", landed / "older"))
    return catalog


def _plan(run_id: str) -> Plan:
    return Plan(
        day=DAY,
        run_id=run_id,
        run_uri=f"s3://work/runs/day={DAY}/{run_id}/",
        source_uri="s3://ugc/",
        airflow_run_id="bench",
        created_at=datetime.now(UTC),
        parameters=AnalysisParameters(50.0, None),
        listed=0,
        eligible=0,
        ineligible=0,
        reused=0,
        ineligible_by_code={},
        shards=[],
        groups=[],
        inventory_uris=[],
        estimated_cost_usd=0.0,
        price_per_image_usd=0.001,
    )


def _audit(run_id: str, landed: Path) -> Audit:
    files = {name: sorted(landed.glob(f"{name}-*.parquet")) for name in ("images", "labels")}
    rows = {name: sum(pq.read_metadata(path).num_rows for path in paths) for name, paths in files.items()}
    counts = {"image_count": IMAGES_PER_FILE, "judged_count": IMAGES_PER_FILE, "failed_count": 0, "retry": 0}
    job = dict.fromkeys(_JOB_COLUMNS) | counts | {"day": DAY.isoformat(), "run_id": run_id, "engine": "bulk"}
    job |= {
        "status": "SUCCEEDED",
        "estimated_cost_usd": 10.0,
        "min_confidence": 50.0,
        "manifest_uri": "s3://m",
    }
    return Audit(
        day=DAY,
        run_id=run_id,
        listed=rows["images"],
        judged=rows["images"],
        reused=0,
        ineligible=0,
        failed=0,
        incomplete=0,
        labels=rows["labels"],
        model_versions=["7.0"],
        failed_by_code={},
        images_uris=[f"file://{path}" for path in files["images"]],
        labels_uris=[f"file://{path}" for path in files["labels"]],
        jobs=[job | {"shard": shard, "job_id": f"job-{shard}"} for shard in range(len(files["images"]))],
        content_digest=run_id,
        audit_uri="",
    )
