"""The ETags of one object: S3 gives an encrypted one another when it is put back from quarantine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def etags_of_object(etag: str, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return every ETag that the object with this one has had by these actions, the latest last.

    :param rows: rows of ``actions`` about what lay under the object's name
    """
    moves = sorted(
        (row["completed_at"], row["etag"], restored)
        for row in rows
        if row["undoes"] is not None  # also one that failed once the object was back
        if (restored := json.loads(row["detail"]).get("restored_etag")) is not None
    )
    etags = {etag}
    for _ in moves:  # each may lead to another one
        etags.update(*(move[1:] for move in moves if etags.intersection(move[1:])))
    latest = next((after for _, _, after in reversed(moves) if after in etags), etag)
    return [*sorted(etags - {latest}), latest]
