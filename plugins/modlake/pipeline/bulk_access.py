"""Whether jobs were denied to the account: ``<work>/engines/bulk.json``."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from modlake.pipeline.engines import BulkAccess
from modlake.pipeline.object_store import ObjectNotFoundError
from modlake.pipeline.s3_uri import as_folder_uri

if TYPE_CHECKING:
    from modlake.pipeline.object_store import ObjectStore

# Another denial costs nothing, and permissions are mended: after a while it is asked again.
DENIAL_HOLDS = timedelta(days=7)


def noted_denial(store: ObjectStore, work_uri: str, now: datetime) -> BulkAccess | None:
    """Return the denial that still holds, None when there is none; ``now`` is aware."""
    try:
        noted = json.loads(store.read(_uri(work_uri)))
    except ObjectNotFoundError:
        return None
    noted_at = datetime.fromisoformat(noted["noted_at"])
    if noted["is_open"] or now - noted_at > DENIAL_HOLDS:
        return None
    return BulkAccess(is_open=False, seen=f"denied at {noted_at:%Y-%m-%d %H:%M} UTC: {noted['message']}")


def note_denial(store: ObjectStore, work_uri: str, now: datetime, message: str) -> None:
    """Note that jobs were denied, for the plans of the coming days."""
    _write(store, work_uri, now, is_open=False, message=message)


def note_access(store: ObjectStore, work_uri: str, now: datetime) -> None:
    """Note that a job was started, when the note so far says that none can be."""
    if noted_denial(store, work_uri, now) is not None:
        _write(store, work_uri, now, is_open=True, message="a job was started")


def _write(store: ObjectStore, work_uri: str, now: datetime, *, is_open: bool, message: str) -> None:
    noted = {"is_open": is_open, "noted_at": now.isoformat(), "message": message}
    store.write(_uri(work_uri), json.dumps(noted, indent=1).encode())


def _uri(work_uri: str) -> str:
    return f"{as_folder_uri(work_uri)}engines/bulk.json"
