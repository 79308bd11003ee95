"""The table ``actions``: what is to be done about images, what was done, and what was taken back."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.days import of_day, replace_with_rows, until_committed
from modlake.lake.filters import all_of, between, equal_to, one_of
from modlake.lake.schemas import ACTIONS_TABLE
from modlake.policy.intents import (
    REQUESTED,
    UNDONE,
    ActionResult,
    Intent,
    is_back_unchanged,
    may_be_in_effect,
    may_be_requested_anew,
    may_fail_half_way,
)
from modlake.policy.object_etags import with_earlier_etags

# As many values as a filter of Iceberg compares with a file's bounds, and a multiple of it.
_VALUES_PER_SCAN = 2_000


def read_actions(
    catalog: Catalog,
    *,
    day: date | None = None,
    action_ids: Collection[str] | None = None,
    source_refs: Collection[str] | None = None,
) -> pa.Table:
    """Return the rows that meet every condition given, the oldest first."""
    table = catalog.load_table(ACTIONS_TABLE.identifier)
    of_the_day = [equal_to("day", day.isoformat())] if day else []
    found = table.scan(
        all_of(
            *of_the_day,
            *(
                one_of(column, sorted(values))
                for column, values in (("action_id", action_ids), ("source_ref", source_refs))
                if values is not None and len(values) <= _VALUES_PER_SCAN
            ),
        )
    ).to_arrow()
    for column, values in (("action_id", action_ids), ("source_ref", source_refs)):
        if values is not None:
            found = found.filter(pc.is_in(found[column], value_set=pa.array(sorted(values), pa.string())))
    return found.cast(ACTIONS_TABLE.row_schema).sort_by(
        [("requested_at", "ascending"), ("action_id", "ascending")]
    )


def add_intents(catalog: Catalog, day: date, intents: Iterable[Intent]) -> int:
    """Write intents as ``requested``, before they are carried out; return how many rows that changed.

    An action that is known stays as it is, unless it failed, found another object or none, or has moved an
    image away that is back by the intent: then it is requested anew. All in one transaction; when nothing
    changes, nothing is committed.

    Raises ModlakeTransientError when others kept committing to the same day.
    """
    wanted = {intent.action_id: intent for intent in intents}
    _check_days(day, wanted.values())

    def add(known: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        now = datetime.now(UTC)
        return {
            action_id: _requested(intent, now, known.get(action_id))
            for action_id, intent in wanted.items()
            if action_id not in known or _is_asked_for_anew(known[action_id], intent)
        }

    return _change(catalog, day, add) if wanted else 0


def still_requested(catalog: Catalog, day: date, intents: Collection[Intent]) -> set[str]:
    """Return the ids of those intents that are to be carried out now.

    Not those whose end is recorded, and not those that are being taken back, or were.
    """
    if not intents:
        return set()
    source_refs = [intent.source_ref for intent in intents]
    rows = (
        catalog.load_table(ACTIONS_TABLE.identifier)
        .scan(
            all_of(
                equal_to("day", day.isoformat()), between("source_ref", min(source_refs), max(source_refs))
            ),
            selected_fields=("action_id", "status", "undoes"),
        )
        .to_arrow()
        .to_pylist()
    )
    requested = {row["action_id"] for row in rows if row["status"] == REQUESTED}
    taken_back = {row["undoes"] for row in rows if row["status"] in (REQUESTED, "completed")}
    return {intent.action_id for intent in intents} & requested - taken_back


def record_results(catalog: Catalog, day: date, results: Iterable[ActionResult]) -> int:
    """Write how actions ended; return how many rows that changed.

    An undo that is completed makes the action that it takes back ``undone``. One that fails makes a move
    ``failed``, so that it is tried again where it is asked for. What is known already is not written again.
    What is ``withdrawn`` changes nothing: another enforcement tells how it ended. Where two have carried an
    action out, and only the later one did it, it is done, whichever is recorded first.

    Raises ModlakeTerminalError for a result of an action that was never requested, ModlakeTransientError
    when others kept committing to the same day.
    """
    ended = {result.action_id: result for result in results}

    def record(known: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        unknown = sorted(ended.keys() - known.keys())
        if unknown:
            raise ModlakeTerminalError(
                f"{len(unknown)} results of {day} are of actions that nobody requested, first {unknown[0]}: "
                "clear the task that writes the intents into the table actions, then this one."
            )
        changed = {}
        for action_id, result in ended.items():
            row = known[action_id]
            original = known.get(row["undoes"] or "")
            is_news = row["status"] == REQUESTED and result.status != "withdrawn"
            if not is_news and original is not None and _is_asked_for_since(original, result):
                continue
            if is_news or _is_done_later(row, result):
                changed[action_id] = _with_result(row, result)
            if original is None:
                continue
            if result.status == "completed" and original["status"] != UNDONE:
                changed[original["action_id"]] = original | {"status": UNDONE, "undone_by": action_id}
            in_doubt = is_news and result.status == "failed" and may_fail_half_way(original)
            if in_doubt and original["status"] in (REQUESTED, "completed"):
                changed[original["action_id"]] = original | {"status": "failed"}
        return changed

    return _change(catalog, day, record) if ended else 0


def _is_done_later(row: Mapping[str, Any], result: ActionResult) -> bool:
    came_to_nothing = may_be_requested_anew(row) and not may_be_in_effect(row)
    return (
        came_to_nothing
        and result.status == "completed"
        and datetime.fromisoformat(result.completed_at) > row["completed_at"]
    )


def _is_asked_for_since(original: Mapping[str, Any], undo: ActionResult) -> bool:
    """Tell whether an action was requested anew, as another undo failed, after this one was done."""
    return bool(original["requested_at"] > datetime.fromisoformat(undo.completed_at))


def _change(catalog: Catalog, day: date, change: Any) -> int:
    def commit() -> int:
        table = catalog.load_table(ACTIONS_TABLE.identifier)
        rows = table.scan(of_day(day)).to_arrow().cast(ACTIONS_TABLE.row_schema)
        changed = change({row["action_id"]: row for row in rows.to_pylist()})
        if changed:
            replaced = pa.array(changed, pa.string())
            kept = rows.filter(pc.invert(pc.is_in(rows["action_id"], value_set=replaced)))
            written = pa.Table.from_pylist(list(changed.values()), ACTIONS_TABLE.row_schema)
            everything = pa.concat_tables([kept, written]).sort_by("source_ref")
            replace_with_rows(table, day, everything, {"modlake.day": day.isoformat()})
        return len(changed)

    return until_committed(commit, f"The actions of {day} could not be written")[0]


def _check_days(day: date, intents: Iterable[Intent]) -> None:
    strange = next((intent for intent in intents if intent.day != day.isoformat()), None)
    if strange is not None:
        raise ModlakeTerminalError(
            f"{strange.action_id} is of {strange.day}, not of {day}: write the intents of each day by itself."
        )


def _is_asked_for_anew(row: Mapping[str, Any], intent: Intent) -> bool:
    last_modified = intent.detail.get("last_modified")
    is_back = last_modified is not None and is_back_unchanged(row, last_modified)
    return is_back or may_be_requested_anew(row)


def _requested(intent: Intent, now: datetime, before: Mapping[str, Any] | None) -> dict[str, Any]:
    detail = with_earlier_etags(intent.detail, intent.etag, before) if before else intent.detail
    return {
        "action_id": intent.action_id,
        "day": date.fromisoformat(intent.day),
        "source_ref": intent.source_ref,
        "kind": intent.kind,
        "status": REQUESTED,
        "target": intent.target,
        "detail": _as_text(detail),
        "requested_at": now,
        "completed_at": None,
        "undone_by": None,
        "actor": intent.actor,
        "etag": intent.etag,
        "policy": intent.policy,
        "policy_version": intent.policy_version,
        "rule": intent.rule,
        "verdict": intent.verdict,
        "undoes": intent.undoes,
        "reason": intent.reason,
        "enforcement_id": intent.enforcement_id,
    }


def _with_result(row: dict[str, Any], result: ActionResult) -> dict[str, Any]:
    return row | {
        "status": result.status,
        "detail": _as_text(json.loads(row["detail"]) | result.detail),
        "completed_at": datetime.fromisoformat(result.completed_at),
    }


def _as_text(detail: Mapping[str, Any]) -> str:
    return json.dumps(detail, ensure_ascii=False, sort_keys=True)
