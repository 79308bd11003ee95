"""What the JSON Schema finds wrong with a policy file, in words and with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema.exceptions import ValidationError

from modlake.policy.suggestions import explain_choice, explain_label
from modlake.policy.yaml_marks import Flaw, MarkedDocument, Path

_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
}


@dataclass(frozen=True, slots=True)
class _Wrong:
    """A value, what a keyword of its schema wants, and the value in words."""

    value: Any
    wanted: Any
    schema: Any
    found: str


def schema_flaws(document: MarkedDocument, error: ValidationError) -> Iterator[Flaw]:
    """Yield the flaws that a validation error of a document means."""
    path: Path = tuple(error.absolute_path)
    schema: Any = error.schema
    if error.validator == "anyOf":
        yield from _flaws_of_choice(document, error, path)
    elif error.validator == "additionalProperties":
        known = schema["properties"]
        instance: Any = error.instance
        for key in (key for key in instance if key not in known):
            mark = document.keys[(*path, key)]
            yield Flaw(mark, (*path, key), f"this key is unknown. {explain_choice(key, known)}")
    else:
        found = _found(error.instance, document.texts.get(path, ""))
        wrong = _Wrong(error.instance, error.validator_value, schema, found)
        yield Flaw(document.mark(path), path, _EXPLANATIONS[str(error.validator)](wrong))


def _flaws_of_choice(document: MarkedDocument, error: ValidationError, path: Path) -> Iterator[Flaw]:
    place = list(error.schema_path)
    if "dependentSchemas" in place[-3:]:
        bound = str(place[-2])
        mark = document.keys[(*path, bound)]
        yield Flaw(mark, (*path, bound), "it needs a label or a content_type beside it. Add one.")
        return
    # The second choice is a list, or a condition.
    branch = 1 if isinstance(error.instance, list | dict) else 0
    for inner in error.context or ():
        if inner.schema_path[0] == branch:
            yield from schema_flaws(document, inner)


def _explain_enum(wrong: _Wrong) -> str:
    if not isinstance(wrong.value, str):
        return f"{wrong.found}; it should be a name. Write {_some(wrong.wanted)}."
    if wrong.schema.get("title") == "label":
        return explain_label(wrong.value)
    return explain_choice(wrong.value, wrong.wanted)


def _explain_const(wrong: _Wrong) -> str:
    return f"{wrong.found}; it should be a condition, or the word {wrong.wanted}. Write one."


def _explain_type(wrong: _Wrong) -> str:
    mend = "Write it so."
    if wrong.wanted == "string" and isinstance(wrong.value, bool | int | float):
        mend = "Put it in quotes."
    elif wrong.wanted in ("number", "integer") and isinstance(wrong.value, str):
        mend = "Write the number alone, without quotes and signs."
    elif wrong.wanted == "array" and isinstance(wrong.value, str | Mapping):
        mend = 'Begin each item with "- ".'
    return f"{wrong.found}; it should be {_KINDS[wrong.wanted]}. {mend}"


def _explain_required(wrong: _Wrong) -> str:
    missing = [key for key in wrong.wanted if key not in wrong.value]
    return f"{' and '.join(missing)} must stand here. Add what is missing."


def _explain_bounds(wrong: _Wrong) -> str:
    lowest = wrong.schema.get("minimum", wrong.schema.get("exclusiveMinimum"))
    highest = wrong.schema.get("maximum")
    if highest is None:
        return f"{wrong.value} is too small. Write a number above {lowest}."
    told = f"{wrong.value} is out of range. Write a number from {lowest} to {highest}"
    return f"{told}; 5 % is 0.05." if highest == 1 else f"{told}."


def _explain_pattern(wrong: _Wrong) -> str:
    return f'"{wrong.value}" is no name. Use up to 64 letters, digits, "-", "_" and ".", without spaces.'


_EXPLANATIONS: dict[str, Callable[[_Wrong], str]] = {
    "enum": _explain_enum,
    "const": _explain_const,
    "type": _explain_type,
    "required": _explain_required,
    "minimum": _explain_bounds,
    "maximum": _explain_bounds,
    "exclusiveMinimum": _explain_bounds,
    "pattern": _explain_pattern,
    "minItems": lambda _: "it is empty. Fill it, or remove the key.",
    "minLength": lambda _: "it is empty. Fill it, or remove the key.",
    "minProperties": lambda _: "the condition is empty. Write one, or when: always.",
    "uniqueItems": lambda _: "something stands in this list twice. Remove one.",
    "dependentRequired": lambda _: "except needs a label beside it. Add the label that it carves out of.",
}


def _found(value: object, text: str) -> str:
    match value:
        case None:
            return "nothing stands here"
        case bool():
            return f"{text} without quotes is a truth value in YAML"
        case int() | float():
            return f"{text} is a number"
        case str():
            return f'"{text}" is text'
        case list():
            return "this is a list"
        case _:
            return "this is a mapping"


def _some(choices: Iterable[str]) -> str:
    names = list(choices)
    if len(names) > 6:
        return f"one of those in docs/policies.md, such as {names[0]}"
    return f"one of: {', '.join(names)}"
