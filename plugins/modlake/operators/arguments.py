"""How arguments of operators are read: as they are written in a DAG, and as templates render them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from modlake.exceptions import ModlakeTerminalError
from modlake.hooks.rekognition import check_min_confidence, check_text
from modlake.pipeline.day import check_day_uri, parse_day
from modlake.pipeline.engines import EngineChoice
from modlake.pipeline.reuse import ReuseMode
from modlake.pipeline.s3_uri import split_s3_uri

_MOST_RETRIES = 9


class InvalidValueError(ModlakeTerminalError, ValueError):
    """An argument of an operator can't be what it is; the message says what to write instead."""


def is_known_later(value: object) -> bool:
    """Tell whether a value becomes known when the task runs: a template, or the output of another task."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, list | tuple):
        return any(is_known_later(item) for item in value)
    return not isinstance(value, float | int | None)


def _day_uri(value: str) -> str:
    check_day_uri(value)
    return value


def _optional_day_uri(value: str | None) -> str | None:
    return _day_uri(value) if value else None


def _folder_uri(value: str) -> str:
    split_s3_uri(value)
    return value


def _uri_list(value: Sequence[str] | str) -> list[str]:
    try:
        uris = json.loads(value) if isinstance(value, str) else list(value)
    except (TypeError, ValueError):
        uris = None
    if not isinstance(uris, list) or not uris:
        raise InvalidValueError(
            f"{value!r} names no bucket or prefix: write a list such as ['s3://bucket/uploads/'] or its JSON."
        )
    return [_folder_uri(str(uri)) for uri in uris]


def _confidence(value: float | str) -> float:
    number = _number(value)
    check_min_confidence(number, written_as="it")
    return number


def _adapter(value: str | None) -> str | None:
    if value:
        check_text("ProjectVersion", value, written_as="it")
    return value or None


def _kms_key(value: str | None) -> str | None:
    if value:
        check_text("KmsKeyId", value, written_as="it")
    return value or None


def _price(value: float | str) -> float:
    number = _number(value)
    if not number >= 0:
        raise InvalidValueError(f"{value!r} is no sum of money: write 0 or more, in US dollars.")
    return number


def _budget(value: float | str | None) -> float | None:
    return None if value is None or value == "" else _price(value)


def _number(value: float | str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"{value!r} is no number: write one such as 50 or 0.001.") from error


def _retries(value: int | str) -> int:
    number = _number(value)
    if number not in range(_MOST_RETRIES + 1):
        raise InvalidValueError(f"{value!r} is no number of retries: write 0 to {_MOST_RETRIES}.")
    return int(number)


def _share(value: float | str) -> float:
    number = _number(value)
    if not 0 <= number <= 1:
        raise InvalidValueError(f"{value!r} is no share: write 0 (none) to 1 (all).")
    return number


def _reuse(value: str) -> ReuseMode:
    try:
        return ReuseMode(value)
    except ValueError as error:
        raise InvalidValueError(f"{value!r} is no way of reuse: write {', '.join(ReuseMode)}.") from error


def _engine(value: str | None) -> EngineChoice | None:
    if value is None:
        return None
    try:
        return EngineChoice(value)
    except ValueError as error:
        raise InvalidValueError(f"{value!r} is no engine: write {', '.join(EngineChoice)}.") from error


def _above_zero(value: float | str | None) -> float | None:
    if value is None or value == "":
        return None
    number = _number(value)
    if not 0 < number < inf:
        raise InvalidValueError(f"{value!r} is not above 0: write a positive number, or leave it empty.")
    return number


def _switch(value: bool | str) -> bool:
    if str(value).lower() not in {"true", "false"}:
        raise InvalidValueError(f"{value!r} is neither yes nor no: write true or false.")
    return str(value).lower() == "true"


def action_targets(value: Mapping[str, Any] | str) -> Mapping[str, Mapping[str, str]]:
    """Return where actions go, by kind; raise InvalidValueError when the value does not say so."""
    try:
        targets = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        targets = None
    if not isinstance(targets, Mapping) or not all(isinstance(each, Mapping) for each in targets.values()):
        raise InvalidValueError(
            f'{value!r} does not say where actions go: write JSON such as {{"quarantine": {{"uri": '
            '"s3://bucket/"}} into the variable modlake_action_targets (docs/actions.md, Targets).'
        )
    return targets


def check_key_of_engine(engine: EngineChoice | None, kms_key_id: str | None) -> None:
    """Raise InvalidValueError for single calls that should use a KMS key: no member of theirs takes one."""
    if engine is EngineChoice.SYNC and kms_key_id is not None:
        raise InvalidValueError(
            f"engine is sync, and only media analysis jobs take kms_key_id ({kms_key_id}). Nothing was "
            "submitted. Write engine=bulk, or set the key as the default encryption of the work bucket and "
            "leave kms_key_id out."
        )


PLAN_ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "day": parse_day,
    "source_uri": _day_uri,
    "inventory_uri": _optional_day_uri,
    "set_aside_uri": _optional_day_uri,
    "work_uri": _folder_uri,
    "allowed_uris": _uri_list,
    "min_confidence": _confidence,
    "adapter_arn": _adapter,
    "kms_key_id": _kms_key,
    "price_per_image_usd": _price,
    "max_cost_usd": _budget,
    "fresh": _switch,
    "image_retries": _retries,
    "allow_incomplete": _share,
    "reuse": _reuse,
    "engine": _engine,
    "deadline_minutes": _above_zero,
    "detect_requests_per_second": _above_zero,
}
"""What reads each argument, and raises a ModlakeTerminalError that says what to write instead."""
