"""What is judged of a manifest, kept so that no attempt and no run pays for it again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from modlake.pipeline.object_store import ObjectExistsError, ObjectStore
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri
from modlake.pipeline.synchronous.lease import LeaseLostError
from modlake.pipeline.synchronous.result_lines import ImageFailure, compact_json, join_lines

READS_AT_ONCE = 16


@dataclass(slots=True)
class Answers:
    """What is known of a manifest's images, by line of the manifest, counted from 1.

    ``results`` are lines of a results file. ``model_versions`` are those that answered.
    """

    results: dict[int, bytes] = field(default_factory=dict)
    failures: dict[int, ImageFailure] = field(default_factory=dict)
    model_versions: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.results) + len(self.failures)

    @property
    def settled(self) -> set[int]:
        """The lines that no attempt asks for again."""
        return set(self.results) | {line for line, failure in self.failures.items() if failure.is_final}

    def merge(self, later: Answers) -> None:
        """Add what came later: an image's first result stays, and stands over its failures."""
        self.results = later.results | self.results
        failures = self.failures | later.failures
        self.failures = {line: told for line, told in failures.items() if line not in self.results}
        self.model_versions |= later.model_versions

    def says_the_same_as(self, other: Answers) -> bool:
        """Compare but for the wording of failures."""
        return self.results == other.results and _codes(self) == _codes(other)

    def to_part(self) -> bytes:
        """Return a part: a line of JSON that tells the lines of the manifest, then the results' lines."""
        head = {
            "lines": list(self.results),
            "failures": {line: asdict(failure) for line, failure in self.failures.items()},
            "model_versions": sorted(self.model_versions),
        }
        return join_lines([compact_json(head), *self.results.values()])

    @classmethod
    def from_part(cls, body: bytes) -> Answers:
        head_line, *results = body.removesuffix(b"\n").split(b"\n")
        head = json.loads(head_line)
        return cls(
            results=dict(zip(head["lines"], results, strict=True)),
            failures={int(line): ImageFailure(**told) for line, told in head["failures"].items()},
            model_versions=set(head["model_versions"]),
        )


def _codes(answers: Answers) -> dict[int, str]:
    return {line: failure.code for line, failure in answers.failures.items()}


@dataclass(frozen=True, slots=True)
class Completion:
    """A round of asking that has ended: which parts say what became of every image.

    ``generation`` counts from 0; a later one was asked for images that the ones before left ``open``.
    """

    generation: int
    parts: list[str]
    open: list[int]
    started_at: str
    completed_at: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What a checkpoint folder holds."""

    terms: list[int]
    parts: list[str]
    completion: Completion | None


class CheckpointFolder:
    """``<work>/synchronous/<fingerprint>/``, shared by all runs of all days.

    ``terms/`` holds the lease, ``parts/<term>-<number>.jsonl`` what was judged, and
    ``completed/<generation>.json`` which parts count. No part is ever rewritten.
    """

    def __init__(self, store: ObjectStore, work_uri: str, fingerprint: str) -> None:
        self._store = store
        self.uri = f"{as_folder_uri(work_uri)}synchronous/{fingerprint}/"

    @property
    def terms_uri(self) -> str:
        return f"{self.uri}terms/"

    def list(self) -> Contents:
        bucket, prefix = split_s3_uri(self.uri)
        names = [
            listed.key[len(prefix) :] for page in self._store.list_objects(bucket, prefix) for listed in page
        ]
        completed = sorted(name for name in names if name.startswith("completed/"))
        return Contents(
            terms=[int(name[len("terms/") :].removesuffix(".json")) for name in names if "terms/" in name],
            parts=sorted(name for name in names if name.startswith("parts/")),
            completion=self._completion(completed[-1]) if completed else None,
        )

    def started_at(self) -> str:
        """Return when the first attempt began."""
        started_at: str = json.loads(self._store.read(f"{self.terms_uri}00000.json"))["started_at"]
        return started_at

    def write_part(self, term: int, number: int, answers: Answers) -> None:
        """Keep answers; raise LeaseLostError when somebody else writes in this term."""
        uri = f"{self.uri}parts/{term:05d}-{number:05d}.jsonl"
        part = answers.to_part()
        try:
            self._store.write(uri, part, if_absent=True)
        except ObjectExistsError as error:
            # After a lost reply the object there may be our own.
            if self._store.read(uri) != part:
                raise LeaseLostError(
                    f"Another attempt has written {uri}. What was judged is kept: clear the task, if Airflow "
                    "does not retry it."
                ) from error

    def read_parts(self, names: Iterable[str]) -> Answers:
        answers = Answers()
        with ThreadPoolExecutor(READS_AT_ONCE) as readers:
            for body in readers.map(self._store.read, [self.uri + name for name in names]):
                answers.merge(Answers.from_part(body))
        return answers

    def complete(self, completion: Completion) -> Completion:
        """Write a completion down; the first one of its generation counts, and is returned."""
        name = f"completed/{completion.generation:02d}.json"
        try:
            self._store.write(self.uri + name, json.dumps(asdict(completion)).encode(), if_absent=True)
        except ObjectExistsError:
            return self._completion(name)
        return completion

    def _completion(self, name: str) -> Completion:
        return Completion(**json.loads(self._store.read(self.uri + name)))
