"""Who may carry out a batch of actions: one attempt at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tenacity import (
    Retrying,
    retry,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)

from modlake.exceptions import ModlakeError, ModlakeTransientError
from modlake.pipeline.object_store import ObjectExistsError, ObjectStore
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.pipeline.side_by_side import side_by_side
from modlake.pipeline.synchronous.lease import LEASE, Lease, LeaseLostError, read_expiry
from modlake.policy.enforcement_folder import EnforcementFolder

RENEWAL_SECONDS = 8.0
PATIENCE_SECONDS = 600.0
"""How long the batches of other enforcements are waited for: about as long as the largest take."""
_READS_AT_ONCE = 16


class BatchTakenError(ModlakeTransientError):
    """Another attempt carries the batch out."""


class BatchLease:
    """The right to carry out the batch whose terms of office lie below ``uri``."""

    def __init__(self, store: ObjectStore, uri: str, holder: str) -> None:
        self._lease = Lease(store, uri, holder, lambda: datetime.now(UTC))
        self._store = store
        self._uri = uri

    @retry(
        retry=retry_if_exception_type(BatchTakenError),
        wait=wait_fixed(2),
        stop=stop_after_delay(LEASE.total_seconds() + 5),  # as long as a killed attempt can hold it
        reraise=True,
    )
    def take(self) -> None:
        """Begin the next term, as soon as the one before has ended; raise BatchTakenError if it does not."""
        bucket, prefix = split_s3_uri(self._uri)
        pages = self._store.list_objects(bucket, prefix)
        names = [listed.key[len(prefix) :] for page in pages for listed in page]
        if not self._lease.take(int(name.removesuffix(".json")) for name in names):
            raise BatchTakenError(
                f"Another attempt is carrying out the batch of actions of {self._uri}: wait until it has "
                "ended, then try again."
            )

    def require(self) -> None:
        """Raise BatchTakenError unless this attempt may act."""
        try:
            self._lease.require()
        except LeaseLostError:
            # Not chained: that text is of images to judge.
            raise self.lost() from None

    def lost(self) -> BatchTakenError:
        """Return the error of an attempt that was overtaken."""
        return BatchTakenError(
            f"Another attempt has taken over the batch of actions of {self._uri}, or the work bucket was out "
            "of reach for too long. What was done is written down: let the task be retried."
        )

    def renew_until(self, over: threading.Event) -> None:
        """Stay in office until told that it is over, or overtaken."""
        while not over.wait(RENEWAL_SECONDS):
            try:
                self._lease.renew()
            except LeaseLostError:
                return
            except ModlakeError:
                continue  # it lasts for some more tries

    def release(self) -> None:
        """Leave office, so that the next attempt need not wait."""
        self._lease.release()


def await_other_enforcements(
    store: ObjectStore, folder: EnforcementFolder, report: Callable[[str], None]
) -> None:
    """Wait until all attempts have ended that carry out other enforcements of the day now.

    Raises BatchTakenError when that takes too long. This attempt must not hold a batch: two would wait for
    each other.
    """
    in_office = _in_office(store, _terms_of_others(store, folder))
    if in_office:
        report(f"{len(in_office)} batches of other enforcements of {folder.day} are waited for")
    waiting = Retrying(
        retry=retry_if_result(bool),
        wait=wait_fixed(2),
        stop=stop_after_delay(PATIENCE_SECONDS),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    still = waiting(lambda: _in_office(store, in_office)) if in_office else []
    if still:
        raise BatchTakenError(
            f"Another enforcement of {folder.day} is being carried out, as {still[0]} tells: wait until it "
            "has ended, then try again."
        )


def _terms_of_others(store: ObjectStore, folder: EnforcementFolder) -> list[str]:
    """Return the latest term of each batch."""
    own = folder.lease_uri(0).rsplit("/", 2)[0]
    latest: dict[str, str] = {}
    for page in store.list_objects(*split_s3_uri(folder.leases_uri)):
        for listed in page:
            batch = listed.source_ref.rsplit("/", 1)[0]
            if batch.rsplit("/", 1)[0] != own:
                latest[batch] = max(listed.source_ref, latest.get(batch, ""))
    return sorted(latest.values())


def _in_office(store: ObjectStore, terms: Iterable[str]) -> list[str]:
    expiries = side_by_side(lambda term: (term, read_expiry(store, term)), terms, _READS_AT_ONCE)
    return [term for term, expires_at in expiries if datetime.now(UTC) < expires_at]


@contextmanager
def hold_batch(store: ObjectStore, uri: str, holder: str) -> Iterator[BatchLease]:
    """Hold a lease on the batch while the block runs: a stalled attempt must not act behind the next one.

    Raises BatchTakenError when another attempt is at it, or takes it over.
    """
    lease = BatchLease(store, uri, holder)
    lease.take()
    over = threading.Event()
    renewal = threading.Thread(target=lease.renew_until, args=(over,), daemon=True)
    renewal.start()
    try:
        yield lease
    except ObjectExistsError as error:  # another attempt writes its results
        raise lease.lost() from error
    else:
        over.set()
        renewal.join()
        lease.release()
    finally:
        over.set()
