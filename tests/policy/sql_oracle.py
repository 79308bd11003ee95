"""The same policies as SQL for DuckDB: an evaluation that shares nothing with the one under test.

It works image by image on lists of labels, where the other works on columns of rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from modlake.policy.policy import (
    All,
    Always,
    AnyOf,
    Condition,
    HasContentType,
    HasLabel,
    JudgedByAdapter,
    JudgedByModel,
    Not,
    OnSurface,
    Policy,
)

PARENTS = {
    "Exposed Female Nipple": ["Explicit Nudity", "Explicit"],
    "Exposed Male Genitalia": ["Explicit Nudity", "Explicit"],
    "Explicit Nudity": ["Explicit"],
    "Sex Toys": ["Explicit"],
    "Smoking": ["Drugs & Tobacco Paraphernalia & Use", "Drugs & Tobacco"],
    "Pills": ["Products", "Drugs & Tobacco"],
}
"""What may be excepted in the tests' policies, and the labels above it."""


def decide(policy: Policy, images: pa.Table, labels: pa.Table) -> list[dict[str, Any]]:
    """Return source_ref, verdict, rule and reasons (sorted) of each image, by source_ref."""
    rules = list(policy.rules)
    if policy.match == "most_severe":
        severity = {"allow": 0, "review": 1, "block": 2}
        rules.sort(key=lambda rule: -severity[rule.verdict])
    whens = "\n".join(f"WHEN {_holds(rule.when)} THEN {n}" for n, rule in enumerate(rules))
    reasons = "\n".join(f"WHEN {n} THEN {_evidence(rule.when)}" for n, rule in enumerate(rules))
    verdicts = [str(rule.verdict) for rule in rules]
    sql = f"""
    WITH joined AS (
        SELECT i.*, coalesce(l.found, []) AS found FROM images i LEFT JOIN (
            SELECT source_ref, list({{'label': label, 'confidence': confidence, 'path': [label, l1, l2, l3]}})
                AS found FROM labels GROUP BY 1) l USING (source_ref)),
    decided AS (
        SELECT *, CASE WHEN outcome NOT IN ('judged', 'reused') THEN -2 {whens} ELSE -1 END AS hit
        FROM joined)
    SELECT source_ref, hit, CASE hit {reasons} ELSE [] END AS reasons FROM decided ORDER BY source_ref
    """
    connection = _connection()
    connection.register("images", images)
    connection.register("labels", labels)
    answers = connection.execute(sql).fetchall()
    return [
        {
            "source_ref": source_ref,
            "verdict": verdicts[hit] if hit >= 0 else policy.default if hit == -1 else policy.unjudged,
            "rule": rules[hit].name if hit >= 0 else None,
            "reasons": by_rank(reasons),
        }
        for source_ref, hit, reasons in answers
    ]


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


def by_rank(reasons: list[dict[str, Any]]) -> list[tuple[str, float | None]]:
    return sorted(
        ((reason["label"], reason["confidence"]) for reason in reasons),
        key=lambda reason: (-(reason[1] if reason[1] is not None else -1), reason[0]),
    )


def _holds(condition: Condition) -> str:
    match condition:
        case All(parts):
            return "(" + " AND ".join(map(_holds, parts)) + ")"
        case AnyOf(parts):
            return "(" + " OR ".join(map(_holds, parts)) + ")"
        case Not(part):
            return f"(NOT {_holds(part)})"
        case Always():
            return "true"
        case HasLabel():
            return f"(len({_rows(condition)}) > 0)"
        case HasContentType():
            return f"(len({_content_types(condition)}) > 0)"
        case OnSurface(patterns):
            return "(" + " OR ".join(map(_surface, patterns)) + ")"
        case JudgedByAdapter(patterns):
            return _like("coalesce(adapter_arn, 'none')", patterns)
        case JudgedByModel(patterns):
            return _like("coalesce(model_version, '')", patterns)


def _evidence(condition: Condition) -> str:
    """What speaks for a condition, given that it holds; a list without repetitions."""
    match condition:
        case All(parts) | AnyOf(parts):
            lists = [f"CASE WHEN {_holds(part)} THEN {_evidence(part)} ELSE [] END" for part in parts]
            return f"list_distinct(flatten([{', '.join(lists)}]))"
        case HasLabel():
            found = _rows(condition)
            return f"list_distinct([{{'label': x.label, 'confidence': x.confidence}} for x in {found}])"
        case HasContentType():
            return _content_types(condition)
        case _:
            return "[]"


def _rows(wanted: HasLabel) -> str:
    kept = [f"({_under('x', wanted.labels)})", _range("x.confidence", wanted.at_least, wanted.below)]
    for excepted in wanted.excepted:
        parents = ", ".join(map(_text, PARENTS[excepted]))
        spoken_for = (
            f"len([y for y in found if {_under('y', [excepted])} "
            f"AND {_range('y.confidence', wanted.at_least, None)}]) > 0"
        )
        kept.append(f"NOT ({_under('x', [excepted])})")
        kept.append(f"NOT (x.label IN ({parents}) AND {spoken_for})")
    return f"[x for x in found if {' AND '.join(kept)}]"


def _content_types(wanted: HasContentType) -> str:
    entries = [
        f"CASE WHEN {name}_confidence IS NOT NULL "
        f"AND {_range(f'{name}_confidence', wanted.at_least, wanted.below)}"
        f" THEN {{'label': '{name.title()}', 'confidence': {name}_confidence}} END"
        for name in sorted(name.lower() for name in wanted.content_types)
    ]
    return f"[z for z in [{', '.join(entries)}] if z IS NOT NULL]"


def _under(row: str, labels: Any) -> str:
    return " OR ".join(f"coalesce(list_contains({row}.path, {_text(label)}), false)" for label in labels)


def _range(value: str, at_least: float | None, below: float | None) -> str:
    parts = [f"{value} >= {at_least}"] if at_least is not None else []
    parts += [f"{value} < {below}"] if below is not None else []
    return f"coalesce({' AND '.join(parts)}, false)" if parts else "true"


def _surface(pattern: str) -> str:
    key = "substr(source_ref, 6 + strpos(substr(source_ref, 6), '/'))"
    text = "source_ref" if pattern.startswith("s3://") else key
    if "*" not in pattern:
        return f"starts_with({text}, {_text(pattern)})"
    # DuckDB's GLOB crosses slashes, so the tests' patterns with a * need as many as they have themselves.
    slashes = f"len({text}) - len(replace({text}, '/', ''))"
    return f"({text} GLOB {_text(pattern)} AND {slashes} = {pattern.count('/')})"


def _like(value: str, patterns: Any) -> str:
    return "(" + " OR ".join(f"{value} LIKE {_text(p.replace('*', '%'))}" for p in patterns) + ")"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
