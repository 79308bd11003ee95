"""ActOperator on a store in memory."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.operators.moderation_actions import ActOperator
from modlake.policy.actions.kinds import result_of
from modlake.policy.enforcement_folder import EnforcementFolder, write_intents
from modlake.policy.intents import ActionResult, Intent
from modlake.retries import TERMINAL_ERRORS_FAIL
from tests.policy.actions.test_batch import FOLDER
from tests.support.actions import all_of, intent
from tests.support.memory_store import MemoryObjectStore

BATCH = {"enforcement_uri": FOLDER.enforcement_uri, "batch": 0}
CONTEXT: Any = {"ti": SimpleNamespace(id=uuid.uuid4())}


class Kind:
    def do(self, intent: Intent) -> ActionResult:
        if intent.source_ref.endswith("bad"):
            raise ModlakeTerminalError("Denied: allow it.")
        return result_of(intent, "completed")

    undo = do


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryObjectStore:
    store = MemoryObjectStore()
    monkeypatch.setattr(ActOperator, "hook", store)
    folders: list[EnforcementFolder] = []

    def kinds(_: Any, folder: EnforcementFolder, aws: Any) -> dict[str, Any]:
        assert aws["aws_conn_id"] == "aws_default"
        folders.append(folder)
        return {"tag": Kind()}

    monkeypatch.setattr("modlake.hooks.moderation_actions_kinds.action_kinds", kinds)
    monkeypatch.setattr("modlake.lake.catalog.open_catalog", lambda: None)
    monkeypatch.setattr("modlake.lake.actions.still_requested", lambda _, day, intents: all_of(intents))
    return store


def test_a_batch_ends_with_its_counts(store: MemoryObjectStore) -> None:
    write_intents(store, FOLDER, [intent(f"s3://ugc/{name}", "e", "tag") for name in ("a", "b", "bad")], 10)
    operator = ActOperator(task_id="act", batch=BATCH, actions_per_second="1000")
    assert operator.execute(CONTEXT) == {**BATCH, "results": {"completed": 2, "failed": 1}}
    assert operator.retry_policy is TERMINAL_ERRORS_FAIL


def test_what_is_not_requested_any_more_is_not_done(
    store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_intents(store, FOLDER, [intent("s3://ugc/a", "e", "tag")], 10)
    monkeypatch.setattr("modlake.lake.actions.still_requested", lambda _, day, intents: set())
    operator = ActOperator(task_id="act", batch=BATCH)
    assert operator.execute(CONTEXT) == {**BATCH, "results": {"withdrawn": 1}}


@pytest.mark.parametrize("rate", [0, -1, "fast", "nan", float("inf")])
def test_a_rate_that_is_none(rate: Any) -> None:
    with pytest.raises(ModlakeTerminalError, match=r"actions_per_second: .* write a number above 0"):
        ActOperator(task_id="act", batch=BATCH, actions_per_second=rate)._per_second()


def test_values_that_come_later_are_read_later() -> None:
    ActOperator(task_id="act", batch=BATCH, actions_per_second="{{ params.rate }}")
    with pytest.raises(ModlakeTerminalError, match="threads: 0 is too few"):
        ActOperator(task_id="act", batch=BATCH, threads=0)


def test_templated_fields() -> None:
    assert {"batch", "actions_per_second", "aws_conn_id"} <= set(ActOperator.template_fields)
