"""New data files of a day, which no reader sees before they are committed."""

from __future__ import annotations

from datetime import date
from uuid import uuid4

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table

from modlake.pipeline.parquet import ParquetEncoder


class NewFiles:
    """Writes rows into data files of a table; memory holds one of them, compressed, and a row group.

    :param stem: how the files' names begin
    """

    def __init__(self, table: Table, day: date, stem: str, rows_per_file: int) -> None:
        self._table = table
        # With field ids, by which readers find a file's columns.
        self._schema = schema_to_pyarrow(table.schema())
        self._day = day
        self._stem = stem
        self._rows_per_file = rows_per_file
        self._encoder: ParquetEncoder | None = None
        self._uris: list[str] = []
        self.rows = 0

    def add(self, rows: pa.Table) -> None:
        if not rows.num_rows:  # of a file without any nobody could tell the day
            return
        self._encoder = self._encoder or ParquetEncoder(self._schema)
        self._encoder.add(rows.select(self._schema.names).cast(self._schema))
        self.rows += rows.num_rows
        if self._encoder.rows >= self._rows_per_file:
            self._write(self._encoder)

    def finish(self) -> list[str]:
        """Write what is left, and return where all of it is."""
        if self._encoder is not None:
            self._write(self._encoder)
        return self._uris

    def discard(self) -> None:
        """Remove what was written; none of it may have been committed."""
        for uri in self._uris:
            self._table.io.delete(uri)
        self._encoder, self._uris = None, []

    def _write(self, encoder: ParquetEncoder) -> None:
        name = f"day={self._day}/{self._stem}-{uuid4()}.parquet"
        uri = self._table.location_provider().new_data_location(name)
        with self._table.io.new_output(uri).create() as stream:
            stream.write(encoder.finish())
        self._uris.append(uri)
        self._encoder = None
