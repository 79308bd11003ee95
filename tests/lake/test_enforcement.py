"""From a published day to intents: what decide leaves in the folder of an enforcement."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from unittest import mock

import pytest
from pyiceberg.catalog import Catalog

from modlake.exceptions import ModlakeTerminalError
from modlake.lake import enforcement
from modlake.lake.actions import add_intents, read_actions, record_results, still_requested
from modlake.lake.enforcement import Enforcement, plan_enforcement
from modlake.policy.actions.batch import carry_out
from modlake.policy.actions.kinds import result_of
from modlake.policy.brake import HISTORY_DAYS
from modlake.policy.enforcement_folder import EnforcementFolder, read_all_intents, read_enforcement
from modlake.policy.intents import ActionResult, Intent
from modlake.policy.policy import Brake, Policy
from modlake.policy.targets import Targets
from tests.support.days import DAY
from tests.support.labelled_days import TARGETS, policy, publish_labels
from tests.support.memory_store import MemoryObjectStore

IMAGES = {"a.jpg": {"Explicit": 95.0}, "b.jpg": {"Explicit": 85.0}, "c.jpg": {"Weapons": 90.0}, "d.jpg": {}}


class World:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.store = MemoryObjectStore()

    def plan(self, *policies: Policy, day: Any = DAY, batch_size: int = 1_000) -> Enforcement:
        return plan_enforcement(
            self.catalog,
            self.store,
            day=day,
            work_uri="s3://work/",
            policies=policies or (policy(),),
            targets=Targets(TARGETS),
            batch_size=batch_size,
            report=lambda _: None,
        )

    def intents(self, enforcement: Enforcement) -> list[Intent]:
        folder = EnforcementFolder("s3://work/", enforcement.day, enforcement.enforcement_id)
        return list(read_all_intents(self.store, folder))

    def act(self, enforcement: Enforcement, **failing: str) -> None:
        """Carry everything out; kinds given by name end in that status."""
        intents = self.intents(enforcement)
        add_intents(self.catalog, enforcement.day, intents)
        ended = "2026-11-22T03:00:00+00:00"
        results: list[Any] = [
            ActionResult(i.action_id, failing.get(i.kind, "completed"), {}, ended, i.undoes)  # type: ignore[arg-type]
            for i in intents
        ]
        record_results(self.catalog, enforcement.day, results)


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enforcement, "DECISIONS_AT_ONCE", 2)


@pytest.fixture
def world(catalog: Catalog) -> World:
    publish_labels(catalog, DAY, IMAGES)
    return World(catalog)


def test_decide_leaves_its_story_and_the_intents_in_batches(world: World) -> None:
    enforcement = world.plan(policy(brake=Brake(max_images=1)), batch_size=3)
    assert enforcement.intents == {"tag": 3, "quarantine": 2, "review_queue": 1}
    assert (enforcement.batches, enforcement.images, enforcement.changed) == (2, 4, True)
    assert Counter(intent.kind for intent in world.intents(enforcement)) == enforcement.intents
    folder = EnforcementFolder("s3://work/", DAY, enforcement.enforcement_id)
    story = read_enforcement(world.store, folder)
    assert (story["day"], story["run_id"], story["batches"]) == (DAY.isoformat(), "run-1", 2)
    assert [(move["movement"], move["rule"], move["images"]) for move in story["held"]] == [
        ("block", None, 2),
        ("block", "nudity", 2),
    ]
    assert story["rules"]["house"]["nudity"] == "Nudity | sex"
    assert {row["verdict"]: row["images"] for row in story["figures"]} == {
        "block": 2,
        "review": 1,
        "allow": 1,
    }


def test_what_is_done_leaves_nothing_to_do(world: World) -> None:
    first = world.plan()
    world.act(first)
    again = world.plan()
    assert (again.batches, again.intents, again.changed) == (0, {}, False)
    assert again.enforcement_id == first.enforcement_id


def test_what_was_decided_and_never_acted_on_is_asked_for_again(world: World) -> None:
    first = world.plan(policy(brake=Brake(max_images=1)))
    again = world.plan(policy(brake=Brake(max_images=1)))
    assert not again.changed
    assert (again.enforcement_id, again.intents) == (first.enforcement_id, first.intents)
    assert again.held == first.held


def test_what_failed_is_tried_again_in_a_folder_of_its_own(world: World) -> None:
    first = world.plan()
    world.act(first, quarantine="failed")
    second = world.plan()
    assert second.intents == {"quarantine": 2}
    assert second.enforcement_id != first.enforcement_id
    world.act(second)
    assert world.plan().intents == {}


def test_what_failed_and_was_requested_anew_is_never_gone_on_with_where_it_failed(world: World) -> None:
    first = world.plan()
    assert world.plan().enforcement_id == first.enforcement_id
    add_intents(world.catalog, DAY, world.intents(first))
    assert world.plan().enforcement_id == first.enforcement_id
    world.act(first, quarantine="failed")
    seen = {first.enforcement_id}
    for status in ("failed", "requested", "failed", "requested"):
        enforcement = world.plan()
        assert enforcement.intents == {"quarantine": 2}
        assert enforcement.enforcement_id not in seen
        seen.add(enforcement.enforcement_id)
        if status == "failed":
            world.act(enforcement, quarantine="failed")
        else:
            add_intents(world.catalog, DAY, world.intents(enforcement))


def test_a_killed_enforcement_is_gone_on_with_where_another_has_left_something(world: World) -> None:
    stuck = Intent("act-1", DAY.isoformat(), "s3://ugc/a.jpg", "old", "tag", "k=v", enforcement_id="enf-old")
    add_intents(world.catalog, DAY, [stuck])
    first = world.plan()
    add_intents(world.catalog, DAY, world.intents(first))
    again = world.plan()
    assert (again.enforcement_id, again.intents) == (first.enforcement_id, first.intents)
    # Once more is left by another one, whatever has a result here may be older.
    add_intents(world.catalog, DAY, [replace(stuck, action_id="act-2", enforcement_id="enf-more")])
    later = world.plan()
    assert (later.enforcement_id != first.enforcement_id, later.intents) == (True, first.intents)
    assert world.plan().enforcement_id == later.enforcement_id
    world.act(later, quarantine="failed")
    assert world.plan().enforcement_id not in {first.enforcement_id, later.enforcement_id}


def test_a_move_is_asked_for_again_whose_release_failed(world: World) -> None:
    world.act(world.plan())
    world.act(world.plan(policy(block_at=99)), quarantine="failed")
    assert world.plan(policy(block_at=99)).intents == {"undo quarantine": 2}
    again = world.plan()  # the image may be back in its place
    assert again.intents == {"tag": 2, "quarantine": 2}
    world.act(again)
    assert world.plan().intents == {}
    assert world.plan(policy(block_at=99)).intents == {"undo tag": 2, "undo quarantine": 2}


def test_an_undo_that_found_nothing_is_never_gone_on_with_where_it_did(world: World) -> None:
    world.act(world.plan())
    quarantining = policy(actions={"block": ("quarantine",)})
    in_vain = world.plan(quarantining)
    world.act(in_vain, tag="gone")
    assert world.plan(quarantining).enforcement_id != in_vain.enforcement_id


def test_what_was_gone_is_sought_again_when_the_day_is_published_anew(world: World) -> None:
    first = world.plan()
    world.act(first, tag="gone", quarantine="gone")
    assert world.plan().intents == {}
    later = datetime(2026, 11, 23, tzinfo=UTC)
    publish_labels(world.catalog, DAY, IMAGES, run_id="run-2", published_at=later)
    again = world.plan()
    assert again.intents == {"tag": 3, "quarantine": 2}
    world.act(again)
    assert Counter(read_actions(world.catalog, day=DAY)["status"].to_pylist()) == {"completed": 6}


def test_what_was_uploaded_again_is_tagged_and_moved_again_by_the_next_run(world: World) -> None:
    first = world.plan()
    world.act(first)
    later = datetime(2026, 11, 23, tzinfo=UTC)
    publish_labels(world.catalog, DAY, IMAGES, run_id="run-2", published_at=later)
    assert world.plan().intents == {}
    back = {"a.jpg": {"last_modified": later}}
    publish_labels(world.catalog, DAY, IMAGES, run_id="run-3", images=back, published_at=later)
    again = world.plan()
    assert again.intents == {"tag": 1, "quarantine": 1}
    assert again.enforcement_id != first.enforcement_id
    assert {intent.action_id for intent in world.intents(again)} < {
        intent.action_id for intent in world.intents(first)
    }
    world.act(again)
    assert world.plan().intents == {}
    assert world.plan(policy(block_at=99)).intents == {"undo tag": 2, "undo quarantine": 2}


def test_a_changed_policy_releases_behind_the_same_brake(world: World) -> None:
    world.act(world.plan(policy(brake=Brake(max_images=2))))
    changed = world.plan(policy(block_at=99, brake=Brake(max_images=1)))
    assert changed.intents == {"undo tag": 2, "undo quarantine": 2}
    assert [(move.movement, move.rule, move.images) for move in changed.held] == [
        ("release", None, 2),
        ("release", "nudity", 2),
    ]
    world.act(changed)
    assert world.plan(policy(block_at=99)).intents == {}


def test_an_image_that_cannot_be_read_in_quarantine_stays_there(world: World) -> None:
    world.act(world.plan())
    lost = {"outcome": "failed", "error_code": "ERROR_INVALID_S3_OBJECT"}
    moved = {"a.jpg": lost, "b.jpg": lost}
    publish_labels(world.catalog, DAY, IMAGES | {"a.jpg": {}, "b.jpg": {}}, run_id="run-2", images=moved)
    assert world.plan().intents == {}


def test_what_a_later_policy_has_released_is_not_carried_out_any_more(world: World) -> None:
    late = world.plan()
    add_intents(world.catalog, DAY, world.intents(late))
    world.act(world.plan(policy(block_at=99)))
    folder = EnforcementFolder("s3://work/", DAY, late.enforcement_id)
    tagging = mock.Mock(do=lambda intent: result_of(intent, "completed"))
    results = carry_out(
        world.store,
        folder,
        0,
        {"tag": tagging, "review_queue": tagging},
        holder="late",
        still_requested=partial(still_requested, world.catalog, DAY),
        report=lambda _: None,
    )
    assert {result.status for result in results} == {"withdrawn"}
    before = read_actions(world.catalog, day=DAY)
    assert record_results(world.catalog, DAY, results) == 0
    assert read_actions(world.catalog, day=DAY) == before


def test_the_brake_knows_the_history_of_other_days(world: World) -> None:
    quiet = {f"{number}.jpg": {"Explicit": 95.0 if number < 2 else 60.0} for number in range(100)}
    for number in range(1, 4):
        day = DAY - timedelta(days=number)
        publish_labels(world.catalog, day, quiet)
        assert world.plan(policy(brake=Brake(min_days=3)), day=day).held == []
    loud = {f"{number}.jpg": {"Explicit": 95.0 if number < 40 else 60.0} for number in range(100)}
    publish_labels(world.catalog, DAY, loud, run_id="run-2")
    (whole, rule) = world.plan(policy(brake=Brake(min_days=3))).held
    assert (whole.rule, rule.rule, rule.images, rule.usual_share, rule.days) == (None, "nudity", 40, 0.02, 3)


def test_the_brake_does_not_look_further_than_a_quarter(world: World) -> None:
    for offset in (-HISTORY_DAYS - 1, -HISTORY_DAYS, HISTORY_DAYS, HISTORY_DAYS + 1):
        publish_labels(world.catalog, DAY + timedelta(days=offset), IMAGES)
        world.plan(day=DAY + timedelta(days=offset))
    (whole, _) = world.plan(policy(brake=Brake(max_images=1))).held
    known = [(DAY + timedelta(days=offset)).isoformat() for offset in (-HISTORY_DAYS, HISTORY_DAYS)]
    assert [recent["day"] for recent in whole.recent] == known


def test_a_target_that_is_missing_stops_before_anything_is_written(world: World) -> None:
    with pytest.raises(ModlakeTerminalError, match="notify_sqs"):
        world.plan(policy(actions={"block": ("notify_sqs",)}))
    assert world.store.objects == {}
    assert world.catalog.load_table("moderation.decisions").snapshots() == []
