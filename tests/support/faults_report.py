"""What a soak has lived through, as a file that grows while it lasts."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.faults import World
from tests.support.faults_worker import Outcome, replace_file


@dataclass
class SoakReport:
    """
    Counts of a soak.

    :param duplicates: analyses and images that the stand-in billed twice
    :param losses: images that a published run lists and the tables lack
    :param untyped: errors of tasks that are none of Modlake's own types
    :param violations: what did not hold
    """

    path: Path
    began: float = field(default_factory=time.monotonic)
    examples: int = 0
    runs: int = 0
    losses: int = 0
    seeds: list[int] = field(default_factory=list)
    tries: Counter[str] = field(default_factory=Counter)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    untyped: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def note(self, outcome: Outcome) -> None:
        self.tries[outcome.ending] += 1
        if outcome.ending == "untyped":
            self.untyped.append(outcome.error)

    def write(self, world: World) -> None:
        faults = world.ledger.counts()
        content = {
            "minutes": round((time.monotonic() - self.began) / 60, 1),
            "examples": self.examples,
            "runs": self.runs,
            "endings": dict(sorted(self.tries.items())),
            "faults": sum(faults.values()),
            "faults_by_kind": faults,
            "kills": sum(world.kills.values()),
            "kills_by_process": dict(sorted(world.kills.items())),
            "duplicates": len(self.duplicates),
            "losses": self.losses,
            "untyped_errors": len(self.untyped),
            "untyped": self.untyped[:20],
            "violations": self.violations,
            "seeds": self.seeds,
        }
        replace_file(self.path, json.dumps(content, indent=1))
