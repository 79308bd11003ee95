"""Batches on a store in memory: progress, failures, retries, pace and who may carry them out."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

import pytest

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.pipeline.synchronous.lease import Lease
from modlake.policy.actions import batch_lease
from modlake.policy.actions.batch import (
    ActionsPostponedError,
    Limits,
    carry_out,
    count_by_status,
)
from modlake.policy.actions.batch_lease import BatchLease, BatchTakenError
from modlake.policy.actions.kinds import result_of
from modlake.policy.actions.notify import ReceiverBusyError
from modlake.policy.actions.results import IntendedResults, ResultParts
from modlake.policy.enforcement_folder import EnforcementFolder, read_results, write_intents
from modlake.policy.intents import ActionResult, Intent
from tests.support.actions import all_of, intent
from tests.support.memory_store import MemoryObjectStore

FOLDER = EnforcementFolder("s3://work/", date(2026, 11, 21), "enf-1")
FAST = Limits(per_second=10_000, threads=4, tries=3, backoff_seconds=0.001)


@dataclass
class Kind:
    """Does what it is told, by source_ref: errors one after another, then success."""

    errors: dict[str, list[Exception]] = field(default_factory=dict)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def do(self, intent: Intent) -> ActionResult:
        return self._carry_out("do", intent)

    def undo(self, intent: Intent) -> ActionResult:
        return self._carry_out("undo", intent)

    def _carry_out(self, verb: str, intent: Intent) -> ActionResult:
        with self.lock:
            self.calls.append((verb, intent.kind, intent.source_ref))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            left = self.errors.get(intent.source_ref, [])
            error = left.pop(0) if left else None
        time.sleep(self.seconds)
        with self.lock:
            self.at_once -= 1
        if error:
            raise error
        return result_of(intent, "completed", seen_etag=intent.etag)


def written(intents: list[Intent]) -> MemoryObjectStore:
    store = MemoryObjectStore()
    write_intents(store, FOLDER, intents, 10_000)
    return store


def run(
    store: MemoryObjectStore,
    kind: Kind,
    limits: Limits = FAST,
    still_requested: Callable[[Sequence[Intent]], set[str]] = all_of,
) -> tuple[list[ActionResult], list[str]]:
    lines: list[str] = []
    kinds = dict.fromkeys(("tag", "quarantine", "notify_webhook"), kind)
    results = carry_out(
        store,
        FOLDER,
        0,
        kinds,
        holder="me",
        still_requested=still_requested,
        report=lines.append,
        limits=limits,
    )
    return results, lines


def images(count: int, kind: str = "tag") -> list[Intent]:
    return [intent(f"s3://ugc/{number:04d}", "e", kind) for number in range(count)]


def test_everything_is_done_once_and_written_down() -> None:
    todo = images(450)
    store, kind = written(todo), Kind()
    results, lines = run(store, kind)
    assert [result.action_id for result in results] == [each.action_id for each in todo]
    assert Counter(kind.calls).most_common(1)[0][1] == 1
    assert sum("/results/00000-" in uri for uri in store.objects) == 3
    assert {result.action_id for result in read_results(store, FOLDER)} == {each.action_id for each in todo}
    assert lines[-1].startswith("450 of 450 actions, 0 failed")
    assert kind.most_at_once <= 4
    again, _ = run(store, kind)
    assert again == results
    assert len(kind.calls) == 450


def test_one_that_fails_for_good_stops_no_other() -> None:
    todo = images(5)
    kind = Kind({todo[2].source_ref: [ModlakeTerminalError("Denied: allow it.")]})
    results, _ = run(written(todo), kind)
    assert count_by_status(results) == {"completed": 4, "failed": 1}
    assert results[2].detail == {"message": "Denied: allow it."}


def test_what_goes_better_is_tried_again() -> None:
    todo = images(2)
    kind = Kind({todo[0].source_ref: [ModlakeTransientError("busy"), ReceiverBusyError("busy", 0.05)]})
    began = time.monotonic()
    results, _ = run(written(todo), kind)
    assert count_by_status(results) == {"completed": 2}
    assert time.monotonic() - began >= 0.05  # what the receiver asked for


def test_what_does_not_is_left_to_the_next_attempt() -> None:
    todo = images(5)
    kind = Kind({todo[1].source_ref: [ModlakeTransientError("busy")] * 3})
    store = written(todo)
    with pytest.raises(
        ActionsPostponedError, match="1 of 5 actions could not be carried out now, first: busy"
    ):
        run(store, kind)
    assert len(list(read_results(store, FOLDER))) == 4
    kind.calls.clear()
    results, _ = run(store, kind)
    assert kind.calls == [("do", "tag", todo[1].source_ref)]
    assert count_by_status(results) == {"completed": 5}


def test_an_unforeseen_error_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    todo = images(5)
    kind = Kind({todo[0].source_ref: [ZeroDivisionError("division by zero")]})
    store = written(todo)
    with pytest.raises(
        ActionsPostponedError,
        match=r"1 of 5 actions .* met an unforeseen ZeroDivisionError",
    ):
        run(store, kind)
    assert len(list(read_results(store, FOLDER))) == 4
    assert "ZeroDivisionError: division by zero" in caplog.text
    results, _ = run(store, kind)
    assert count_by_status(results) == {"completed": 5}
    assert len(kind.calls) == 6


def test_an_outage_ends_the_attempts_of_its_kind() -> None:
    todo = [*images(200, "notify_webhook"), intent("s3://ugc/x", "e", "tag")]
    kind = Kind({each.source_ref: [ReceiverBusyError("down")] * 9 for each in todo if each.kind != "tag"})
    with pytest.raises(ActionsPostponedError, match="200 of 201"):
        run(written(todo), kind)
    assert ("do", "tag", "s3://ugc/x") in kind.calls
    assert len(kind.calls) < 120


def test_actions_of_an_image_go_by_kind_and_back_backwards() -> None:
    kinds = ["notify_webhook", "quarantine", "tag"]
    todo = [intent("s3://ugc/a", "e", kind) for kind in kinds]
    kind = Kind()
    run(written(todo), kind)
    assert [call[1] for call in kind.calls] == ["tag", "quarantine", "notify_webhook"]
    undos = [intent("s3://ugc/a", "e", name, action_id=f"u-{name}", undoes="act-1") for name in kinds]
    new = intent("s3://ugc/a", "e", "tag", action_id="act-new")
    kind = Kind()
    run(written([new, *undos]), kind)
    assert [call[:2] for call in kind.calls] == [
        ("undo", "notify_webhook"),
        ("undo", "quarantine"),
        ("undo", "tag"),
        ("do", "tag"),
    ]


def test_actions_of_one_kind_are_taken_back_the_newest_first() -> None:
    class Ordered(Kind):
        def undo(self, intent: Intent) -> ActionResult:
            taken_back.append(intent.action_id)
            return super().undo(intent)

    taken_back: list[str] = []
    undos = [intent("s3://ugc/a", "e", "tag", action_id=f"u-{number}", undoes="act") for number in range(3)]
    run(written(undos), Ordered())
    assert taken_back == ["u-2", "u-1", "u-0"]


def test_what_follows_a_restored_object_knows_its_new_etag() -> None:
    class Restoring(Kind):
        def undo(self, intent: Intent) -> ActionResult:
            done = super().undo(intent)
            more = {"restored_etag": "new"} if intent.kind == "quarantine" else {}
            return result_of(intent, "completed", **done.detail, **more)

    undos = [
        intent("s3://ugc/a", "e", name, action_id=f"u-{name}", undoes="act-1")
        for name in ("tag", "quarantine")
    ]
    results, _ = run(written(undos), Restoring())
    assert {result.action_id: result.detail["seen_etag"] for result in results} == {
        "u-quarantine": "e",
        "u-tag": "new",
    }


def test_what_is_not_requested_any_more_is_withdrawn() -> None:
    todo = images(3)
    store, kind = written(todo), Kind()
    results, _ = run(store, kind, still_requested=lambda intents: all_of(intents) - {todo[1].action_id})
    assert [result.status for result in results] == ["completed", "withdrawn", "completed"]
    assert todo[1].source_ref not in {call[2] for call in kind.calls}
    assert {result.action_id: result.status for result in read_results(store, FOLDER)} == {
        result.action_id: result.status for result in results
    }


def test_whether_it_is_requested_is_asked_with_the_batch_in_hand() -> None:
    """An undo whose request is not seen yet waits for this attempt."""
    store = written(images(1))

    def ask(intents: Sequence[Intent]) -> set[str]:
        other = Lease(store, FOLDER.lease_uri(0), "another", lambda: datetime.now(UTC))
        assert not other.take([0])
        return all_of(intents)

    run(store, Kind(), still_requested=ask)


def test_taking_back_waits_for_other_enforcements_of_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    undo = intent("s3://ugc/a", "e", "tag", action_id="u", undoes="act-1")
    store, kind = written([undo]), Kind()
    monkeypatch.setattr(batch_lease, "PATIENCE_SECONDS", 0)
    sibling = Lease(store, FOLDER.lease_uri(1), "sibling", lambda: datetime.now(UTC))
    other = Lease(store, replace(FOLDER, enforcement_id="enf-0").lease_uri(0), "o", lambda: datetime.now(UTC))
    assert sibling.take([])
    assert other.take([])
    with pytest.raises(
        BatchTakenError, match=r"Another enforcement of 2026-11-21 .*leases/enf-0/00000/00000"
    ):
        run(store, kind)
    assert kind.calls == []
    other.release()
    run(store, kind)
    assert kind.calls == [("undo", "tag", "s3://ugc/a")]


def test_doing_waits_for_no_other_enforcement(monkeypatch: pytest.MonkeyPatch) -> None:
    store, kind = written(images(1)), Kind()
    monkeypatch.setattr(batch_lease, "PATIENCE_SECONDS", 0)
    other = Lease(store, replace(FOLDER, enforcement_id="enf-0").lease_uri(0), "o", lambda: datetime.now(UTC))
    assert other.take([])
    run(store, kind)
    assert len(kind.calls) == 1


def test_an_unknown_kind_fails_by_name() -> None:
    results, _ = run(written([intent("s3://ugc/a", "e", "shout")]), Kind())
    assert results[0].status == "failed"
    assert "'shout'" in results[0].detail["message"]


def test_the_pace_is_kept() -> None:
    kind = Kind()
    began = time.monotonic()
    run(written(images(20)), kind, Limits(per_second=50, threads=16))
    assert 0.35 <= time.monotonic() - began < 2


def test_another_attempt_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    store, kind = written(images(1)), Kind()
    other = Lease(store, FOLDER.lease_uri(0), "another", lambda: datetime.now(UTC))
    assert other.take([])
    monkeypatch.setattr(BatchLease.take.retry, "stop", lambda _: True)  # type: ignore[attr-defined]
    with pytest.raises(BatchTakenError, match="Another attempt is carrying out the batch of actions"):
        run(store, kind)
    assert kind.calls == []
    other.release()
    run(store, kind)
    assert len(kind.calls) == 1


def test_an_attempt_that_was_overtaken_acts_no_more() -> None:
    todo = images(50)
    store, kind = written(todo), Kind(seconds=0.02)
    late = datetime.now(UTC) + timedelta(minutes=1)

    def overtake() -> None:
        time.sleep(0.1)
        other = Lease(store, FOLDER.lease_uri(0), "another", lambda: late)
        assert other.take([0])

    thread = threading.Thread(target=overtake)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_lease, "RENEWAL_SECONDS", 0.05)
        with pytest.raises(BatchTakenError, match="has taken over the batch of actions") as overtaken:
            run(store, kind, Limits(per_second=100, threads=1))
    thread.join()
    shown = "".join(traceback.format_exception(overtaken.value))
    assert "judge" not in shown
    assert len(kind.calls) < 50


def test_progress_does_not_need_an_intent() -> None:
    store = MemoryObjectStore()
    store.write(FOLDER.intents_uri(0), b"")
    assert run(store, Kind())[0] == []


def test_results_of_what_was_intended_are_counted_as_they_pass_by() -> None:
    todo = images(5)
    store = MemoryObjectStore()
    assert write_intents(store, FOLDER, todo, 2) == 3
    for batch, done in ((0, todo[0:2]), (2, todo[4:])):
        ResultParts(store, FOLDER, batch).write([result_of(each, "completed") for each in done])
    late = ResultParts(store, FOLDER, 0)
    late.read()
    late.write([result_of(todo[1], "failed"), result_of(intent("s3://ugc/strange", "e", "tag"), "failed")])
    results = IntendedResults(store, FOLDER, 3)
    for _ in range(2):
        assert [each.action_id for each in results] == [each.action_id for each in (*todo[:2], todo[4])]
        assert (results.intended, results.by_status) == (5, {"completed": 3})
    assert list(IntendedResults(store, FOLDER, 0)) == []


def test_results_count_wherever_they_lie_and_intents_once() -> None:
    todo = images(4)
    store = MemoryObjectStore()
    write_intents(store, FOLDER, [*todo, todo[3]], 1)
    ResultParts(store, FOLDER, 7).write([result_of(each, "completed") for each in todo[1:]])
    results = IntendedResults(store, FOLDER, 4)
    assert [each.action_id for each in results] == [each.action_id for each in todo[1:]]
    assert (results.intended, results.by_status) == (4, {"completed": 3})


def test_an_action_of_a_kind_that_is_unknown_fails_and_says_what_to_do() -> None:
    store = written([intent("s3://ugc/1", "e", "shred")])
    (result,), _ = run(store, Kind())
    assert result.status == "failed"
    assert "knows no action 'shred': update it" in result.detail["message"]
