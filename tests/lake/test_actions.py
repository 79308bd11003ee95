"""The table of actions: requested, ended, taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException

from modlake.exceptions import ModlakeTerminalError
from modlake.lake import actions
from modlake.lake.actions import add_intents, read_actions, record_results, still_requested
from modlake.pipeline import scratch
from modlake.policy.intents import ActionResult, Intent, action_id, undo_of
from modlake.policy.object_etags import etags_of_object
from tests.lake.conftest import Lake
from tests.support.days import DAY
from tests.support.labelled_days import ref

Rows = Callable[[str], list[dict[str, Any]]]

ENDED = "2026-11-22T03:00:00+00:00"


@pytest.fixture(autouse=True, params=["all at once", "some at a time"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "some at a time":
        for name in ("ACTIONS_AT_ONCE", "_ROWS_PER_FILE", "_ROWS_PER_CHUNK"):
            monkeypatch.setattr(actions, name, 2)
        monkeypatch.setattr(scratch, "_SAMPLED", 1)


def intent(key: str = "a.jpg", kind: str = "tag", **changes: Any) -> Intent:
    day, source_ref, target = DAY.isoformat(), ref(key), f"target of {kind}"
    made = Intent(
        action_id=action_id(day, source_ref, "e1", kind, target, 0),
        day=day,
        source_ref=source_ref,
        etag="e1",
        kind=kind,
        target=target,
        detail={"labels": [{"label": "Explicit", "confidence": 91.5}]},
        policy="house",
        policy_version="0123456789ab",
        rule="nudity",
        verdict="block",
        enforcement_id="enf-1",
    )
    return replace(made, **changes)


def ended(done: Intent, status: Any = "completed", **detail: Any) -> ActionResult:
    return ActionResult(done.action_id, status, detail, ENDED, done.undoes)


def snapshots(catalog: Catalog) -> int:
    return len(catalog.load_table("moderation.actions").snapshots())


def test_intents_are_requested_once(catalog: Catalog, rows: Rows) -> None:
    intents = [intent(), intent(kind="quarantine"), intent("b.jpg")]
    assert add_intents(catalog, DAY, intents) == 3
    before = snapshots(catalog)
    assert add_intents(catalog, DAY, reversed(intents)) == 0
    assert add_intents(catalog, DAY, []) == 0
    assert snapshots(catalog) == before
    (row,) = [row for row in rows("actions") if row["action_id"] == intents[0].action_id]
    assert row | {"requested_at": None} == {
        "action_id": intents[0].action_id,
        "day": DAY,
        "source_ref": ref("a.jpg"),
        "kind": "tag",
        "status": "requested",
        "target": "target of tag",
        "detail": '{"labels": [{"confidence": 91.5, "label": "Explicit"}]}',
        "requested_at": None,
        "completed_at": None,
        "undone_by": None,
        "actor": "modlake",
        "etag": "e1",
        "policy": "house",
        "policy_version": "0123456789ab",
        "rule": "nudity",
        "verdict": "block",
        "undoes": None,
        "reason": None,
        "enforcement_id": "enf-1",
    }


def test_what_is_requested_at_a_second_try_is_dated_then(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[datetime] = []
    replace_day = actions.replace_with_files

    def lose_once(*arguments: Any) -> Any:
        if not lost:
            lost.append(datetime.now(UTC))
            raise CommitFailedException("another writer was faster")
        return replace_day(*arguments)

    monkeypatch.setattr(actions, "replace_with_files", lose_once)
    assert add_intents(catalog, DAY, iter([intent(), intent("b.jpg"), intent("c.jpg")])) == 3
    # An undo that ended before the second try would otherwise seem to be newer than what followed it.
    assert all(row["requested_at"] > lost[0] for row in read_actions(catalog, day=DAY).to_pylist())


def test_results_keep_what_led_to_the_action(catalog: Catalog, rows: Rows) -> None:
    done = intent()
    add_intents(catalog, DAY, [done, intent("b.jpg")])
    assert record_results(catalog, DAY, [ended(done, key="moderation")]) == 1
    before = snapshots(catalog)
    assert record_results(catalog, DAY, [ended(done, "failed", late="answer")]) == 0
    assert record_results(catalog, DAY, []) == 0
    assert snapshots(catalog) == before
    found = {row["source_ref"]: row for row in rows("actions")}
    assert found[ref("a.jpg")]["status"] == "completed"
    assert found[ref("a.jpg")]["completed_at"] == datetime(2026, 11, 22, 3, tzinfo=UTC)
    assert json.loads(found[ref("a.jpg")]["detail"]) == {**done.detail, "key": "moderation"}
    assert found[ref("b.jpg")]["status"] == "requested"


def test_a_completed_undo_takes_the_action_back(catalog: Catalog) -> None:
    done = intent(kind="quarantine")
    add_intents(catalog, DAY, [done])
    record_results(catalog, DAY, [ended(done, quarantined_as="s3://q/x")])
    (row,) = read_actions(catalog, action_ids=[done.action_id]).to_pylist()
    undo = undo_of(row, enforcement_id="undo-1", actor="ada", reason="a statue")
    assert undo.detail["original"]["quarantined_as"] == "s3://q/x"
    add_intents(catalog, DAY, [undo])
    assert record_results(catalog, DAY, [ended(undo)]) == 2
    found = {row["action_id"]: row for row in read_actions(catalog, day=DAY).to_pylist()}
    assert (found[done.action_id]["status"], found[done.action_id]["undone_by"]) == ("undone", undo.action_id)
    assert found[undo.action_id]["status"] == "completed"
    assert (found[undo.action_id]["actor"], found[undo.action_id]["reason"]) == ("ada", "a statue")
    assert record_results(catalog, DAY, [ended(undo)]) == 0


@pytest.mark.parametrize("status", ["failed", "replaced", "gone"])
def test_an_undo_that_came_to_nothing_may_be_asked_for_again(catalog: Catalog, status: str) -> None:
    done = intent()
    add_intents(catalog, DAY, [done])
    record_results(catalog, DAY, [ended(done)])
    (row,) = read_actions(catalog, day=DAY).to_pylist()
    undo = undo_of(row, enforcement_id="undo-1", actor="ada", reason="wrong")
    add_intents(catalog, DAY, [undo])
    record_results(catalog, DAY, [ended(undo, status, message="denied")])
    again = undo_of(row, enforcement_id="undo-2", actor="bob", reason="still wrong")
    assert again.action_id == undo.action_id
    assert add_intents(catalog, DAY, [again]) == 1
    statuses = {row["action_id"]: row for row in read_actions(catalog, day=DAY).to_pylist()}
    assert statuses[done.action_id]["status"] == "completed"
    assert statuses[undo.action_id]["status"] == "requested"
    assert statuses[undo.action_id]["actor"] == "bob"
    assert statuses[undo.action_id]["completed_at"] is None


@pytest.mark.parametrize("ending", ["completed", None])
def test_a_move_whose_undo_failed_is_tried_again(catalog: Catalog, ending: str | None) -> None:
    moved = intent(kind="quarantine")
    add_intents(catalog, DAY, [moved])
    if ending:
        record_results(catalog, DAY, [ended(moved, ending)])
    (row,) = read_actions(catalog, day=DAY).to_pylist()
    undo = undo_of(row, enforcement_id="undo-1", actor="ada", reason="wrong")
    add_intents(catalog, DAY, [undo])
    assert record_results(catalog, DAY, [ended(undo, "failed", message="denied")]) == 2
    # What is told late of the move itself is older.
    assert record_results(catalog, DAY, [ended(moved), ended(undo, "failed")]) == 0
    assert set(read_actions(catalog, day=DAY)["status"].to_pylist()) == {"failed"}
    assert add_intents(catalog, DAY, [moved]) == 1
    assert still_requested(catalog, DAY, [moved]) == {moved.action_id}
    record_results(catalog, DAY, [ended(moved)])
    assert record_results(catalog, DAY, [ended(undo, "failed")]) == 0


def test_a_move_is_requested_anew_for_another_upload_of_the_image(catalog: Catalog) -> None:
    def seen(at: str) -> Intent:
        return intent(kind="quarantine", detail={"last_modified": f"{at}+00:00"})

    moved = seen("2026-11-21T12:00:00")
    add_intents(catalog, DAY, [moved])
    record_results(catalog, DAY, [ended(moved, origin={"last_modified": "2026-11-21T13:00:00+00:00"})])
    for known in ("2026-11-21T12:00:00.250000", "2026-11-21T13:00:00"):
        assert add_intents(catalog, DAY, [seen(known)]) == 0
    again = seen("2026-11-22T12:00:00")
    assert add_intents(catalog, DAY, [again]) == 1
    assert add_intents(catalog, DAY, [again]) == 0
    assert still_requested(catalog, DAY, [again]) == {moved.action_id}
    record_results(catalog, DAY, [ended(again)])
    assert add_intents(catalog, DAY, [again]) == 0


def test_an_undo_that_is_told_late_takes_nothing_back_that_was_done_since(catalog: Catalog) -> None:
    moved = intent(kind="quarantine")
    add_intents(catalog, DAY, [moved])
    record_results(catalog, DAY, [ended(moved)])
    (row,) = read_actions(catalog, day=DAY).to_pylist()
    undo = undo_of(row, enforcement_id="undo-1", actor="ada", reason="wrong")
    add_intents(catalog, DAY, [undo])
    record_results(catalog, DAY, [ended(undo, "failed")])
    add_intents(catalog, DAY, [moved])
    later = replace(ended(undo), completed_at="2026-11-22T03:00:01+00:00")
    assert record_results(catalog, DAY, [later]) == 0
    assert still_requested(catalog, DAY, [moved]) == {moved.action_id}
    record_results(catalog, DAY, [ended(moved)])
    assert record_results(catalog, DAY, [later]) == 0
    statuses = {row["action_id"]: row["status"] for row in read_actions(catalog, day=DAY).to_pylist()}
    assert statuses == {moved.action_id: "completed", undo.action_id: "failed"}


def test_an_undo_that_is_asked_for_again_keeps_the_etags_of_the_image(catalog: Catalog) -> None:
    moved = intent(kind="quarantine")
    add_intents(catalog, DAY, [moved])
    record_results(catalog, DAY, [ended(moved)])
    (row,) = read_actions(catalog, day=DAY).to_pylist()
    undo = undo_of(row, enforcement_id="undo-1", actor="ada", reason="wrong")
    add_intents(catalog, DAY, [undo])
    record_results(catalog, DAY, [ended(undo, "failed", restored_etag="e2")])
    for etag in ("e2", "e3"):
        add_intents(catalog, DAY, [replace(undo, etag=etag)])
        for end in ("requested", "failed"):
            rows = read_actions(catalog, day=DAY).to_pylist()
            assert {row["status"] for row in rows if row["undoes"]} == {end}
            assert set(etags_of_object("e1", rows)) == {"e1", "e2", etag}
            assert etags_of_object("e1", rows)[-1] == etag
            record_results(catalog, DAY, [ended(undo, "failed")])


@pytest.mark.parametrize("status", ["gone", "replaced", "failed"])
def test_what_only_the_later_of_two_did_is_done(catalog: Catalog, status: str) -> None:
    todo = intent(kind="tag" if status == "failed" else "quarantine")
    add_intents(catalog, DAY, [todo])
    record_results(catalog, DAY, [ended(todo, status, message="told first")])
    later = replace(ended(todo, key="moderation"), completed_at="2026-11-22T03:00:01+00:00")
    assert record_results(catalog, DAY, [ended(todo)]) == 0  # by one that is no later
    assert record_results(catalog, DAY, [later]) == 1
    assert record_results(catalog, DAY, [later, ended(todo, status)]) == 0
    (row,) = read_actions(catalog, day=DAY).to_pylist()
    assert (row["status"], json.loads(row["detail"])["key"]) == ("completed", "moderation")


def test_what_is_to_be_carried_out_is_requested_and_not_taken_back(catalog: Catalog) -> None:
    intents = [intent(f"{name}.jpg") for name in ("done", "new", "returning", "returned", "stays")]
    done, new, returning, returned, stays = intents
    assert still_requested(catalog, DAY, intents) == set()
    add_intents(catalog, DAY, intents)
    assert still_requested(catalog, DAY, intents) == {each.action_id for each in intents}
    rows = {row["source_ref"]: row for row in read_actions(catalog, day=DAY).to_pylist()}
    undos = [
        undo_of(rows[each.source_ref], enforcement_id="undo-1", actor="ada", reason=None)
        for each in (returning, returned, stays)
    ]
    add_intents(catalog, DAY, undos)
    record_results(catalog, DAY, [ended(done), ended(undos[1]), ended(undos[2], "failed")])
    assert still_requested(catalog, DAY, [*intents, *undos]) == {
        new.action_id,
        stays.action_id,
        undos[0].action_id,
    }
    assert still_requested(catalog, DAY, []) == set()


def test_what_is_withdrawn_is_left_to_whom_it_belongs_to(catalog: Catalog) -> None:
    withdrawn = intent()
    add_intents(catalog, DAY, [withdrawn])
    assert record_results(catalog, DAY, [ended(withdrawn, "withdrawn")]) == 0
    assert read_actions(catalog, day=DAY)["status"].to_pylist() == ["requested"]


def test_results_of_nobody_are_refused(catalog: Catalog) -> None:
    with pytest.raises(ModlakeTerminalError, match="nobody requested"):
        record_results(catalog, DAY, [ended(intent())])


def test_intents_of_another_day_are_refused(catalog: Catalog) -> None:
    with pytest.raises(ModlakeTerminalError, match="not of 2026-11-22"):
        add_intents(catalog, DAY + timedelta(days=1), [intent()])


def test_actions_are_found_by_day_id_and_image(catalog: Catalog) -> None:
    later = DAY + timedelta(days=1)
    other = intent("c.jpg", day=later.isoformat(), action_id="act-later")
    add_intents(catalog, DAY, [intent(), intent("b.jpg")])
    add_intents(catalog, later, [other])
    assert read_actions(catalog).num_rows == 3
    assert read_actions(catalog, day=later)["action_id"].to_pylist() == ["act-later"]
    assert read_actions(catalog, source_refs=[ref("b.jpg"), ref("c.jpg")]).num_rows == 2
    assert read_actions(catalog, day=DAY, source_refs=[ref("c.jpg")]).num_rows == 0
    many = [*(f"act-{number}" for number in range(3_000)), "act-later"]
    assert read_actions(catalog, action_ids=many)["action_id"].to_pylist() == ["act-later"]
    assert read_actions(catalog, action_ids=[]).num_rows == 0


def test_writers_of_one_day_at_once_lose_nothing(lake: Lake, catalog: Catalog) -> None:
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(lambda number: add_intents(lake.open(), DAY, [intent(f"{number}.jpg")]), range(4)))
    assert read_actions(catalog, day=DAY).num_rows == 4
