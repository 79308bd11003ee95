"""The table ``actions``: what is to be done about images, what was done, and what was taken back."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.data_files import describe_files
from modlake.lake.days import replace_with_files, until_committed
from modlake.lake.filters import all_of, between, equal_to, one_of
from modlake.lake.new_files import NewFiles
from modlake.lake.schemas import ACTIONS_TABLE
from modlake.lake.table_files import TableFiles
from modlake.pipeline.columns import Column
from modlake.pipeline.scratch import SortScratch, TableScratch, cut_ranges
from modlake.policy.action_history import UnfinishedActions
from modlake.policy.intents import (
    REQUESTED,
    UNDONE,
    UNFINISHED,
    ActionResult,
    Intent,
    is_back_unchanged,
    may_be_in_effect,
    may_be_requested_anew,
    may_fail_half_way,
)
from modlake.policy.object_etags import with_earlier_etags

T = TypeVar("T")
Row: TypeAlias = dict[str, Any]

ACTIONS_AT_ONCE = 20_000
"""As many are Python objects at a time, some 5 KB each."""

_ROWS_PER_FILE = 100_000
_ROWS_PER_CHUNK = 50_000
_MOST_RANGES = 200  # each is two open files on the worker's disk

_RESULTS = pa.schema([("action_id", pa.string()), ("line", pa.string())])
_NEWS = pa.schema([*_RESULTS, ("source_ref", pa.string())])

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


class DayActions:
    """The rows of a day, as they are now: read for some images at a time."""

    def __init__(self, catalog: Catalog, day: date) -> None:
        self._table = catalog.load_table(ACTIONS_TABLE.identifier)
        self._of_day = equal_to("day", day.isoformat())
        self._files = TableFiles(self._table, self._of_day, ACTIONS_TABLE.row_schema)

    def of_images(self, source_refs: Column) -> pa.Table:
        """Return the rows of these images, which are sorted, in no order."""
        found = [ACTIONS_TABLE.row_schema.empty_table()]
        for rows in self._files.read((str(source_refs[0]), str(source_refs[-1]))) if len(source_refs) else ():
            is_of_image: Column = pc.is_in(rows["source_ref"], value_set=source_refs)
            found.append(rows.filter(is_of_image))
        return pa.concat_tables(found)

    def unfinished(self) -> UnfinishedActions:
        columns = ("action_id", "status", "enforcement_id", "requested_at")
        rows = self._table.scan(
            all_of(self._of_day, one_of("status", sorted(UNFINISHED))), selected_fields=columns
        ).to_arrow()
        in_order = rows.sort_by([("requested_at", "ascending"), ("action_id", "ascending")])
        return UnfinishedActions(in_order.to_pylist())


def add_intents(catalog: Catalog, day: date, intents: Iterable[Intent]) -> int:
    """Write intents as ``requested``, before they are carried out; return how many rows that changed.

    An action that is known stays as it is, unless it failed, found another object or none, or has moved an
    image away that is back by the intent: then it is requested anew. All in one transaction; when nothing
    changes, nothing is committed.

    Raises ModlakeTransientError when others kept committing to the same day.
    """

    def add(rows: pa.Table, lines: list[str], now: datetime) -> dict[str, Row]:
        wanted = {intent.action_id: intent for intent in map(Intent.from_json, lines)}
        known = _by_id(rows, wanted)
        return {
            action_id: _requested(intent, now, known.get(action_id))
            for action_id, intent in wanted.items()
            if action_id not in known or _is_asked_for_anew(known[action_id], intent)
        }

    with closing(SortScratch(_NEWS, "source_ref", rows_at_once=_ROWS_PER_CHUNK)) as wanted:
        for some in _chunks(intents):
            _check_days(day, some)
            wanted.add(
                pa.table(
                    {
                        "action_id": [intent.action_id for intent in some],
                        "line": [intent.to_json() for intent in some],
                        "source_ref": [intent.source_ref for intent in some],
                    },
                    schema=_NEWS,
                )
            )
        return _change(catalog, day, lambda _: nullcontext(wanted), add) if wanted.rows else 0


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

    def record(rows: pa.Table, lines: list[str], _: datetime) -> dict[str, Row]:
        ended: dict[str, ActionResult] = {}
        for result in map(ActionResult.from_json, lines):
            ended.setdefault(result.action_id, result)
        known = _by_id(rows, ended)
        known |= _by_id(rows, [row["undoes"] for row in known.values() if row["undoes"]])
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

    with closing(TableScratch(_RESULTS)) as ended:
        number = 0
        for number, some in enumerate(_chunks(results), start=1):
            ended.add(
                (number,),
                pa.table(
                    {
                        "action_id": [result.action_id for result in some],
                        "line": [result.to_json() for result in some],
                    },
                    schema=_RESULTS,
                ),
            )
        return (
            _change(catalog, day, lambda known: closing(_located(ended, known, day)), record) if number else 0
        )


def _located(ended: TableScratch, known: SortScratch, day: date) -> SortScratch:
    """Return results with the images of their actions."""
    strange: list[str] = []
    news = SortScratch(_NEWS, "source_ref", rows_at_once=_ROWS_PER_CHUNK)
    for results in ended.parts(_ROWS_PER_CHUNK):
        source_ref: Column = pa.nulls(results.num_rows, pa.string())
        for rows in known.parts():
            row: Column = pc.index_in(results["action_id"], value_set=rows["action_id"])
            source_ref = pc.coalesce(source_ref, rows["source_ref"].take(row))
        is_strange: Column = pc.is_null(source_ref)
        strange += map(str, results["action_id"].filter(is_strange).to_pylist())
        news.add(results.append_column(_NEWS.field("source_ref"), source_ref.cast(pa.string())))
    if strange:
        news.close()
        raise ModlakeTerminalError(
            f"{len(strange)} results of {day} are of actions that nobody requested, first {min(strange)}: "
            "clear the task that writes the intents into the table actions, then this one."
        )
    return news


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


def _change(
    catalog: Catalog,
    day: date,
    news_of: Callable[[SortScratch], AbstractContextManager[SortScratch]],
    change: Callable[[pa.Table, list[str], datetime], dict[str, Row]],
) -> int:
    """Change rows of a day in one transaction, if any; return how many.

    ``news_of`` gets the day's rows. ``change`` gets those of some images, the lines of their news, and when
    the rows were read; it returns by action id what is to stand in their place, or beside them.
    """

    def commit() -> int:
        table = catalog.load_table(ACTIONS_TABLE.identifier)
        schema = ACTIONS_TABLE.row_schema
        files = NewFiles(table, day, "actions", _ROWS_PER_FILE)
        changed = 0
        try:
            with closing(SortScratch(schema, "source_ref", rows_at_once=_ROWS_PER_CHUNK)) as known:
                for rows in TableFiles(table, equal_to("day", day.isoformat()), schema).read():
                    known.add(rows)
                read_at = datetime.now(UTC)
                with news_of(known) as news:
                    ranges = min(-(-(known.rows + news.rows) // ACTIONS_AT_ONCE), _MOST_RANGES)
                    bounds = cut_ranges([*known.samples, *news.samples], ranges)
                    for rows, told in zip(known.ranges(bounds), news.ranges(bounds), strict=True):
                        replaced = change(rows, list(map(str, told["line"].to_pylist())), read_at)
                        files.add(_with(replaced, rows))
                        changed += len(replaced)
            uris = files.finish() if changed else []
        except BaseException:
            files.discard()
            raise
        if not changed:
            files.discard()
            return 0
        # Of a try that lost to another writer they are left to the sweep: it knows what was committed.
        described = describe_files(table, uris, day, "Clear this task.")
        replace_with_files(table, day, described, {"modlake.day": day.isoformat()})
        return changed

    return until_committed(commit, f"The actions of {day} could not be written")[0]


def _with(changed: Mapping[str, Row], rows: pa.Table) -> pa.Table:
    is_kept: Column = pc.invert(pc.is_in(rows["action_id"], value_set=pa.array(changed, pa.string())))
    written = pa.Table.from_pylist(list(changed.values()), rows.schema)
    return pa.concat_tables([rows.filter(is_kept), written]).sort_by("source_ref")


def _by_id(rows: pa.Table, action_ids: Iterable[str]) -> dict[str, Row]:
    is_asked_for: Column = pc.is_in(rows["action_id"], value_set=pa.array(action_ids, pa.string()))
    return {row["action_id"]: row for row in rows.filter(is_asked_for).to_pylist()}


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, ACTIONS_AT_ONCE)):
        yield chunk


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
