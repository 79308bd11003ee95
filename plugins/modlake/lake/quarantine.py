"""What lies in quarantine of a day."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog

from modlake.lake.actions import read_actions
from modlake.pipeline.columns import Column
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.quarantined import OBJECTS
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.pipeline.side_by_side import side_by_side
from modlake.policy.actions.journal import Journal
from modlake.policy.enforcement_folder import EnforcementFolder
from modlake.policy.intents import REQUESTED, UNDONE

_COLUMNS = ("action_id", "source_ref", "etag", "status", "detail", "requested_at")
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
        self._day = day

    def candidates(self) -> Column:
        actions = read_actions(self._catalog, day=self._day)
        may_be_away: Column = pc.and_(
            pc.and_(
                pc.equal(actions["kind"], pa.scalar("quarantine")),
                pc.is_in(actions["status"], value_set=pa.array(_MAY_BE_AWAY)),
            ),
            pc.is_null(actions["undoes"]),
        )
        self._moves = actions.filter(may_be_away).select(_COLUMNS)
        return self._moves["source_ref"].combine_chunks().unique()

    def objects(self, unlisted: Column) -> pa.Table:
        is_unlisted: Column = pc.is_in(self._moves["source_ref"], value_set=unlisted)
        moves = self._moves.filter(is_unlisted)
        found = [OBJECTS.empty_table()]
        for some in moves.to_batches(max_chunksize=_MOVES_AT_ONCE):
            rows = some.to_pylist()
            origins = side_by_side(self._origin, rows, _READS_AT_ONCE)
            listed = [
                _as_listed(row, origin)
                for row, origin in zip(rows, origins, strict=True)
                if origin is not None
            ]
            found.append(pa.Table.from_pylist(listed, OBJECTS))
        return _latest(pa.concat_tables(found))

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
