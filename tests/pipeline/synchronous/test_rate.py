"""The rate of calls, in virtual time against accounts that throttle."""

from __future__ import annotations

import asyncio
import random
from collections import deque

import pytest

from modlake.pipeline.synchronous.calls import PacedCalls
from modlake.pipeline.synchronous.detection import ThrottledError
from modlake.pipeline.synchronous.progress import Tally
from modlake.pipeline.synchronous.rate import AdaptiveRate
from tests.pipeline.synchronous.virtual_time import VirtualTimeLoop, run_virtually


class Account:
    """Admits ``capacity`` calls in any second, and throttles ``noise`` of the calls besides."""

    def __init__(self, capacity: float, noise: float = 0.0, latency: float = 0.3) -> None:
        self.capacity = capacity
        self.noise = noise
        self.latency = latency
        self.random = random.Random(7)
        self.admitted: deque[float] = deque()
        self.calls = 0
        self.answers = 0

    async def detect_moderation_labels(self, source_ref: str) -> dict[str, object]:
        loop = asyncio.get_running_loop()
        # The way to the service takes longer for some calls than for others.
        await asyncio.sleep(self.random.uniform(0.005, 0.025))
        self.calls += 1
        now = loop.time()
        while self.admitted and self.admitted[0] <= now - 1:
            self.admitted.popleft()
        if self.random.random() < self.noise or len(self.admitted) >= self.capacity:
            raise ThrottledError("Rate exceeded", code="ThrottlingException")
        self.admitted.append(now)
        await asyncio.sleep(self.latency * self.random.uniform(0.5, 2))
        self.answers += 1
        return {"ModerationLabels": []}


def judge_for(account: Account, seconds: float, quota: float) -> Tally:
    async def judge() -> Tally:
        loop = asyncio.get_running_loop()
        tally = Tally(image_count=0, share_per_second=quota, started_at=loop.time())
        calls = PacedCalls(account, tally)

        async def images() -> None:
            while True:
                await calls.detect("s3://ugc/a.jpg", lambda: None)

        workers = [asyncio.create_task(images()) for _ in range(max(20, int(quota * 3)))]
        await asyncio.sleep(seconds)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return tally

    return run_virtually(judge)[0]


def test_ten_minutes_with_a_twentieth_throttled_use_the_quota() -> None:
    account = Account(capacity=50, noise=0.05)
    judge_for(account, 600, 50)
    assert 0.97 * 50 * 600 <= account.answers <= 50 * 600


def test_so_do_they_where_the_quota_is_small() -> None:
    account = Account(capacity=5, noise=0.05)
    judge_for(account, 600, 5)
    # Of five calls a second, one that comes 20 ms early is one too many.
    assert 0.94 * 5 * 600 <= account.answers <= 5 * 600


class StutteringAccount(Account):
    """Remembers when calls were sent, by a machine that does nothing for a while now and then."""

    def __init__(self, stutter: float) -> None:
        super().__init__(capacity=1_000_000)
        self.stutter = stutter
        self.sent_at: list[float] = []

    async def detect_moderation_labels(self, source_ref: str) -> dict[str, object]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.sent_at.append(loop.time())
        if self.random.random() < 0.005:
            loop.pass_by(self.random.uniform(0, self.stutter))
        return await super().detect_moderation_labels(source_ref)


@pytest.mark.parametrize("stutter", [0, 0.6])
def test_a_machine_that_stutters_catches_up_and_no_second_exceeds_the_quota(stutter: float) -> None:
    account = StutteringAccount(stutter)
    judge_for(account, 120, 50)
    fifty_apart = zip(account.sent_at, account.sent_at[50:], strict=False)
    assert all(later - first >= 1 for first, later in fifty_apart)
    assert account.calls >= 0.94 * 50 * 120


def test_it_ramps_up_gently() -> None:
    account = Account(capacity=1_000_000)
    judge_for(account, 2, 100)
    assert 100 <= account.calls <= 140
    assert judge_for(Account(capacity=1_000_000), 30, 100).calls >= 0.9 * 30 * 100


def test_an_account_that_others_use_too_is_not_pressed_and_the_rate_is_given_back() -> None:
    account = Account(capacity=20)

    async def judge() -> tuple[float, float, int]:
        loop = asyncio.get_running_loop()
        tally = Tally(image_count=0, share_per_second=50, started_at=loop.time())
        calls = PacedCalls(account, tally)

        async def images() -> None:
            while True:
                await calls.detect("s3://ugc/a.jpg", lambda: None)

        workers = [asyncio.create_task(images()) for _ in range(150)]
        await asyncio.sleep(120)
        pressed = tally.throttled / tally.calls
        used = account.answers / 120
        account.capacity = 50
        await asyncio.sleep(20)
        answers = account.answers
        await asyncio.sleep(10)
        answers = account.answers - answers
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return pressed, used, answers

    pressed, used, answers_of_ten_seconds = run_virtually(judge)[0]
    assert pressed < 0.25
    assert used > 0.85 * 20
    assert answers_of_ten_seconds > 0.95 * 500


class TestAdaptiveRate:
    def rate(self) -> AdaptiveRate:
        rate = AdaptiveRate(100, now=0)
        rate.per_second = 98.5
        return rate

    def test_throttling_within_the_noise_changes_nothing(self) -> None:
        rate = self.rate()
        for number in range(100):
            rate.observe(throttled=number % 10 == 0, now=1 + number / 100)
        assert rate.per_second == 98.5

    def test_beyond_it_for_two_looks_the_rate_falls_to_what_was_admitted(self) -> None:
        rate = self.rate()
        for number in range(50):
            rate.observe(throttled=number % 5 < 2, now=number / 49)
        assert rate.per_second == 98.5
        for number in range(50):
            rate.observe(throttled=number % 5 < 2, now=1 + number / 49)
        assert rate.per_second == pytest.approx(98.5 * 0.6)

    def test_it_is_halved_at_most_and_has_a_floor(self) -> None:
        rate = self.rate()
        for number in range(100):
            rate.observe(throttled=True, now=number / 49)
        assert rate.per_second == pytest.approx(98.5 / 2)
        for number in range(1000):
            rate.observe(throttled=True, now=2 + number)
        assert rate.per_second == pytest.approx(98.5 * 0.05)

    def test_a_slow_account_is_looked_at_every_few_seconds(self) -> None:
        rate = AdaptiveRate(1, now=0)
        before = rate.per_second
        for second in range(6):
            rate.observe(throttled=False, now=second)
        assert rate.per_second > before
