"""Replacing a day of a table by one transaction, and trying again when others commit at the same time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import date, timedelta
from typing import TypeVar

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, ValidationException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction
from sqlalchemy.exc import OperationalError
from tenacity import (
    RetryError,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from modlake.exceptions import ModlakeTransientError
from modlake.lake.transactions import LakeTransaction

T = TypeVar("T")

_ATTEMPTS = 8
_EPOCH = date(1970, 1, 1)


class OvertakenError(Exception):
    """Somebody else committed to the same day in between."""


# None of these leaves a table half written, and to replace a day again is harmless.
_CONFLICTS = (
    CommitFailedException,
    CommitStateUnknownException,
    ValidationException,
    OperationalError,
    OvertakenError,
)


def until_committed(
    commit: Callable[[], T], doing: str, conflicts: tuple[type[Exception], ...] = _CONFLICTS
) -> tuple[T, int]:
    """Return what ``commit`` returns, and at which try; what it reads it must read anew each time.

    :param doing: for example "2026-11-21 could not be published"
    :param conflicts: what to try again after; by default also what leaves open whether a commit landed
    :raises ModlakeTransientError: others kept committing to the same tables
    """
    retrying = Retrying(
        retry=retry_if_exception_type(conflicts),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.2, max=10),
    )
    try:
        result = retrying(commit)
    except RetryError as error:
        conflict = error.last_attempt.exception()
        raise ModlakeTransientError(
            f"{doing}: other writers were faster {_ATTEMPTS} times "
            f"({conflict!r}). Try again, and lower the slots of the pool modlake_publish if it happens often."
        ) from conflict
    return result, retrying.statistics["attempt_number"]


def of_day(day: date) -> str:
    """Return the filter of a day's rows."""
    return f"day = '{day.isoformat()}'"


def day_of(file: DataFile) -> date:
    """Return the day of a data file's partition."""
    value: int | date = file.partition[0]
    return value if isinstance(value, date) else _EPOCH + timedelta(days=value)


def replace_with_rows(table: Table, day: date, rows: pa.Table, properties: dict[str, str]) -> int | None:
    """Let the day consist of these rows; return the snapshot, None when the table never had any."""
    with LakeTransaction(table) as transaction:
        _delete_day(transaction, day, properties)
        if rows.num_rows:
            transaction.append(rows, properties)
    return _snapshot_id(table)


def replace_with_files(
    table: Table, day: date, files: list[DataFile], properties: dict[str, str]
) -> int | None:
    """Let the day consist of these data files; return the snapshot, None when the table never had any."""
    with LakeTransaction(table) as transaction:
        _delete_day(transaction, day, properties)
        if files:
            # Not add_files(): it looks for the names in every file of the table, which attempt-unique names
            # spare, and sets a name mapping, which files with field ids don't need.
            with transaction.update_snapshot(snapshot_properties=properties).merge_append() as append:
                for file in files:
                    append.append_data_file(file)
    return _snapshot_id(table)


def _delete_day(transaction: Transaction, day: date, properties: dict[str, str]) -> None:
    # Also where the day has no rows: the deletion makes pyiceberg check for rivals of the same day.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Delete operation did not match any records")
        transaction.delete(of_day(day), properties)


def _snapshot_id(table: Table) -> int | None:
    snapshot = table.current_snapshot()
    return snapshot.snapshot_id if snapshot is not None else None
