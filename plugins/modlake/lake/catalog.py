"""The configured Iceberg catalog and the tables in it."""

from __future__ import annotations

from botocore.exceptions import BotoCoreError, CredentialRetrievalError, HTTPClientError
from botocore.exceptions import ConnectionError as BotocoreConnectionError
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    TableAlreadyExistsError,
)
from pyiceberg.table import Table
from sqlalchemy.exc import SQLAlchemyError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.lake.schemas import NAMESPACE, PROPERTIES, TABLES, LakeTable

CATALOG_NAME = "modlake"
_PREFIX = f"PYICEBERG_CATALOG__{CATALOG_NAME.upper()}__"

# pyiceberg's SQL catalog checks and then inserts: who loses that race gets the database's own error.
_retry_lost_race = retry(
    retry=retry_if_exception_type(
        (SQLAlchemyError, NamespaceAlreadyExistsError, TableAlreadyExistsError, CommitFailedException)
    ),
    stop=stop_after_attempt(5),
    wait=wait_random(0, 0.5),
    reraise=True,
)


@_retry_lost_race
def open_catalog() -> Catalog:
    """Return the catalog that pyiceberg's own configuration calls ``modlake``.

    Raises ModlakeTerminalError when there is no such configuration or AWS can't be called with it,
    ModlakeTransientError when AWS doesn't answer.
    """
    try:
        return load_catalog(CATALOG_NAME)
    except (HTTPClientError, BotocoreConnectionError, CredentialRetrievalError) as error:
        raise ModlakeTransientError(
            f"The Iceberg catalog {CATALOG_NAME} gets no answer from AWS: {error}. "
            "Mend: check the network, then try again."
        ) from error
    except BotoCoreError as error:
        # pyiceberg's boto3 session knows nothing of the Airflow connection. Some of these are ValueErrors.
        raise ModlakeTerminalError(
            f"The Iceberg catalog {CATALOG_NAME} can't call AWS: {error} Mend: set {_PREFIX}GLUE__REGION, "
            "and check the profile and the credentials that boto3 finds."
        ) from error
    except ValueError as error:
        raise ModlakeTerminalError(
            f"No Iceberg catalog named {CATALOG_NAME} can be opened ({error}). "
            f"Set {_PREFIX}TYPE (sql, glue, rest), {_PREFIX}URI and {_PREFIX}WAREHOUSE, "
            "or the same in .pyiceberg.yaml."
        ) from error


@_retry_lost_race
def ensure_tables(catalog: Catalog) -> None:
    """Create the namespace, the tables, their columns and properties that are not there yet.

    Columns that may be null by now become optional; columns of somebody else, and properties that have
    another value, are let be. Safe beside others that do the same.
    """
    catalog.create_namespace_if_not_exists(NAMESPACE)
    for table in TABLES:
        if not catalog.table_exists(table.identifier):
            catalog.create_table(
                table.identifier, table.schema, partition_spec=table.partition, properties=PROPERTIES
            )
        else:
            _bring_up_to_date(catalog.load_table(table.identifier), table)


def _bring_up_to_date(table: Table, wanted: LakeTable) -> None:
    schema, wanted_schema = table.schema(), wanted.schema
    known = set(schema.column_names)
    missing = [field for field in wanted_schema.fields if field.name not in known]
    # Dotted names of nested columns, too.
    too_strict = [
        name
        for name in wanted_schema.column_names
        if name in known and schema.find_field(name).required and wanted_schema.find_field(name).optional
    ]
    if missing or too_strict:
        with table.update_schema() as update:
            for field in missing:
                update.add_column(field.name, field.field_type)
            for name in too_strict:
                update.make_column_optional(name)
    if unset := PROPERTIES.keys() - table.properties.keys():
        with table.transaction() as transaction:
            transaction.set_properties({name: PROPERTIES[name] for name in unset})
