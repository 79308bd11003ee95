"""The folders of runs as maintenance sees them: published, kept, to be retired, retired.

A run is *retired* before its files go: its plan and audit, without which no task of it can begin, move into
``retired.json``. One grace time later nobody can be using the folder any more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any, Self

from modlake.lake.maintenance.store import DeletableStore
from modlake.pipeline.object_store import ListedObject, ObjectStore
from modlake.pipeline.run_folder import RunFolder
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri

_PLACE = re.compile(r"runs/day=(?P<day>\d{4}-\d{2}-\d{2})/(?P<run_id>[^/]+)/")


@dataclass(frozen=True, slots=True)
class RunContents:
    """A run's folder, with the objects that a listing found in it.

    There were ``count`` of them, and ``last_activity`` is when the youngest was written that is no marker.
    When it ``is_abridged``, ``objects`` are the landed files and those that lie in no folder of the run's.
    """

    folder: RunFolder
    objects: list[ListedObject]
    count: int
    last_activity: datetime
    is_abridged: bool = False

    @classmethod
    def of(cls, folder: RunFolder, listed: Iterable[ListedObject], *, is_abridged: bool = False) -> Self:
        """Take over the objects of a folder, of which there is one at least."""
        uri, landed_prefix, marker_uri = folder.uri, folder.landed_prefix, _marker_uri(folder)
        objects: list[ListedObject] = []
        active_at: datetime | None = None
        count = 0
        for each in listed:
            count += 1
            ref = each.source_ref
            if ref != marker_uri and (active_at is None or each.last_modified > active_at):
                active_at = each.last_modified
            if not is_abridged or ref.startswith(landed_prefix) or "/" not in ref[len(uri) :]:
                objects.append(each)
        return cls(folder, objects, count, active_at or objects[0].last_modified, is_abridged)

    @property
    def marker_uri(self) -> str:
        return _marker_uri(self.folder)

    @property
    def marker(self) -> ListedObject | None:
        return next((each for each in self.objects if each.source_ref == self.marker_uri), None)

    @property
    def files(self) -> list[ListedObject]:
        """All but the marker."""
        return [each for each in self.objects if each.source_ref != self.marker_uri]

    @property
    def heads(self) -> list[str]:
        """Those of plan and audit that are there: what tasks of the run begin with."""
        uris = {each.source_ref for each in self.objects}
        return [uri for uri in (self.folder.plan_uri, self.folder.audit_uri) if uri in uris]

    @property
    def is_retired(self) -> bool:
        return self.marker is not None and not self.heads

    def landed(self, table: str) -> list[ListedObject]:
        """The data files that landed for a table."""
        beginning = f"{self.folder.landed_prefix}{table}-"
        return [each for each in self.objects if each.source_ref.startswith(beginning)]


def _marker_uri(folder: RunFolder) -> str:
    return f"{folder.uri}retired.json"


def list_run_folders(
    store: ObjectStore, work_uri: str, published: Mapping[date, str], report: Callable[[str], None]
) -> Iterator[RunContents]:
    """Yield the folder of every run, day by day; what lies elsewhere below ``runs/`` is nobody's business.

    The folders of runs that are ``published``, by day, are abridged: they are most of all.
    """
    bucket, root = split_s3_uri(as_folder_uri(work_uri))
    count = 0

    def objects() -> Iterator[ListedObject]:
        nonlocal count
        for page in store.list_objects(bucket, f"{root}runs/"):
            yield from page
            count += len(page)
            if count % 100_000 < len(page):
                report(f"{count:,} objects listed, up to {page[-1].source_ref}")

    def place(each: ListedObject) -> tuple[str, str] | None:
        found = _PLACE.match(each.key[len(root) :])
        return (found["day"], found["run_id"]) if found else None

    for key, members in groupby(objects(), place):
        if key is not None:
            folder = RunFolder(work_uri, date.fromisoformat(key[0]), key[1])
            yield RunContents.of(folder, members, is_abridged=published.get(folder.day) == folder.run_id)
    report(f"{count:,} objects of runs listed")


def list_whole(store: ObjectStore, run: RunContents) -> RunContents:
    """Return a run with all objects of its folder, as they are now; as it was, if there are none left."""
    objects = [each for page in store.list_objects(*split_s3_uri(run.folder.uri)) for each in page]
    return RunContents.of(run.folder, objects) if objects else run


def read_story(store: ObjectStore, run: RunContents) -> dict[str, Any]:
    """Return ``plan`` and ``audit`` of a run, retired or not; None for what it never had.

    A marker beside a plan is of a retirement that was cut short.
    """
    story: dict[str, Any] = {"plan": None, "audit": None}
    if run.marker is not None:
        story |= json.loads(store.read(run.marker_uri))
    for name, uri in (("plan", run.folder.plan_uri), ("audit", run.folder.audit_uri)):
        if uri in run.heads:
            story[name] = json.loads(store.read(uri))
    return story


def retire(store: DeletableStore, run: RunContents, reason: str, now: datetime) -> None:
    """Move a run's plan and audit into its marker: its tasks can't begin any more."""
    story = read_story(store, run) | {"reason": reason, "retired_at": now.isoformat()}
    store.write(run.marker_uri, json.dumps(story, indent=1).encode())
    store.delete(run.heads)


def renew(store: ObjectStore, run: RunContents) -> None:
    """Make a marker young again: the grace time of what the folder still holds begins anew."""
    store.write(run.marker_uri, store.read(run.marker_uri))
