from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modlake.pipeline.parquet import ParquetEncoder, decode_parquet, encode_parquet

TABLE = pa.table({"n": [1, 2, 3], "name": ["a", None, "c"]})


def test_a_file_reads_back_whole_or_by_column() -> None:
    body = encode_parquet(TABLE)
    assert decode_parquet(body).equals(TABLE)
    assert decode_parquet(body, ["name"]).equals(TABLE.select(["name"]))
    assert body == encode_parquet(TABLE)


def test_a_text_that_is_the_same_in_every_row_stays_text_with_its_field_id() -> None:
    field = pa.field("bucket", pa.string(), nullable=False, metadata={"PARQUET:field_id": "3"})
    table = pa.table([["ugc"] * 3, [1, 2, 3]], schema=pa.schema([field, ("n", pa.int64())]))
    found = decode_parquet(encode_parquet(table))
    assert found.equals(table)
    assert found.schema.field("bucket").equals(field, check_metadata=True)


def test_tables_that_come_one_by_one_fill_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParquetEncoder, "_ROWS_PER_GROUP", 5)
    encoder = ParquetEncoder(TABLE.schema)
    for table in (TABLE, TABLE[:0], TABLE, TABLE[:1]):
        encoder.add(table)
    assert encoder.rows == 7
    body = encoder.finish()
    assert decode_parquet(body).equals(pa.concat_tables([TABLE, TABLE, TABLE[:1]]).combine_chunks())
    metadata = pq.read_metadata(pa.BufferReader(body))
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [6, 1]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_columns_of_one_value_take_no_room_and_all_others_are_compressed() -> None:
    rows = 10_000
    table = pa.table(
        {
            "run_id": ["a-run"] * rows,
            "min_confidence": [50.0] * rows,
            "day": pa.array([20_000] * rows, pa.int32()).cast(pa.date32()),
            "error_code": pa.nulls(rows, pa.string()),
            "size_bytes": range(rows),
            "label": ["Alcohol", None] * (rows // 2),
            "reasons": [[{"label": "Alcohol", "confidence": 99.0}]] * rows,
        }
    )
    body = encode_parquet(table)
    assert decode_parquet(body).equals(table)
    group = pq.read_metadata(pa.BufferReader(body)).row_group(0)
    columns = {column.path_in_schema: column for column in map(group.column, range(group.num_columns))}
    for name in ("run_id", "min_confidence", "day", "error_code"):
        assert columns[name].compression == "UNCOMPRESSED"
        assert columns[name].total_compressed_size < 200
    for name in ("size_bytes", "label", "reasons.list.element.label", "reasons.list.element.confidence"):
        assert columns[name].compression == "ZSTD"
    with_dictionary = {name for name, column in columns.items() if column.has_dictionary_page}
    assert with_dictionary >= {
        "run_id",
        "min_confidence",
        "day",
        "label",
        "reasons.list.element.label",
    }
    assert "size_bytes" not in with_dictionary


def test_a_file_without_rows_reads_back() -> None:
    assert decode_parquet(encode_parquet(TABLE[:0])).equals(TABLE[:0])
