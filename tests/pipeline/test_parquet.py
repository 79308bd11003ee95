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
