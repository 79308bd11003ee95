"""Putting an image before people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from modlake.pipeline.object_store import ObjectExistsError, ObjectStore
from modlake.pipeline.s3_uri import as_folder_uri
from modlake.policy.actions.kinds import facts_of, not_the_judged_one, result_of
from modlake.policy.actions.objects import ModeratedObjects
from modlake.policy.intents import ActionResult, Intent


class QueueStore(ObjectStore, Protocol):
    def delete(self, uris: Iterable[str]) -> None:
        """Remove objects; one that isn't there is no error."""
        ...


class ReviewQueueKind:
    """Writes ``<target>day=<day>/<action_id>.json``, once, for whoever shows images to reviewers."""

    def __init__(self, objects: ModeratedObjects, store: QueueStore) -> None:
        self._objects = objects
        self._store = store

    def do(self, intent: Intent) -> ActionResult:
        item_uri = _item_uri(intent, intent.action_id)
        if not self._store.exists(item_uri):
            found = self._objects.describe(intent.source_ref)
            if found is None or found.etag != intent.etag:
                return not_the_judged_one(intent, found)
            body = json.dumps(facts_of(intent), ensure_ascii=False).encode()
            with suppress(ObjectExistsError):
                self._store.write(item_uri, body, if_absent=True)
        return result_of(intent, "completed", item_uri=item_uri)

    def undo(self, intent: Intent) -> ActionResult:
        """Withdraw the image from the queue."""
        item_uri = _item_uri(intent, intent.undoes or "")
        self._store.delete([item_uri])
        return result_of(intent, "completed", withdrawn=item_uri)


def _item_uri(intent: Intent, action_id: str) -> str:
    return f"{as_folder_uri(intent.target)}day={intent.day}/{action_id}.json"
