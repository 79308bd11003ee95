"""Where the files of a day's enforcement lie, and how they are written and read."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri
from modlake.policy.intents import ActionResult, Intent

# Airflow maps a task over 1,024 batches at most ("max_map_length").
BATCHES_OF_A_SIZE = 200

_URI = re.compile(
    r"(?P<work_uri>s3://.+/)enforcements/day=(?P<day>\d{4}-\d{2}-\d{2})/(?P<enforcement_id>[^/]+)/"
    r"(enforcement\.json)?"
)


def new_enforcement_id(
    day: date, run_id: str, policies: Iterable[str], tried_elsewhere: Iterable[str] = ()
) -> str:
    """Name an enforcement by what it does, so that whoever does the same once more goes on with it.

    :param run_id: the published run that is decided
    :param policies: names, versions and statuses
    :param tried_elsewhere: what other enforcements tried before and this one tries anew, and by which
    """
    meaning = json.dumps([day.isoformat(), run_id, sorted(policies), sorted(tried_elsewhere)])
    return f"enf-{hashlib.sha256(meaning.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class EnforcementFolder:
    """The URIs of one enforcement's files below the work bucket or prefix ``work_uri``."""

    work_uri: str
    day: date
    enforcement_id: str

    @classmethod
    def of_uri(cls, uri: str) -> EnforcementFolder:
        """Return the folder that a URI names, its own or that of its ``enforcement.json``."""
        found = _URI.fullmatch(uri)
        if found is None:
            raise ModlakeTerminalError(
                f"{uri!r} names no enforcement: write "
                "s3://<work>/enforcements/day=YYYY-MM-DD/<enforcement>/enforcement.json."
            )
        return cls(found["work_uri"], date.fromisoformat(found["day"]), found["enforcement_id"])

    @property
    def uri(self) -> str:
        return f"{as_folder_uri(self.work_uri)}enforcements/day={self.day.isoformat()}/{self.enforcement_id}/"

    @property
    def enforcement_uri(self) -> str:
        return f"{self.uri}enforcement.json"

    @property
    def leases_uri(self) -> str:
        """The prefix of the leases of all enforcements of the day: who takes back looks at the others'."""
        return f"{as_folder_uri(self.work_uri)}enforcements/day={self.day.isoformat()}/leases/"

    def lease_uri(self, batch: int) -> str:
        return f"{self.leases_uri}{self.enforcement_id}/{batch:05d}/"

    def intents_uri(self, batch: int) -> str:
        return f"{self.uri}intents/{batch:05d}.jsonl"

    @property
    def results_uri(self) -> str:
        """The prefix of all results."""
        return f"{self.uri}results/"


def write_intents(
    store: ObjectStore, folder: EnforcementFolder, intents: Iterable[Intent], batch_size: int
) -> int:
    """Write intents in batches of about that size, an image's together, and return how many batches.

    Of very many the later batches are larger, twice as large after each BATCHES_OF_A_SIZE.
    """
    batch: list[Intent] = []
    batches = 0
    for _, of_image in itertools.groupby(intents, lambda intent: intent.source_ref):
        if len(batch) >= batch_size << (batches // BATCHES_OF_A_SIZE):
            _write(store, folder.intents_uri(batches), batch)
            batch, batches = [], batches + 1
        batch += of_image
    if batch:
        _write(store, folder.intents_uri(batches), batch)
        batches += 1
    return batches


def _write(store: ObjectStore, uri: str, intents: Iterable[Intent]) -> None:
    store.write(uri, "".join(f"{intent.to_json()}\n" for intent in intents).encode())


def read_intents(store: ObjectStore, folder: EnforcementFolder, batch: int) -> list[Intent]:
    """Return the intents of a batch; raise ObjectNotFoundError when there is none."""
    return [Intent.from_json(line) for line in store.read(folder.intents_uri(batch)).splitlines()]


def read_all_intents(store: ObjectStore, folder: EnforcementFolder) -> Iterator[Intent]:
    """Yield the intents of all batches that ``decide`` has left."""
    for batch in range(read_enforcement(store, folder)["batches"]):
        yield from read_intents(store, folder, batch)


def read_results(store: ObjectStore, folder: EnforcementFolder) -> Iterator[ActionResult]:
    """Yield the results of all batches, in the order of their writing; of each action the first one."""
    bucket, prefix = split_s3_uri(folder.results_uri)
    seen: set[str] = set()
    for page in store.list_objects(bucket, prefix):
        for listed in page:
            for line in store.read(listed.source_ref).splitlines():
                result = ActionResult.from_json(line)
                if result.action_id not in seen:
                    seen.add(result.action_id)
                    yield result


def write_enforcement(store: ObjectStore, folder: EnforcementFolder, content: dict[str, Any]) -> None:
    store.write(folder.enforcement_uri, json.dumps(content, ensure_ascii=False, indent=1).encode())


def read_enforcement(store: ObjectStore, folder: EnforcementFolder) -> dict[str, Any]:
    """Return what ``decide`` has left; raise ObjectNotFoundError when there is none."""
    content: dict[str, Any] = json.loads(store.read(folder.enforcement_uri))
    return content
