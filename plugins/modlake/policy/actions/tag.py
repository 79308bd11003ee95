"""Tagging an image in place."""

from __future__ import annotations

from typing import Any

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.object_store import ObjectNotFoundError
from modlake.policy.actions.journal import Journal, record_of_original
from modlake.policy.actions.kinds import never_done, not_the_judged_one, result_of
from modlake.policy.actions.objects import ModeratedObjects, StoredObject
from modlake.policy.intents import ActionResult, Intent

MOST_TAGS = 10
"""Tags an object can have ("Categorizing your storage using tags")."""


class TagKind:
    """Sets the tag of the target ``key=value`` and leaves the other tags as they are.

    S3 has no conditional tagging: an object that is replaced within the milliseconds between the look at its
    ETag and the call gets the tag.
    """

    def __init__(self, objects: ModeratedObjects, journal: Journal) -> None:
        self._objects = objects
        self._journal = journal

    def do(self, intent: Intent) -> ActionResult:
        key, _, value = intent.target.rpartition("=")
        found = self._objects.describe(intent.source_ref)
        if found is None or found.etag != intent.etag:
            return self._tagged_before(intent, found)
        try:
            tags = self._objects.tags(found.uri, found.version_id)
            wanted = tags | {key: value}
            if len(wanted) > MOST_TAGS:
                raise ModlakeTerminalError(
                    f"{intent.source_ref} has {len(tags)} tags, as many as S3 allows: remove one, or take "
                    "the action 'tag' out of the policy."
                )
            before = self._before_modlake(intent, key, tags)
            record = self._journal.remember(
                intent.action_id, lambda: {"key": key, "value": value, "tags_before": before}
            )
            if wanted != tags:
                self._objects.set_tags(found.uri, wanted, found.version_id)
        except ObjectNotFoundError:
            return not_the_judged_one(intent, None)
        return result_of(intent, "completed", **record)

    def _before_modlake(self, intent: Intent, key: str, tags: dict[str, str]) -> dict[str, str]:
        """Return the tags without the value of an earlier action, whose undo failed and may yet be done."""
        current = f"{key}={tags.get(key)}"
        for earlier_id, target in intent.detail.get("supersedes", {}).items():
            earlier = self._journal.recall(earlier_id) if target == current else None
            if earlier is not None:
                return _with_value(tags, key, earlier["tags_before"].get(key))
        return tags

    def _tagged_before(self, intent: Intent, found: StoredObject | None) -> ActionResult:
        """The judged object isn't there: an attempt that was killed may have tagged and quarantined it."""
        record = self._journal.recall(intent.action_id)
        if record is None:
            return not_the_judged_one(intent, found)
        return result_of(intent, "completed", **record)

    def undo(self, intent: Intent) -> ActionResult:
        """Give the tag back the value it had before, unless somebody has set another one since."""
        record = record_of_original(intent, self._journal, "tags_before")
        if record is None:
            return never_done(intent)
        key, before = record["key"], record["tags_before"]
        found = self._objects.describe(intent.source_ref)
        if found is None or found.etag != intent.etag:
            return not_the_judged_one(intent, found)
        try:
            tags = self._objects.tags(found.uri, found.version_id)
            if key in tags and tags[key] != record["value"]:
                said = f"The tag {key!r} was set to {tags[key]!r} since, and is left so."
                return result_of(intent, "completed", message=said)
            wanted = _with_value(tags, key, before.get(key))
            if wanted != tags:
                self._objects.set_tags(found.uri, wanted, found.version_id)
        except ObjectNotFoundError:
            return not_the_judged_one(intent, None)
        return result_of(intent, "completed", tags=wanted)


def _with_value(tags: dict[str, str], key: str, value: Any) -> dict[str, str]:
    others = {name: tags[name] for name in tags if name != key}
    return others if value is None else others | {key: value}
