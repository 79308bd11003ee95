"""Who may judge a manifest: one attempt at a time, by conditional writes alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from modlake.exceptions import ModlakeTransientError
from modlake.pipeline.object_store import ObjectExistsError, ObjectStore

LEASE = timedelta(seconds=30)


class LeaseLostError(ModlakeTransientError):
    """Another attempt has taken the manifest over, or this one was out of touch for too long."""


class Lease:
    """A numbered term of office: ``<uri>00000.json``, ``<uri>00001.json`` and so on.

    A term begins by writing its object when there is none, which one of two rivals can; from then on only its
    holder rewrites it, to stay in office. The highest term counts. It can be followed when it has expired.
    So two holders at once would need clocks that differ by more than the rest of a term (signing requests for
    AWS needs them within 5 minutes, NTP keeps them within milliseconds).
    """

    def __init__(self, store: ObjectStore, uri: str, holder: str, now: Callable[[], datetime]) -> None:
        self._store = store
        self._uri = uri
        self._holder = holder
        self._now = now
        self._started_at = now()
        self._writing = threading.Lock()
        self._is_released = False
        self.term = -1
        self.expires_at = self._started_at

    def take(self, terms: Iterable[int]) -> bool:
        """Begin the term that follows the highest of ``terms``; False when another attempt is in office."""
        latest = max(terms, default=-1)
        if latest >= 0 and self._now() < read_expiry(self._store, self._term_uri(latest)):
            return False
        self.term = latest + 1
        expires_at = self._now() + LEASE
        try:
            self._write(expires_at, if_absent=True)
        except ObjectExistsError:
            # After a lost reply the object there may be our own.
            if json.loads(self._store.read(self._term_uri(self.term)))["holder"] != self._holder:
                return False
        self.expires_at = expires_at
        return True

    def renew(self) -> None:
        """Stay in office, unless it was left; raise LeaseLostError when another term has begun."""
        with self._writing:
            if self._is_released:
                return
            if self._store.exists(self._term_uri(self.term + 1)):
                self.expires_at = self._now()
            self.require()
            expires_at = self._now() + LEASE
            self._write(expires_at)
            self.expires_at = expires_at

    def require(self) -> None:
        """Raise LeaseLostError unless this attempt is in office."""
        if self._now() >= self.expires_at:
            raise LeaseLostError(
                f"Another attempt judges the manifest of {self._uri}, or this one could not reach the work "
                "bucket for too long. What was judged is kept: clear the task, if Airflow does not retry it."
            )

    def release(self) -> None:
        """Leave office, so that the next attempt need not wait."""
        with self._writing:
            self._is_released = True
            self.expires_at = self._now()
            self._write(self.expires_at)

    def _write(self, expires_at: datetime, *, if_absent: bool = False) -> None:
        content = {
            "holder": self._holder,
            "started_at": self._started_at.isoformat(),
            "expires_at": expires_at.isoformat(),
        }
        self._store.write(self._term_uri(self.term), json.dumps(content).encode(), if_absent=if_absent)

    def _term_uri(self, term: int) -> str:
        return f"{self._uri}{term:05d}.json"


def read_expiry(store: ObjectStore, term_uri: str) -> datetime:
    """Return until when the holder of a term is in office."""
    return datetime.fromisoformat(json.loads(store.read(term_uri))["expires_at"])
