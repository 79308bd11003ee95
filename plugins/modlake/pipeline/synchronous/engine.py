"""Judging manifests image by image: many calls in flight, no more than the quota, nothing paid for twice."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from math import ceil
from typing import Any

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.pipeline.synchronous.calls import PacedCalls
from modlake.pipeline.synchronous.detection import CallFailedError, ImageFailedError, ModerationApi
from modlake.pipeline.synchronous.lease import LeaseLostError
from modlake.pipeline.synchronous.progress import Tally
from modlake.pipeline.synchronous.result_lines import ImageFailure, result_line
from modlake.pipeline.synchronous.shard_analysis import ShardAnalysis

WINDOW_SECONDS = 5
SMALLEST_WINDOW = 100
SAVE_SECONDS = 5

WATCH_SECONDS = 5
REPORT_SECONDS = 30
HELD_SECONDS = 5
# Longer than an image's ten tries take: their pauses alone may add up to two minutes.
SILENCE_SECONDS = 150
HOPELESS_AFTER = 100
GRACE_SECONDS = 2.5  # Airflow kills a task 5 s after it has told it to end


class SynchronousAnalysisStoppedError(ModlakeTransientError):
    """The attempt was told to stop; what was judged is kept."""

    def __init__(self) -> None:
        super().__init__("The task was told to stop; what was judged is kept. Clear it to go on from there.")


class RekognitionSilentError(ModlakeTransientError):
    """No image was judged for a while."""


class NoImageJudgedError(ModlakeTerminalError):
    """Every image was refused in the same way, so it is not the images. Attribute: ``code``."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


def window_size(requests_per_second: float) -> int:
    """Return how many images may be in flight, from the first call until a part holds the answer.

    So many are in memory, and so many may be paid for twice when the process is killed.
    """
    return max(SMALLEST_WINDOW, ceil(WINDOW_SECONDS * requests_per_second))


class SynchronousEngine:
    """One attempt at the analyses of some shards.

    :param requests_per_second: what this attempt may use of the account's quota
    :param report: gets lines of progress
    """

    def __init__(
        self,
        api: ModerationApi,
        analyses: Sequence[ShardAnalysis],
        *,
        requests_per_second: float,
        report: Callable[[str], None],
    ) -> None:
        self._api = api
        self._analyses = analyses
        self._requests_per_second = requests_per_second
        self._report = report
        self._window_size = window_size(requests_per_second)
        self._window = asyncio.Semaphore(self._window_size)
        self._worth_saving = asyncio.Event()
        self._stopping = asyncio.Event()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._open: list[ShardAnalysis] = []
        self._all_sent = False
        self._unanswered = 0
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """End the attempt soon and keep what was judged; may be called from a signal handler or a thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._fail, SynchronousAnalysisStoppedError())

    async def run(self) -> Tally:
        """Judge all images and complete all analyses.

        Raises what ended the attempt before that: SynchronousAnalysisStoppedError, RekognitionSilentError,
        NoImageJudgedError, LeaseLostError, an error of the store, or what the API raised for every image.
        """
        self._loop = asyncio.get_running_loop()
        self._tally = Tally(
            image_count=sum(analysis.image_count for analysis in self._analyses),
            share_per_second=self._requests_per_second,
            started_at=self._now(),
        )
        self._calls = PacedCalls(self._api, self._tally)
        sender = asyncio.create_task(self._guarded(self._send()))
        watcher = asyncio.create_task(self._guarded(self._watch()))
        saver = asyncio.create_task(self._guarded(self._save_until_complete()))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({saver, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopping.set()
            for task in (sender, watcher, stopping):
                task.cancel()
            await self._wind_down(saver)
        if self._failure is not None:
            raise self._failure
        self._report(self._tally.summary(self._now()))
        return self._tally

    async def _send(self) -> None:
        waiting = deque(self._analyses)
        held = 0
        while waiting:
            analysis = waiting.popleft()
            if await asyncio.to_thread(analysis.open):
                held = 0
                await self._send_pending(analysis)
                continue
            waiting.append(analysis)
            held += 1
            if held == len(waiting):
                names = ", ".join(each.name for each in waiting)
                self._report(f"Another attempt is judging {names}, or has just died: waiting")
                await asyncio.sleep(HELD_SECONDS)
                held = 0
        self._all_sent = True
        self._worth_saving.set()

    async def _send_pending(self, analysis: ShardAnalysis) -> None:
        settled = analysis.image_count - len(analysis.pending)
        self._tally.resumed += settled
        self._report(
            f"{analysis.name}: {len(analysis.pending):,} images to judge, {settled:,} settled before"
        )
        self._open.append(analysis)
        for line, source_ref in analysis.pending:
            await self._window.acquire()
            task = asyncio.create_task(self._guarded(self._judge(analysis, line, source_ref)))
            self._in_flight.add(task)
            task.add_done_callback(self._landed)
        self._worth_saving.set()

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        unsaved = sum(analysis.unsaved for analysis in self._open)
        if not self._in_flight or unsaved >= self._window_size / 4:
            self._worth_saving.set()

    async def _judge(self, analysis: ShardAnalysis, line: int, source_ref: str) -> None:
        try:
            answer = await self._calls.detect(source_ref, partial(self._require_permission, analysis))
        except ImageFailedError as error:
            self._add_failure(analysis, line, source_ref, error, is_final=error.is_final)
            if not error.is_final:
                self._require_hope(source_ref, error)
        except CallFailedError as error:
            self._add_failure(analysis, line, source_ref, error, is_final=False)
            self._unanswered += 1
            self._require_service(error)
        else:
            analysis.add_result(line, result_line(source_ref, answer), answer.get("ModerationModelVersion"))
            self._tally.judged += 1

    def _require_permission(self, analysis: ShardAnalysis) -> None:
        if self._stopping.is_set():
            raise asyncio.CancelledError
        analysis.require_lease()

    def _add_failure(
        self,
        analysis: ShardAnalysis,
        line: int,
        source_ref: str,
        error: CallFailedError | ImageFailedError,
        *,
        is_final: bool,
    ) -> None:
        analysis.add_failure(line, ImageFailure(source_ref, error.code, str(error), is_final))
        self._tally.failures[error.code] += 1

    def _require_hope(self, source_ref: str, refusal: ImageFailedError) -> None:
        tally = self._tally
        alike = tally.failures[refusal.code]
        if tally.judged or tally.resumed or alike < tally.failures.total() - self._unanswered:
            return
        if alike >= HOPELESS_AFTER:
            raise NoImageJudgedError(
                f"The first {HOPELESS_AFTER} images all failed with {refusal.code}, and none was judged. "
                f"{source_ref}: {refusal} Mend what they have in common: the bucket's region, the right to "
                "read it, the parameters of the analysis. Then clear the task.",
                code=refusal.code,
            )

    def _require_service(self, failure: CallFailedError) -> None:
        """Many images may exhaust their tries before the silence is long enough to be noticed.

        Where others were settled before, it may be these images that get no answer, whoever asks.
        """
        if not self._tally.resumed and HOPELESS_AFTER <= self._unanswered == self._tally.answered:
            raise RekognitionSilentError(
                f"Amazon Rekognition has answered for none of the first {HOPELESS_AFTER} images: {failure} "
                "The next try asks again. If it stays so, look at AWS's health, and at the way to it."
            )

    async def _save_until_complete(self) -> None:
        while not self._stopping.is_set() and (self._open or not self._all_sent):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._worth_saving.wait(), SAVE_SECONDS)
            self._worth_saving.clear()
            await self._save()

    async def _save(self) -> None:
        for analysis in tuple(self._open):
            answers = analysis.take_unsaved()
            if answers:
                try:
                    await asyncio.to_thread(analysis.save, answers)
                except BaseException:
                    analysis.put_back(answers)
                    raise
                analysis.outstanding -= len(answers)
                for _ in range(len(answers)):
                    self._window.release()
            if analysis.outstanding == 0:
                await asyncio.to_thread(analysis.complete)
                self._open.remove(analysis)
                self._report(f"{analysis.name}: complete")

    async def _watch(self) -> None:
        reported_at = self._now()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await self._renew_leases()
            self._require_sound()
            if self._now() - reported_at >= REPORT_SECONDS:
                reported_at = self._now()
                self._report(self._tally.progress(reported_at))

    async def _renew_leases(self) -> None:
        for analysis in tuple(self._open):
            try:
                await asyncio.to_thread(analysis.renew_lease)
            except LeaseLostError:
                raise
            except ModlakeTransientError as error:
                self._report(f"{analysis.name}: its lease could not be renewed yet: {error}")

    def _require_sound(self) -> None:
        if not self._in_flight:
            self._calls.judged_at = self._now()
        if self._now() - self._calls.judged_at > SILENCE_SECONDS:
            raise RekognitionSilentError(
                f"Amazon Rekognition has judged no image for {SILENCE_SECONDS} s; {self._tally.throttled:,} "
                f"of {self._tally.calls:,} calls were throttled. What was judged is kept, and the next try "
                "goes on from there. If it stays so, look at AWS's health, and at what else uses the quota."
            )

    async def _wind_down(self, saver: asyncio.Task[None]) -> None:
        """Give calls that are paid for a moment to be answered, keep the answers, let go of the leases."""
        for task in self._in_flight - self._calls.under_way:
            task.cancel()
        if self._calls.under_way:
            await asyncio.wait(set(self._calls.under_way), timeout=GRACE_SECONDS)
        for task in self._in_flight:
            task.cancel()
        self._worth_saving.set()
        await asyncio.wait({saver})
        await self._guarded(self._save())
        for analysis in self._open:
            await self._guarded(asyncio.to_thread(analysis.release))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - raised again when the attempt has wound down
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._stopping.set()
        self._worth_saving.set()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
