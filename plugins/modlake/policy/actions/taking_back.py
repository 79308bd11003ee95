"""What a person has taken back: which actions, and by which intents."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from modlake.exceptions import ModlakeTerminalError
from modlake.policy.intents import MODLAKE, REQUESTED, Intent, may_be_in_effect, undo_id, undo_of
from modlake.policy.object_etags import etags_of_object


@dataclass(frozen=True, slots=True)
class TakingBack:
    """The actions of one day that are taken back, as rows of ``actions``, and the intents that do it."""

    day: date
    enforcement_id: str
    originals: list[Mapping[str, Any]]
    intents: list[Intent]


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """``skipped`` counts the actions that can't be in effect, by status."""

    days: list[TakingBack]
    skipped: dict[str, int]

    @property
    def originals(self) -> list[Mapping[str, Any]]:
        return [original for each in self.days for original in each.originals]


def plan_undo(
    actions: Iterable[Mapping[str, Any]], *, actor: str, reason: str | None, now: datetime
) -> UndoPlan:
    """
    Plan to take back those of the actions that are in effect, or may be.

    The same actions make the same enforcement, so that whoever asks again goes on with it; unless their undo
    has ended without success or another enforcement has requested it since, then it begins anew.

    :param actions: rows of ``actions``, the oldest first, with all undos on their images among them
    :raises ModlakeTerminalError: the actor is Modlake itself, whose undos mean no person
    """
    if not actor or actor == MODLAKE:
        raise ModlakeTerminalError(f"{actor!r} is no person: say with --actor who takes the actions back.")
    skipped: Counter[str] = Counter()
    by_day: dict[date, list[Mapping[str, Any]]] = {}
    undos: dict[str, Mapping[str, Any]] = {}
    undos_of_image: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in actions:
        if row["undoes"] is not None:
            undos[row["undoes"]] = row
            undos_of_image[row["source_ref"]].append(row)
        elif may_be_in_effect(row):
            by_day.setdefault(row["day"], []).append(row)
        else:
            skipped[row["status"]] += 1
    days = []
    for day, rows in sorted(by_day.items()):
        originals = sorted(rows, key=lambda row: str(row["source_ref"]))
        enforcement_id = _enforcement_id(originals, "")
        tried = [undos[row["action_id"]] for row in originals if row["action_id"] in undos]
        if any((undo["status"], undo["enforcement_id"]) != (REQUESTED, enforcement_id) for undo in tried):
            enforcement_id = _enforcement_id(originals, now.isoformat())
        intents = [
            replace(
                undo_of(row, enforcement_id=enforcement_id, actor=actor, reason=reason),
                etag=etags_of_object(row["etag"], undos_of_image[row["source_ref"]])[-1],
            )
            for row in originals
        ]
        days.append(TakingBack(day, enforcement_id, originals, intents))
    return UndoPlan(days, dict(skipped))


def _enforcement_id(originals: Iterable[Mapping[str, Any]], begun: str) -> str:
    meaning = json.dumps([sorted(undo_id(row["action_id"]) for row in originals), begun])
    return f"undo-{hashlib.sha256(meaning.encode()).hexdigest()[:16]}"
