"""Submissions, and the manifests and results they point at: without them a day is paid for again."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.maintenance.run_folders import RunContents
from modlake.pipeline.object_store import ListedObject, ObjectStore
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri

_READS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Submissions:
    """All that was submitted under one fingerprint: its records, and where manifests and results lie."""

    records: list[ListedObject]
    places: list[str]

    @property
    def last_modified(self) -> datetime:
        return max(each.last_modified for each in self.records)

    def is_expired(self, horizon: datetime, kept_uris: tuple[str, ...]) -> bool:
        """Tell whether they may go: all of before ``horizon``, and none points into a folder that is kept."""
        return self.last_modified < horizon and not any(place.startswith(kept_uris) for place in self.places)


def read_submissions(
    store: ObjectStore, work_uri: str, report: Callable[[str], None]
) -> dict[str, Submissions]:
    """Return all submissions by fingerprint.

    Raises ModlakeTerminalError when a record can't be read: what it points at must not seem to be free.
    """
    bucket, root = split_s3_uri(as_folder_uri(work_uri))
    records: dict[str, list[ListedObject]] = defaultdict(list)
    for page in store.list_objects(bucket, f"{root}submissions/"):
        for each in page:
            records[each.key.split("/")[-2]].append(each)
    report(f"{len(records):,} analyses were submitted; reading where their results lie")
    requests = [
        each.source_ref
        for listed in records.values()
        for each in listed
        if not each.key.endswith(".job.json")
    ]
    with ThreadPoolExecutor(_READS_AT_ONCE) as readers:
        bodies = readers.map(store.read, requests)
        places = {uri: _places(uri, body) for uri, body in zip(requests, bodies, strict=True)}
    return {
        name: Submissions(listed, [place for each in listed for place in places.get(each.source_ref, ())])
        for name, listed in records.items()
    }


def parts_in(submissions: Iterable[Submissions], runs: Iterable[RunContents]) -> dict[str, list[str]]:
    """Return by URI of a run's folder the beginnings of the URIs in it that submissions point at."""
    uris = {run.folder.uri for run in runs}
    parts: dict[str, list[str]] = defaultdict(list)
    for each in submissions:
        for place in each.places:
            # The place of a run's file is the folder's URI and two names more.
            folder_uri = "/".join(place.removesuffix("/").split("/")[:-2]) + "/"
            if folder_uri in uris:
                parts[folder_uri].append(place)
    return parts


def _places(uri: str, body: bytes) -> list[str]:
    """Return where the manifest and the results of a recorded request lie."""
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
