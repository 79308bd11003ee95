"""What an object was like before an action, written down before the action."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from modlake.pipeline.object_store import ObjectExistsError, ObjectNotFoundError, ObjectStore
from modlake.pipeline.s3_uri import as_folder_uri
from modlake.policy.enforcement_folder import EnforcementFolder
from modlake.policy.intents import Intent


class Journal:
    """``<uri><action_id>.json``: the first record of an action stays, unless it is rewritten."""

    def __init__(self, store: ObjectStore, uri: str) -> None:
        self._store = store
        self._uri = as_folder_uri(uri)

    @classmethod
    def of_day(cls, store: ObjectStore, folder: EnforcementFolder) -> Journal:
        """Return the journal that all enforcements of a day share: an undo belongs to a later one."""
        return cls(store, f"{as_folder_uri(folder.work_uri)}enforcements/day={folder.day}/before/")

    def remember(self, action_id: str, record: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Write the record down, and return it or the one that was there."""
        made = record()
        try:
            self._store.write(self._uri_of(action_id), json.dumps(made).encode(), if_absent=True)
        except ObjectExistsError:
            return self.recall(action_id) or made
        return made

    def rewrite(self, action_id: str, record: dict[str, Any]) -> dict[str, Any]:
        """Put a record in the place of the one that was there, and return it."""
        self._store.write(self._uri_of(action_id), json.dumps(record).encode())
        return record

    def recall(self, action_id: str) -> dict[str, Any] | None:
        """Return the record; None when the action never began."""
        try:
            record: dict[str, Any] = json.loads(self._store.read(self._uri_of(action_id)))
        except ObjectNotFoundError:
            return None
        return record

    def _uri_of(self, action_id: str) -> str:
        return f"{self._uri}{action_id}.json"


def record_of_original(intent: Intent, journal: Journal, name: str) -> dict[str, Any] | None:
    """Return the record of the action that an intent takes back; None when that never began.

    :param name: what a record holds, and the detail of an action without a result doesn't
    """
    original: dict[str, Any] = intent.detail.get("original", {})
    return original if name in original else journal.recall(intent.undoes or "")
