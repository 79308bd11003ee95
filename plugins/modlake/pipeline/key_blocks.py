"""Cutting a listing into blocks that can be listed side by side, whatever its keys look like.

A block is all keys that share a prefix. Keys that do stand together in every order that compares texts
character by character, so that nothing is lost or doubled whether the store sorts by UTF-8, as S3 does, or
puts ``/`` first, as SeaweedFS does.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain

# Comes after every character that keys are made of.
_LAST = "\U0010ffff"
# Probes are keys themselves, and S3's have 1,024 bytes at most ("Creating object key names").
_LONGEST_SHARED_BYTES = 1_000
_PARTS_AT_ONCE = 8

Probe = Callable[[str, str], str | None]
"""Returns the first key with a prefix that is listed after a key, None when there is none."""


@dataclass(frozen=True, slots=True)
class Block:
    """The keys with a prefix that are listed after ``after``; ``position`` sorts blocks as they are listed.

    The last number of a position counts what was listed of the block before, of whose last page the
    ``continuation`` is.
    """

    prefix: str
    after: str = ""
    position: tuple[int, ...] = ()
    continuation: str = ""


def split_block(probe: Probe, block: Block, last_keys: tuple[str, str], wanted: int) -> list[Block]:
    """Return the parts of a block of which some keys have been listed, in the order of the listing.

    ``last_keys`` are two of the listed keys, the second the last one, ``block.after``. The parts hold what
    the block holds; there are about ``wanted``, or just the block itself when it can't be cut.
    """
    # What a folder of that name holds comes next. SeaweedFS would leave it out of a part that begins here.
    if probe(f"{block.after}/", "") is not None:
        return [block]
    parts = _children(probe, block, _shared(*last_keys)) or [block]
    # Once more where the first character says little: hours begin with 0, 1 and 2.
    with ThreadPoolExecutor(_PARTS_AT_ONCE) as executor:
        while 1 < len(parts) < wanted:
            finer = list(chain.from_iterable(executor.map(partial(_split_part, probe), parts)))
            if not len(parts) < len(finer) <= 5 * wanted:
                break
            parts = finer
    if len(parts) == 1:
        return [block]
    return [Block(part.prefix, part.after, (*block.position, number, 0)) for number, part in enumerate(parts)]


def _split_part(probe: Probe, part: Block) -> list[Block]:
    first = part.after or probe(part.prefix, "")
    # A key that is the prefix itself belongs to none of the children.
    if first is None or first == part.prefix:
        return [part]
    second = probe(part.prefix, first)
    if second is None:
        return [part]
    return _children(probe, part, _shared(first, second), first) or [part]


def _children(probe: Probe, block: Block, shared: str, first: str | None = None) -> list[Block]:
    """Return the blocks of the characters that follow what all the block's keys share from ``first`` on."""
    shared = shared[: _LONGEST_SHARED_BYTES // 4]
    # Cut off like this it would begin keys outside the block too.
    if len(shared) < len(block.prefix):
        return []
    while (beyond := probe(block.prefix, shared + _LAST)) is not None:
        if beyond.startswith(shared):
            return []
        shared = _shared(shared, beyond)
    seen = (first or block.after)[: len(shared) + 1]
    if len(seen) == len(shared) or len(seen.encode()) > _LONGEST_SHARED_BYTES:
        return []
    children = [Block(seen, block.after)]
    prefixes = {seen}
    while (following := probe(shared, seen + _LAST)) is not None:
        seen = following[: len(shared) + 1]
        if seen in prefixes:  # a key with the last character of all, which no probe passes
            return []
        prefixes.add(seen)
        children.append(Block(seen))
    return children


def _shared(one: str, other: str) -> str:
    return os.path.commonprefix([one, other])  # noqa: RUF071 characters are meant, not folders
