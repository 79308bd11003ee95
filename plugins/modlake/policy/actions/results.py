"""The results of a batch, in parts that are written once and never changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.policy.enforcement_folder import EnforcementFolder, read_intents, read_results
from modlake.policy.intents import ActionResult


class ResultParts:
    """``results/<batch>-<part>.jsonl`` of an enforcement; the first result of an action counts."""

    def __init__(self, store: ObjectStore, folder: EnforcementFolder, batch: int) -> None:
        self._store = store
        self._prefix = f"{folder.results_uri}{batch:05d}-"
        self._next = 0

    def read(self) -> dict[str, ActionResult]:
        """Return what is known by action id, and go on behind the last part."""
        bucket, prefix = split_s3_uri(self._prefix)
        results: dict[str, ActionResult] = {}
        for page in self._store.list_objects(bucket, prefix):
            for listed in page:
                self._next = int(listed.key[len(prefix) :].removesuffix(".jsonl")) + 1
                for line in self._store.read(listed.source_ref).splitlines():
                    result = ActionResult.from_json(line)
                    results.setdefault(result.action_id, result)
        return results

    def write(self, results: Sequence[ActionResult]) -> None:
        """Add a part; raise ObjectExistsError when another attempt writes too."""
        body = "".join(f"{result.to_json()}\n" for result in results).encode()
        self._store.write(f"{self._prefix}{self._next:05d}.jsonl", body, if_absent=True)
        self._next += 1


class IntendedResults:
    """The results of an enforcement's intents, which are counted as they are gone through.

    Memory holds a batch, and the ids of what has no result in it. ``intended`` counts the intents,
    ``by_status`` the results.
    """

    def __init__(self, store: ObjectStore, folder: EnforcementFolder, batches: int) -> None:
        self._store = store
        self._folder = folder
        self._batches = batches
        self.intended = 0
        self.by_status: Counter[str] = Counter()

    def __iter__(self) -> Iterator[ActionResult]:
        self.intended = 0
        self.by_status.clear()
        missing: set[str] = set()
        for batch in range(self._batches):
            known = ResultParts(self._store, self._folder, batch).read()
            intents = read_intents(self._store, self._folder, batch)
            # The same undo may be intended for two reasons.
            for action_id in dict.fromkeys(intent.action_id for intent in intents):
                self.intended += 1
                if action_id in known:
                    yield self._counted(known[action_id])
                else:
                    missing.add(action_id)
        if missing:
            # Batches may have been cut otherwise when those were carried out.
            for result in read_results(self._store, self._folder):
                if result.action_id in missing:
                    yield self._counted(result)

    def _counted(self, result: ActionResult) -> ActionResult:
        self.by_status[result.status] += 1
        return result
