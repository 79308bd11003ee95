"""The lease on a manifest: one holder at a time."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest

from modlake.pipeline.synchronous.lease import LEASE, Lease, LeaseLostError
from tests.pipeline.synchronous.virtual_time import BEGINNING
from tests.support.memory_store import MemoryObjectStore

URI = "s3://work/synchronous/f/terms/"


class Clock:
    def __init__(self) -> None:
        self.time = BEGINNING

    def now(self) -> datetime:
        return self.time

    def pass_by(self, time: timedelta) -> None:
        self.time += time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore()


def lease(store: MemoryObjectStore, clock: Clock, holder: str) -> Lease:
    return Lease(store, URI, holder, clock.now)


def test_one_of_two_rivals_takes_it(store: MemoryObjectStore, clock: Clock) -> None:
    first, second = lease(store, clock, "a"), lease(store, clock, "b")
    assert first.take([])
    # Both saw no term.
    assert not second.take([])
    first.require()


def test_it_is_free_when_it_expires_or_is_released(store: MemoryObjectStore, clock: Clock) -> None:
    first, second, third = (lease(store, clock, name) for name in "abc")
    assert first.take([])
    clock.pass_by(LEASE - timedelta(seconds=1))
    assert not second.take([0])
    clock.pass_by(timedelta(seconds=1))
    assert second.take([0])
    second.release()
    assert third.take([0, 1])
    assert third.term == 2


def test_renewing_keeps_it(store: MemoryObjectStore, clock: Clock) -> None:
    first, second = lease(store, clock, "a"), lease(store, clock, "b")
    first.take([])
    for _ in range(10):
        clock.pass_by(LEASE / 2)
        first.renew()
    assert not second.take([0])


def test_a_holder_that_was_asleep_finds_that_it_is_lost(store: MemoryObjectStore, clock: Clock) -> None:
    first, second = lease(store, clock, "a"), lease(store, clock, "b")
    first.take([])
    clock.pass_by(LEASE)
    with pytest.raises(LeaseLostError, match="What was judged is kept"):
        first.require()
    second.take([0])
    with pytest.raises(LeaseLostError):
        first.renew()
    second.require()


def test_a_reply_lost_on_taking_it_is_no_rival(store: MemoryObjectStore, clock: Clock) -> None:
    first = lease(store, clock, "a")
    first.take([])
    again = lease(store, clock, "a")
    assert again.take([])
    assert again.term == 0


def test_its_successor_counts_even_before_it_expires(store: MemoryObjectStore, clock: Clock) -> None:
    first = lease(store, clock, "a")
    first.take([])
    store.write(f"{URI}00001.json", b"{}")
    with pytest.raises(LeaseLostError):
        first.renew()


def test_released_while_it_is_renewed_it_is_free_not_lost(store: MemoryObjectStore, clock: Clock) -> None:
    first, second = lease(store, clock, "a"), lease(store, clock, "b")
    first.take([])
    releasing = threading.Thread(target=first.release)

    def slowly(_: str) -> bool:
        releasing.start()
        releasing.join(0.1)
        return False

    store.exists = slowly  # type: ignore[method-assign]
    first.renew()
    releasing.join()
    assert second.take([0])


def test_renewing_what_was_released_changes_nothing(store: MemoryObjectStore, clock: Clock) -> None:
    first, second = lease(store, clock, "a"), lease(store, clock, "b")
    first.take([])
    first.release()
    first.renew()
    assert second.take([0])
