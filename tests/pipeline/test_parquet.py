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
