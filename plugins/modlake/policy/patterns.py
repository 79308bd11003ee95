"""Patterns for keys, adapters and model versions, as regular expressions of RE2 (Arrow, DuckDB)."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WILDCARDS = re.compile(r"(\*\*|\*|\?)")
_SCHEME = "s3://"


def surface_regex(patterns: Iterable[str]) -> str:
    """Return what finds the ``s3://`` names that one of the patterns means.

    A pattern that begins with ``s3://`` is of the whole name, others of the key. Without a wildcard, or with
    a ``/`` at its end, it is a prefix. ``*`` and ``?`` don't match a ``/``, ``**`` does.
    """
    return _either(_surface(pattern) for pattern in sorted(patterns))


def text_regex(patterns: Iterable[str]) -> str:
    """Return what finds the texts that are one of the patterns as a whole; ``*`` matches anything."""
    return _either(_glob(pattern, within="(?s:.)") + r"\z" for pattern in sorted(patterns))


def _surface(pattern: str) -> str:
    start = "" if pattern.startswith(_SCHEME) else f"{_SCHEME}[^/]+/"
    is_prefix = pattern.endswith("/") or not _WILDCARDS.search(pattern)
    return start + _glob(pattern, within="[^/]") + ("" if is_prefix else r"\z")


def _glob(pattern: str, *, within: str) -> str:
    wildcards = {"**": "(?s:.)*", "*": f"{within}*", "?": within}
    return "".join(wildcards.get(part) or re.escape(part) for part in _WILDCARDS.split(pattern))


def _either(regexes: Iterable[str]) -> str:
    return rf"\A(?:{'|'.join(regexes)})"
