"""The right name for a wrong one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from modlake.pipeline.taxonomy import known_labels

_MAPPING_FILE = "moderation_mapping_v6_1_to_v7.json"


def explain_label(name: str) -> str:
    """Say why a text is no label, and which one is nearest."""
    successors = _successors().get(name.casefold())
    if successors:
        told = " and ".join(f'"{label}"' for label in successors)
        return f'"{name}" is of the taxonomy 6.1. In version 7 it is {told}.'
    nearest = _nearest(name, known_labels())
    return f'"{name}" is no label of the taxonomy 7. ' + (
        f'Did you mean "{nearest}"?' if nearest else "docs/policies.md lists them all."
    )


def explain_choice(value: object, choices: Iterable[str]) -> str:
    """Say which of some names a value should be."""
    known = list(choices)
    nearest = _nearest(str(value), known)
    hint = f'Did you mean "{nearest}"?' if nearest else f"Write one of: {', '.join(known)}."
    return f'"{value}" is not known here. {hint}'


def _nearest(name: str, known: Iterable[str]) -> str | None:
    by_folded = {_folded(each): each for each in known}
    found = get_close_matches(_folded(name), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def _folded(name: str) -> str:
    return name.casefold().replace("&", "and").replace("_", " ").replace("-", " ")


@cache
def _successors() -> dict[str, list[str]]:
    """The labels of version 7 for those of 6.1 (AWS, "Moderating content"), by the name in lower case."""
    mapping = json.loads(files("modlake.data").joinpath(_MAPPING_FILE).read_text(encoding="utf-8"))
    entries = [(name, targets) for name, targets in mapping["l1"].items()]
    for entry in mapping["l2"]:
        targets = [target.get("l3") or target.get("l2") or target["l1"] for target in entry["v7"]]
        entries.append((entry["v6_l2"], targets))
    return {name.casefold(): targets for name, targets in entries if name not in known_labels()}
