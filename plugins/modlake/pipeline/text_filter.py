"""Which of many texts are among others: a pair of Bloom filters over columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modlake.pipeline.columns import Column
from modlake.pipeline.text_hashes import Hashes, text_hashes

_LEAST_WORDS_LOG2 = 10
_MOST_WORDS_LOG2 = 23
"""64 MiB a filter: above 8 million texts more are taken for one that is held."""

_BITS_OF_A_TEXT = 4
"""All in one word, so that a look costs one access to memory; they are chosen by bits 17 to 40 of a hash."""

_SECOND_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class TextFilter:
    """Remembers texts in 16 to 32 bytes each, up to 128 MiB. It never misses one.

    Of ten million other texts about one is taken for one that is held, so that most files without any of
    these are known as such by a single column.

    :param expected: about how many texts will be held
    """

    def __init__(self, expected: int) -> None:
        words_log2 = min(max(expected.bit_length(), _LEAST_WORDS_LOG2), _MOST_WORDS_LOG2)
        self._shift = np.uint64(64 - words_log2)
        self._first = np.zeros(1 << words_log2, np.uint64)
        self._second = np.zeros(1 << words_log2, np.uint64)
        self.is_empty = True

    def add(self, texts: Column) -> None:
        hashes = text_hashes(texts)
        for words, own in ((self._first, hashes), (self._second, _hashed_again(hashes))):
            np.bitwise_or.at(words, self._places(own), _masks(own))
        self.is_empty = self.is_empty and len(hashes) == 0

    def may_hold(self, texts: Column) -> Column:
        """Tell for each text whether it may be one of those held; false is certain."""
        hashes = text_hashes(texts)
        is_held = self._are_in(self._first, hashes)
        row = np.flatnonzero(is_held)
        is_held[row] = self._are_in(self._second, _hashed_again(hashes[row]))
        return pa.array(is_held)

    def _are_in(self, words: Hashes, hashes: Hashes) -> npt.NDArray[np.bool_]:
        masks = _masks(hashes)
        are_in: npt.NDArray[np.bool_] = (words[self._places(hashes)] & masks) == masks
        return are_in

    def _places(self, hashes: Hashes) -> npt.NDArray[np.int64]:
        return (hashes >> self._shift).astype(np.int64)


def _masks(hashes: Hashes) -> Hashes:
    one, six_bits = np.uint64(1), np.uint64(63)
    masks = np.zeros(len(hashes), np.uint64)
    for number in range(_BITS_OF_A_TEXT):
        masks |= one << ((hashes >> np.uint64(17 + 6 * number)) & six_bits)
    return masks


def _hashed_again(hashes: Hashes) -> Hashes:
    return (hashes ^ (hashes >> np.uint64(29))) * _SECOND_MULTIPLIER
