"""The brake: whether what is to be done with a day is more than usual, so that a person must approve."""

from __future__ import annotations

import hashlib
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import groupby
from math import sqrt
from operator import itemgetter
from statistics import median
from typing import Any, Literal, NamedTuple, TypeAlias

from modlake.policy.intents import Intent
from modlake.policy.policy import Brake, Policy, Verdict

Movement: TypeAlias = Literal["block", "release"]

SAMPLES = 5
RECENT_DAYS = 7

HISTORY_DAYS = 90
"""How many days before and after a day tell what is usual: a long history costs each day of it no more."""

# Of a policy that is there no more nobody says how much may be released at a time.
OF_UNKNOWN_POLICIES = Brake(max_images=0)


class Move(NamedTuple):
    """What happens to images for the sake of a rule; ``rule`` is None for all rules of the policy."""

    movement: Movement
    policy: str
    rule: str | None


class Sample(NamedTuple):
    """An image that a person may look at, and the labels that led to its decision."""

    source_ref: str
    labels: list[dict[str, Any]]


@dataclass(slots=True)
class Tally:
    """Counts the images that intents block or release, as they pass by, and takes samples of them."""

    images: Counter[Move] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    _drawn: dict[Move, list[tuple[bytes, Sample]]] = field(default_factory=lambda: defaultdict(list))

    def counting(self, intents: Iterable[Intent]) -> Iterator[Intent]:
        """Pass intents on, which come image by image."""
        for source_ref, of_image in groupby(intents, lambda intent: intent.source_ref):
            moves: dict[Move, Intent] = {}
            for intent in of_image:
                yield intent
                self.kinds[f"undo {intent.kind}" if intent.undoes else intent.kind] += 1
                if intent.verdict == Verdict.BLOCK and intent.policy is not None:
                    movement: Movement = "release" if intent.undoes else "block"
                    # Where no rule hit there is the policy alone.
                    for rule in (intent.rule, None):
                        moves.setdefault(Move(movement, intent.policy, rule), intent)
            for move, intent in moves.items():
                self.images[move] += 1
                self._draw(move, source_ref, intent)

    def samples(self, move: Move) -> list[Sample]:
        """Return some images of a move, drawn from all of them, and the same ones each time."""
        return [sample for _, sample in sorted(self._drawn[move], key=lambda drawn: drawn[1].source_ref)]

    def rules(self, move: Move) -> list[Move]:
        """Return the moves by rule of a move of a whole policy, that of most images first."""
        parts = [part for part in self.images if part[:2] == move[:2] and part.rule is not None]
        return sorted(parts, key=lambda part: (-self.images[part], part.rule or ""))

    def _draw(self, move: Move, source_ref: str, intent: Intent) -> None:
        # The first in the order of names would be of a few uploaders only.
        lot = hashlib.sha256(source_ref.encode()).digest()
        drawn = self._drawn[move]
        if len(drawn) < SAMPLES or lot < drawn[-1][0]:
            labels = intent.detail.get("labels") or intent.detail.get("original", {}).get("labels") or []
            insort(drawn, (lot, Sample(source_ref, labels)), key=itemgetter(0))
            del drawn[SAMPLES:]


@dataclass(frozen=True, slots=True)
class Excess:
    """A move that holds the brake, and what a person needs to know of it.

    ``share`` is of the day's images. ``days`` of history are known, whose shares have the median
    ``usual_share`` and end at ``usual_until``; ``recent`` are the last of them, ``{"day": …, "share": …}``.
    ``max_images`` and ``max_share`` are the least bounds that apply, None where none does. The excess of a
    whole policy has its ``rules``, ``{"rule": …, "images": …, "share": …, "usual_share": …}``.
    ``policy_version`` decided ``version_days`` of the other days; it is None of a policy that is gone.
    """

    movement: Movement
    policy: str
    policy_version: str | None
    version_days: int
    rule: str | None
    images: int
    share: float
    max_images: int | None
    max_share: float | None
    usual_share: float | None
    usual_until: float | None
    days: int
    recent: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    samples: list[dict[str, Any]]


class ShareHistory:
    """The shares of other days, of rows of ``enforcements``."""

    def __init__(self, enforcements: Iterable[Mapping[str, Any]]) -> None:
        days: dict[tuple[str, Any], list[Mapping[str, Any]]] = defaultdict(list)
        for row in enforcements:
            days[row["policy"], row["day"]].append(row)
        self._shares: dict[Move, dict[str, float]] = defaultdict(dict)
        self._versions: Counter[tuple[str, str]] = Counter()
        for (policy, day), rows in sorted(days.items()):
            self._versions.update({(policy, row["policy_version"]) for row in rows})
            total = sum(row["images"] for row in rows)
            if total:
                for move, images in _moved(policy, rows).items():
                    self._shares[move][str(day)] = images / total

    def shares(self, move: Move) -> list[float]:
        return list(self._shares.get(move, {}).values())

    def days_of(self, policy: str, version: str) -> int:
        """Return how many days this version of a policy has decided."""
        return self._versions[policy, version]

    def recent(self, move: Move) -> list[dict[str, Any]]:
        """Return the shares of the last days that are known, the last one last."""
        known = list(self._shares.get(move, {}).items())
        return [{"day": day, "share": share} for day, share in known[-RECENT_DAYS:]]


def days_of_history(day: date) -> tuple[date, date]:
    """Return the first and the last of the days that tell what is usual on a day."""
    return day - timedelta(days=HISTORY_DAYS), day + timedelta(days=HISTORY_DAYS)


def _moved(policy: str, rows: list[Mapping[str, Any]]) -> Counter[Move]:
    moved: Counter[Move] = Counter({Move("block", policy, None): 0, Move("release", policy, None): 0})
    for row in rows:
        if row["verdict"] == Verdict.BLOCK:
            for rule in {row["rule"], None}:
                moved[Move("block", policy, rule)] += row["images"]
                moved[Move("release", policy, rule)] += row["released"]
    return moved


def find_excesses(
    tally: Tally, images: int, policies: Sequence[Policy], history: ShareHistory
) -> list[Excess]:
    """Return the moves that are more than their policy's brake lets pass, of a day of so many images.

    A policy without a brake has none; of one that isn't there any more, each release is an excess.
    """
    known = {policy.name: policy for policy in policies}
    found = (
        _excess(move, tally, images, known.get(move.policy), history)
        for move in sorted(tally.images, key=lambda move: (move[:2], move.rule or ""))
    )
    return [excess for excess in found if excess is not None]


def _excess(
    move: Move, tally: Tally, images: int, policy: Policy | None, history: ShareHistory
) -> Excess | None:
    brake = policy.brake if policy else OF_UNKNOWN_POLICIES
    if brake is None:
        return None
    moved = tally.images[move]
    share = moved / images
    shares = history.shares(move)
    usual_until = _highest_usual(shares, images, brake.spreads) if len(shares) >= brake.min_days else None
    max_share = min((bound for bound in (brake.max_share, usual_until) if bound is not None), default=None)
    over_images = brake.max_images is not None and moved > brake.max_images
    if not over_images and (max_share is None or share <= max_share):
        return None
    return Excess(
        movement=move.movement,
        policy=move.policy,
        policy_version=policy.version if policy else None,
        version_days=history.days_of(policy.name, policy.version) if policy else 0,
        rule=move.rule,
        images=moved,
        share=share,
        max_images=brake.max_images,
        max_share=max_share,
        usual_share=_usual(shares),
        usual_until=usual_until,
        days=len(shares),
        recent=history.recent(move),
        rules=[
            {
                "rule": part.rule,
                "images": tally.images[part],
                "share": tally.images[part] / images,
                "usual_share": _usual(history.shares(part)),
            }
            for part in (tally.rules(move) if move.rule is None else [])
        ],
        samples=[sample._asdict() for sample in tally.samples(move)],
    )


def _usual(shares: list[float]) -> float | None:
    return median(shares) if shares else None


def _highest_usual(shares: list[float], images: int, spreads: float) -> float:
    """Return the upper end of the band: the median, and so many median absolute deviations.

    A history that hardly varies still leaves room for chance: a deviation is at least that of a count with
    this median, and at least one image.
    """
    middle = median(shares)
    deviation = median(abs(share - middle) for share in shares)
    by_chance = sqrt(middle * (1 - middle) / images)
    return middle + spreads * max(deviation, by_chance, 1 / images)
