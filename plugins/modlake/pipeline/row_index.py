"""Where rows stand among many others: kept in the order of their hashes, which are made once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.columns import Column
from modlake.pipeline.text_hashes import Hashes, text_hashes

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class RowIndex:
    """Finds rows by the values of some columns: texts, whole numbers or dates.

    Memory: 16 bytes a row, beside the columns.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        hashes = _row_hashes(columns)
        self._row: npt.NDArray[np.int64] = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._row]

    @property
    def has_repeated_hashes(self) -> bool:
        """Tell whether several rows hold the same values, or at least one hash."""
        return bool((self._hashes[1:] == self._hashes[:-1]).any())

    def may_hold(self, columns: Sequence[Column]) -> Column:
        """Tell which rows are held; of others, one in a million million may be taken for one that is."""
        _, is_held = self._places(_row_hashes(columns))
        return pa.array(is_held)

    def rows_of(self, columns: Sequence[Column]) -> Column:
        """Return the first row that holds the same values, null where none does.

        Of two different rows with one hash the second is not found: so likely is one pair in 10^19.
        """
        place, is_held = self._places(_row_hashes(columns))
        row: Column = pa.array(self._row[place[is_held]]) if len(self._row) else pa.array([], pa.int64())
        is_same = np.ones(len(row), np.bool_)
        for held, asked in zip(self._columns, columns, strict=True):
            same: Column = pc.equal(held.take(row), asked.filter(pa.array(is_held)))
            is_same &= np.asarray(pc.fill_null(same, False))
        is_found = is_held
        is_found[is_held] = is_same
        found = np.zeros(len(is_held), np.int64)
        found[is_found] = np.asarray(row)[is_same]
        return pa.array(found, mask=~is_found)

    def _places(self, hashes: Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        if not len(self._hashes):
            return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), np.bool_)
        place = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return place, self._hashes[place] == hashes


def _row_hashes(columns: Sequence[Column]) -> Hashes:
    hashes, *others = map(_hashes, columns)
    for own in others:
        hashes = (hashes ^ (hashes >> np.uint64(31))) * _MULTIPLIER + own
    return hashes


def _hashes(column: Column) -> Hashes:
    if pa.types.is_string(column.type):
        return text_hashes(column)
    numbers = column.cast(pa.int32()) if pa.types.is_date32(column.type) else column
    return np.asarray(pc.fill_null(numbers, 0)).astype(np.int64).view(np.uint64) * _MULTIPLIER
