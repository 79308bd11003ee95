"""From the labels of a published day to decisions, and to intents for what is left to be done about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from time import monotonic
from typing import Any

from pyiceberg.catalog import Catalog

from modlake.lake.actions import DayActions
from modlake.lake.decisions import DayDecisions, Figures, read_enforcements, read_published
from modlake.pipeline.columns import slices
from modlake.pipeline.object_store import ObjectStore
from modlake.policy.action_history import ActionHistory, UnfinishedActions
from modlake.policy.brake import Excess, ShareHistory, Tally, days_of_history, find_excesses
from modlake.policy.enforcement_folder import (
    EnforcementFolder,
    new_enforcement_id,
    write_enforcement,
    write_intents,
)
from modlake.policy.intent_planning import plan_intents
from modlake.policy.intents import Intent
from modlake.policy.policy import Policy
from modlake.policy.targets import Targets

DECISIONS_AT_ONCE = 20_000
"""As many are compared with what was done before at a time: row by row, so as Python objects."""


@dataclass(frozen=True, slots=True)
class Enforcement:
    """What was decided about a day, and what is left to be done in ``batches`` of intents.

    ``intents`` counts them by kind; ``held`` are the moves that a person must approve. ``changed`` is False
    when the table ``decisions`` held the same already.
    """

    day: date
    enforcement_id: str
    run_id: str
    images: int
    figures: list[Figures]
    changed: bool
    batches: int
    intents: dict[str, int]
    held: list[Excess]

    def to_dict(self, policies: Sequence[Policy]) -> dict[str, Any]:
        """Return the content of ``enforcement.json``, with the policies in short."""
        return asdict(self) | {
            "day": self.day.isoformat(),
            "policies": [
                {
                    "name": policy.name,
                    "version": policy.version,
                    "mode": policy.status,
                    "brake": policy.brake and asdict(policy.brake),
                }
                for policy in policies
            ],
            "rules": {
                policy.name: {rule.name: rule.description for rule in policy.rules} for policy in policies
            },
        }


def plan_enforcement(
    catalog: Catalog,
    store: ObjectStore,
    *,
    day: date,
    work_uri: str,
    policies: Sequence[Policy],
    targets: Targets,
    batch_size: int,
    report: Callable[[str], None],
) -> Enforcement:
    """Decide a published day, and write down what is left to be done about it, but do nothing.

    Intents are the difference between what the live policies ask for and what ``actions`` says was done; so
    whatever was killed or rejected before, this finds the rest. The folder of the enforcement gets
    ``enforcement.json`` last.

    Raises ModlakeTerminalError when the day isn't published or an action has no target,
    ModlakeTransientError when the day is being published anew.
    """
    targets.check(policies)
    published = read_published(catalog, day)
    actions = DayActions(catalog, day)
    named = [f"{policy.name} {policy.version} {policy.status}" for policy in policies]
    name = partial(new_enforcement_id, day, published.run_id, named)
    folder = EnforcementFolder(work_uri, day, _enforcement_id(actions.unfinished(), name))
    decisions = DayDecisions(catalog, published, policies)

    def intents() -> Iterator[Intent]:
        started = monotonic()
        for batch in decisions.batches():
            for some in slices(batch, "source_ref", DECISIONS_AT_ONCE):
                history = ActionHistory(actions.of_images(some["source_ref"]), published.published_at)
                yield from plan_intents(
                    some,
                    history,
                    policies,
                    targets,
                    day=day.isoformat(),
                    enforcement_id=folder.enforcement_id,
                )
            rate = decisions.images / max(monotonic() - started, 0.001)
            minutes_left = (published.images - decisions.images) / max(rate, 0.001) / 60
            report(
                f"Decided {decisions.images:,} of {published.images:,} images, {rate:,.0f} images/s, "
                f"{minutes_left:.1f} min left"
            )

    tally = Tally()
    batches = write_intents(store, folder, tally.counting(intents()), batch_size)
    figures, changed = decisions.commit(folder.enforcement_id)
    around = read_enforcements(catalog, *days_of_history(day))
    before = ShareHistory(row for row in around if row["day"] != day)
    enforcement = Enforcement(
        day=day,
        enforcement_id=folder.enforcement_id,
        run_id=published.run_id,
        images=decisions.images,
        figures=figures,
        changed=changed,
        batches=batches,
        intents=dict(tally.kinds),
        held=find_excesses(tally, decisions.images, policies, before),
    )
    write_enforcement(store, folder, enforcement.to_dict(policies))
    return enforcement


def _enforcement_id(unfinished: UnfinishedActions, name: Callable[[list[str]], str]) -> str:
    """Return the enforcement to go on with, or a new one, named by what others have left if they have.

    One is gone on with as long as others have left the same as when it was named. Where it failed itself, or
    others have requested anything since, they haven't.
    """
    for known in (name([]), *unfinished.requested_by):
        if known == name(unfinished.tried_elsewhere(known)):
            return known
    return name(unfinished.tried_elsewhere(None))
