"""Variables and pools out of a real PostgreSQL, in tables as Airflow makes them."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from airflow.models.pool import Pool as AirflowPool
from airflow.models.variable import Variable
from cryptography.fernet import Fernet
from psycopg import sql
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from cli import airflow_environment, postgres
from cli.credentials import Credentials
from cli.doctor import airflow_records
from cli.doctor.airflow_records import Pool
from cli.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), airflow_port=1)
    postgres.start(settings)
    yield settings
    postgres.stop(settings)


@pytest.fixture
def database(settings: Settings) -> Iterator[psycopg.Connection]:
    running = postgres.status(settings)
    assert running is not None
    with running.connect() as connection:
        for table in (Variable.__table__, AirflowPool.__table__):
            create = CreateTable(table, include_foreign_key_constraints=[])
            connection.execute(str(create.compile(dialect=postgresql.dialect())).encode())
        yield connection
        for table in (Variable.__table__, AirflowPool.__table__):
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table.name)))


def test_database_without_airflows_tables_counts_as_none(settings: Settings) -> None:
    assert airflow_records.variables(settings).values == airflow_environment.variables()
    assert "not running" in airflow_records.pools(settings).place


def test_pools_are_those_of_the_database(settings: Settings, database: psycopg.Connection) -> None:
    database.execute("INSERT INTO slot_pool (pool, slots, include_deferred) VALUES ('jobs', 7, true)")

    found = airflow_records.pools(settings)

    assert found.values == {"jobs": Pool(7, include_deferred=True)}
    assert found.place == airflow_records.DATABASE


def test_variables_are_decrypted(settings: Settings, database: psycopg.Connection) -> None:
    secret = Fernet(Credentials.of(settings).fernet_key).encrypt(b"s3://acme/").decode()
    database.execute("INSERT INTO variable (key, val, is_encrypted) VALUES ('a', %s, true)", (secret,))
    database.execute("INSERT INTO variable (key, val, is_encrypted) VALUES ('b', 'plain', false)")

    found = airflow_records.variables(settings)

    assert found.values == {"a": "s3://acme/", "b": "plain"}
    assert found.place == airflow_records.DATABASE
