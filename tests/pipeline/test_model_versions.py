from __future__ import annotations

from datetime import UTC, datetime

from modlake.pipeline.model_versions import last_model_version, remember_model_version
from tests.support.days import PROJECT_VERSION
from tests.support.memory_store import MemoryObjectStore


def test_the_newest_answer_counts_whatever_lands_last() -> None:
    store = MemoryObjectStore()
    assert last_model_version(store, "s3://work/", None) is None
    for version, day in (("7.0", 1), ("8.0", 3), ("7.5", 2)):
        remember_model_version(store, "s3://work/", None, version, datetime(2026, 11, day, tzinfo=UTC))
    assert last_model_version(store, "s3://work/", None) == "8.0"


def test_each_adapter_is_known_for_itself() -> None:
    store = MemoryObjectStore()
    remember_model_version(store, "s3://work/", PROJECT_VERSION, "7.0", datetime(2026, 11, 1, tzinfo=UTC))
    assert last_model_version(store, "s3://work/", PROJECT_VERSION) == "7.0"
    assert last_model_version(store, "s3://work/", PROJECT_VERSION + "0") is None
    assert last_model_version(store, "s3://work/", None) is None
