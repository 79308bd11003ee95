"""Which of many texts may be among others: a Bloom filter over columns, with one hash."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modlake.pipeline.columns import Column

_Words: TypeAlias = npt.NDArray[np.uint64]

_BITS_PER_TEXT = 64
"""One text of 64 that are not held is taken for one that is."""

_LEAST_BITS_LOG2 = 16
_MOST_BITS_LOG2 = 29
"""64 MiB: above 8 million texts more are taken for one that is held."""

_ROWS_AT_ONCE = 1 << 15
"""Their words stay in the processor's cache."""

# A multiplier for each word of a text, odd so that no bit is lost; longer texts begin with the first again.
_MULTIPLIERS: _Words = np.random.default_rng(7).integers(1 << 63, size=150, dtype=np.uint64) * 2 + 1


class TextFilter:
    """Remembers texts in eight bytes each, up to 64 MiB: it never misses one, and may take another for one.

    :param expected: about how many texts will be held
    """

    def __init__(self, expected: int) -> None:
        wanted = max(expected, 1) * _BITS_PER_TEXT
        bits_log2 = min(max((wanted - 1).bit_length(), _LEAST_BITS_LOG2), _MOST_BITS_LOG2)
        self._shift = np.uint64(64 - bits_log2)
        self._bits = np.zeros(1 << (bits_log2 - 3), np.uint8)
        self.is_empty = True

    def add(self, texts: Column) -> None:
        byte, bit = self._places(texts)
        np.bitwise_or.at(self._bits, byte, bit)
        self.is_empty = self.is_empty and len(byte) == 0

    def may_hold(self, texts: Column) -> Column:
        """Tell for each text whether it may be one of those held; false is certain."""
        byte, bit = self._places(texts)
        return pa.array((self._bits[byte] & bit) != 0)

    def _places(self, texts: Column) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        place = _hashes(texts) >> self._shift
        bit = np.left_shift(np.uint8(1), (place & np.uint64(7)).astype(np.uint8))
        return (place >> np.uint64(3)).astype(np.int64), bit


def _hashes(texts: Column) -> _Words:
    """Return a hash of each text; null has that of the empty text."""
    if isinstance(texts, pa.ChunkedArray):
        return np.concatenate([_hashes(chunk) for chunk in texts.chunks] or [np.zeros(0, np.uint64)])
    if not len(texts):
        return np.zeros(0, np.uint64)
    _, offsets_buffer, bytes_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    offsets = offsets.astype(np.int64)
    told = np.zeros(0, np.uint8) if bytes_buffer is None else np.frombuffer(bytes_buffer, np.uint8)
    told = told[offsets[0] : offsets[-1]]
    ends, lengths = offsets[1:] - offsets[0], np.diff(offsets)
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest == longest:
        return _hashes_of_words(_words_of_equally_long(told.reshape(len(texts), longest)), lengths)
    # Room before the first text, so that the eight bytes that end anywhere in a text can be read as one word.
    padded = np.concatenate([np.zeros(8, np.uint8), told])
    ending: _Words = np.ndarray(len(padded) - 7, "<u8", padded, strides=(1,))
    blocks = [slice(first, first + _ROWS_AT_ONCE) for first in range(0, len(ends), _ROWS_AT_ONCE)]
    return np.concatenate(
        [
            _hashes_of_words(_words_of_different(ending, ends[block], lengths[block]), lengths[block])
            for block in blocks
        ]
    )


def _words_of_equally_long(texts: npt.NDArray[np.uint8]) -> _Words:
    """Return each text as words, from its end to its beginning, which is filled up with zeros."""
    count, length = texts.shape
    words = -(-length // 8)
    filled = np.zeros((count, 8 * words), np.uint8)
    filled[:, 8 * words - length :] = texts
    backwards: _Words = filled.view("<u8")[:, ::-1]
    return backwards


def _words_of_different(
    ending: _Words, ends: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> _Words:
    """Return the same for texts that end at ``ends``; ``ending[n]`` is the word that ends before byte n."""
    seen = np.arange(0, int(lengths.max()), 8)
    words: _Words = ending[np.maximum(ends[:, None] - seen, 0)]
    strange_bits = (8 * np.clip(8 - (lengths[:, None] - seen), 0, 8)).astype(np.uint64)
    is_strange = strange_bits == np.uint64(64)
    strange_bits[is_strange] = 0
    words = (words >> strange_bits) << strange_bits
    words[is_strange] = 0
    return words


def _hashes_of_words(words: _Words, lengths: npt.NDArray[np.int64]) -> _Words:
    multipliers = np.resize(_MULTIPLIERS[1:], words.shape[1])
    hashes: _Words = words @ multipliers
    hashes += lengths.astype(np.uint64) * _MULTIPLIERS[0]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MULTIPLIERS[0]
    return hashes
