"""An account, a store and attempts at a day, in virtual time, that may be killed at any point."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from modlake.pipeline.object_store import ListedObject
from modlake.pipeline.plan import Plan
from modlake.pipeline.synchronous.detection import (
    CallFailedError,
    ImageFailedError,
    NoAnswerError,
    ThrottledError,
)
from modlake.pipeline.synchronous.engine import SynchronousEngine
from modlake.pipeline.synchronous.progress import Tally
from modlake.pipeline.synchronous.shard_analysis import Attempt, analyses_of
from tests.pipeline.synchronous.virtual_time import VirtualTimeLoop
from tests.support.days import SMOKING, plan_day, upload
from tests.support.memory_store import MemoryObjectStore

LATENCY = 0.4
RATE = 20.0
WINDOW = 100


class KilledError(BaseException):
    """What the world says to a process that no longer exists."""


@dataclass
class World:
    """``paid`` counts the judgements of each image; ``faults`` are what its next calls meet.

    ``kill_at`` is the number of the write or call, counted together, at which the process of an attempt dies;
    ``lose_it`` keeps that one from taking effect.
    """

    store: MemoryObjectStore = field(default_factory=MemoryObjectStore)
    paid: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    always: Callable[[str], Exception | None] = lambda _: None
    time: float = 0.0
    moments: int = 0
    kill_at: int | None = None
    lose_it: bool = False
    calls: int = 0
    answers_differ_by: str = ""
    attempts: int = 0

    def plan(self, images: int = 250, shard_size: int = 150, run_id: str = "run-1", **changes: Any) -> Plan:
        if not any("ugc" in uri for uri in self.store.objects):
            upload(self.store, [f"{number:04d} +%ü.jpg" for number in range(images)])
        return plan_day(self.store, images_per_manifest=shard_size, run_id=run_id, **changes)

    def engine(
        self,
        plan: Plan,
        loop: VirtualTimeLoop,
        *,
        requests_per_second: float = RATE,
        report: Callable[[str], None] = lambda _: None,
    ) -> SynchronousEngine:
        self.attempts += 1
        process = Process(self, loop)
        return SynchronousEngine(
            process,
            analyses_of(
                process,
                plan,
                plan.shards,
                Attempt(f"attempt-{self.attempts}", loop.now),
            ),
            requests_per_second=requests_per_second,
            report=report,
        )

    def attempt(
        self,
        plan: Plan,
        *,
        before: Callable[[SynchronousEngine, VirtualTimeLoop], None] = lambda *_: None,
        **settings: Any,
    ) -> Tally | None:
        """Run one attempt to its end; None when it was killed. Time goes on from the attempt before."""
        loop = VirtualTimeLoop(self.time)
        engine = self.engine(plan, loop, **settings)
        before(engine, loop)
        asyncio.set_event_loop(loop)
        task = loop.create_task(engine.run())
        try:
            return loop.run_until_complete(task)
        except RuntimeError as error:
            if "stopped before" not in str(error):
                raise
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            for each in asyncio.all_tasks(loop):
                each._log_destroy_pending = False  # type: ignore[attr-defined]
            return None
        finally:
            self.time = loop.time()
            asyncio.set_event_loop(None)

    def pass_by(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class Process:
    """The store and the API as one process sees them, as long as it lives."""

    world: World
    loop: VirtualTimeLoop
    is_dead: bool = False

    def _moment(self) -> bool:
        """Return whether what happens now is lost, as the process dies before it."""
        if self.is_dead:
            raise KilledError
        self.world.moments += 1
        if self.world.moments == self.world.kill_at:
            self.is_dead = True
            self.loop.stop()
            return self.world.lose_it
        return False

    def _require_life(self) -> None:
        if self.is_dead:
            raise KilledError

    def list_objects(self, bucket: str, prefix: str) -> Iterator[list[ListedObject]]:
        self._require_life()
        return self.world.store.list_objects(bucket, prefix)

    def read(self, uri: str) -> bytes:
        self._require_life()
        return self.world.store.read(uri)

    def exists(self, uri: str) -> bool:
        self._require_life()
        return self.world.store.exists(uri)

    def write(self, uri: str, body: bytes, *, if_absent: bool = False) -> None:
        if not self._moment():
            self.world.store.write(uri, body, if_absent=if_absent)
        self._require_life()

    async def detect_moderation_labels(self, source_ref: str) -> dict[str, Any]:
        world = self.world
        is_lost = self._moment()
        world.calls += 1
        faults = world.faults.get(source_ref, [])
        fault = faults.pop(0) if faults else world.always(source_ref)
        if fault is None and not is_lost:
            world.paid[source_ref] += 1
        await asyncio.sleep(LATENCY)
        if fault is not None:
            raise fault
        number = int(source_ref.rsplit("/", 1)[1][:4])
        return {
            "ModerationLabels": SMOKING if number % 2 == 0 else [],
            "ModerationModelVersion": "7.0" + world.answers_differ_by,
            "ContentTypes": [],
            "ResponseMetadata": {"RequestId": "1"},
        }


def refused(code: str, *, is_final: bool = False) -> ImageFailedError:
    return ImageFailedError(f"refused with {code}", code=code, is_final=is_final)


def failed(error: type[NoAnswerError | ThrottledError], code: str) -> CallFailedError:
    told = f"failed with {code}"
    return NoAnswerError(told) if error is NoAnswerError else ThrottledError(told, code=code)
