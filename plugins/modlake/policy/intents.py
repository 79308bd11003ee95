"""What is to be done about an image, and what became of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

Status: TypeAlias = Literal["completed", "failed", "replaced", "gone", "withdrawn"]
"""How an action ended: done; not possible; not done, as the object is another one or not there, or as it was
not asked for any more."""

REQUESTED, UNDONE = "requested", "undone"

MODLAKE = "modlake"
"""The actor of everything that no person asked for."""

_MAY_BE_REQUESTED_ANEW = frozenset({"failed", "replaced", "gone"})

UNFINISHED = frozenset({REQUESTED}) | _MAY_BE_REQUESTED_ANEW
"""The statuses of actions that nobody has ended, or that may be tried anew."""

_DIGITS = 24

OBJECT_ACTION_KINDS = frozenset({"tag", "quarantine"})
"""What is done to the object itself, and ends with it."""


@dataclass(frozen=True, slots=True)
class Intent:
    """One action that is to be carried out, or taken back when ``undoes`` names one.

    ``detail`` has the ``labels`` that led to the decision, and the image's ``outcome`` when it had no answer;
    as ``supersedes`` the targets of what was done of its kind before and is to be taken back, by action id.
    That of a tag or a move has the image's ``last_modified`` in its day, ISO 8601. That of an undo has, as
    ``original``, the detail of the action that it takes back; of this one are policy, rule and verdict, too.
    ``decided_at`` is ISO 8601, and the same for every try of the intent.
    """

    action_id: str
    day: str
    source_ref: str
    etag: str
    kind: str
    target: str
    detail: dict[str, Any] = field(default_factory=dict)
    undoes: str | None = None
    policy: str | None = None
    policy_version: str | None = None
    rule: str | None = None
    verdict: str | None = None
    actor: str = MODLAKE
    reason: str | None = None
    enforcement_id: str = ""
    decided_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(), compare=False)

    def to_json(self) -> str:
        return _as_line(self)

    @classmethod
    def from_json(cls, line: str | bytes) -> Intent:
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class ActionResult:
    """How an intent ended; ``completed_at`` is ISO 8601."""

    action_id: str
    status: Status
    detail: dict[str, Any]
    completed_at: str
    undoes: str | None = None

    def to_json(self) -> str:
        return _as_line(self)

    @classmethod
    def from_json(cls, line: str | bytes) -> ActionResult:
        return cls(**json.loads(line))


def _as_line(record: Intent | ActionResult) -> str:
    # Not asdict(), which copies what lies in it, and takes four times as long.
    fields = {name: getattr(record, name) for name in record.__slots__}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def action_id(day: str, source_ref: str, etag: str, kind: str, target: str, generation: int) -> str:
    """Name an action; ``generation`` counts those before it that were the same and were taken back."""
    return _digest_id(day, source_ref, etag, kind, target, str(generation))


def undo_id(original_id: str) -> str:
    """Name the action that takes another one back: there is only one such."""
    return _digest_id(original_id, "undo")


def may_be_requested_anew(row: Mapping[str, Any]) -> bool:
    """Tell whether an action of ``actions`` that has ended may be tried again under its own name."""
    # What it sought in vain may be back since.
    return row["status"] in _MAY_BE_REQUESTED_ANEW


def may_fail_half_way(row: Mapping[str, Any]) -> bool:
    """Tell whether nobody knows where an action of ``actions`` has left its image once it failed.

    A move, or its undo, may fail after the image has left its place, or is back in it.
    """
    return bool(row["kind"] == "quarantine")


def is_back_unchanged(row: Mapping[str, Any], last_modified: str) -> bool:
    """Tell whether the image that an action of ``actions`` has tagged or moved was uploaded anew since.

    A tag is lost by that, and what was moved away is back.

    :param last_modified: ISO 8601, of the image in its day: while it lies in quarantine that of the object
        that was moved
    """
    if row["kind"] not in OBJECT_ACTION_KINDS or row["status"] != "completed" or row["undoes"] is not None:
        return False
    detail = json.loads(row["detail"])
    # One is of the listing that led to it, one of the moved object. The next upload may have an earlier one:
    # S3 dates what comes in parts from its beginning.
    known = {detail.get("last_modified"), detail.get("origin", {}).get("last_modified")} - {None}
    return bool(known) and _second(last_modified) not in map(_second, known)


def _second(time: str) -> datetime:
    # HeadObject tells no fractions; some stores' listings do.
    return datetime.fromisoformat(time).replace(microsecond=0)


def may_be_in_effect(row: Mapping[str, Any]) -> bool:
    """Tell whether an action of ``actions`` is in effect, or may be, for all that is known of its end."""
    kept = {REQUESTED, "completed"} | ({"failed"} if may_fail_half_way(row) else set())
    return row["undoes"] is None and row["status"] in kept


def _digest_id(*parts: str) -> str:
    return f"act-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_DIGITS]}"


def undo_of(original: Mapping[str, Any], *, enforcement_id: str, actor: str, reason: str | None) -> Intent:
    """Return the intent that takes back an action, given as a row of ``actions``."""
    return Intent(
        action_id=undo_id(original["action_id"]),
        day=str(original["day"]),
        source_ref=original["source_ref"],
        etag=original["etag"],
        kind=original["kind"],
        target=original["target"],
        enforcement_id=enforcement_id,
        detail={"original": json.loads(original["detail"])},
        undoes=original["action_id"],
        policy=original["policy"],
        policy_version=original["policy_version"],
        rule=original["rule"],
        verdict=original["verdict"],
        actor=actor,
        reason=reason,
    )
