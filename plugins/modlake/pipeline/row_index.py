"""Where rows stand among many others: kept in the order of their hashes, which are made once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.columns import Column, Numbers
from modlake.pipeline.text_hashes import Hashes, text_hashes

NONE = -1

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class RowIndex:
    """Finds rows by the values of some columns: texts, whole numbers or dates.

    Values are told apart by hashes of 64 bits, which whoever makes the values can forge: compare what is
    found. Memory: 24 bytes a row; the columns are not kept.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        hashes = _row_hashes(columns)
        self._row_at = np.argsort(hashes)
        self._hashes = hashes[self._row_at]
        is_first = np.ones(len(hashes), np.bool_)
        is_first[1:] = self._hashes[1:] != self._hashes[:-1]
        self._place_at = np.maximum.accumulate(np.where(is_first, np.arange(len(hashes)), 0))
        self.are_different = bool(is_first.all())

    def places_of(self, columns: Sequence[Column]) -> Numbers:
        """Return a number for each row that equal rows share, -1 for rows that are not held."""
        hashes = _row_hashes(columns)
        if not len(self._hashes):
            return np.full(len(hashes), NONE)
        # In their own order they walk through the others, which takes a fraction of the time.
        order = np.argsort(hashes)
        hashes = hashes[order]
        place = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        places = np.empty(len(order), np.int64)
        places[order] = np.where(self._hashes[place] == hashes, place, NONE)
        return places

    def first_at(self, places: Numbers) -> Numbers:
        """Return for each row held the first in ``places`` that stands at its place, -1 where none does."""
        first_at = np.full(len(self._hashes), NONE)
        is_held = np.flatnonzero(places != NONE)
        # The last that is written stays.
        first_at[places[is_held[::-1]]] = is_held[::-1]
        found = np.empty(len(self._hashes), np.int64)
        found[self._row_at] = first_at[self._place_at]
        return found

    def one_at(self, places: Numbers) -> Numbers:
        """Return a row held for each place: the only one when all are different, any of several otherwise."""
        rows: Numbers = self._row_at[places]
        return rows


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
