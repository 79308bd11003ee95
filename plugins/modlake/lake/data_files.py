"""Data files as Iceberg knows them: with their partition, and the statistics of their columns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_file_to_data_file,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.days import day_of


def describe_files(table: Table, uris: list[str], day: date, mend: str) -> list[DataFile]:
    """Return Parquet files as a table may append them.

    :raises ModlakeTerminalError: one can't be read or holds rows of another day; its text ends in ``mend``
    """
    described = _Description(table)

    def describe(uri: str) -> DataFile:
        try:
            file = described.file(uri)
        except (ValueError, FileNotFoundError) as error:
            raise ModlakeTerminalError(
                f"{uri} can't become part of {table.name()[-1]}: {error}. {mend}"
            ) from error
        if day_of(file) != day:
            raise ModlakeTerminalError(f"{uri} holds rows of {day_of(file)}, not of {day}. {mend}")
        return file

    with ThreadPoolExecutor() as executor:
        return list(executor.map(describe, uris))


class _Description:
    """Describes files of a table; what only depends on their schema once, which pyiceberg does for each."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._schema = table.schema()
        self._statistics_plan = compute_statistics_plan(self._schema, table.metadata.properties)
        self._field_ids = parquet_path_to_id_mapping(self._schema)
        self._compatible: list[pa.Schema] = []

    def file(self, uri: str) -> DataFile:
        """Raises ValueError when the file's schema is not the table's."""
        input_file = self._table.io.new_input(uri)
        with input_file.open() as stream:
            metadata = pq.read_metadata(cast("IO[Any]", stream))
        schema = metadata.schema.to_arrow_schema()
        if not any(schema.equals(each, check_metadata=True) for each in self._compatible):
            file = parquet_file_to_data_file(self._table.io, self._table.metadata, uri)
            self._compatible.append(schema)
            return file
        statistics = data_file_statistics_from_parquet_metadata(
            metadata, self._statistics_plan, self._field_ids
        )
        spec = self._table.spec()
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=uri,
            file_format=FileFormat.PARQUET,
            partition=statistics.partition(spec, self._schema),
            file_size_in_bytes=len(input_file),
            sort_order_id=None,
            spec_id=spec.spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )
