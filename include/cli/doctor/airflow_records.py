"""Variables and pools as they stand in the Airflow database of the checkout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from cryptography.fernet import Fernet

from cli import airflow_environment, postgres
from cli.credentials import Credentials
from cli.settings import Settings

DATABASE = "Airflow's database of this checkout"


@dataclass(frozen=True, slots=True)
class Records:
    """Values by name, and where they stand; ``assumed`` ones are what a new Airflow gets."""

    values: Mapping[str, Any]
    place: str
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    slots: int
    include_deferred: bool


def variables(settings: Settings) -> Records:
    """The variables of the database; without one, those that it would be filled with."""
    rows = _select(settings, "SELECT key, val, is_encrypted FROM variable")
    if rows is None:
        place = "the defaults, as Airflow's database is not running"
        return Records(airflow_environment.variables(), place, assumed=True)
    fernet = Fernet(Credentials.of(settings).fernet_key)
    return Records(
        {
            key: fernet.decrypt(value.encode()).decode() if is_encrypted else value
            for key, value, is_encrypted in rows
        },
        DATABASE,
    )


def pools(settings: Settings) -> Records:
    """Each :class:`Pool` of the database; without one, of the file that it would be filled from."""
    rows = _select(settings, "SELECT pool, slots, include_deferred FROM slot_pool")
    if rows is None:
        values = {
            name: Pool(pool["slots"], pool["include_deferred"])
            for name, pool in airflow_environment.pools().items()
        }
        place = "include/airflow/pools.json, as Airflow's database is not running"
        return Records(values, place, assumed=True)
    return Records({name: Pool(slots, deferred) for name, slots, deferred in rows}, DATABASE)


def _select(settings: Settings, sql: str) -> list[tuple[Any, ...]] | None:
    """The rows, or None when there is no database that Airflow has made its tables in."""
    database = postgres.status(settings)
    if database is None:
        return None
    try:
        with database.connect() as connection:
            return connection.execute(sql.encode()).fetchall()
    except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
        return None
