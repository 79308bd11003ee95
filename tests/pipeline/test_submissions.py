"""Tests of the names of submissions and of the ledger that all runs share."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any
from unittest import mock

import pytest

from modlake.pipeline.plan import AnalysisParameters
from modlake.pipeline.submissions import (
    StoredSubmissionLedger,
    Submission,
    client_request_token,
    fingerprint,
    job_name,
)
from tests.support.memory_store import MemoryObjectStore

DAY = date(2026, 11, 21)


class NoMemory:
    def recall(self, fingerprint: str) -> tuple[int, str] | None:
        return None

    def remember(self, fingerprint: str, generation: int, job_id: str) -> None:
        """Forget."""


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore()


def ledger(store: MemoryObjectStore) -> StoredSubmissionLedger:
    return StoredSubmissionLedger(store, "s3://work/modlake", "f" * 64, NoMemory())


def request(name: str) -> dict[str, Any]:
    return {"JobName": name, "OperationsConfig": {"DetectModerationLabels": {"MinConfidence": 50.0}}}


def test_a_ledger_is_empty_at_first(store: MemoryObjectStore) -> None:
    assert ledger(store).latest() is None


def test_the_first_writer_wins_and_the_others_replay_its_request(store: MemoryObjectStore) -> None:
    first, second = ledger(store), ledger(store)
    assert first.latest() is second.latest() is None

    assert first.claim(0, request("first")) == Submission(0, request("first"), is_new=True)
    assert second.claim(0, request("second")) == Submission(0, request("first"))


def test_the_latest_generation_counts(store: MemoryObjectStore) -> None:
    ours = ledger(store)
    for generation in range(12):
        ours.settle(replace(ours.claim(generation, request(f"g{generation}")), job_id=f"job-{generation}"))
    ours.claim(12, request("g12"))

    assert ledger(store).latest() == Submission(12, request("g12"))
    assert ledger(store).claim(11, request("again")) == Submission(11, request("g11"), job_id="job-11")


def test_a_submission_is_current_until_others_go_on_from_it(store: MemoryObjectStore) -> None:
    ours, others = ledger(store), ledger(store)
    claimed = ours.claim(1, request("g1"))
    assert ours.current(claimed) is claimed

    others.settle(replace(claimed, job_id="job-1"))
    assert ours.current(claimed) == Submission(1, request("g1"), job_id="job-1")
    others.claim(2, request("g2"))
    assert ours.current(claimed) == Submission(2, request("g2"))


def test_what_a_task_remembers_of_a_submission_is_not_taken_for_the_current_one(
    store: MemoryObjectStore,
) -> None:
    memory = mock.Mock(recall=lambda fingerprint: (0, "job-0"))
    ours = StoredSubmissionLedger(store, "s3://work/modlake", "f" * 64, memory)
    ours.settle(replace(ours.claim(0, request("g0")), job_id="job-0"))
    claimed = ours.claim(1, request("g1"))
    assert ours.current(claimed) is claimed


def test_the_records_lie_at_the_work_root(store: MemoryObjectStore) -> None:
    ours = ledger(store)
    ours.settle(replace(ours.claim(0, request("a")), job_id="job"))

    folder = f"s3://work/modlake/submissions/{'f' * 64}/"
    assert sorted(store.objects) == [f"{folder}00.job.json", f"{folder}00.json"]


def test_fingerprints_depend_on_content_and_parameters_alone() -> None:
    base = AnalysisParameters(min_confidence=50, adapter_arn=None)
    same = AnalysisParameters(min_confidence=50.0, adapter_arn=None)
    others = [
        replace(base, min_confidence=51),
        replace(base, adapter_arn="arn"),
        replace(base, kms_key_id="k"),
        replace(base, fresh="run"),
    ]

    assert fingerprint("a", base) == fingerprint("a", same)
    assert (
        len({fingerprint("a", base), fingerprint("b", base), *(fingerprint("a", each) for each in others)})
        == 6
    )


def test_tokens_and_names_are_legal_and_move_on_with_the_generation() -> None:
    identity = fingerprint("a", AnalysisParameters(min_confidence=50, adapter_arn=None))
    tokens = {client_request_token(identity, generation) for generation in range(3)}

    assert len(tokens) == 3
    assert all(len(token) == 64 for token in tokens)
    assert job_name(DAY, 99_999, identity, 99) == f"modlake-2026-11-21-99999-{identity[:16]}-g99"
    assert len(job_name(DAY, 99_999, identity, 99)) <= 64
