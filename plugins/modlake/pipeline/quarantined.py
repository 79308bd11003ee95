"""Images that an action has moved into quarantine: no listing has them, and their day keeps them."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from modlake.pipeline.columns import Column

QUARANTINED = "QUARANTINED"
"""``images.error_code`` of those whose judgement a run can't carry over; their outcome is ``ineligible``."""

QUARANTINED_MESSAGE = "In quarantine, so that it can't be judged anew: ./modlake undo brings it back."

_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("bucket", pa.string()),
    ("key", pa.string()),
    ("size_bytes", pa.int64()),
    ("etag", pa.string()),
    ("last_modified", pa.timestamp("us", tz="UTC")),
]
OBJECTS = pa.schema(_COLUMNS)


class Quarantine(Protocol):
    """What actions have moved away from where a day is listed.

    It is asked after the listing: what is moved in between would be neither listed nor known to be away.
    """

    def candidates(self) -> Column:
        """Return, read anew, the source_refs of objects that may be away."""
        ...

    def objects(self, unlisted: Column) -> pa.Table:
        """Return, as OBJECTS in key order, those of the candidates that are away; what is listed isn't."""
        ...
