"""The ETags of one object: S3 gives an encrypted one another when it is put back from quarantine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

_EARLIER = "earlier_etags"


def etags_of_object(etag: str, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return every ETag that the object with this one has had by these actions, the latest last.

    :param rows: rows of ``actions`` about what lay under the object's name
    """
    told = sorted(filter(None, map(_told_by, rows)))
    etags = {etag}
    for _ in told:  # each may lead to another one
        etags.update(*(known for _, known in told if etags.intersection(known)))
    latest = next((known[-1] for _, known in reversed(told) if known[-1] in etags), etag)
    return [*sorted(etags - {latest}), latest]


def with_earlier_etags(detail: Mapping[str, Any], etag: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the detail of an action that is requested anew, by an ETag that may be another one.

    :param row: the action as it was until now
    """
    told = _told_by(row)
    earlier = {row["etag"], *(told[1] if told else ())} - {etag}
    return dict(detail) | ({_EARLIER: sorted(earlier)} if earlier else {})


def _told_by(row: Mapping[str, Any]) -> tuple[datetime, list[str]] | None:
    """Return the ETags of one object that an action tells, the latest last, and of when that one is."""
    detail = json.loads(row["detail"])
    known = [*detail.get(_EARLIER, ()), row["etag"]]
    # Also an undo that failed may have put the object back.
    if row["undoes"] is not None and detail.get("restored_etag") is not None:
        return row["completed_at"], [*known, detail["restored_etag"]]
    return (row["requested_at"], known) if len(known) > 1 else None
