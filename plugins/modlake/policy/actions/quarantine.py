"""Moving an image out of reach, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.pipeline.object_store import ObjectNotFoundError
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri
from modlake.policy.actions.journal import Journal, record_of_original
from modlake.policy.actions.kinds import ACTION_ID_METADATA, never_done, not_the_judged_one, result_of
from modlake.policy.actions.objects import ModeratedObjects, ObjectChangedError, Properties, StoredObject
from modlake.policy.intents import ActionResult, Intent

LONGEST_KEY_BYTES = 1_024
LONGEST_VERSION = 64
LONGEST_METADATA_BYTES = 2_048
"""Of user-defined metadata, names and values together ("Working with object metadata")."""

ORIGIN_METADATA = "modlake-origin"  # URL-encoded: metadata is ASCII
VERSION_METADATA = "modlake-origin-version"

# What is told of the original's storage is asked for again only when it comes back.
_ONLY_AT_THE_ORIGIN = {"StorageClass", "ServerSideEncryption", "SSEKMSKeyId"}
_LOOKS = 3


class QuarantineKind:
    """Copies the object with all that belongs to it, compares the copy, and deletes the original.

    Each step can be repeated, and the deletion needs the judged ETag. The target is the URI of the quarantine
    bucket or of a prefix in it.
    """

    def __init__(self, objects: ModeratedObjects, journal: Journal) -> None:
        self._objects = objects
        self._journal = journal

    def do(self, intent: Intent) -> ActionResult:
        return _looking_again(intent, self._move)

    def undo(self, intent: Intent) -> ActionResult:
        """Copy the object back when its place is free, and remove it from quarantine."""
        return _looking_again(intent, self._move_back)

    def _move(self, intent: Intent) -> ActionResult:
        found = self._objects.describe(intent.source_ref)
        if found is None or found.etag != intent.etag:
            return self._moved_before(intent, found)
        record = self._record_of(intent, found)
        place = record["quarantined_as"]
        copy = self._objects.describe(place)
        if not self._are_equal(found, copy, record["tags"]):
            self._objects.copy(found, place, _in_quarantine(intent, record), if_absent=False)
            self._compare(found, self._objects.describe(place), record["tags"])
        self._objects.remove(found)
        return result_of(intent, "completed", **record)

    def _moved_before(self, intent: Intent, found: StoredObject | None) -> ActionResult:
        """The judged object isn't there: an attempt that was killed may have moved it."""
        record = self._journal.recall(intent.action_id)
        if record is None or self._objects.describe(record["quarantined_as"]) is None:
            return not_the_judged_one(intent, found)
        self._objects.purge(StoredObject.from_json(record["origin"]))
        return result_of(intent, "completed", **record)

    def _record_of(self, intent: Intent, found: StoredObject) -> dict[str, Any]:
        now = self._record(intent, found)
        record = self._journal.remember(intent.action_id, lambda: now)
        # Where an undo that failed has put it back, what it is like now is to come back next.
        now["quarantined_as"] = record["quarantined_as"]
        return record if record == now else self._journal.rewrite(intent.action_id, now)

    def _record(self, intent: Intent, origin: StoredObject) -> dict[str, Any]:
        return {
            "origin": asdict(origin),
            "tags": self._objects.tags(origin.uri, origin.version_id),
            "quarantined_as": quarantine_uri(intent, origin),
        }

    def _are_equal(self, one: StoredObject, other: StoredObject | None, tags: dict[str, str]) -> bool:
        return (
            other is not None
            and self._objects.same_content(one, other)
            and self._objects.tags(other.uri, other.version_id) == tags
        )

    def _compare(self, one: StoredObject, other: StoredObject | None, tags: dict[str, str]) -> None:
        if not self._are_equal(one, other, tags):
            raise ModlakeTransientError(
                f"The copy of {one.uri} is not equal to it, and nothing was deleted: try again."
            )

    def _move_back(self, intent: Intent) -> ActionResult:
        record = record_of_original(intent, self._journal, "quarantined_as")
        if record is None:
            return never_done(intent)
        origin = StoredObject.from_json(record["origin"])
        copy = self._objects.describe(record["quarantined_as"])
        found = self._objects.describe(origin.uri)
        if copy is None:
            return self._moved_back_before(intent, record, found)
        properties = Properties(origin.headers, origin.metadata, record["tags"])
        if found is not None and not self._is_restored(intent, found, copy, properties):
            return result_of(
                intent,
                "replaced",
                found_etag=found.etag,
                message=(
                    f"{origin.uri} was uploaded anew, and is left alone. The quarantined one stays in "
                    f"{record['quarantined_as']}: move the new object away and undo again, or delete one."
                ),
            )
        back = found or self._copied_back(copy, origin.uri, properties)
        restored = _as_restored(back)
        try:
            if found is None:
                self._compare(copy, back, record["tags"])
            self._journal.rewrite(intent.action_id, restored)
            self._objects.remove(copy)
        except ObjectNotFoundError:
            raise
        except ModlakeTerminalError as error:
            return result_of(intent, "failed", message=str(error), **restored)
        return result_of(intent, "completed", **restored)

    def _copied_back(self, copy: StoredObject, uri: str, properties: Properties) -> StoredObject:
        self._objects.copy(copy, uri, properties, if_absent=True)
        found = self._objects.describe(uri)
        if found is None:
            raise ObjectChangedError(f"{uri} was removed as soon as it was back: look again.")
        return found

    def _moved_back_before(
        self, intent: Intent, record: dict[str, Any], found: StoredObject | None
    ) -> ActionResult:
        """Nothing is in quarantine: a killed attempt may have put it back, or never have moved it."""
        restored = self._journal.recall(intent.action_id)
        if restored is None and found is not None and found.etag == record["origin"]["etag"]:
            return never_done(intent)
        if restored is None:
            said = f"{record['quarantined_as']} is not in quarantine any more."
            return result_of(intent, "gone", message=said)
        return result_of(intent, "completed", **restored)

    def _is_restored(
        self, intent: Intent, found: StoredObject, copy: StoredObject, properties: Properties
    ) -> bool:
        """Tell whether an attempt that was killed or failed has put the object back already."""
        # Its tags may have been changed since then, by the undo of a tag at the latest.
        return self._journal.recall(intent.action_id) == _as_restored(found) or (
            found.metadata == properties.metadata
            and _without_storage(found.headers) == _without_storage(properties.headers)
            and self._objects.same_content(found, copy)
            and self._objects.tags(found.uri, found.version_id) == properties.tags
        )


def quarantine_uri(intent: Intent, origin: StoredObject) -> str:
    """Return ``<target><bucket>/<key>/<version or ETag>/<action_id>``; a key that is too long is digested."""
    folder_uri = as_folder_uri(intent.target)
    bucket, key = split_s3_uri(origin.uri)
    version = origin.version_id or origin.etag
    if len(version) > LONGEST_VERSION:
        version = hashlib.sha256(version.encode()).hexdigest()
    uri = f"{folder_uri}{bucket}/{key}/{version}/{intent.action_id}"
    if len(split_s3_uri(uri)[1].encode()) <= LONGEST_KEY_BYTES:
        return uri
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{folder_uri}{bucket}/sha256={digest}/{version}/{intent.action_id}"


def _in_quarantine(intent: Intent, record: dict[str, Any]) -> Properties:
    origin = StoredObject.from_json(record["origin"])
    place = {
        ACTION_ID_METADATA: intent.action_id,
        ORIGIN_METADATA: quote(origin.uri, safe="/:"),
        VERSION_METADATA: origin.version_id or "null",
    }
    metadata = dict(origin.metadata)
    for name, value in place.items():
        size = sum(len(known) + len(text) for known, text in metadata.items())
        # What doesn't fit stands in the action's detail alone.
        if name not in metadata and size + len(name) + len(value) <= LONGEST_METADATA_BYTES:
            metadata[name] = value
    return Properties(_without_storage(origin.headers), metadata, record["tags"])


def _as_restored(found: StoredObject) -> dict[str, Any]:
    return {"restored_etag": found.etag, "restored_at": found.last_modified}


def _without_storage(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in _ONLY_AT_THE_ORIGIN}


def _looking_again(intent: Intent, step: Callable[[Intent], ActionResult]) -> ActionResult:
    """Carry a step out anew when an object was changed or removed in the middle of it."""
    for _ in range(_LOOKS):
        try:
            return step(intent)
        except (ObjectChangedError, ObjectNotFoundError):
            continue
    raise ModlakeTransientError(
        f"{intent.source_ref} is being changed by somebody else all the time: try again later."
    )
