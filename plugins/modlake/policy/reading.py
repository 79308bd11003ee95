"""From the text of a policy file to a policy, with every flaw at its line and field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from modlake.policy.policy import (
    All,
    Always,
    AnyOf,
    Brake,
    Condition,
    HasContentType,
    HasLabel,
    JudgedByAdapter,
    JudgedByModel,
    Not,
    OnSurface,
    Policy,
    Rule,
    Verdict,
)
from modlake.policy.schema import policy_schema
from modlake.policy.schema_flaws import schema_flaws
from modlake.policy.yaml_marks import MarkedDocument, Path, UnreadableError, read_yaml


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """A policy, and where the conditions of its rules stand: by path, in their order."""

    policy: Policy
    conditions: tuple[tuple[Path, Condition], ...]
    document: MarkedDocument


def read_policy(body: bytes) -> ReadPolicy:
    """Read a policy file.

    Raises UnreadableError with every flaw that was found against YAML and the schema.
    """
    document = read_yaml(body)
    validator = Draft202012Validator(policy_schema())
    blamed = {flaw.path for flaw in document.flaws}
    found = [
        flaw
        for error in validator.iter_errors(document.value)
        for flaw in schema_flaws(document, error)
        if flaw.path not in blamed
    ]
    if flaws := [*document.flaws, *dict.fromkeys(found)]:
        raise UnreadableError(sorted(flaws))
    conditions: list[tuple[Path, Condition]] = []
    policy = _policy(document.value, conditions)
    return ReadPolicy(policy, tuple(conditions), document)


def field_name(path: Path) -> str:
    """Return a path as people write it: rules[2].when.label."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _policy(value: Mapping[str, Any], conditions: list[tuple[Path, Condition]]) -> Policy:
    return Policy(
        name=value["name"],
        status=value["status"],
        match=value.get("match", "first"),
        default=Verdict(value.get("default", Verdict.ALLOW)),
        unjudged=Verdict(value.get("unjudged", Verdict.REVIEW)),
        actions={verdict: tuple(kinds) for verdict, kinds in value.get("actions", {}).items()},
        brake=Brake(**value["brake"]) if "brake" in value else None,
        description=value.get("description", ""),
        rules=tuple(
            Rule(
                name=rule["name"],
                verdict=Verdict(rule["verdict"]),
                description=rule.get("description", ""),
                actions=tuple(rule["actions"]) if "actions" in rule else None,
                when=_condition(rule["when"], ("rules", number, "when"), conditions),
            )
            for number, rule in enumerate(value["rules"])
        ),
    )


def _condition(value: Any, path: Path, conditions: list[tuple[Path, Condition]]) -> Condition:
    if value == "always":
        return Always()
    tests: list[Condition] = []

    def add(key: str, condition: Condition) -> None:
        tests.append(condition)
        conditions.append(((*path, key), condition))

    bounds = {bound: float(value[bound]) for bound in ("at_least", "below") if bound in value}
    if "label" in value:
        excepted = _set_of(value.get("except", []))
        add("label", HasLabel(_set_of(value["label"]), excepted=excepted, **bounds))
    if "content_type" in value:
        # Beside a label the bounds are the label's.
        own_bounds = {} if "label" in value else bounds
        add("content_type", HasContentType(_set_of(value["content_type"]), **own_bounds))
    for key, make in (
        ("surface", OnSurface),
        ("adapter", JudgedByAdapter),
        ("model_version", JudgedByModel),
    ):
        if key in value:
            add(key, make(_set_of(value[key])))
    for key, combine in (("all", All), ("any", AnyOf)):
        if key in value:
            parts = enumerate(value[key])
            add(key, combine(tuple(_condition(part, (*path, key, at), conditions) for at, part in parts)))
    if "not" in value:
        add("not", Not(_condition(value["not"], (*path, "not"), conditions)))
    return tests[0] if len(tests) == 1 else All(tuple(tests))


def _set_of(value: str | list[str]) -> frozenset[str]:
    return frozenset([value] if isinstance(value, str) else value)
