"""What was done about a day's images so far, as the table ``actions`` tells."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from modlake.pipeline.columns import Column
from modlake.policy.intents import (
    MODLAKE,
    REQUESTED,
    UNDONE,
    UNFINISHED,
    is_back_unchanged,
    may_be_in_effect,
)
from modlake.policy.object_etags import etags_of_object
from modlake.policy.policy import Verdict

_NEVER = datetime.min.replace(tzinfo=UTC)


class UnfinishedActions:
    """The actions of a day that nobody has ended, or that may be tried anew.

    :param rows: ``action_id``, ``status`` and ``enforcement_id`` of actions, the oldest first
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = [row for row in rows if row["status"] in UNFINISHED]

    @property
    def requested_by(self) -> list[str]:
        """The enforcements that have requested what nobody has ended."""
        return list(dict.fromkeys(row["enforcement_id"] for row in self._rows if row["status"] == REQUESTED))

    def tried_elsewhere(self, enforcement_id: str | None) -> list[str]:
        """Return what may be tried anew, and what another enforcement has requested and not ended.

        Either is by then another enforcement's to carry out: the results of this one may be older.
        """
        return sorted(
            f"{row['action_id']} {row['status']} {row['enforcement_id']}"
            for row in self._rows
            if row["status"] != REQUESTED or row["enforcement_id"] != enforcement_id
        )


class ActionHistory:
    """The actions of some images of a day so far; made of rows of ``actions``.

    :param published_at: when the day was last published: its images were where they are listed since
    """

    def __init__(self, actions: pa.Table, published_at: datetime) -> None:
        self._published_at = published_at
        self._by_image: dict[str, list[dict[str, Any]]] = defaultdict(list)
        in_turn = actions.sort_by([("requested_at", "ascending"), ("action_id", "ascending")])
        for row in in_turn.to_pylist():
            self._by_image[row["source_ref"]].append(row)

    @property
    def source_refs(self) -> Column:
        """The images that something was done about, or asked for."""
        return pa.array(self._by_image, pa.string())

    def of(self, source_ref: str, etag: str, last_modified: datetime) -> ImageHistory:
        of_name = self._by_image.get(source_ref, [])
        etags = etags_of_object(etag, of_name)
        rows = [row for row in of_name if row["etag"] in etags]
        return ImageHistory(
            etags[-1],
            last_modified.isoformat(),
            self._published_at,
            [row for row in rows if row["undoes"] is None],
            {row["undoes"]: row for row in rows if row["undoes"] is not None},
        )


@dataclass(frozen=True, slots=True)
class ImageHistory:
    """What was done about an image as it is now; ``undos`` by the action that they take back.

    ``etag`` is the one that it has now, as far as actions tell; the day may have been listed before.
    ``last_modified`` is that of the image in its day, ISO 8601.
    """

    etag: str
    last_modified: str
    published_at: datetime
    actions: list[dict[str, Any]]
    undos: dict[str, dict[str, Any]]

    @property
    def open(self) -> list[dict[str, Any]]:
        """The actions that may be in effect."""
        return [row for row in self.actions if may_be_in_effect(row)]

    @property
    def undos_begun(self) -> list[dict[str, Any]]:
        """The actions that are about to be taken back, also those that came to nothing since."""
        return [row for row in self.actions if row["status"] != UNDONE and self.undo_status(row) == REQUESTED]

    def named(self, kind: str, target: str) -> list[dict[str, Any]]:
        return [row for row in self.actions if (row["kind"], row["target"]) == (kind, target)]

    def others(self, kind: str, action_id: str) -> list[dict[str, Any]]:
        """Return the other actions of a kind that may be in effect."""
        return [row for row in self.open if row["kind"] == kind and row["action_id"] != action_id]

    def is_overwritten(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a tag has taken the place of another one, whose value does not return by its undo."""
        return row["kind"] == "tag" and any(
            row["action_id"] in json.loads(later["detail"]).get("supersedes", {})
            for later in self.actions
            if later["kind"] == "tag" and later["status"] in (REQUESTED, "completed", UNDONE)
        )

    def undo_status(self, row: Mapping[str, Any]) -> str | None:
        undo = self.undos.get(row["action_id"])
        if undo is None:
            return None
        # One that ended before the action was asked for again says nothing of it as it is now.
        is_outdated = undo["status"] != REQUESTED and undo["requested_at"] < row["requested_at"]
        return None if is_outdated else undo["status"]

    def is_unfinished(self, row: Mapping[str, Any]) -> bool:
        """Tell whether an action failed, nobody knows its end, or its image is back in its place since."""
        return row["status"] in (REQUESTED, "failed") or self._is_back(row)

    def _is_back(self, row: Mapping[str, Any]) -> bool:
        is_elsewhere = row["kind"] != "quarantine" and self._lies_in_quarantine
        return is_back_unchanged(row, self.last_modified) and not is_elsewhere

    @property
    def _lies_in_quarantine(self) -> bool:
        return any(row["kind"] == "quarantine" and not self._is_back(row) for row in self.open)

    def sought_in_vain(self, row: Mapping[str, Any], superseded: list[dict[str, Any]]) -> bool:
        """Tell whether an action or undo did not find the image, and may find it now.

        It has another ETag, or came back since, or does so now.

        :param superseded: the actions that are about to be taken back
        """
        return row["status"] in ("replaced", "gone") and (
            row["etag"] != self.etag or row["completed_at"] < self._came_back(superseded)
        )

    def _came_back(self, superseded: list[dict[str, Any]]) -> datetime:
        quarantines = [row for row in self.actions if row["kind"] == "quarantine"]
        if any(row in superseded for row in quarantines):
            return datetime.max.replace(tzinfo=UTC)
        undone = {row["action_id"] for row in quarantines if row["status"] == UNDONE}
        times = [undo["completed_at"] for undoes, undo in self.undos.items() if undoes in undone]
        # An image in quarantine is one of its day without being where it was.
        if not self._lies_in_quarantine:
            times.append(self.published_at)
        return max(times, default=_NEVER)

    def undone_in_vain(self, superseded: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the actions whose undo did not find the image, and may find it now."""
        return [
            row
            for row in self.open
            if row["kind"] != "quarantine"
            and row["action_id"] in self.undos
            and self.sought_in_vain(self.undos[row["action_id"]], superseded)
        ]

    def answer_stands(self, severity: int) -> bool:
        """Tell whether a verdict of this severity, for lack of an answer, leaves what rests on an answer.

        A milder or equal one does, and any while the image may lie in quarantine: it can't be read there.
        """
        return any(severity_of([row]) >= severity for row in self.answered_and_kept) or any(
            row["kind"] == "quarantine" and _is_answered(row) for row in self.open
        )

    @property
    def unfinished_of_answer(self) -> list[dict[str, Any]]:
        """The actions that the answer asked for which stands, and that are not finished.

        Not one that an answer has released since, if in vain.
        """
        verdicts = {row["verdict"] for row in self.answered_and_kept}
        return [
            row
            for row in self.actions
            if self.is_unfinished(row)
            and row["verdict"] in verdicts
            and _is_answered(row)
            and self.undo_status(row) not in (REQUESTED, "failed")
        ]

    @property
    def answered_and_kept(self) -> list[dict[str, Any]]:
        """The actions that may be in effect, rest on an answer, and that nobody has begun to take back."""
        return [row for row in self.open if _is_answered(row) and self.undo_status(row) != REQUESTED]

    @property
    def undone_by_people(self) -> set[str]:
        """The kinds that a person has taken back, or is about to."""
        return {
            undo["kind"]
            for undo in self.undos.values()
            if undo["actor"] != MODLAKE and undo["status"] != "failed"
        }


def _is_answered(row: Mapping[str, Any]) -> bool:
    return "outcome" not in json.loads(row["detail"])


def severity_of(rows: Iterable[Mapping[str, Any]]) -> int:
    """Return that of the most severe verdict."""
    return max((Verdict(row["verdict"]).severity for row in rows), default=0)
