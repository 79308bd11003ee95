"""A policy tried on the labels of published days, beside another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog

from cli.rules import NO_RULE
from modlake.lake.labelled_batches import LabelledBatch, PublishedDay, published_days, read_labelled_batches
from modlake.pipeline.decidable import decidable
from modlake.policy.evaluation import IMAGE_COLUMNS, LABEL_COLUMNS, evaluate
from modlake.policy.policy import HasContentType, HasLabel, Policy, Verdict, conditions_in

By: TypeAlias = Literal["rule", "label"]


@dataclass(frozen=True, slots=True, order=True)
class Hits:
    """What a rule hit or a label led to, on a day: by which policy, as it is shown, with which verdict."""

    day: date
    policy: str
    by: By
    name: str
    verdict: str


@dataclass(slots=True)
class DayCounts:
    """A day's images, without those set aside; ``pairs`` counts (other policy's verdict, this one's).

    ``unanswerable`` counts images that were judged with a min_confidence above a threshold of a policy: what
    these would have hit below it is not known.
    """

    images: int = 0
    unanswerable: int = 0
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def verdicts(self, verdict: Verdict) -> int:
        return sum(count for (_, now), count in self.pairs.items() if now == verdict)

    def others_hits(self) -> int:
        return sum(count for (was, _), count in self.pairs.items() if was != Verdict.ALLOW)

    @property
    def newly_hit(self) -> int:
        return self._changed(lambda was, now: was == Verdict.ALLOW and now != Verdict.ALLOW)

    @property
    def released(self) -> int:
        return self._changed(lambda was, now: was != Verdict.ALLOW and now == Verdict.ALLOW)

    @property
    def reclassified(self) -> int:
        """Images that both hit, with another verdict."""
        return self._changed(lambda was, now: Verdict.ALLOW not in (was, now) and was != now)

    def _changed(self, is_counted: Callable[[str, str], bool]) -> int:
        return sum(count for (was, now), count in self.pairs.items() if is_counted(was, now))


@dataclass(slots=True)
class Backtest:
    """What a policy does with each published day of a range.

    ``hits`` counts images, and ``differing`` those of them that the respective other policy allows.
    """

    policy: Policy
    other: Policy | None
    floor: float | None
    days: dict[date, DayCounts] = field(default_factory=dict)
    unpublished: list[date] = field(default_factory=list)
    hits: Counter[Hits] = field(default_factory=Counter)
    differing: Counter[Hits] = field(default_factory=Counter)

    @property
    def images(self) -> int:
        return sum(day.images for day in self.days.values())

    def shown(self, policy: Policy) -> str:
        """What a policy is called: versions of one policy are told apart."""
        is_alone = self.other is None or self.policy.name != self.other.name
        return policy.name if is_alone else f"{policy.name} {policy.version}"


def run(
    catalog: Catalog,
    policy: Policy,
    other: Policy | None,
    first: date,
    last: date,
    advance: Callable[[int, int, str], None],
) -> Backtest:
    """Decide the stored labels of every published day from ``first`` to ``last`` by both policies.

    Nothing is written. Memory holds a batch of images. A policy is not compared with itself. Raises as
    ``read_labelled_batches`` does.
    """
    if other is not None and (other.name, other.version) == (policy.name, policy.version):
        other = None
    published = {each.day: each for each in published_days(catalog, first, last)}
    asked = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    result = Backtest(policy, other, lowest_threshold(policy, other))
    result.unpublished = [day for day in asked if day not in published]
    total = sum(each.images for each in published.values())
    for each in published.values():
        result.days[each.day] = DayCounts()
        for batch in _batches(catalog, each):
            _count(result, each.day, batch)
            advance(result.images, total, "")
    return result


def lowest_threshold(*policies: Policy | None) -> float | None:
    """The lowest confidence that a rule of the policies asks for, None when none does."""
    thresholds = [
        condition.at_least
        for policy in policies
        if policy
        for rule in policy.rules
        for condition in conditions_in(rule.when)
        if isinstance(condition, HasLabel | HasContentType) and condition.at_least is not None
    ]
    return min(thresholds, default=None)


def _batches(catalog: Catalog, published: PublishedDay) -> Any:
    return read_labelled_batches(
        catalog, published, image_columns=(*IMAGE_COLUMNS, "error_code"), label_columns=LABEL_COLUMNS
    )


def _count(result: Backtest, day: date, batch: LabelledBatch) -> None:
    images = decidable(batch.images)
    if not images.num_rows:
        return
    now = evaluate(result.policy, images, batch.labels)
    was = evaluate(result.other, images, batch.labels) if result.other else now
    counts = result.days[day]
    counts.images += images.num_rows
    if result.floor is not None:
        is_above: Any = pc.greater(images["min_confidence"], pa.scalar(result.floor))
        counts.unanswerable += pc.sum(is_above).as_py() or 0
    pairs = pa.table({"was": was["verdict"], "now": now["verdict"]}).group_by(["was", "now"]).aggregate(
        [([], "count_all")]
    )  # fmt: skip
    for row in pairs.to_pylist():
        counts.pairs[(row["was"], row["now"])] += row["count_all"]
    _count_hits(result, day, result.policy, now, was)
    if result.other:
        _count_hits(result, day, result.other, was, now)


def _count_hits(result: Backtest, day: date, policy: Policy, decided: pa.Table, otherwise: pa.Table) -> None:
    """Count images by what led a policy to review or block them."""
    is_hit: Any = pc.not_equal(decided["verdict"], pa.scalar(Verdict.ALLOW.value))
    differs: Any = pc.equal(otherwise["verdict"], pa.scalar(Verdict.ALLOW.value))
    hits = decided.append_column("differs", differs).filter(is_hit)
    name = result.shown(policy)
    rule: Any = hits["rule"]
    _add(result, hits, pc.fill_null(rule, NO_RULE), (day, name, "rule"))
    reasons = hits["reasons"].combine_chunks()
    rows = pc.list_parent_indices(reasons)
    by_label: Any = pc.struct_field(pc.list_flatten(reasons), "label")
    _add(result, hits.take(rows), by_label, (day, name, "label"))


def _add(result: Backtest, hits: pa.Table, names: Any, where: tuple[date, str, By]) -> None:
    grouped = (
        pa.table(
            {
                "name": names,
                "verdict": hits["verdict"],
                "differs": hits["differs"],
                "image": hits["source_ref"],
            }
        )
        .group_by(["name", "verdict", "differs"])
        .aggregate([("image", "count_distinct")])
    )
    day, policy, by = where
    for row in grouped.to_pylist():
        key = Hits(day, policy, by, row["name"], row["verdict"])
        result.hits[key] += row["image_count_distinct"]
        if row["differs"]:
            result.differing[key] += row["image_count_distinct"]
