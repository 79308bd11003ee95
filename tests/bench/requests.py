"""How many S3 requests, API calls and bytes each step of a day takes, by the number of its shards.

    python -m tests.bench.requests --shards 40

Counts do not depend on the machine. A day is taken through planning, analysis, landing, audit and publication
in memory, with manifests of ten images. Of what depends on images rather than shards, the LIST calls,
``docs/scale.md`` counts one a thousand keys. A job is looked at three times: CREATED, IN_PROGRESS, SUCCEEDED.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any
from unittest import mock

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO

from modlake.lake.catalog import ensure_tables
from modlake.lake.publish import publish_day
from modlake.lake.schemas import PUBLISHED_TABLES
from modlake.pipeline.audit import audit_day
from modlake.pipeline.engine_claims import NoMemory, latest_submissions
from modlake.pipeline.media_analysis import MediaAnalysisReconciler, analysis_of
from modlake.pipeline.object_store import ListedObject
from modlake.pipeline.plan import Plan, Shard
from modlake.pipeline.submissions import JobMemory
from tests.support.days import judge_day, land_day, plan_day, upload
from tests.support.fake_rekognition import FakeRekognition
from tests.support.memory_store import MemoryObjectStore

IMAGES_PER_MANIFEST = 10
GROUPS = {"shards_per_group": 25, "jobs_at_once": 5, "groups_at_once": 4}
"""As in dags/moderate_images.py."""


class CountingStore(MemoryObjectStore):
    """Counts the requests that S3 would get."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()
        self._lock = Lock()

    def take(self) -> dict[str, int]:
        """Return the requests since the last time."""
        taken, self.requests = dict(sorted(self.requests.items())), Counter()
        return taken

    def _count(self, request: str) -> None:
        with self._lock:
            self.requests[request] += 1

    def list_objects(self, bucket: str, prefix: str) -> Iterator[list[ListedObject]]:
        self._count("LIST")
        yield from super().list_objects(bucket, prefix)

    def read(self, uri: str) -> bytes:
        self._count("GET")
        return super().read(uri)

    def write(self, uri: str, body: bytes, *, if_absent: bool = False) -> None:
        self._count("PUT")
        super().write(uri, body, if_absent=if_absent)

    def exists(self, uri: str) -> bool:
        self._count("HEAD")
        return super().exists(uri)


class Memory(dict[str, tuple[int, str]]):
    """What a task remembers."""

    def recall(self, fingerprint: str) -> tuple[int, str] | None:
        return self.get(fingerprint)

    def remember(self, fingerprint: str, generation: int, job_id: str) -> None:
        self[fingerprint] = (generation, job_id)


def run(shards: int = 40) -> dict[str, Any]:
    """Return the requests of each step, the calls of the API, bytes of what steps hand on, and commits."""
    store, aws = CountingStore(), FakeRekognition()
    upload(store, [f"{number:07d}.jpg" for number in range(shards * IMAGES_PER_MANIFEST)])
    store.take()
    requests = {}
    plan = plan_day(store, images_per_manifest=IMAGES_PER_MANIFEST, **GROUPS)
    requests["plan"] = store.take()
    for group in plan.groups:
        _analyse(store, aws, plan, [plan.shards[number] for number in group])
    requests["analyse"] = store.take()
    judge_day(store, plan)
    store.take()
    landed = land_day(store, plan)
    requests["land"] = store.take()
    audit = audit_day(store, plan, landed, "1")
    requests["audit"] = store.take()
    with TemporaryDirectory() as home:
        uris = {
            name: [_copied(store, Path(home), uri) for uri in getattr(audit, name)]
            for name in ("images_uris", "labels_uris")
        }
        requests["publish"], commits = _publication(Path(home), plan, replace(audit, **uris))
    return {
        "shards": shards,
        "groups": len(plan.groups),
        "requests": requests,
        "api_calls": dict(sorted(Counter(aws.calls).items())),
        "commits": commits,
        "bytes": {
            "plan.json": len(plan.to_json()),
            "XComs of land": len(json.dumps([asdict(each) for each in landed], default=str)),
            "audit.json": len(store.read(audit.audit_uri)),
        },
    }


def _copied(store: MemoryObjectStore, home: Path, uri: str) -> str:
    path = home / uri.removeprefix("s3://")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(store.read(uri))
    return f"file://{path}"


def _analyse(store: CountingStore, aws: FakeRekognition, plan: Plan, shards: list[Shard]) -> None:
    """As a task does: a pass in its worker, more in the triggerer to the end, and one in a worker."""
    memory = Memory()

    def reconciler(own: JobMemory) -> MediaAnalysisReconciler:
        analyses = [analysis_of(store, plan, shard, own) for shard in shards]
        return MediaAnalysisReconciler(
            aws, analyses, report=lambda _: None, jobs_at_once=GROUPS["jobs_at_once"]
        )

    latest_submissions(store, plan.folder.work_uri, shards, plan.parameters)
    reconciler(memory).reconcile()
    in_triggerer = reconciler(NoMemory())
    while not in_triggerer.reconcile().is_complete:
        pass
    memory.update(in_triggerer.submitted)
    latest_submissions(store, plan.folder.work_uri, shards, plan.parameters)
    assert reconciler(memory).reconcile().is_complete


def _publication(home: Path, plan: Any, audit: Any) -> tuple[dict[str, int], int]:
    """Count files opened and written; on S3 a file that is opened takes a HEAD and one or two GET."""
    catalog = SqlCatalog("modlake", uri=f"sqlite:///{home}/catalog.db", warehouse=f"file://{home}/warehouse")
    ensure_tables(catalog)
    files: Counter[str] = Counter()

    def counted(method: str, name: str) -> Any:
        original = getattr(PyArrowFileIO, method)

        def call(self: PyArrowFileIO, location: str) -> Any:
            files[name] += 1
            return original(self, location)

        return mock.patch.object(PyArrowFileIO, method, call)

    with counted("new_input", "opened"), counted("new_output", "written"):
        publish_day(catalog, plan, audit)
    tables = [catalog.load_table(each.identifier) for each in PUBLISHED_TABLES]
    return dict(sorted(files.items())), sum(len(table.metadata.metadata_log) for table in tables)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=40)
    print(json.dumps(run(parser.parse_args().shards), indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
