"""A policy: versioned rules that turn an image's stored labels into a verdict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, TypeAlias

Status: TypeAlias = Literal["live", "shadow", "draft"]
Match: TypeAlias = Literal["first", "most_severe"]

CONTENT_TYPES = ("Animated", "Illustrated")
BASE_MODEL = "none"
"""What ``adapter`` is compared with where the base model has answered."""

ACTION_KINDS = ("tag", "quarantine", "review_queue", "notify_sns", "notify_sqs", "notify_webhook")


class Verdict(StrEnum):
    """What a policy says of an image."""

    ALLOW = "allow"
    REVIEW = "review"
    BLOCK = "block"

    @property
    def severity(self) -> int:
        return list(Verdict).index(self)


@dataclass(frozen=True, slots=True)
class Always:
    """Holds for every image that has an answer."""


@dataclass(frozen=True, slots=True)
class HasLabel:
    """Holds when a label, or one below it in the taxonomy, was reported with a confidence in a range.

    The range is ``at_least`` <= confidence < ``below``, 0..100; without bounds any confidence does, also an
    unknown one. Labels in ``excepted``, and those below them, don't count. Neither do the rows of their
    parents, where an excepted label itself reaches ``at_least``: Rekognition reports parents along with a
    label. So the image's other labels decide, each by its own confidence.
    """

    labels: frozenset[str]
    at_least: float | None = None
    below: float | None = None
    excepted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class HasContentType:
    """Holds when one of the content types was reported with a confidence in a range, as for labels."""

    content_types: frozenset[str]
    at_least: float | None = None
    below: float | None = None


@dataclass(frozen=True, slots=True)
class OnSurface:
    """Holds when the image's key, or its whole ``s3://`` name, begins with a prefix or matches a glob."""

    patterns: frozenset[str]


@dataclass(frozen=True, slots=True)
class JudgedByAdapter:
    """Holds when the adapter that answered matches a pattern; ``none`` stands for the base model."""

    patterns: frozenset[str]


@dataclass(frozen=True, slots=True)
class JudgedByModel:
    """Holds when the model version that answered matches a pattern."""

    patterns: frozenset[str]


@dataclass(frozen=True, slots=True)
class All:
    """Holds when each condition does."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Holds when at least one condition does."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Holds when the condition doesn't."""

    condition: Condition


Condition: TypeAlias = (
    Always | HasLabel | HasContentType | OnSurface | JudgedByAdapter | JudgedByModel | All | AnyOf | Not
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A verdict for the images for which a condition holds; ``actions`` replace those of the policy."""

    name: str
    verdict: Verdict
    when: Condition
    description: str = ""
    actions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Brake:
    """When a person must approve what a policy wants done with a day.

    ``max_images`` and ``max_share`` (0..1 of the day's images) bound the images blocked by the policy, and
    by each rule. Where ``min_days`` of the 90 days before and after the day are known, so does the median of
    their shares plus ``spreads`` times their median absolute deviation.
    """

    max_images: int | None = None
    max_share: float | None = None
    min_days: int = 7
    spreads: float = 6.0


@dataclass(frozen=True)
class Policy:
    """Rules, and what follows from their verdicts.

    ``default`` is the verdict where no rule hits, ``unjudged`` that of images without an answer. ``actions``
    are the kinds of action by verdict.
    """

    name: str
    status: Status
    match: Match
    rules: tuple[Rule, ...]
    default: Verdict = Verdict.ALLOW
    unjudged: Verdict = Verdict.REVIEW
    actions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    brake: Brake | None = None
    description: str = ""

    @cached_property
    def version(self) -> str:
        """12 hexadecimal digits over what the policy decides and has done.

        Descriptions, status and brake are no part of it.
        """
        meaning = {
            "name": self.name,
            "match": self.match,
            "default": self.default,
            "unjudged": self.unjudged,
            "actions": {verdict: sorted(kinds) for verdict, kinds in self.actions.items() if kinds},
            "rules": [
                [rule.name, rule.verdict, _meaning(rule.when), _sorted(rule.actions)] for rule in self.rules
            ],
        }
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:12]

    def actions_for(self, rule: Rule | None, verdict: Verdict) -> tuple[str, ...]:
        """Return the kinds of action that a decision asks for."""
        if rule is not None and rule.actions is not None:
            return rule.actions
        return tuple(self.actions.get(verdict, ()))

    def rule(self, name: str) -> Rule:
        """Return a rule by its name."""
        return next(rule for rule in self.rules if rule.name == name)

    @property
    def by_precedence(self) -> tuple[Rule, ...]:
        """The rules, the one that decides before the others first."""
        if self.match == "first":
            return self.rules
        return tuple(sorted(self.rules, key=lambda rule: -rule.verdict.severity))


def conditions_in(condition: Condition) -> list[Condition]:
    """Return a condition and those inside it."""
    match condition:
        case All(inner) | AnyOf(inner):
            return [condition, *(each for child in inner for each in conditions_in(child))]
        case Not(child):
            return [condition, *conditions_in(child)]
        case _:
            return [condition]


def _meaning(condition: Condition) -> Any:
    """Return the same JSON for conditions that differ in nothing but order."""
    kind = type(condition).__name__
    match condition:
        case All(inner) | AnyOf(inner):
            return [kind, sorted((_meaning(child) for child in inner), key=json.dumps)]
        case Not(child):
            return [kind, _meaning(child)]
        case HasLabel(labels, at_least, below, excepted):
            return [kind, sorted(labels), at_least, below, sorted(excepted)]
        case HasContentType(types, at_least, below):
            return [kind, sorted(types), at_least, below]
        case OnSurface(patterns) | JudgedByAdapter(patterns) | JudgedByModel(patterns):
            return [kind, sorted(patterns)]
        case Always():
            return [kind]


def _sorted(kinds: tuple[str, ...] | None) -> list[str] | None:
    return None if kinds is None else sorted(kinds)
