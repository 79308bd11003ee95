"""What is wrong with a policy although it is well-formed, and what is probably not meant."""

from __future__ import annotations

from collections.abc import Iterator

from modlake.pipeline.taxonomy import known_labels
from modlake.policy.policy import (
    BASE_MODEL,
    All,
    Always,
    AnyOf,
    Condition,
    HasContentType,
    HasLabel,
    JudgedByAdapter,
    Not,
    OnSurface,
    Verdict,
)
from modlake.policy.reading import ReadPolicy
from modlake.policy.yaml_marks import Flaw, Path


def contradictions(read: ReadPolicy) -> list[Flaw]:
    """Return what keeps a policy from being used."""
    flaws = [*_repeated_names(read)]
    for path, condition in read.conditions:
        flaws += [_flaw(read, (*path[:-1], key), message) for key, message in _wrong_in(condition)]
    for number, rule in enumerate(read.policy.rules):
        if _excludes_itself(rule.when):
            message = (
                "the rule asks for a condition and for its opposite, so it can't hit. Remove one of them."
            )
            flaws.append(_flaw(read, ("rules", number, "when"), message))
    return sorted(flaws)


def doubts(read: ReadPolicy, min_confidence: float) -> list[Flaw]:
    """Return what is probably not meant; ``min_confidence`` is what days are judged with, 0..100."""
    flaws = [*_without_effect(read)]
    for path, condition in read.conditions:
        for key, message in _doubtful_in(condition, min_confidence):
            flaws.append(_flaw(read, (*path[:-1], key), message))
    return sorted(flaws)


def implies(later: Condition, earlier: Condition) -> bool:
    """Tell whether it is certain that ``earlier`` holds wherever ``later`` does."""
    if later == earlier or isinstance(earlier, Always):
        return True
    match later, earlier:
        case _, All(parts):
            return all(implies(later, part) for part in parts)
        case AnyOf(parts), _:
            return all(implies(part, earlier) for part in parts)
        case _, AnyOf(parts) if any(implies(later, part) for part in parts):
            return True
        case All(parts), _:
            return any(implies(part, earlier) for part in parts)
        case HasLabel(), HasLabel():
            return (
                all(_is_under(label, earlier.labels) for label in later.labels)
                and earlier.excepted <= later.excepted
                and (not earlier.excepted or later.at_least == earlier.at_least)
                and _is_narrower(later, earlier)
            )
        case HasContentType(), HasContentType():
            return later.content_types <= earlier.content_types and _is_narrower(later, earlier)
        case _:
            return False


def _is_narrower(later: HasLabel | HasContentType, earlier: HasLabel | HasContentType) -> bool:
    return (
        earlier.at_least is None or (later.at_least is not None and later.at_least >= earlier.at_least)
    ) and (earlier.below is None or (later.below is not None and later.below <= earlier.below))


def _is_under(label: str, above: frozenset[str]) -> bool:
    return bool(above & set(known_labels()[label].path))


def _repeated_names(read: ReadPolicy) -> Iterator[Flaw]:
    first: dict[str, int] = {}
    for number, rule in enumerate(read.policy.rules):
        path = ("rules", number, "name")
        if rule.name in first:
            line = read.document.mark(("rules", first[rule.name], "name")).line
            yield _flaw(read, path, f"another rule is named {rule.name}, in line {line}. Rename one of them.")
        first.setdefault(rule.name, number)


def _wrong_in(condition: Condition) -> Iterator[tuple[str, str]]:
    match condition:
        case HasLabel(_, at_least, below) | HasContentType(_, at_least, below):
            if at_least is not None and below is not None and at_least >= below:
                yield (
                    "below",
                    (f"nothing is at least {at_least:g} and below {below:g}. Let below be above at_least."),
                )
        case JudgedByAdapter(patterns):
            for pattern in sorted(patterns):
                if pattern != BASE_MODEL and "*" not in pattern and not pattern.startswith("arn:"):
                    yield (
                        "adapter",
                        (
                            f'"{pattern}" is no adapter. Write the ARN of its version, a pattern with *, or '
                            f"{BASE_MODEL} for the base model."
                        ),
                    )
    if isinstance(condition, HasLabel):
        for label in sorted(condition.excepted):
            if label in condition.labels or not _is_under(label, condition.labels):
                yield (
                    "except",
                    (
                        f'"{label}" is not below {_names(condition.labels)}, so it can\'t be carved out. '
                        f"{_below(condition.labels)}"
                    ),
                )


def _below(labels: frozenset[str]) -> str:
    inside = [name for name in known_labels() if name not in labels and _is_under(name, labels)]
    return f"Below it are: {', '.join(inside)}." if inside else "Nothing is below it: remove except."


def _excludes_itself(condition: Condition) -> bool:
    if isinstance(condition, AnyOf):
        return all(_excludes_itself(part) for part in condition.conditions)
    parts = _conjuncts(condition)
    return any(
        implies(part, excluded.condition)
        for excluded in parts
        if isinstance(excluded, Not)
        for part in parts
        if part is not excluded
    )


def _conjuncts(condition: Condition) -> list[Condition]:
    if isinstance(condition, All):
        return [part for child in condition.conditions for part in _conjuncts(child)]
    return [condition]


def _without_effect(read: ReadPolicy) -> Iterator[Flaw]:
    policy = read.policy
    for number, rule in enumerate(policy.rules):
        path = ("rules", number, "name")
        if policy.match == "most_severe":
            if rule.verdict is Verdict.ALLOW and policy.default is Verdict.ALLOW:
                yield _flaw(
                    read,
                    path,
                    "the rule allows what is allowed anyway: with most_severe it keeps no other rule from "
                    "hitting. Use match: first, or carve out with except and not.",
                )
            continue
        for earlier in policy.rules[:number]:
            if implies(rule.when, earlier.when):
                yield _flaw(
                    read,
                    path,
                    f"the rule is never reached: {earlier.name}, before it, hits all that it would. "
                    "Move it up, or remove it.",
                )
                break


def _doubtful_in(condition: Condition, min_confidence: float) -> Iterator[tuple[str, str]]:
    match condition:
        case HasLabel(_, at_least, below) | HasContentType(_, at_least, below):
            if at_least is not None and 0 < at_least <= 1:
                yield (
                    "at_least",
                    f"confidences go to 100, so this is nearly none. Did you mean {100 * at_least:g}?",
                )
            elif at_least is not None and at_least < min_confidence:
                yield (
                    "at_least",
                    (
                        f"days are judged with a min_confidence of {min_confidence:g}: nothing below it is "
                        f"reported. Raise it to {min_confidence:g}, or judge days with {at_least:g}."
                    ),
                )
            if below is not None and below <= min_confidence:
                yield (
                    "below",
                    (
                        f"days are judged with a min_confidence of {min_confidence:g}, so this never holds. "
                        "Raise it, or judge days with less."
                    ),
                )
        case OnSurface(patterns):
            if any(pattern.startswith("/") for pattern in patterns):
                yield "surface", 'keys in S3 seldom begin with "/". Leave it out.'


def _names(labels: frozenset[str]) -> str:
    return " or ".join(f'"{label}"' for label in sorted(labels))


def _flaw(read: ReadPolicy, path: Path, message: str) -> Flaw:
    return Flaw(read.document.mark(path), path, message)
