"""Amazon Rekognition's taxonomy of moderation labels, version 7 (AWS, "Moderating content")."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_TAXONOMY_FILE = "moderation_taxonomy_v7.json"


@dataclass(frozen=True, slots=True)
class KnownLabel:
    """A label's place; ``path`` goes from level 1 down to the label itself. At level 1 parent is None."""

    name: str
    parent: str | None
    path: tuple[str, ...]

    @property
    def level(self) -> int:
        return len(self.path)


@cache
def known_labels() -> dict[str, KnownLabel]:
    """Return the taxonomy's labels by name; a name stands in it once."""
    entries = json.loads(files("modlake.data").joinpath(_TAXONOMY_FILE).read_text(encoding="utf-8"))
    parents = {entry["name"]: entry["parent"] or None for entry in entries}
    return {name: KnownLabel(name, parent, _path(name, parents)) for name, parent in parents.items()}


def _path(name: str, parents: dict[str, str | None]) -> tuple[str, ...]:
    parent = parents[name]
    return (*(_path(parent, parents) if parent is not None else ()), name)
