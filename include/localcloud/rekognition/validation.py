"""Requests against botocore's service model, with the maxima, patterns and enums that clients don't check."""

from __future__ import annotations

import base64
import binascii
import math
import re
from functools import cache
from typing import Any

from botocore.model import ListShape, Shape, StringShape, StructureShape

from localcloud.rekognition.manifest import encodable
from localcloud.rekognition.protocol import SERVICE_MODEL, ApiError


def validated(operation: str, request: dict[str, Any]) -> dict[str, Any]:
    """The request with blobs decoded and unknown members left out.

    Raises ApiError: SerializationException for a wrong JSON type, InvalidParameterException naming every
    violated constraint otherwise.
    """
    violations: list[str] = []
    shape = SERVICE_MODEL.operation_model(operation).input_shape
    value = _structure(request, shape, "", violations) if shape is not None else {}
    if violations:
        count = f"{len(violations)} validation error{'s' if len(violations) > 1 else ''} detected: "
        raise ApiError("InvalidParameterException", count + "; ".join(violations))
    return value


def _value(value: Any, shape: Shape, path: str, violations: list[str]) -> Any:
    if isinstance(shape, StructureShape):
        return _structure(value, shape, path, violations)
    if isinstance(shape, ListShape):
        return _list(value, shape, path, violations)
    if isinstance(shape, StringShape):
        return _string(value, shape, path, violations)
    match shape.type_name:
        case "map":
            return _typed(value, dict)
        case "blob":
            return _blob(value, shape, path, violations)
        case "boolean":
            return _typed(value, bool)
        case _:
            return _number(value, shape, path, violations)


def _structure(value: Any, shape: StructureShape, path: str, violations: list[str]) -> dict[str, Any]:
    given = {name: member for name, member in _typed(value, dict).items() if member is not None}
    for name in shape.required_members:
        if name not in given:
            _violated("null", _member(path, name), "not be null", violations)
    return {
        name: _value(member, shape.members[name], _member(path, name), violations)
        for name, member in given.items()
        if name in shape.members
    }


def _list(value: Any, shape: ListShape, path: str, violations: list[str]) -> list[Any]:
    items = _typed(value, list)
    _length(len(items), "value", shape, path, violations)
    return [
        _value(item, shape.member, f"{path}.{number}.member", violations)
        for number, item in enumerate(items, start=1)
    ]


def _string(value: Any, shape: StringShape, path: str, violations: list[str]) -> str:
    text: str = _typed(value, str)
    if not encodable(text):
        raise ApiError("SerializationException", "A string is not valid Unicode")
    _length(len(text), repr(text), shape, path, violations)
    pattern = shape.metadata.get("pattern")
    if pattern is not None and not _compiled(pattern).fullmatch(text):
        _violated(repr(text), path, f"satisfy regular expression pattern: {pattern}", violations)
    if shape.enum and text not in shape.enum:
        _violated(repr(text), path, f"satisfy enum value set: [{', '.join(shape.enum)}]", violations)
    return text


def _blob(value: Any, shape: Shape, path: str, violations: list[str]) -> bytes:
    try:
        data = base64.b64decode(_typed(value, str), validate=True)
    except (binascii.Error, ValueError):
        raise ApiError("SerializationException", "Invalid base64 in a blob") from None
    _length(len(data), "", shape, path, violations)
    return data


def _number(value: Any, shape: Shape, path: str, violations: list[str]) -> int | float:
    kinds = (int,) if shape.type_name in ("integer", "long") else (int, float)
    finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, kinds) or not finite:
        raise ApiError("SerializationException", f"{type(value).__name__} can not be converted to a number")
    number: int | float = value
    if "min" in shape.metadata and number < shape.metadata["min"]:
        _violated(
            f"'{number}'", path, f"have value greater than or equal to {shape.metadata['min']}", violations
        )
    if "max" in shape.metadata and number > shape.metadata["max"]:
        _violated(
            f"'{number}'", path, f"have value less than or equal to {shape.metadata['max']}", violations
        )
    return number


def _length(length: int, shown: str, shape: Shape, path: str, violations: list[str]) -> None:
    if length < shape.metadata.get("min", 0):
        _violated(shown, path, f"have length greater than or equal to {shape.metadata['min']}", violations)
    if length > shape.metadata.get("max", math.inf):
        _violated(shown, path, f"have length less than or equal to {shape.metadata['max']}", violations)


def _violated(shown: str, path: str, must: str, violations: list[str]) -> None:
    value = f"Value {shown}" if shown else "Value"
    violations.append(f"{value} at '{path}' failed to satisfy constraint: Member must {must}")


def _member(path: str, name: str) -> str:
    """Members as the service's messages write them: operationsConfig.detectModerationLabels."""
    name = name[:1].lower() + name[1:]
    return f"{path}.{name}" if path else name


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ApiError(
            "SerializationException", f"{type(value).__name__} can not be converted to {kind.__name__}"
        )
    return value


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)
