"""YAML read for people: values with the places they stand at, and nothing that surprises or runs.

Stricter than YAML: keys are text and stand once, there is one document, no tags, and aliases can't blow up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Path: TypeAlias = tuple[str | int, ...]
"""Keys and positions from the document down to a value."""

MAX_BYTES = 256 * 1024
_MAX_VALUES = 20_000
_MAX_DEPTH = 40
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,15})(\.[0-9]*)?|[-+]?\.[0-9]+")
_PREFIX = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_PREFIX + tag for tag in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")}


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a text, from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, order=True)
class Flaw:
    """What is wrong at a place, and how to mend it."""

    mark: Mark
    path: Path
    message: str


class UnreadableError(Exception):
    """A text is no YAML that can be used. Attribute: ``flaws``."""

    def __init__(self, flaws: list[Flaw]) -> None:
        super().__init__(*flaws)
        self.flaws = flaws


@dataclass(slots=True)
class MarkedDocument:
    """A document's value; the marks of its values and keys by path; what was wrong with it."""

    value: Any = None
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)

    def mark(self, path: Path) -> Mark:
        """Return where a value stands, or else what it would stand in."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Mark(1, 1))


def read_yaml(body: bytes) -> MarkedDocument:
    """Read a YAML document with its marks.

    Values have JSON's types; a date stays the text it was written as. Keys that stand twice, or are no text,
    numbers that are none, and tags are flaws of the document.

    Raises UnreadableError when it has no values: broken YAML, no or several documents, too large.
    """
    if len(body) > MAX_BYTES:
        raise _unreadable(
            Mark(1, 1), f"the file has {len(body)} bytes; {MAX_BYTES} are allowed. Split the policy."
        )
    try:
        node = yaml.compose(body.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = body[: error.start].count(b"\n") + 1
        raise _unreadable(Mark(line, 1), "the file is not UTF-8. Save it as UTF-8.") from error
    except yaml.YAMLError as error:
        raise _unreadable(_mark_of(error), _explain(error)) from error
    except RecursionError as error:
        raise _unreadable(Mark(1, 1), "the file is nested too deeply. Flatten its conditions.") from error
    if node is None:
        raise _unreadable(Mark(1, 1), "the file is empty. Write a policy: name, status and rules.")
    document = MarkedDocument()
    document.value = _Constructor(document).value(node, (), ())
    return document


class _Constructor:
    """Makes values of nodes."""

    def __init__(self, document: MarkedDocument) -> None:
        self._document = document
        self._count = 0

    def value(self, node: Node, path: Path, inside: tuple[Node, ...]) -> Any:
        self._guard(node, inside)
        self._document.values[path] = _mark(node)
        if node.tag not in _PLAIN_TAGS:
            self._blame(node, path, f"the tag {node.tag.replace(_PREFIX, '!!')} is not allowed. Remove it.")
            return None
        inside = (*inside, node)
        if isinstance(node, MappingNode):
            return {
                key: self.value(child, (*path, key), inside)
                for key, child in self._pairs(node, path, inside).items()
            }
        if isinstance(node, SequenceNode):
            return [self.value(child, (*path, place), inside) for place, child in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return self._scalar(node, path)

    def _guard(self, node: Node, inside: tuple[Node, ...]) -> None:
        self._count += 1
        if any(node is outer for outer in inside):
            raise _unreadable(_mark(node), "an alias stands inside its own anchor. Write the value out.")
        if self._count > _MAX_VALUES:
            raise _unreadable(
                _mark(node), f"aliases make more than {_MAX_VALUES} values of the file. Use fewer aliases."
            )
        if len(inside) > _MAX_DEPTH:
            raise _unreadable(_mark(node), f"it is nested deeper than {_MAX_DEPTH} levels. Flatten it.")

    def _pairs(self, node: MappingNode, path: Path, inside: tuple[Node, ...]) -> dict[str, Node]:
        """Return a mapping's values by key; what ``<<`` merges in comes behind its own."""
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, child in node.value:
            if key.tag == _PREFIX + "merge":
                for source in self._merge_sources(child, path, inside):
                    for name, value in self._pairs(source, path, (*inside, node)).items():
                        merged.setdefault(name, value)
            elif not isinstance(key, ScalarNode) or key.tag != _PREFIX + "str":
                self._blame(key, path, f"the key {_written(key)} is no text. Put it in quotes, or rename it.")
            elif key.value in own:
                first = self._document.keys[(*path, key.value)]
                self._blame(
                    key,
                    (*path, key.value),
                    f"the key {key.value} stands twice, first in line {first.line}. Remove one.",
                )
            else:
                own[key.value] = child
                self._document.keys[(*path, key.value)] = _mark(key)
        return merged | own

    def _merge_sources(self, node: Node, path: Path, inside: tuple[Node, ...]) -> Iterator[MappingNode]:
        for source in node.value if isinstance(node, SequenceNode) else [node]:
            self._guard(source, inside)
            if isinstance(source, MappingNode):
                yield source
            else:
                self._blame(source, path, "<< can merge mappings only. Give it the alias of a mapping.")

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        self._document.texts[path] = node.value
        if node.tag.endswith((":str", ":timestamp")):
            return node.value
        if node.tag.endswith((":int", ":float")) and not _DECIMAL.fullmatch(node.value):
            # YAML 1.1 reads 050 as 40 and 1:30 as 90.
            self._blame(node, path, f"{node.value} is no plain decimal number. Write it as 80 or 80.5.")
            return None
        return yaml.safe_load(node.value)

    def _blame(self, node: Node, path: Path, message: str) -> None:
        self._document.flaws.append(Flaw(_mark(node), path, message))


def _unreadable(mark: Mark, message: str) -> UnreadableError:
    return UnreadableError([Flaw(mark, (), message)])


def _mark(node: Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)


def _written(node: Node) -> str:
    return str(node.value) if isinstance(node, ScalarNode) else "that is a list or mapping"


def _mark_of(error: yaml.YAMLError) -> Mark:
    mark = getattr(error, "problem_mark", None)
    return Mark(mark.line + 1, mark.column + 1) if mark else Mark(1, 1)


def _explain(error: yaml.YAMLError) -> str:
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    if "'\\t'" in problem:
        return "a tab stands where YAML wants spaces. Indent with spaces."
    if "expected a single document" in str(error) or "but found another document" in problem:
        return "there is a second document (---). Put each policy in a file of its own."
    context = getattr(error, "context", None)
    return (
        f"this is not YAML: {problem}{f' ({context})' if context else ''}. Mend the line, or the one before."
    )
