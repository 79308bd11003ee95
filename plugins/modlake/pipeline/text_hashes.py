"""Hashes of texts, a column at a time."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modlake.pipeline.columns import Column

Hashes: TypeAlias = npt.NDArray[np.uint64]
_Words: TypeAlias = npt.NDArray[np.uint64]

_ROWS_AT_ONCE = 1 << 15
"""Their words stay in the processor's cache."""

# A multiplier for each word of a text, odd so that no bit is lost; longer texts begin with the first again.
_MULTIPLIERS: _Words = np.random.default_rng(7).integers(1 << 63, size=150, dtype=np.uint64) * 2 + 1


def text_hashes(texts: Column) -> Hashes:
    """Return a hash of each text; null has that of the empty text."""
    if isinstance(texts, pa.ChunkedArray):
        return np.concatenate([text_hashes(chunk) for chunk in texts.chunks] or [np.zeros(0, np.uint64)])
    if not len(texts):
        return np.zeros(0, np.uint64)
    _, offsets_buffer, bytes_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    offsets = offsets.astype(np.int64)
    told = np.zeros(0, np.uint8) if bytes_buffer is None else np.frombuffer(bytes_buffer, np.uint8)
    told = told[offsets[0] : offsets[-1]]
    ends, lengths = offsets[1:] - offsets[0], np.diff(offsets)
    blocks = [slice(first, first + _ROWS_AT_ONCE) for first in range(0, len(ends), _ROWS_AT_ONCE)]
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest == longest:
        same = told.reshape(len(texts), longest)
        return np.concatenate(
            [_hashes_of_words(_words_of_equally_long(same[block]), lengths[block]) for block in blocks]
        )
    # Room before the first text, so that the eight bytes that end anywhere in a text can be read as one word.
    padded = np.concatenate([np.zeros(8, np.uint8), told])
    ending: _Words = np.ndarray(len(padded) - 7, "<u8", padded, strides=(1,))
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
