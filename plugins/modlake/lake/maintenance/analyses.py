"""Submissions, and the manifests and results they point at: without them a day is paid for again."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.object_store import ListedObject, ObjectStore
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri
from modlake.pipeline.side_by_side import side_by_side

_READS_AT_ONCE = 16
_RECORDS_BETWEEN_REPORTS = 100_000


@dataclass(frozen=True, slots=True)
class Submissions:
    """All that was submitted under one fingerprint: its records, and where manifests and results lie."""

    records: list[ListedObject]
    places: list[str]

    @property
    def folders(self) -> set[str]:
        """The URIs of the runs' folders that it points into."""
        return {folder for place in self.places for folder in _folders_of(place)}


@dataclass(slots=True)
class SubmissionsFound:
    """What the sweep has to know of the submissions, however many there are.

    ``records`` counts them all. ``parts`` has, by URI of a folder that may be freed, the beginnings of the
    URIs in it that submissions point at.
    """

    records: int = 0
    expired: list[Submissions] = field(default_factory=list)
    parts: dict[str, list[str]] = field(default_factory=dict)


def find_submissions(
    store: ObjectStore,
    work_uri: str,
    *,
    horizon: datetime,
    kept: Collection[str],
    freed: Collection[str],
    report: Callable[[str], None],
) -> SubmissionsFound:
    """Return which submissions have expired, and what they all point at in the folders ``freed``.

    They expire when all are of before ``horizon``, and none points into a folder that is ``kept``. Those that
    can neither expire nor hold a part of a folder are not read. Memory is bounded by those that do.

    Raises ModlakeTerminalError when a record can't be read: what it points at must not seem to be free.
    """
    found = SubmissionsFound()

    def is_old(records: list[ListedObject]) -> bool:
        return max(each.last_modified for each in records) < horizon

    def read(records: list[ListedObject]) -> Submissions:
        return Submissions(records, [place for each in records for place in _places(store, each)])

    listed = _counted(_list_submissions(store, work_uri), found, report)
    regarded = (records for records in listed if freed or is_old(records))
    for each in side_by_side(read, regarded, _READS_AT_ONCE):
        if is_old(each.records) and each.folders.isdisjoint(kept):
            found.expired.append(each)
        for place in each.places:
            for folder in _folders_of(place).intersection(freed):
                found.parts.setdefault(folder, []).append(place)
    report(f"{found.records:,} records of submissions listed")
    return found


def _counted(
    listed: Iterable[list[ListedObject]], found: SubmissionsFound, report: Callable[[str], None]
) -> Iterator[list[ListedObject]]:
    for records in listed:
        yield records
        found.records += len(records)
        if found.records % _RECORDS_BETWEEN_REPORTS < len(records):
            report(f"{found.records:,} records of submissions listed")


def _list_submissions(store: ObjectStore, work_uri: str) -> Iterator[list[ListedObject]]:
    """Yield the records of each fingerprint."""
    bucket, root = split_s3_uri(as_folder_uri(work_uri))
    records = (each for page in store.list_objects(bucket, f"{root}submissions/") for each in page)
    for _, members in groupby(records, lambda each: each.key.split("/")[-2]):
        yield list(members)


def _folders_of(place: str) -> set[str]:
    """Return the URIs of all folders that a place lies in."""
    names = place.split("/")
    return {"/".join(names[:depth]) + "/" for depth in range(3, len(names))}


def _places(store: ObjectStore, record: ListedObject) -> list[str]:
    """Return where the manifest and the results of a recorded request lie."""
    if record.key.endswith(".job.json"):
        return []
    uri = record.source_ref
    body = store.read(uri)
    try:
        request: dict[str, Any] = json.loads(body)
        manifest, output = request["Input"]["S3Object"], request["OutputConfig"]
        return [
            f"s3://{manifest['Bucket']}/{manifest['Name']}",
            f"s3://{output['S3Bucket']}/{output['S3KeyPrefix']}",
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ModlakeTerminalError(
            f"{uri} is no request of a media analysis job ({error!r}), so it isn't known what it points at. "
            "Look who wrote it; when no day needs it, delete it."
        ) from error
