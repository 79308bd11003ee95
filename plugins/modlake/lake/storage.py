"""Failures of the storage below the tables, which pyiceberg passes on as Arrow reports them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError


@contextmanager
def storage_errors_explained(doing: str) -> Iterator[None]:
    """
    Turn an ``OSError`` of the tables' storage inside the block into an error of ours.

    :param doing: what the block does, for example "Publishing 2026-11-21"
    :raises ModlakeTerminalError: a file of a table is gone
    :raises ModlakeTransientError: the storage was slow, out of reach, or failed in another way
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ModlakeTerminalError(
            f"{doing} found a file of the tables missing: {error}. Restore it, or roll the table back to a "
            "snapshot that does without it."
        ) from error
    except OSError as error:
        raise ModlakeTransientError(
            f"{doing} met trouble of the tables' storage: {error}. Try again later; if it stays so, check "
            "the catalog's s3.* settings and the rights on the warehouse."
        ) from error
