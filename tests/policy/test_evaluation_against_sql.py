"""Random days and policies: columns and DuckDB decide the same, for the same reasons."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modlake.pipeline.taxonomy import known_labels
from modlake.policy.evaluation import evaluate
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
    Rule,
    Verdict,
)
from tests.policy import sql_oracle
from tests.policy.tables import ADAPTER, image_table, label_table

NAMES = [
    "Explicit",
    "Explicit Nudity",
    "Exposed Female Nipple",
    "Exposed Male Genitalia",
    "Sex Toys",
    "Drugs & Tobacco",
    "Smoking",
    "Products",
    "Pills",
    "Violence",
]
CARVED = {
    "Explicit": ["Explicit Nudity", "Exposed Female Nipple", "Exposed Male Genitalia", "Sex Toys"],
    "Explicit Nudity": ["Exposed Female Nipple", "Exposed Male Genitalia"],
    "Drugs & Tobacco": ["Smoking", "Pills"],
    "Products": ["Pills"],
}
# Few values, so that bounds and confidences meet.
CONFIDENCES = [50.0, 60.0, 79.9, 80.0, 95.0, 100.0]
FOLDERS = ["up/a/", "up/b/", "up/b/c/", "other/", "up/b/ünï "]
BOUNDS = [None, 0.0, 60.0, 80.0, 95.0]


def some_of(dice: random.Random, values: list[str]) -> frozenset[str]:
    return frozenset(dice.sample(values, dice.randint(1, min(2, len(values)))))


def has_label(dice: random.Random) -> HasLabel:
    labels = some_of(dice, NAMES)
    inside = sorted({name for label in labels for name in CARVED.get(label, [])} - labels)
    excepted = some_of(dice, inside) if inside and dice.random() < 0.6 else frozenset()
    return HasLabel(labels, dice.choice(BOUNDS), dice.choice([None, None, *BOUNDS]), excepted)


def other_test(dice: random.Random) -> Condition:
    kind = dice.randrange(5)
    if kind == 0:
        return HasContentType(
            some_of(dice, ["Animated", "Illustrated"]), dice.choice(BOUNDS), dice.choice(BOUNDS)
        )
    if kind == 1:
        return OnSurface(some_of(dice, ["up/", "up/b/", "up/*/*.jpg", "s3://ugc/up/a", "other/*.png"]))
    if kind == 2:
        return JudgedByAdapter(some_of(dice, ["none", "arn:*", ADAPTER]))
    if kind == 3:
        return JudgedByModel(some_of(dice, ["7.0", "7.*", "8.0"]))
    return Always()


def condition(dice: random.Random, depth: int) -> Condition:
    kind = dice.random()
    if depth == 0 or kind < 0.3:
        return has_label(dice) if dice.random() < 0.7 else other_test(dice)
    if kind < 0.4:
        return Not(condition(dice, depth - 1))
    parts = tuple(condition(dice, depth - 1) for _ in range(dice.randint(2, 3)))
    return AnyOf(parts) if kind < 0.7 else All(parts)


def policy(seed: int) -> Policy:
    dice = random.Random(seed)
    return Policy(
        name="random",
        status="live",
        match=dice.choice(["first", "most_severe"]),
        rules=tuple(
            Rule(f"rule-{number}", dice.choice(list(Verdict)), condition(dice, 2))
            for number in range(dice.randint(1, 4))
        ),
        default=dice.choice(list(Verdict)),
        unjudged=dice.choice(list(Verdict)),
    )


def day(seed: int, images: int = 150) -> tuple[pa.Table, pa.Table]:
    """Make up a day: many images a policy, so that the rare cases of one are among them."""
    dice = random.Random(seed)
    rows: list[dict[str, Any]] = []
    labels: list[tuple[str, str, float | None]] = []
    for number in range(images):
        ref = f"s3://ugc/{dice.choice(FOLDERS)}{number}.{dice.choice(['jpg', 'png'])}"
        rows.append(
            {
                "source_ref": ref,
                "outcome": dice.choice(["judged", "judged", "judged", "reused", "failed", "ineligible"]),
                "animated_confidence": dice.choice([None, *CONFIDENCES]),
                "illustrated_confidence": dice.choice([None, *CONFIDENCES]),
                "adapter_arn": dice.choice([None, ADAPTER]),
                "model_version": dice.choice([None, "7.0", "7.1"]),
            }
        )
        for _ in range(dice.choice([0, 1, 1, 2, 3])):
            path = known_labels()[dice.choice(NAMES)].path
            confidence = dice.choice([None, *CONFIDENCES])
            # Mostly with the parents and one confidence, as Rekognition does, but neither is promised.
            named = path if dice.random() < 0.7 else path[-1:]
            same = dice.random() < 0.7
            labels += [(ref, name, confidence if same else dice.choice(CONFIDENCES)) for name in named]
    # Of an image that is not asked about.
    labels.append(("s3://ugc/another.jpg", "Explicit", 99.0))
    return image_table(rows), label_table(labels)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_columns_and_sql_decide_the_same(seed: int) -> None:
    images, labels = day(seed)
    decided = evaluate(policy(seed), images, labels)
    assert decided["source_ref"].to_pylist() == images["source_ref"].to_pylist()
    told = [
        {
            "source_ref": row["source_ref"],
            "verdict": row["verdict"],
            "rule": row["rule"],
            "reasons": list(dict.fromkeys((each["label"], each["confidence"]) for each in row["reasons"])),
        }
        for row in decided.sort_by("source_ref").to_pylist()
    ]
    assert told == sql_oracle.decide(policy(seed), images, labels)
