"""How long a day's images take to be decided: in columns, with pandas, and in a Python loop.

    export PYTHONPATH=plugins:include
    python -m tests.bench.decide --images 1000000 --json decide.json

The policy is ``include/policies/default.yaml``; a third of the images have labels, each with its parents.
Each has the day in memory as it wants it before the clock runs. All must come to the same verdicts and rules.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.taxonomy import known_labels
from modlake.policy.evaluation import evaluate
from modlake.policy.policy import All, AnyOf, Condition, HasContentType, HasLabel, Not, Policy
from modlake.policy.policy_files import load_policy

POLICY = Path(__file__).parents[2] / "include" / "policies" / "default.yaml"
IMAGES_PER_BATCH = 100_000


def day(images: int, seed: int = 7) -> tuple[pa.Table, pa.Table]:
    """Return a day's images and labels, sorted by source_ref, the same for the same seed."""
    dice = np.random.default_rng(seed)
    refs = pa.array([f"s3://modlake-ugc/uploads/2026-11-21/{number:09d}.jpg" for number in range(images)])

    def content_type(share: float) -> pa.Array[Any]:
        return pa.array(dice.uniform(50, 100, images), mask=dice.random(images) > share)

    image_rows = pa.table(
        {
            "source_ref": refs,
            "outcome": pa.array(np.where(dice.random(images) < 0.99, "judged", "failed")),
            "animated_confidence": content_type(0.05),
            "illustrated_confidence": content_type(0.03),
            "adapter_arn": pa.nulls(images, pa.string()),
            "model_version": pa.repeat(pa.scalar("7.0"), images),
            "min_confidence": pa.repeat(pa.scalar(50.0), images),
        }
    )
    labels = list(known_labels().values())
    reported = images * 2 // 3
    image = np.sort(dice.integers(0, max(images // 3, 1), reported)) * 3
    leaf = dice.integers(0, len(labels), reported)
    depth = np.array([label.level for label in labels])[leaf]
    # A label brings its parents along, with its confidence.
    row = np.repeat(np.arange(reported), depth)
    level = depth[row] - (np.arange(len(row)) - np.repeat(np.cumsum(depth) - depth, depth))
    paths = np.array([label.path + (None,) * (3 - label.level) for label in labels], dtype=object)[leaf[row]]
    label_rows = pa.table(
        {
            "source_ref": refs.take(pa.array(image[row])),
            "label": pa.array(paths[np.arange(len(row)), level - 1], pa.string()),
            **{
                f"l{number}": pa.array(np.where(level >= number, paths[:, number - 1], None), pa.string())
                for number in (1, 2, 3)
            },
            "taxonomy_level": pa.array(level, pa.int64()),
            "confidence": pa.array(dice.uniform(50, 100, reported)[row]),
        }
    )
    return image_rows, label_rows


Batch = tuple[pa.Table, pa.Table]


def batches(images: pa.Table, labels: pa.Table) -> list[Batch]:
    """Cut a day as it is read from the lake: some images with their labels at a time."""
    found = []
    names = labels["source_ref"]
    for first in range(0, images.num_rows, IMAGES_PER_BATCH):
        some = images.slice(first, IMAGES_PER_BATCH)
        lowest, highest = some["source_ref"][0], some["source_ref"][-1]
        is_of_some = pc.and_(pc.greater_equal(names, lowest), pc.less_equal(names, highest))
        found.append((some, labels.filter(is_of_some)))
    return found


def in_columns(policy: Policy, day: list[Batch]) -> pa.Table:
    decided = pa.concat_tables(evaluate(policy, images, labels) for images, labels in day)
    return decided.select(["verdict", "rule"])


def with_pandas(policy: Policy, day: tuple[pd.DataFrame, pd.DataFrame]) -> pa.Table:
    frame, rows = day
    rule = pd.Series([None] * len(frame), dtype=object)
    verdict = pd.Series([policy.unjudged.value] * len(frame), dtype=object)
    is_open = frame["outcome"].isin(["judged", "reused"])
    verdict[is_open] = policy.default.value
    for each in policy.by_precedence:
        hit = is_open & _mask(each.when, frame, rows)
        rule[hit], verdict[hit] = each.name, each.verdict.value
        is_open &= ~hit
    return pa.table({"verdict": pa.array(verdict, pa.string()), "rule": pa.array(rule, pa.string())})


def _mask(condition: Condition, frame: pd.DataFrame, rows: pd.DataFrame) -> Any:
    match condition:
        case All(parts):
            return np.logical_and.reduce([_mask(part, frame, rows) for part in parts])
        case AnyOf(parts):
            return np.logical_or.reduce([_mask(part, frame, rows) for part in parts])
        case Not(part):
            return ~_mask(part, frame, rows)
        case HasContentType(types, at_least, _):
            columns = [frame[f"{name.lower()}_confidence"] >= (at_least or 0) for name in types]
            return np.logical_or.reduce(columns)
        case HasLabel(wanted, at_least, _, excepted):
            sure = rows[rows["confidence"] >= (at_least or 0)]
            under = sure[["l1", "l2", "l3"]].isin(wanted).any(axis=1)
            left_out = sure[["l1", "l2", "l3"]].isin(excepted).any(axis=1)
            kept = sure[under & ~left_out]
            for name in excepted:
                theirs = sure.loc[(sure[["l1", "l2", "l3"]] == name).any(axis=1), "source_ref"]
                parents = known_labels()[name].path[:-1]
                kept = kept[~(kept["label"].isin(parents) & kept["source_ref"].isin(theirs))]
            return frame["source_ref"].isin(kept["source_ref"])
    raise AssertionError(condition)


def in_a_loop(policy: Policy, day: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> pa.Table:
    images, labels = day
    by_image = defaultdict(list)
    for row in labels:
        by_image[row["source_ref"]].append(row)
    decided: list[tuple[str, str | None]] = []
    rules = policy.by_precedence
    for image in images:
        if image["outcome"] not in ("judged", "reused"):
            decided.append((policy.unjudged.value, None))
            continue
        rows = by_image.get(image["source_ref"], [])
        hit = next((rule for rule in rules if _holds(rule.when, image, rows)), None)
        decided.append((hit.verdict.value, hit.name) if hit else (policy.default.value, None))
    verdicts, names = zip(*decided, strict=True)
    return pa.table({"verdict": pa.array(verdicts, pa.string()), "rule": pa.array(names, pa.string())})


def _holds(condition: Condition, image: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    match condition:
        case All(parts):
            return all(_holds(part, image, rows) for part in parts)
        case AnyOf(parts):
            return any(_holds(part, image, rows) for part in parts)
        case Not(part):
            return not _holds(part, image, rows)
        case HasContentType(types, at_least, _):
            return any((image[f"{name.lower()}_confidence"] or -1) >= (at_least or 0) for name in types)
        case HasLabel(wanted, at_least, _, excepted):
            sure = [row for row in rows if row["confidence"] >= (at_least or 0)]
            explained: set[str] = set()
            for row in sure:
                for name in excepted.intersection((row["l1"], row["l2"], row["l3"])):
                    explained.update(known_labels()[name].path[:-1])
            return any(
                not wanted.isdisjoint(path := (row["l1"], row["l2"], row["l3"]))
                and excepted.isdisjoint(path)
                and row["label"] not in explained
                for row in sure
            )
    raise AssertionError(condition)


@dataclass(frozen=True)
class Way:
    """How a day is decided, and what of: made of the tables before the clock runs."""

    prepare: Callable[[pa.Table, pa.Table], Any]
    decide: Callable[[Policy, Any], pa.Table]


WAYS = {
    "columns": Way(batches, in_columns),
    "pandas": Way(lambda images, labels: (images.to_pandas(), labels.to_pandas()), with_pandas),
    "loop": Way(lambda images, labels: (images.to_pylist(), labels.to_pylist()), in_a_loop),
}


def run(images: int) -> dict[str, Any]:
    """Decide a day of that many images in each way; return seconds, images a second and ratios."""
    policy = load_policy(None, str(POLICY))
    image_rows, label_rows = day(images)
    seconds, answers = {}, {}
    for name, way in WAYS.items():
        prepared = way.prepare(image_rows, label_rows)
        started = time.perf_counter()
        answers[name] = way.decide(policy, prepared).combine_chunks()
        seconds[name] = time.perf_counter() - started
        del prepared
    return {
        "images": images,
        "labels": label_rows.num_rows,
        "rules": len(policy.rules),
        "ways": [
            {
                "way": name,
                "seconds": round(taken, 3),
                "images_per_second": round(images / taken),
                "times_the_loop": round(seconds["loop"] / taken, 1),
            }
            for name, taken in seconds.items()
        ],
        "same_decisions": all(answer.equals(answers["columns"]) for answer in answers.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    told = run(arguments.images)
    print(f"{told['images']} images, {told['labels']} labels, {told['rules']} rules")  # noqa: T201
    for way in told["ways"]:
        line = f"{way['way']:<8} {way['seconds']:>9.3f} s {way['images_per_second']:>11}/s"
        print(f"{line} {way['times_the_loop']:>7.1f}x the loop")  # noqa: T201
    print(f"same decisions: {told['same_decisions']}")  # noqa: T201
    if arguments.json:
        arguments.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
