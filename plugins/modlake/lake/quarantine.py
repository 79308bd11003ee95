"""What lies in quarantine of a day."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog

from modlake.lake.actions import read_actions
from modlake.lake.filters import equal_to
from modlake.lake.schemas import IMAGES_TABLE
from modlake.pipeline.columns import Column

_COLUMNS = ("bucket", "key", "size_bytes", "etag", "last_modified")


def quarantined_objects(catalog: Catalog, day: date) -> pa.Table | None:
    """Return the day's images that lie in quarantine as they were listed, None when there are none.

    Columns: bucket, key, size_bytes, etag, last_modified, in key order.
    """
    actions = read_actions(catalog, day=day)
    is_away: Column = pc.and_(
        pc.and_(
            pc.equal(actions["kind"], pa.scalar("quarantine")),
            pc.equal(actions["status"], pa.scalar("completed")),
        ),
        pc.is_null(actions["undoes"]),
    )
    away = actions.filter(is_away)
    if not away.num_rows:
        return None
    table = catalog.load_table(IMAGES_TABLE.identifier)
    images = table.scan(
        equal_to("day", day.isoformat()), selected_fields=("source_ref", *_COLUMNS)
    ).to_arrow()
    is_wanted: Column = pc.is_in(_identity(images), value_set=_identity(away))
    return images.filter(is_wanted).sort_by("key").select(_COLUMNS).combine_chunks()


def _identity(rows: pa.Table) -> Column:
    source_ref: Column = pc.cast(rows["source_ref"], pa.string())
    return pc.binary_join_element_wise(source_ref, pc.cast(rows["etag"], pa.string()), pa.scalar("\n"))
