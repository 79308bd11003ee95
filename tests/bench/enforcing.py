"""How an enforcement grows with the images that policies hit: time and peak memory of its steps.

Every image of the day is blocked, and two actions are asked for each: a worse night than any. The lake and
the work bucket lie on a local disk; nothing is done to any object, as that takes S3's time alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modlake.lake.actions import add_intents, record_results
from modlake.lake.enforcement import plan_enforcement
from modlake.policy.actions.kinds import result_of
from modlake.policy.actions.results import IntendedResults, ResultParts
from modlake.policy.enforcement_folder import (
    EnforcementFolder,
    read_all_intents,
    read_enforcement,
    read_intents,
)
from modlake.policy.targets import Targets
from tests.bench.directory_store import DirectoryStore
from tests.bench.harness import taken
from tests.bench.ledger import open_lake
from tests.support.days import DAY
from tests.support.labelled_days import BLOCKED, TARGETS, policy, publish_labels

SIZES = (10_000, 100_000, 300_000)
STEPS = ("decide", "request", "record", "decide anew")
ACTIONS_PER_IMAGE = 2
ACTIONS_PER_BATCH = 1_000
WORK_URI = "s3://modlake-work/"


def run(sizes: tuple[int, ...] = SIZES, *, home: Path, isolated: bool = True) -> dict[str, Any]:
    """Enforce days of these sizes; return a way a step and size."""
    ways = []
    for size in sizes:
        arguments = {"home": str(home / "enforcing"), "images": size}
        taken(arguments, f"{__name__}:publish", isolated=isolated)
        for step in STEPS:
            prepare = f"{__name__}:{step.split()[0]}"
            turn = taken(arguments, prepare, isolated=isolated)
            assert turn.answer == (0 if step == "decide anew" else ACTIONS_PER_IMAGE * size), (step, turn)
            ways.append(
                {
                    "way": f"{step} {size:,}",
                    "step": step,
                    "images": size,
                    "seconds": round(turn.seconds, 2),
                    "cpu_seconds": round(turn.cpu_seconds, 2),
                    "per_second": round(size / turn.seconds),
                    "peak_mb": round(turn.peak_mb),
                    "before_mb": round(turn.before_mb),
                }
            )
    ways.sort(key=lambda way: STEPS.index(way["step"]))
    return {"title": "Growth of an enforcement with the images hit", "unit": "images", "ways": ways}


def publish(home: str, images: int) -> Callable[[], None]:
    shutil.rmtree(home, ignore_errors=True)
    Path(home).mkdir(parents=True)
    catalog = open_lake(Path(home))
    labels = {f"{number:09d}.jpg": {BLOCKED: 95.0} for number in range(images)}
    return lambda: publish_labels(catalog, DAY, labels)


def decide(home: str, images: int) -> Callable[[], int]:
    catalog, store = open_lake(Path(home)), _store(home)

    def work() -> int:
        enforcement = plan_enforcement(
            catalog,
            store,
            day=DAY,
            work_uri=WORK_URI,
            policies=[policy()],
            targets=Targets(TARGETS),
            batch_size=ACTIONS_PER_BATCH,
            report=lambda _: None,
        )
        assert enforcement.images == images
        return sum(enforcement.intents.values())

    return work


def request(home: str, images: int) -> Callable[[], int]:
    catalog, store, folder = open_lake(Path(home)), _store(home), _folder(home)
    return lambda: add_intents(catalog, DAY, read_all_intents(store, folder))


def record(home: str, images: int) -> Callable[[], int]:
    catalog, store, folder = open_lake(Path(home)), _store(home), _folder(home)
    batches = read_enforcement(store, folder)["batches"]
    for batch in range(batches):
        done = [result_of(intent, "completed") for intent in read_intents(store, folder, batch)]
        ResultParts(store, folder, batch).write(done)
    return lambda: record_results(catalog, DAY, IntendedResults(store, folder, batches))


def _store(home: str) -> DirectoryStore:
    return DirectoryStore(Path(home, "objects"))


def _folder(home: str) -> EnforcementFolder:
    (told,) = _store(home).path(WORK_URI).glob("enforcements/day=*/*/enforcement.json")
    return EnforcementFolder.of_uri(f"{WORK_URI}enforcements/day={DAY}/{told.parent.name}/")
