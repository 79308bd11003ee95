"""The note of whether jobs can be started."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from modlake.pipeline.bulk_access import note_access, note_denial, noted_denial
from tests.support.memory_store import MemoryObjectStore

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)


def test_a_denial_holds_for_a_week() -> None:
    store = MemoryObjectStore()
    assert noted_denial(store, "s3://work", NOW) is None
    note_denial(store, "s3://work", NOW, "not authorized")
    assert "s3://work/engines/bulk.json" in store.objects
    denied = noted_denial(store, "s3://work", NOW + timedelta(days=6))
    assert denied is not None
    assert not denied.is_open
    assert denied.seen == "denied at 2026-11-21 03:00 UTC: not authorized"
    assert noted_denial(store, "s3://work", NOW + timedelta(days=8)) is None


def test_a_job_that_was_started_ends_it() -> None:
    store = MemoryObjectStore()
    note_access(store, "s3://work", NOW)
    assert not store.objects
    note_denial(store, "s3://work", NOW, "not authorized")
    note_access(store, "s3://work", NOW)
    assert noted_denial(store, "s3://work", NOW) is None
