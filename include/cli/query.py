"""SQL over the lake's tables by their names, on DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import duckdb
from duckdb_extensions import import_extension

from cli.lake_catalog import open_lake_catalog
from cli.settings import Settings
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

NAMESPACE = "moderation"
EXTENSIONS = ("httpfs", "avro", "iceberg")  # in the order of their needs


@dataclass(frozen=True, slots=True)
class Rows:
    """An answer: column names, and as many values in each row."""

    columns: list[str]
    rows: list[tuple[Any, ...]]

    def records(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Lake:
    """The tables as they were when it was opened; they can be read and nothing else."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, locations: dict[str, str]) -> None:
        self._connection = connection
        self.locations = locations

    def query(self, sql: str, **parameters: Any) -> Rows:
        """Runs one SELECT, in which $name stands for a parameter.

        Raises ModlakeTerminalError with DuckDB's words when it cannot.
        """
        try:
            statements = self._connection.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise ModlakeTerminalError(
                    "The tables are read only: give one statement that reads, such as SELECT or SUMMARIZE."
                )
            answer = self._connection.execute(statements[0], parameters)
            return Rows([column[0] for column in answer.description or []], answer.fetchall())
        except duckdb.Error as error:
            raise ModlakeTerminalError(f"{error}{self._hint(error)}") from error

    def columns(self) -> Rows:
        """Every column of every table."""
        return self.query(
            """SELECT table_name AS "table", column_name AS "column", data_type AS type
            FROM information_schema.columns WHERE table_schema = 'main'
            ORDER BY table_name, ordinal_position"""
        )

    def _hint(self, error: duckdb.Error) -> str:
        if not isinstance(error, duckdb.CatalogException):
            return ""
        if not self.locations:
            return "\nNothing has been published yet: run ./modlake demo first."
        return f"\nThe tables are {', '.join(sorted(self.locations))}; ./modlake query lists their columns."


@contextmanager
def open_lake(settings: Settings, cloud_settings: CloudSettings) -> Iterator[Lake]:
    """Opens the catalog that pyiceberg's variables name, by default the one of this state directory."""
    catalog = open_lake_catalog(cloud_settings)
    locations = _locations(catalog)
    with _duckdb(settings) as connection:
        _give_access(connection, catalog.properties)
        for name, location in locations.items():
            connection.execute(f'CREATE VIEW "{name}" AS FROM iceberg_scan({_literal(location)})')
        yield Lake(connection, locations)


def _locations(catalog: Catalog) -> dict[str, str]:
    if not catalog.namespace_exists(NAMESPACE):
        return {}
    return {
        identifier[-1]: catalog.load_table(identifier).metadata_location
        for identifier in sorted(catalog.list_tables(NAMESPACE))
    }


@contextmanager
def _duckdb(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(
        config={
            "extension_directory": str(settings.home / "duckdb"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    ) as connection:
        for name in EXTENSIONS:
            import_extension(name, con=connection)
            connection.load_extension(name)
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def _give_access(connection: duckdb.DuckDBPyConnection, properties: dict[str, str]) -> None:
    """Hands pyiceberg's S3 properties to DuckDB."""
    endpoint = urlsplit(properties.get("s3.endpoint", ""))
    if not endpoint.netloc:
        return
    connection.execute(
        f"""CREATE SECRET lake (
            TYPE s3,
            KEY_ID {_literal(properties["s3.access-key-id"])},
            SECRET {_literal(properties["s3.secret-access-key"])},
            REGION {_literal(properties["s3.region"])},
            ENDPOINT {_literal(endpoint.netloc)},
            URL_STYLE path,
            USE_SSL {endpoint.scheme == "https"}
        )"""
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
