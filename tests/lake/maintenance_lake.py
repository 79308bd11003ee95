"""A lake for maintenance: S3 in a directory, for the pipeline, for pyiceberg and for the sweep."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSystem, LocalFileSystem, SubTreeFileSystem
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from modlake.lake.catalog import ensure_tables
from modlake.lake.maintenance.policy import MaintenancePolicy
from modlake.lake.publish import Publication, publish_day
from modlake.pipeline.audit import Audit
from modlake.pipeline.object_store import ListedObject, ObjectExistsError, ObjectNotFoundError
from modlake.pipeline.plan import Plan
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.pipeline.submissions import fingerprint, start_request
from tests.support.days import DAY, audited_day
from tests.support.memory_store import LAST_MODIFIED

LATER = timedelta(days=100)
"""How far in the future maintenance runs: whatever a test has made is that old by then."""


class DirectoryFileIO(PyArrowFileIO):
    """pyiceberg's view of the directory."""

    def _initialize_fs(self, scheme: str, netloc: str | None = None) -> FileSystem:
        return SubTreeFileSystem(self.properties["directory"], LocalFileSystem())

    def new_output(self, location: str) -> PyArrowFile:
        parent = Path(self.properties["directory"], location.removeprefix("s3://")).parent
        parent.mkdir(parents=True, exist_ok=True)
        return super().new_output(location)


@dataclass
class DirectoryStore:
    """The pipeline's view of the directory; ``after_listing`` is called at the end of its n-th listing."""

    root: Path
    after_listing: dict[int, Callable[[], object]] = field(default_factory=dict)
    listings: int = 0
    deleted: list[str] = field(default_factory=list)

    def path(self, uri: str) -> Path:
        bucket, key = split_s3_uri(uri)
        return self.root / bucket / key

    def list_objects(self, bucket: str, prefix: str) -> Iterator[list[ListedObject]]:
        found = sorted(
            str(path.relative_to(self.root / bucket))
            for path in (self.root / bucket).rglob("*")
            if path.is_file()
        )
        yield [self._entry(bucket, key) for key in found if key.startswith(prefix)]
        if bucket != "ugc":
            self.listings += 1
            self.after_listing.pop(self.listings, lambda: None)()

    def read(self, uri: str) -> bytes:
        try:
            return self.path(uri).read_bytes()
        except FileNotFoundError:
            raise ObjectNotFoundError(f"{uri} does not exist.") from None

    def write(self, uri: str, body: bytes, *, if_absent: bool = False) -> None:
        if if_absent and self.exists(uri):
            raise ObjectExistsError(f"{uri} exists.")
        self.path(uri).parent.mkdir(parents=True, exist_ok=True)
        self.path(uri).write_bytes(body)

    def exists(self, uri: str) -> bool:
        return self.path(uri).exists()

    def delete(self, uris: Iterable[str]) -> None:
        for uri in uris:
            self.path(uri).unlink(missing_ok=True)
            self.deleted.append(uri)

    def uris(self, beginning: str = "s3://") -> set[str]:
        found = {f"s3://{path.relative_to(self.root)}" for path in self.root.rglob("*") if path.is_file()}
        return {uri for uri in found if uri.startswith(beginning)}

    def date(self, uri: str, modified: datetime) -> None:
        os.utime(self.path(uri), (modified.timestamp(), modified.timestamp()))

    def _entry(self, bucket: str, key: str) -> ListedObject:
        stat = (self.root / bucket / key).stat()
        etag = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
        # Uploads are made anew by each run of a test, and must not differ by it.
        modified = LAST_MODIFIED if bucket == "ugc" else datetime.fromtimestamp(stat.st_mtime, UTC)
        return ListedObject(bucket, key, stat.st_size, etag, modified)


@dataclass
class MaintainedLake:
    home: Path
    report: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = DirectoryStore(self.home / "s3")
        self.catalog = self.open()
        ensure_tables(self.catalog)

    def copy(self, home: Path) -> MaintainedLake:
        """A lake like this one, for one test."""
        shutil.copytree(self.home, home, dirs_exist_ok=True)
        return MaintainedLake(home)

    def open(self) -> Catalog:
        return SqlCatalog(
            "modlake",
            **{
                "uri": f"sqlite:///{self.home}/catalog.db",
                "warehouse": "s3://lake/warehouse",
                "py-io-impl": "tests.lake.maintenance_lake.DirectoryFileIO",
                "directory": str(self.home / "s3"),
            },
        )

    def audited(
        self, keys: Iterable[str], *, day: date = DAY, run_id: str = "run-1", **changes: Any
    ) -> tuple[Plan, Audit]:
        """Take a day to its audit, with the results and submissions that real jobs leave."""
        plan, audit = audited_day(self.store, keys, day=day, run_id=run_id, **changes)
        for shard in plan.shards:
            self.store.write(f"{plan.folder.results_uri(shard.shard)}job/results.json", b"{}")
            name = fingerprint(shard.sha256, plan.parameters)
            request = start_request(plan, shard, name, 0)
            uri = f"s3://work/submissions/{name}/00"
            if not self.store.exists(f"{uri}.json"):
                self.store.write(f"{uri}.json", json.dumps(request).encode())
                self.store.write(f"{uri}.job.json", json.dumps({"job_id": "job-1"}).encode())
        return plan, audit

    def publish(self, keys: Iterable[str], **changes: Any) -> Publication:
        return publish_day(self.open(), *self.audited(keys, **changes))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Every row of a table, read anew from all its files."""
        rows = self.open().load_table(f"moderation.{name}").scan().to_arrow().to_pylist()
        return sorted(rows, key=lambda row: json.dumps(row, default=str))

    def everything(self) -> dict[str, list[dict[str, Any]]]:
        return {name: self.rows(name) for name in ("images", "labels", "jobs", "runs")}

    def files(self, name: str) -> list[str]:
        """The data files of a table's current snapshot."""
        tasks = self.open().load_table(f"moderation.{name}").scan().plan_files()
        return sorted(task.file.file_path for task in tasks)


def policy(**changes: Any) -> MaintenancePolicy:
    values: dict[str, Any] = {
        "dry_run": False,
        "snapshot_retention": timedelta(days=30),
        "min_snapshots": 1,
        "grace": timedelta(days=3),
        "run_retention": timedelta(days=30),
        "analysis_retention": timedelta(days=400),
        "target_file_size_bytes": 128_000_000,
        "max_removed_percent": 100,
        "max_deletes": 100_000,
    }
    return MaintenancePolicy(**values | changes)


def later() -> datetime:
    return datetime.now(UTC) + LATER
