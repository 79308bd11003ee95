"""Removing objects, bounded and logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import monotonic

from modlake.lake.maintenance.findings import SAMPLES, Finding
from modlake.lake.maintenance.policy import MaintenancePolicy
from modlake.lake.maintenance.store import DeletableStore
from modlake.pipeline.object_store import ListedObject

# What one DeleteObjects takes (Amazon S3, "DeleteObjects").
_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Objects that go together, unless ``is_free`` says at the last moment that somebody needs them."""

    objects: list[ListedObject]
    is_free: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True)
class Removal:
    """All objects of one kind that are to go; ``total`` is how many of the kind there are."""

    scope: str
    kind: str
    total: int
    batches: list[Batch]

    @property
    def finding(self) -> Finding:
        objects = [each for batch in self.batches for each in batch.objects]
        return Finding(
            scope=self.scope,
            kind=self.kind,
            total=self.total,
            found=len(objects),
            size_bytes=sum(each.size_bytes for each in objects),
            oldest=min((each.last_modified for each in objects), default=None),
            samples=[each.source_ref for each in objects[:SAMPLES]],
        )


def remove(
    store: DeletableStore, removals: list[Removal], policy: MaintenancePolicy, report: Callable[[str], None]
) -> list[Finding]:
    """Delete what was found, up to the policy's number; return the findings with what was done.

    In a dry run nothing is done. Whether the share is allowed is for the caller to check before.
    """
    findings = [removal.finding for removal in removals]
    if policy.dry_run:
        return findings
    due = sum(finding.found for finding in findings)
    progress = _Progress(min(due, policy.max_deletes), report)
    for number, removal in enumerate(removals):
        done = _delete(store, removal, policy.max_deletes - progress.done, progress, report)
        notes = [f"{findings[number].found - done:,} are left to the next run"]
        findings[number] = replace(
            findings[number], done=done, notes=notes if done < findings[number].found else []
        )
    return findings


def _delete(
    store: DeletableStore,
    removal: Removal,
    budget: int,
    progress: _Progress,
    report: Callable[[str], None],
) -> int:
    done = 0
    for batch in removal.batches:
        for chunk in _chunks(batch.objects):
            allowed = chunk[: budget - done]
            if not allowed:
                return done
            if not batch.is_free():
                break
            for each in allowed:
                report(f"Deleting {each.source_ref} ({each.size_bytes:,} B of {each.last_modified})")
            store.delete(each.source_ref for each in allowed)
            done += len(allowed)
            progress.advance(len(allowed))
    return done


def _chunks(objects: list[ListedObject]) -> Iterator[list[ListedObject]]:
    for first in range(0, len(objects), _CHUNK):
        yield objects[first : first + _CHUNK]


class _Progress:
    def __init__(self, due: int, report: Callable[[str], None]) -> None:
        self.done = 0
        self._due = due
        self._report = report
        self._started = monotonic()

    def advance(self, count: int) -> None:
        self.done += count
        rate = self.done / max(monotonic() - self._started, 0.001)
        minutes_left = (self._due - self.done) / rate / 60
        self._report(
            f"Deleted {self.done:,} of {self._due:,} objects, {rate:,.0f}/s, {minutes_left:.1f} min left"
        )
