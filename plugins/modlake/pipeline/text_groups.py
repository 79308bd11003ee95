"""Which of some groups texts are in, without keeping the texts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from modlake.pipeline.columns import Column
from modlake.pipeline.text_hashes import Hashes, text_hashes

GROUPS = 64
"""A bit of a word each."""

_MOST_WORDS_LOG2 = 23


class TextGroups:
    """Remembers the groups of texts in 16 to 32 bytes each, up to 64 MiB.

    It never misses a group, and names few others while there are more words than texts: up to 8 million.

    :param expected: about how many texts will be added
    """

    def __init__(self, expected: int) -> None:
        words_log2 = min(expected.bit_length() + 1, _MOST_WORDS_LOG2)
        self._shift = np.uint64(64 - words_log2)
        self._groups = np.zeros(1 << words_log2, np.uint64)

    def add(self, texts: Column, group: int) -> None:
        """Put texts into a group, 0 to 63, too."""
        np.bitwise_or.at(self._groups, self._places(texts), np.uint64(1) << np.uint64(group))

    def groups_of(self, texts: Column) -> Iterator[tuple[int, Column]]:
        """Yield each group that any of the texts may be in, with which may."""
        groups = self._groups[self._places(texts)]
        any_of_them = int(np.bitwise_or.reduce(groups, initial=np.uint64(0)))
        for group in range(any_of_them.bit_length()):
            if any_of_them >> group & 1:
                yield group, pa.array((groups >> np.uint64(group) & np.uint64(1)).astype(np.bool_))

    def _places(self, texts: Column) -> Hashes:
        return text_hashes(texts) >> self._shift
