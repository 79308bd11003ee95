"""What lies in quarantine of a day."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog

from modlake.lake.filters import all_of, equal_to, one_of
from modlake.lake.schemas import ACTIONS_TABLE
from modlake.lake.table_files import TableFiles
from modlake.pipeline.columns import Column
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.quarantined import OBJECTS
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.pipeline.side_by_side import side_by_side
from modlake.policy.actions.journal import Journal
from modlake.policy.enforcement_folder import EnforcementFolder
from modlake.policy.intents import REQUESTED, UNDONE

_MOVES = pa.schema(
    [
        ACTIONS_TABLE.row_schema.field(name)
        for name in ("action_id", "source_ref", "etag", "status", "detail", "requested_at")
    ]
)
# By these the moves of one image follow each other.
_TURN = pa.schema([_MOVES.field(name) for name in ("requested_at", "action_id")])
_MOVED = pa.schema([*OBJECTS, *_TURN])
_MOVES_AT_ONCE = 5_000
_READS_AT_ONCE = 16
# Before its end, and before a failure, the object may be away already; after its return not listed yet.
_MAY_BE_AWAY = (REQUESTED, "completed", "failed", UNDONE)


class DayQuarantine:
    """A day's images in quarantine, or on their way there or back, as ``actions`` and the journal tell.

    Fulfils :class:`modlake.pipeline.quarantined.Quarantine`.
    """

    def __init__(self, catalog: Catalog, store: ObjectStore, *, day: date, work_uri: str) -> None:
        self._catalog = catalog
        self._store = store
        self._journal = Journal.of_day(store, EnforcementFolder(work_uri, day, ""))
        self._are_moves = all_of(
            equal_to("day", day.isoformat()),
            equal_to("kind", "quarantine"),
            one_of("status", sorted(_MAY_BE_AWAY)),
            equal_to("undoes", None),
        )

    def candidates(self) -> Column:
        # Not before: what is moved while the day is listed may be missing in the listing.
        self._table = self._catalog.load_table(ACTIONS_TABLE.identifier)
        moves = self._table.scan(self._are_moves, selected_fields=("source_ref",)).to_arrow()
        return moves["source_ref"].cast(pa.string()).combine_chunks().unique()

    def objects(self, unlisted: Column) -> pa.Table:
        """As the protocol tells; memory holds a few files of ``actions``, and some 200 bytes an object."""
        found = [_MOVED.empty_table()]
        if len(unlisted):
            bounds: Column = pc.min_max(unlisted)
            files = TableFiles(self._table, self._are_moves, _MOVES)
            for rows in files.read((str(bounds["min"]), str(bounds["max"]))):
                is_unlisted: Column = pc.is_in(rows["source_ref"], value_set=unlisted)
                away = rows.filter(is_unlisted).to_batches(max_chunksize=_MOVES_AT_ONCE)
                found += [self._moved(some.to_pylist()) for some in away]
        in_turn = pa.concat_tables(found).sort_by([("requested_at", "ascending"), ("action_id", "ascending")])
        return _latest(in_turn.select(OBJECTS.names))

    def _moved(self, moves: list[dict[str, Any]]) -> pa.Table:
        origins = side_by_side(self._origin, moves, _READS_AT_ONCE)
        listed = [
            _as_listed(move, origin) | {name: move[name] for name in _TURN.names}
            for move, origin in zip(moves, origins, strict=True)
            if origin is not None
        ]
        return pa.Table.from_pylist(listed, _MOVED)

    def _origin(self, move: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the object as it was before it was moved; None when it is no image of the day any more."""
        if move["status"] == UNDONE and not self._store.exists(move["source_ref"]):
            return None
        # One that began to be moved counts as away: if its owner has deleted it, the next try says ``gone``.
        detail = json.loads(move["detail"])
        record = detail if "origin" in detail else self._journal.recall(move["action_id"])
        return record["origin"] if record is not None else None


def _latest(objects: pa.Table) -> pa.Table:
    """Return the last object of each key, which is the image: moves come in the order of their requests."""
    number = pa.array(range(objects.num_rows), pa.int64())
    last = objects.append_column("number", number).group_by("key").aggregate([("number", "max")])
    return objects.take(last["number_max"]).sort_by("key")


def _as_listed(move: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, Any]:
    bucket, key = split_s3_uri(move["source_ref"])
    modified = origin.get("last_modified")
    return {
        "bucket": bucket,
        "key": key,
        "size_bytes": origin["size_bytes"],
        "etag": move["etag"],
        "last_modified": datetime.fromisoformat(modified) if modified else move["requested_at"],
    }
