"""Filters on the rows of a table."""

from __future__ import annotations

from typing import Any

from pyiceberg import expressions
from pyiceberg.expressions import BooleanExpression

# pyiceberg's type hints tell how its expressions are stored, not how they are made.
_made: Any = expressions


def equal_to(column: str, value: object) -> BooleanExpression:
    """Return what keeps the rows with that value; None stands for null."""
    found: BooleanExpression = _made.IsNull(column) if value is None else _made.EqualTo(column, value)
    return found


def one_of(column: str, values: list[str]) -> BooleanExpression:
    """Return what keeps the rows with one of the values."""
    found: BooleanExpression = _made.In(column, values)
    return found


def between(column: str, lowest: object = None, highest: object = None) -> BooleanExpression:
    """Return what keeps the rows with values from ``lowest`` to ``highest``; None is no bound."""
    return all_of(
        *([_made.GreaterThanOrEqual(column, lowest)] if lowest is not None else []),
        *([_made.LessThanOrEqual(column, highest)] if highest is not None else []),
    )


def all_of(*filters: BooleanExpression) -> BooleanExpression:
    """Return what keeps the rows that every filter keeps."""
    found: BooleanExpression = _made.And(_made.AlwaysTrue(), _made.AlwaysTrue(), *filters)
    return found
