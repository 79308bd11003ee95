"""The columns of the data files that land: the lake's tables ``images`` and ``labels``.

Every column carries its Iceberg field id, by which readers find it in a file whatever becomes of names and
order. So ids are never reused, and new columns are appended.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

_FIELD_ID = "PARQUET:field_id"

TIMESTAMP = pa.timestamp("us", tz="UTC")


def required(field_id: int, name: str, arrow_type: pa.DataType) -> pa.Field[Any]:
    """Return a column that is never null."""
    return pa.field(name, arrow_type, nullable=False, metadata={_FIELD_ID: str(field_id)})


def optional(field_id: int, name: str, arrow_type: pa.DataType) -> pa.Field[Any]:
    """Return a column that may be null."""
    return pa.field(name, arrow_type, metadata={_FIELD_ID: str(field_id)})


IMAGES = pa.schema(
    [
        required(1, "day", pa.date32()),
        required(2, "source_ref", pa.string()),
        required(3, "bucket", pa.string()),
        required(4, "key", pa.string()),
        required(5, "size_bytes", pa.int64()),
        required(6, "etag", pa.string()),
        required(7, "last_modified", TIMESTAMP),
        required(8, "outcome", pa.string()),
        optional(9, "error_code", pa.string()),
        optional(10, "error_message", pa.string()),
        optional(11, "reused_from", pa.string()),
        optional(12, "label_count", pa.int64()),
        optional(13, "top_label", pa.string()),
        optional(14, "top_confidence", pa.float64()),
        optional(15, "animated_confidence", pa.float64()),
        optional(16, "illustrated_confidence", pa.float64()),
        optional(17, "model_version", pa.string()),
        optional(18, "adapter_arn", pa.string()),
        optional(19, "min_confidence", pa.float64()),
        optional(20, "engine", pa.string()),
        optional(21, "job_id", pa.string()),
        required(22, "run_id", pa.string()),
        optional(23, "judged_at", TIMESTAMP),
    ]
)

LABELS = pa.schema(
    [
        required(1, "day", pa.date32()),
        required(2, "source_ref", pa.string()),
        required(3, "label", pa.string()),
        optional(4, "parent_label", pa.string()),
        optional(5, "taxonomy_level", pa.int64()),
        optional(6, "l1", pa.string()),
        optional(7, "l2", pa.string()),
        optional(8, "l3", pa.string()),
        optional(9, "confidence", pa.float64()),
        optional(10, "model_version", pa.string()),
        optional(11, "adapter_arn", pa.string()),
        optional(12, "job_id", pa.string()),
        required(13, "run_id", pa.string()),
    ]
)

# What a listing tells of an image.
LISTED_COLUMNS = ("source_ref", "bucket", "key", "size_bytes", "etag", "last_modified")


def assemble(schema: pa.Schema, rows: int, columns: dict[str, Any]) -> pa.Table:
    """Return a table of the schema; a value that is no array fills its column, a column not named is null."""
    return pa.table(
        [_column(columns.get(field.name), field.type, rows) for field in schema],
        schema=schema,
    )


def _column(value: Any, arrow_type: pa.DataType, rows: int) -> Any:
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return value.cast(arrow_type)
    scalar: Any = pa.scalar(value, arrow_type)
    return pa.repeat(scalar, rows)
