"""Carrying out a batch of intents: side by side, no faster than allowed, and going on after a kill."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from modlake.exceptions import ModlakeError, ModlakeTerminalError, ModlakeTransientError
from modlake.pipeline.object_store import ObjectStore
from modlake.policy.actions.batch_lease import (
    BatchLease,
    BatchTakenError,
    await_other_enforcements,
    hold_batch,
)
from modlake.policy.actions.kinds import ORDER, ActionKind, result_of, withdrawn
from modlake.policy.actions.notify import ReceiverBusyError
from modlake.policy.actions.pace import Pace
from modlake.policy.actions.results import ResultParts
from modlake.policy.enforcement_folder import EnforcementFolder, read_intents
from modlake.policy.intents import ActionResult, Intent

RESULTS_PER_PART = 200
SECONDS_PER_PART = 5.0
LONGEST_WAIT_SECONDS = 60.0
# That many transient failures of a kind on end are an outage: the rest is left to the next try.
OUTAGE = 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard a batch may push: actions a second, threads, and tries of one action."""

    per_second: float = 50.0
    threads: int = 16
    tries: int = 5
    backoff_seconds: float = 1.0


class ActionsPostponedError(ModlakeTransientError):
    """Some actions of a batch could not be carried out now; all others are done and written down."""


def carry_out(
    store: ObjectStore,
    folder: EnforcementFolder,
    batch: int,
    kinds: Mapping[str, ActionKind],
    *,
    holder: str,
    still_requested: Callable[[Sequence[Intent]], Collection[str]],
    report: Callable[[str], None],
    limits: Limits | None = None,
) -> list[ActionResult]:
    """
    Carry out what earlier attempts have left of a batch, and return the results of all of it.

    Actions of one image follow each other in the order of kinds, and of the intents; backwards when they are
    taken back. An action that fails terminally gets the status ``failed``; the others go on. An error of no
    known type is taken for a transient one of its action, without further tries in this attempt.

    What is not requested any more gets the status ``withdrawn``. Who takes back first waits for the batches
    of other enforcements of the day that are being carried out: these may not know of it yet, later ones do.

    :param kinds: each kind of action that the intents name
    :param holder: names this attempt as no other
    :param still_requested: returns the ids of those intents that are to be carried out, read anew
    :raises BatchTakenError: another attempt is at it, or at one that it waits for
    :raises ActionsPostponedError: some actions failed transiently, try after try; the next attempt has only
        those left
    """
    limits = limits or Limits()
    intents = read_intents(store, folder, batch)
    if any(intent.undoes for intent in intents):
        await_other_enforcements(store, folder, report)
    with hold_batch(store, folder.lease_uri(batch), holder) as lease:
        parts = ResultParts(store, folder, batch)
        known = parts.read()
        requested = still_requested([intent for intent in intents if intent.action_id not in known])
        work = _Work(kinds, requested, Pace(limits.per_second), limits, lease)
        progress = _Progress(len(intents), known, report)
        postponed: list[ModlakeError] = []
        for results, failures in _in_parts(_in_threads(work, _by_image(intents), known, limits.threads)):
            lease.require()
            if results:
                parts.write(results)
            known.update((result.action_id, result) for result in results)
            postponed += failures
            progress.tell(results)
    if postponed:
        raise ActionsPostponedError(
            f"{len(postponed):,} of {len(intents):,} actions could not be carried out now, first: "
            f"{postponed[0]} The others are done: the next try has only these left."
        )
    return [known[intent.action_id] for intent in intents]


@dataclass(slots=True)
class _Work:
    """What every thread shares."""

    kinds: Mapping[str, ActionKind]
    requested: Collection[str]
    pace: Pace
    limits: Limits
    lease: BatchLease
    failing: Counter[str] = field(default_factory=Counter)

    def on_image(
        self, intents: Sequence[Intent], known: Mapping[str, ActionResult]
    ) -> list[ActionResult | ModlakeError]:
        """Carry out the intents of one image, one after another."""
        ended: list[ActionResult | ModlakeError] = []
        etag: str | None = None
        for intent in intents:
            result = known.get(intent.action_id)
            if result is None:
                # S3 gives an encrypted or multipart object another ETag when it is put back.
                outcome = self._one(replace(intent, etag=etag) if etag else intent)
                ended.append(outcome)
                if not isinstance(outcome, ActionResult):
                    break  # what follows may build on it
                result = outcome
            etag = result.detail.get("restored_etag") or etag
        return ended

    def _one(self, intent: Intent) -> ActionResult | ModlakeError:
        if intent.action_id not in self.requested:
            return withdrawn(intent)
        kind = self.kinds.get(intent.kind)
        if kind is None:
            message = f"This Modlake knows no action {intent.kind!r}: update it to the one that planned it."
            return result_of(intent, "failed", message=message)
        if self.failing[intent.kind] >= OUTAGE:
            return ActionsPostponedError(f"{intent.kind} has failed {OUTAGE} times on end.")
        try:
            result: ActionResult = self._retrying()(self._attempt, kind, intent)
        except ModlakeTransientError as error:
            self.failing[intent.kind] += 1
            return error
        except ModlakeTerminalError as error:
            result = result_of(intent, "failed", message=str(error))
        except Exception as error:
            log.exception("%s, %s of %s, met an error", intent.action_id, intent.kind, intent.source_ref)
            self.failing[intent.kind] += 1
            return ModlakeTransientError(
                f"{intent.kind} of {intent.source_ref} met an unforeseen {type(error).__name__}: mend what "
                "its traceback in the log names."
            )
        self.failing[intent.kind] = 0
        return result

    def _attempt(self, kind: ActionKind, intent: Intent) -> ActionResult:
        self.pace.take()
        self.lease.require()
        return kind.undo(intent) if intent.undoes else kind.do(intent)

    def _retrying(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception(_may_go_better),
            wait=_wait(self.limits.backoff_seconds),
            stop=stop_after_attempt(self.limits.tries),
            reraise=True,
        )


def _may_go_better(error: BaseException) -> bool:
    return isinstance(error, ModlakeTransientError) and not isinstance(error, BatchTakenError)


def _wait(first_seconds: float) -> Callable[[RetryCallState], float]:
    backoff = wait_exponential_jitter(first_seconds, LONGEST_WAIT_SECONDS, jitter=first_seconds)

    def wait_seconds(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.after_seconds if isinstance(error, ReceiverBusyError) else None
        return min(max(backoff(state), asked or 0.0), LONGEST_WAIT_SECONDS)

    return wait_seconds


def _by_image(intents: Sequence[Intent]) -> list[list[Intent]]:
    images: dict[str, list[Intent]] = {}
    for intent in intents:
        images.setdefault(intent.source_ref, []).append(intent)
    return [_in_turn(of_image) for of_image in images.values()]


def _in_turn(intents: Sequence[Intent]) -> list[Intent]:
    """First what is taken back, last first; then what is done."""
    ordered = sorted(intents, key=_rank)
    undos = [intent for intent in ordered if intent.undoes]
    return [*reversed(undos), *(intent for intent in ordered if not intent.undoes)]


def _rank(intent: Intent) -> int:
    return ORDER.index(intent.kind) if intent.kind in ORDER else len(ORDER)


def _in_threads(
    work: _Work, images: Sequence[Sequence[Intent]], known: Mapping[str, ActionResult], threads: int
) -> Iterator[list[ActionResult | ModlakeError]]:
    """Yield what ended, image by image, and now and then nothing."""
    remaining = (of_image for of_image in images if any(intent.action_id not in known for intent in of_image))
    with ThreadPoolExecutor(threads) as pool:
        running: set[Future[list[ActionResult | ModlakeError]]] = set()
        try:
            while True:
                for of_image in itertools.islice(remaining, 2 * threads - len(running)):
                    running.add(pool.submit(work.on_image, of_image, known))
                if not running:
                    return
                done, running = wait(running, timeout=SECONDS_PER_PART, return_when=FIRST_COMPLETED)
                yield [ended for future in done for ended in future.result()]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_parts(
    endings: Iterator[list[ActionResult | ModlakeError]],
) -> Iterator[tuple[list[ActionResult], list[ModlakeError]]]:
    results: list[ActionResult] = []
    failures: list[ModlakeError] = []
    began = time.monotonic()
    for ended in endings:
        for outcome in ended:
            if isinstance(outcome, ActionResult):
                results.append(outcome)
            else:
                failures.append(outcome)
        if len(results) >= RESULTS_PER_PART or time.monotonic() - began >= SECONDS_PER_PART:
            yield results, failures
            results, failures, began = [], [], time.monotonic()
    yield results, failures


class _Progress:
    def __init__(self, total: int, known: Mapping[str, ActionResult], report: Callable[[str], None]) -> None:
        self._total = total
        self._before = self._done = len(known)
        self._failed = sum(result.status == "failed" for result in known.values())
        self._report = report
        self._began = time.monotonic()

    def tell(self, results: Sequence[ActionResult]) -> None:
        self._done += len(results)
        self._failed += sum(result.status == "failed" for result in results)
        rate = (self._done - self._before) / max(time.monotonic() - self._began, 0.001)
        minutes_left = (self._total - self._done) / max(rate, 0.001) / 60
        self._report(
            f"{self._done:,} of {self._total:,} actions, {self._failed:,} failed, {rate:,.0f} actions/s, "
            f"{minutes_left:.1f} min left"
        )


def count_by_status(results: Sequence[ActionResult]) -> dict[str, int]:
    """Count results by status."""
    return dict(Counter(result.status for result in results))
