"""What is left to be done: the difference between decisions and the actions so far."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.schemas import ACTIONS_TABLE
from modlake.policy.action_history import ActionHistory, UnfinishedActions
from modlake.policy.evaluation import VERDICTS
from modlake.policy.intent_planning import plan_intents
from modlake.policy.intents import ActionResult, Intent, undo_id, undo_of
from modlake.policy.object_etags import with_earlier_etags
from modlake.policy.policy import Always, Policy, Rule, Verdict
from modlake.policy.targets import Targets
from tests.support.days import DAY
from tests.support.labelled_days import TARGETS, policy

REQUESTED_AT = datetime(2026, 11, 22, 2, tzinfo=UTC)
UPLOADED_AT = datetime(2026, 11, 21, 12, 30, 15, 250_000, tzinfo=UTC)
SEEN = {"last_modified": UPLOADED_AT.isoformat()}
MOVED_UPLOADED_AT = datetime(2026, 11, 21, 12, 40, tzinfo=UTC)
REASONS = [{"label": "Explicit", "confidence": 95.0}]

Decision = tuple[str, str, str | None]


class World:
    """An image's decisions and the rows of ``actions``, as decide and record keep them."""

    def __init__(self) -> None:
        self.actions: list[dict[str, Any]] = []
        self.requested = 0
        self.ended = 0
        self.published_at = REQUESTED_AT
        self.last_modified = UPLOADED_AT

    def plan(
        self,
        decisions: Iterable[Decision],
        *policies: Policy,
        etag: str = "e1",
        image: str = "s3://ugc/a",
        outcome: str = "judged",
    ) -> list[Intent]:
        policies = policies or (policy(),)
        modes = {each.name: each.status for each in policies}
        rows = [
            {
                "source_ref": image,
                "verdict": verdict,
                "policy": name,
                "policy_version": "v1",
                "rule": rule,
                "reasons": REASONS if rule else [],
                "mode": modes[name],
            }
            for name, verdict, rule in decisions
        ]
        table = pa.Table.from_pylist(rows, VERDICTS)
        for name, value in (("etag", etag), ("outcome", outcome)):
            table = table.append_column(name, pa.array([value] * len(rows), pa.string()))
        times = pa.array([self.last_modified] * len(rows), pa.timestamp("us", tz="UTC"))
        table = table.append_column("last_modified", times)
        return list(
            plan_intents(
                table, self.history, policies, Targets(TARGETS), day=DAY.isoformat(), enforcement_id="enf-1"
            )
        )

    @property
    def history(self) -> ActionHistory:
        return ActionHistory(pa.Table.from_pylist(self.actions, ACTIONS_TABLE.row_schema), self.published_at)

    def request(self, intents: Sequence[Intent]) -> None:
        for intent in intents:
            self.requested += 1
            known = [row for row in self.actions if row["action_id"] == intent.action_id]
            detail = with_earlier_etags(intent.detail, intent.etag, known[0]) if known else intent.detail
            self.actions = [row for row in self.actions if row not in known]
            self.actions.append(
                {
                    **{name: getattr(intent, name) for name in Intent.__slots__},
                    "day": DAY,
                    "detail": json.dumps(detail),
                    "status": "requested",
                    "requested_at": REQUESTED_AT + timedelta(seconds=self.requested),
                }
            )

    def end(self, intents: Sequence[Intent], status: str = "completed") -> None:
        self.request(intents)
        for intent in intents:
            self.ended += 1
            completed_at = REQUESTED_AT + timedelta(hours=self.ended)
            self.row(intent.action_id).update(status=status, completed_at=completed_at)
            if intent.undoes and status == "completed":
                self.row(intent.undoes)["status"] = "undone"

    def row(self, action_id: str) -> dict[str, Any]:
        return next(row for row in self.actions if row["action_id"] == action_id)


def said(intents: Iterable[Intent]) -> list[str]:
    return [f"{'undo ' if intent.undoes else ''}{intent.kind}" for intent in intents]


BLOCK: list[Decision] = [("house", "block", "nudity")]
REVIEW: list[Decision] = [("house", "review", "arms")]
ALLOW: list[Decision] = [("house", "allow", None)]


@pytest.fixture
def world() -> World:
    return World()


def test_a_verdict_has_its_actions_done(world: World) -> None:
    tag, quarantine = world.plan(BLOCK)
    assert (tag.kind, tag.target) == ("tag", "moderation=block")
    assert (quarantine.kind, quarantine.target) == ("quarantine", "s3://quarantine/")
    assert (quarantine.policy, quarantine.policy_version, quarantine.rule) == ("house", "v1", "nudity")
    assert (quarantine.verdict, quarantine.actor, quarantine.etag) == ("block", "modlake", "e1")
    assert tag.detail == quarantine.detail == {"labels": REASONS} | SEEN
    assert quarantine.enforcement_id == "enf-1"
    assert quarantine.action_id.startswith("act-")
    assert len(quarantine.action_id) == 28


def test_allow_is_left_alone(world: World) -> None:
    assert world.plan(ALLOW) == []


def test_what_was_done_is_not_done_again(world: World) -> None:
    world.end(world.plan(BLOCK))
    assert world.plan(BLOCK) == []


def test_what_nobody_knows_the_end_of_is_asked_for_again_by_the_same_id(world: World) -> None:
    first = world.plan(BLOCK)
    world.request(first)
    assert world.plan(BLOCK) == first


def test_what_failed_is_tried_again_by_the_same_id(world: World) -> None:
    first = world.plan(BLOCK)
    world.end(first[:1])
    world.end(first[1:], "failed")
    assert world.plan(BLOCK) == first[1:]


def test_a_move_that_failed_is_taken_back_as_the_image_may_have_left_its_place(world: World) -> None:
    tag, quarantine = world.plan(BLOCK)
    world.end([tag, quarantine], "failed")
    (undo,) = world.plan(ALLOW)
    assert undo.undoes == quarantine.action_id
    world.end([undo])
    assert world.plan(ALLOW) == []
    assert said(world.plan(BLOCK)) == ["tag", "quarantine"]


@pytest.mark.parametrize("status", ["replaced", "gone"])
def test_an_object_that_is_another_one_is_left_alone_until_it_is_judged(world: World, status: str) -> None:
    world.end(world.plan(BLOCK), status)
    assert world.plan(BLOCK) == []
    assert said(world.plan(BLOCK, etag="e2")) == ["tag", "quarantine"]


@pytest.mark.parametrize("status", ["replaced", "gone"])
def test_an_object_that_is_back_unchanged_when_the_day_is_published_anew(world: World, status: str) -> None:
    sought = world.plan(BLOCK)
    world.end(sought, status)
    world.published_at = REQUESTED_AT + timedelta(hours=9)
    assert world.plan(BLOCK) == sought
    world.end(sought[1:])
    assert world.plan(BLOCK) == []  # in quarantine, where no tag can be set
    world.end(world.plan(ALLOW))
    assert said(world.plan(BLOCK)) == ["tag", "quarantine"]


def test_a_tag_that_was_to_be_set_in_quarantine_is_set_when_the_image_is_back(world: World) -> None:
    quarantining = policy(actions={"block": ("quarantine",)})
    world.end(world.plan(BLOCK, quarantining))
    (tag,) = world.plan(BLOCK)
    world.end([tag], "gone")
    assert world.plan(BLOCK) == []
    tagging = policy(actions={"block": ("tag",)})
    back, now_or_next = world.plan(BLOCK, tagging)
    assert (back.kind, now_or_next) == ("quarantine", tag)
    world.end([back])
    assert world.plan(BLOCK, tagging) == [tag]
    world.end([tag], "gone")
    assert world.plan(BLOCK, tagging) == []


def moved(quarantine: Intent) -> Intent:
    """Say of a move what was moved: the upload may be a later one than the day's listing saw."""
    origin = {"last_modified": MOVED_UPLOADED_AT.isoformat()}
    return replace(quarantine, detail=quarantine.detail | {"origin": origin})


@pytest.mark.parametrize("uploaded_at", [REQUESTED_AT + timedelta(hours=3), UPLOADED_AT - timedelta(hours=3)])
def test_an_image_that_was_uploaded_again_while_it_lies_in_quarantine_is_moved_again(
    world: World, uploaded_at: datetime
) -> None:
    tag, quarantine = world.plan(BLOCK)
    world.end([tag, moved(quarantine)])
    # By a listing of before, or as what lies in quarantine.
    for known in (UPLOADED_AT, UPLOADED_AT.replace(microsecond=0), MOVED_UPLOADED_AT):
        world.last_modified = known
        world.published_at += timedelta(days=1)
        assert world.plan(BLOCK) == []
    world.last_modified = uploaded_at
    tag_again, again = world.plan(BLOCK)
    assert (tag_again.action_id, again.action_id) == (tag.action_id, quarantine.action_id)
    for verdict in (ALLOW, REVIEW, BLOCK):
        assert said(world.plan(verdict, outcome="failed")) == ["tag", "quarantine"]
    assert said(world.plan(ALLOW)) == ["undo tag", "undo quarantine"]
    world.end([tag_again])
    world.request([again])
    assert world.plan(BLOCK) == [again]
    world.end([moved(again)])  # its owner has removed it, and the one before lies in quarantine still
    assert world.plan(BLOCK) == []
    assert said(world.plan(ALLOW)) == ["undo tag", "undo quarantine"]


def test_a_tag_that_an_upload_of_the_same_image_has_removed_is_set_again(world: World) -> None:
    tagging = policy(actions={"block": ("tag",)})
    (tag,) = world.plan(BLOCK, tagging)
    world.end([tag])
    world.published_at += timedelta(days=1)
    assert world.plan(BLOCK, tagging) == []
    world.last_modified += timedelta(days=1)
    (again,) = world.plan(BLOCK, tagging)
    assert again.action_id == tag.action_id
    world.end([again])
    assert world.plan(BLOCK, tagging) == []
    assert said(world.plan(ALLOW, tagging)) == ["undo tag"]


def test_a_tag_that_was_sought_in_quarantine_is_set_when_the_image_is_uploaded_again(world: World) -> None:
    world.end(world.plan(BLOCK, policy(actions={"block": ("quarantine",)})))
    (tag,) = world.plan(BLOCK)
    world.end([tag], "gone")
    world.published_at += timedelta(days=1)
    assert world.plan(BLOCK) == []
    world.last_modified += timedelta(days=1)
    both = world.plan(BLOCK)
    assert said(both) == ["tag", "quarantine"]
    world.end(both[:1], "gone")
    world.published_at = REQUESTED_AT
    world.end(both[1:])
    assert world.plan(BLOCK) == []


@pytest.mark.parametrize("status", ["replaced", "gone"])
def test_an_image_whose_release_came_to_nothing_is_moved_again_and_released_again(
    world: World, status: str
) -> None:
    quarantining = policy(actions={"block": ("quarantine",)})
    (quarantine,) = world.plan(BLOCK, quarantining)
    world.end([quarantine])
    (undo,) = world.plan(ALLOW, quarantining)
    world.end([undo], status)
    assert world.plan(BLOCK, quarantining) == []
    world.last_modified += timedelta(days=1)
    assert world.plan(ALLOW, quarantining) == []
    (again,) = world.plan(BLOCK, quarantining)
    assert again.action_id == quarantine.action_id
    world.end([again])
    assert world.plan(BLOCK, quarantining) == []
    assert [each.action_id for each in world.plan(ALLOW, quarantining)] == [undo.action_id]
    world.end([undo], status)
    assert world.plan(ALLOW, quarantining) == []


def test_an_image_that_a_person_has_released_is_not_moved_again(world: World) -> None:
    tag, quarantine = world.plan(BLOCK)
    world.end([tag, quarantine])
    undo = undo_of(world.row(quarantine.action_id), enforcement_id="undo-1", actor="ada", reason="a statue")
    world.end([undo], "replaced")
    world.last_modified += timedelta(days=1)
    assert said(world.plan(BLOCK)) == ["tag"]


def test_a_move_that_failed_is_tried_again_whatever_another_one_found(world: World) -> None:
    tag, quarantine = world.plan(BLOCK)
    world.end([tag, quarantine])
    world.request(world.plan(ALLOW)[1:])
    back, again = (each for each in world.plan(BLOCK) if each.kind == "quarantine")
    world.end([back], "failed")
    world.row(quarantine.action_id)["status"] = "failed"  # as record says of it
    world.end([again], "gone")
    assert [each.action_id for each in world.plan(BLOCK)] == [quarantine.action_id]


def test_a_released_image_has_its_actions_undone(world: World) -> None:
    done = world.plan(BLOCK)
    world.end(done)
    world.row(done[1].action_id)["detail"] = json.dumps({"quarantined_as": "s3://quarantine/a"})
    undos = world.plan(ALLOW)
    assert said(undos) == ["undo tag", "undo quarantine"]
    assert [undo.undoes for undo in undos] == [intent.action_id for intent in done]
    assert undos[1].action_id == undo_id(done[1].action_id)
    assert undos[1].detail == {"original": {"quarantined_as": "s3://quarantine/a"}}
    assert (undos[1].rule, undos[1].verdict, undos[1].reason) == ("nudity", "block", "Released: allow now")
    world.end(undos)
    assert world.plan(ALLOW) == []


def test_a_milder_verdict_undoes_what_it_does_not_ask_for(world: World) -> None:
    world.end(world.plan(BLOCK))
    intents = world.plan(REVIEW)
    assert said(intents) == ["undo tag", "undo quarantine", "tag", "review_queue"]
    assert intents[2].target == "moderation=review"


def test_a_tag_knows_the_earlier_one_whose_undo_may_fail(world: World) -> None:
    tag, quarantine = world.plan(BLOCK)
    assert "supersedes" not in tag.detail
    world.end([tag, quarantine])
    undos_and_more = world.plan(REVIEW)
    review = undos_and_more[2]
    assert review.detail == {"labels": REASONS, "supersedes": {tag.action_id: "moderation=block"}} | SEEN
    world.end(undos_and_more[:1], "failed")
    world.end(undos_and_more[1:])
    assert world.plan(REVIEW) == undos_and_more[:1]
    assert [undo.undoes for undo in world.plan(ALLOW) if undo.kind == "tag"] == [
        tag.action_id,
        review.action_id,
    ]


def test_a_tag_is_set_again_over_which_another_one_was_set(world: World) -> None:
    tagging = policy(actions={"block": ("tag",), "review": ("tag",)})
    (block,) = world.plan(BLOCK, tagging)
    world.end([block])
    undo, review = world.plan(REVIEW, tagging)
    world.end([undo], "failed")
    assert world.plan(BLOCK, tagging) == []
    world.end([review])
    back, again = world.plan(BLOCK, tagging)
    assert (back.undoes, again.target) == (review.action_id, "moderation=block")
    both = {block.action_id: "moderation=block", review.action_id: "moderation=review"}
    assert again.detail["supersedes"] == both
    world.end([back])
    assert [each.action_id for each in world.plan(BLOCK, tagging)] == [again.action_id]
    world.end([again])
    assert world.plan(BLOCK, tagging) == []
    assert [each.undoes for each in world.plan(ALLOW, tagging)] == [block.action_id, again.action_id]


def test_a_tag_knows_the_same_one_whose_undo_may_fail(world: World) -> None:
    first = world.plan(BLOCK)
    world.end(first)
    world.request(world.plan(ALLOW))
    tag = next(each for each in world.plan(BLOCK) if each.kind == "tag" and not each.undoes)
    assert tag.detail["supersedes"] == {first[0].action_id: first[0].target}


def test_block_undo_and_block_again_acts_again(world: World) -> None:
    first = world.plan(BLOCK)
    world.end(first)
    world.end(world.plan(ALLOW))
    second = world.plan(BLOCK)
    assert said(second) == ["tag", "quarantine"]
    assert not {intent.action_id for intent in first} & {intent.action_id for intent in second}
    world.end(second)
    assert world.plan(BLOCK) == []
    assert {undo.undoes for undo in world.plan(ALLOW)} == {intent.action_id for intent in second}


def test_an_undo_that_began_is_brought_to_its_end_before_it_is_done_again(world: World) -> None:
    first = world.plan(BLOCK)
    world.end(first)
    undos = world.plan(ALLOW)
    world.request(undos)
    intents = world.plan(BLOCK)
    assert [intent.action_id for intent in intents[:2]] == [intent.action_id for intent in undos]
    assert said(intents[2:]) == ["tag", "quarantine"]
    assert not {intent.action_id for intent in intents[2:]} & {intent.action_id for intent in first}


@pytest.mark.parametrize("status", ["failed", "replaced", "gone"])
def test_an_undo_that_began_ends_although_its_action_came_to_nothing(world: World, status: str) -> None:
    tagging = policy(actions={"block": ("tag",)})
    (tag,) = world.plan(BLOCK, tagging)
    world.request([tag])
    (undo,) = world.plan(ALLOW, tagging)
    world.request([undo])
    world.end([tag], status)
    assert world.plan(ALLOW, tagging) == [undo]
    assert [each.undoes for each in world.plan(ALLOW, tagging, outcome="failed")] == [tag.action_id]
    # Nothing is done by the name of what is being taken back.
    back, again = world.plan(BLOCK, tagging)
    assert (back.undoes, again.undoes) == (tag.action_id, None)
    assert again.action_id != tag.action_id


def test_an_undo_that_failed_is_tried_again_and_one_that_cannot_be_is_not(world: World) -> None:
    world.end(world.plan(BLOCK))
    tag, quarantine = world.plan(ALLOW)
    world.end([tag], "failed")
    world.end([quarantine], "replaced")
    assert world.plan(ALLOW) == [tag]
    assert world.plan(BLOCK) == []


@pytest.mark.parametrize("who", ["modlake", "ada"])
def test_a_tag_that_was_out_of_reach_in_quarantine_is_taken_off_when_the_image_is_back(
    world: World, who: str
) -> None:
    quarantining = policy(actions={"block": ("quarantine",)})
    tag, quarantine = world.plan(BLOCK)
    world.end([tag, quarantine])
    gone = replace(world.plan(BLOCK, quarantining)[0], actor=who, reason="why")
    world.end([gone], "gone")
    assert world.plan(BLOCK, quarantining) == []
    now_or_next = world.plan(ALLOW)
    assert [undo.undoes for undo in now_or_next] == [quarantine.action_id, tag.action_id]
    assert (now_or_next[1].actor, now_or_next[1].reason) == (who, "why")
    world.end(now_or_next[:1])
    assert world.plan(ALLOW) == now_or_next[1:]
    assert said(world.plan(BLOCK)) == (["undo tag", "quarantine"] if who == "ada" else ["quarantine"])
    world.end(now_or_next[1:], "gone")
    assert world.plan(ALLOW) == []


def test_a_tag_that_was_sought_by_an_old_etag_is_taken_off(world: World) -> None:
    world.end(world.plan(BLOCK))
    tag, quarantine = world.plan(ALLOW)
    world.request([tag])
    world.end([replace(quarantine, detail={"restored_etag": "e2"})])
    (left,) = world.plan(ALLOW)  # the day is not listed anew
    assert (left.undoes, left.etag) == (tag.undoes, "e2")
    world.end([tag], "replaced")
    assert world.plan(ALLOW) == world.plan(ALLOW, etag="e2") == [replace(left, reason=tag.reason)]
    world.end([left], "replaced")
    assert world.plan(ALLOW) == world.plan(ALLOW, etag="e2") == []


@pytest.mark.parametrize("status", ["completed", "requested"])
def test_what_a_person_has_undone_is_not_done_again_until_the_image_changes(
    world: World, status: str
) -> None:
    done = world.plan(BLOCK)
    world.end(done)
    undo = undo_of(world.row(done[1].action_id), enforcement_id="undo-1", actor="ada", reason="a statue")
    world.request([undo]) if status == "requested" else world.end([undo])
    # An undo that a person began is finished, too.
    assert said(world.plan(BLOCK)) == (["undo quarantine"] if status == "requested" else [])
    assert said(world.plan(BLOCK, etag="e2")) == ["tag", "quarantine"]


def test_an_encrypted_image_is_the_same_after_it_was_put_back(world: World) -> None:
    tag, quarantine = world.plan(BLOCK)
    world.end([tag, quarantine])
    undo = undo_of(world.row(quarantine.action_id), enforcement_id="undo-1", actor="ada", reason="a statue")
    later = replace(undo, action_id="act-later", etag="e2", detail={"restored_etag": "e3"})
    world.end([replace(undo, detail={"restored_etag": "e2"}), later])
    for etag in ("e1", "e2", "e3"):
        assert world.plan(BLOCK, etag=etag) == []
        (released,) = world.plan(ALLOW, etag=etag)
        assert (released.undoes, released.etag) == (tag.action_id, "e3")
    assert said(world.plan(BLOCK, etag="e4")) == ["tag", "quarantine"]


def test_an_encrypted_image_is_blocked_again_after_it_was_released(world: World) -> None:
    world.end(world.plan(BLOCK))
    tag, quarantine = world.plan(ALLOW)
    world.end([tag, replace(quarantine, detail={"restored_etag": "e2"})])
    again = world.plan(BLOCK)  # the day is not listed anew
    assert (said(again), {each.etag for each in again}) == (["tag", "quarantine"], {"e2"})
    assert world.plan(BLOCK, etag="e2") == again
    world.end(again[:1], "failed")
    world.request(again[1:])
    assert world.plan(BLOCK, etag="e2") == again
    # What was sought by an old ETag tells nothing of the image as it is now.
    world.end([replace(each, etag="e1") for each in again], "replaced")
    anew = world.plan(BLOCK, etag="e2")
    assert said(anew) == ["tag", "quarantine"]
    world.end(anew, "replaced")
    assert world.plan(BLOCK) == world.plan(BLOCK, etag="e2") == []


def test_an_action_that_waits_keeps_its_name_when_the_image_returns_by_another_etag(world: World) -> None:
    world.end(world.plan(BLOCK))
    world.request(world.plan(ALLOW))
    undos_and_more = world.plan(BLOCK)
    world.request(undos_and_more)
    (back,) = (each for each in undos_and_more if each.undoes and each.kind == "quarantine")
    world.end([replace(back, detail={"restored_etag": "e2"})])
    (waiting,) = (each for each in world.plan(BLOCK) if each.kind == "quarantine")
    assert (waiting.action_id, waiting.etag) == (undos_and_more[-1].action_id, "e2")


def test_an_encrypted_image_is_blocked_again_whose_release_failed_once_it_was_back(world: World) -> None:
    tag, quarantine = world.plan(BLOCK)
    world.end([tag, quarantine])
    back = replace(world.plan(ALLOW)[1], detail={"restored_etag": "e2"})
    world.end([back], "failed")
    world.row(quarantine.action_id)["status"] = "failed"  # as record says of it
    for etag in ("e1", "e2"):
        (again,) = world.plan(BLOCK, etag=etag)
        assert (again.action_id, again.etag) == (quarantine.action_id, "e2")


@pytest.mark.parametrize("moved_again", [False, True])
def test_an_encrypted_image_is_the_same_after_its_release_was_tried_twice(
    world: World, moved_again: bool
) -> None:
    world.end(world.plan(BLOCK))
    tag, back = world.plan(ALLOW)
    world.end([tag])
    world.end([replace(back, detail={"restored_etag": "e2"})], "failed")
    world.row(str(back.undoes))["status"] = "failed"  # as record says of it
    if moved_again:
        world.end([each for each in world.plan(BLOCK) if each.kind == "quarantine"])
    (back,) = (each for each in world.plan(ALLOW) if each.kind == "quarantine")
    world.request([back])
    assert [each.etag for each in world.plan(ALLOW) if each.kind == "quarantine"] == ["e2"]
    last = "e3" if moved_again else "e2"
    world.end([replace(back, detail={"restored_etag": last})])
    for etag in ("e1", last):
        again = world.plan(BLOCK, etag=etag)  # whether or not the day is listed anew
        assert (said(again), {each.etag for each in again}) == (["tag", "quarantine"], {last})
        assert not {each.action_id for each in again} & {row["action_id"] for row in world.actions}


def test_images_that_are_not_decided_are_let_be(world: World) -> None:
    world.end(world.plan(BLOCK))
    assert world.plan(ALLOW, image="s3://ugc/other") == []


def test_a_new_version_of_an_image_leaves_the_actions_of_the_old_one(world: World) -> None:
    world.end(world.plan(BLOCK))
    assert world.plan(ALLOW, etag="e2") == []


def test_the_most_severe_verdict_of_several_live_policies_decides(world: World) -> None:
    strict = policy("strict", actions={"block": ("quarantine", "notify_sns"), "review": ("review_queue",)})
    both = [("house", "review", "arms"), ("strict", "block", "nudity")]
    intents = world.plan(both, policy(), strict)
    assert [(intent.kind, intent.policy) for intent in intents] == [
        ("quarantine", "strict"),
        ("notify_sns", "strict"),
    ]


def test_policies_that_agree_have_all_their_actions_done_once(world: World) -> None:
    strict = policy("strict", actions={"block": ("quarantine", "notify_sns")})
    both = [("strict", "block", "nudity"), ("house", "block", "nudity")]
    intents = world.plan(both, policy(), strict)
    assert [(intent.kind, intent.policy) for intent in intents] == [
        ("tag", "house"),
        ("quarantine", "house"),
        ("notify_sns", "strict"),
    ]


def test_shadow_policies_do_nothing_and_one_that_became_shadow_releases(world: World) -> None:
    shadow = policy(status="shadow")
    assert world.plan(BLOCK, shadow) == []
    world.end(world.plan(BLOCK))
    assert said(world.plan(BLOCK, shadow)) == ["undo tag", "undo quarantine"]


def test_a_rule_may_have_actions_of_its_own(world: World) -> None:
    silent = Policy(
        "house",
        "live",
        "first",
        (Rule("nudity", Verdict.BLOCK, Always(), actions=()),),
        actions={"block": ("tag",)},
    )
    assert world.plan(BLOCK, silent) == []
    loud = Policy(
        "house", "live", "first", (Rule("nudity", Verdict.BLOCK, Always(), actions=("notify_sns",)),)
    )
    assert said(world.plan(BLOCK, loud)) == ["notify_sns"]


def test_images_without_an_answer_have_the_actions_of_their_verdict(world: World) -> None:
    todo = world.plan([("house", "review", None)], outcome="failed")
    assert said(todo) == ["tag", "review_queue"]
    assert [each.detail for each in todo] == [
        {"labels": [], "outcome": "failed"} | SEEN,
        {"labels": [], "outcome": "failed"},
    ]


def test_a_decision_for_lack_of_an_answer_takes_no_other_back(world: World) -> None:
    world.end(world.plan(BLOCK))
    for outcome in ("failed", "ineligible"):
        assert world.plan([("house", "review", None)], outcome=outcome) == []
        assert world.plan([("house", "review", None)], policy(status="shadow"), outcome=outcome) == []
    undos = world.plan(ALLOW, outcome="reused")
    assert said(undos) == ["undo tag", "undo quarantine"]
    world.request(undos[:1])
    assert said(world.plan([("house", "review", None)], outcome="failed")) == ["undo tag"]


def test_a_stricter_decision_for_lack_of_an_answer_acts(world: World) -> None:
    world.end(world.plan(REVIEW))
    stricter = world.plan(BLOCK, outcome="failed")
    assert said(stricter) == ["undo tag", "undo review_queue", "tag", "quarantine"]
    world.request(stricter)
    assert world.plan(BLOCK, outcome="failed") == stricter


def test_a_decision_for_lack_of_an_answer_leaves_an_image_in_quarantine(world: World) -> None:
    cautious = policy(actions={"review": ("quarantine",), "block": ("tag",)})
    world.end(world.plan(REVIEW, cautious))
    assert world.plan(BLOCK, cautious, outcome="failed") == []
    undos = world.plan(ALLOW, cautious)
    world.request(undos)
    released = world.plan(REVIEW, cautious, outcome="failed")
    assert released == [replace(undos[0], reason="Released: it began before")]


@pytest.mark.parametrize("without_answer", [ALLOW, REVIEW, BLOCK])
def test_what_an_answer_asked_for_goes_on_for_lack_of_another(
    world: World, without_answer: list[Decision]
) -> None:
    asked_for = world.plan(BLOCK)
    world.request(asked_for)
    assert world.plan(without_answer, outcome="failed") == asked_for
    world.end(asked_for[:1])
    world.end(asked_for[1:], "failed")
    assert world.plan(without_answer, outcome="failed") == asked_for[1:]
    assert world.plan(without_answer, policy(status="shadow"), outcome="failed") == []
    # Another answer has released it since: what failed then is over.
    world.end(world.plan(REVIEW))
    assert world.plan(REVIEW, outcome="failed") == []


def test_what_an_answer_released_in_vain_is_not_done_again_for_lack_of_another(world: World) -> None:
    tag, quarantine = world.plan(BLOCK)
    world.end([tag, quarantine])
    taken_off, back = world.plan(ALLOW)
    world.end([taken_off])
    world.end([back], "failed")
    world.row(quarantine.action_id)["status"] = "failed"  # as record says of it
    assert world.plan(ALLOW, outcome="failed") == world.plan(REVIEW, outcome="failed") == []
    assert world.plan(ALLOW) == [back]
    # Another answer has asked for it since.
    again = world.plan(BLOCK)
    world.end(again, "failed")
    assert world.plan(REVIEW, outcome="failed") == again


def test_another_policy_acts_for_lack_of_an_answer_that_has_the_same_verdict(world: World) -> None:
    world.request(world.plan(BLOCK))
    now = (policy(status="shadow"), policy("strict", actions={"block": ("quarantine", "notify_sns")}))
    intents = world.plan([("strict", "block", None)], *now, outcome="failed")
    assert [(each.kind, each.policy) for each in intents] == [
        ("quarantine", "strict"),
        ("notify_sns", "strict"),
    ]
    assert world.plan([("strict", "review", None)], *now, outcome="failed") == []


def test_what_was_done_for_lack_of_an_answer_is_taken_back_as_anything_else(world: World) -> None:
    world.end(world.plan([("house", "review", None)], outcome="failed"))
    assert said(world.plan(ALLOW, outcome="failed")) == ["undo tag", "undo review_queue"]
    assert said(world.plan(BLOCK)) == ["undo tag", "undo review_queue", "tag", "quarantine"]


def test_a_failure_that_is_tried_again_makes_another_enforcement(world: World) -> None:
    done = world.plan(BLOCK)
    world.end(done[:1], "failed")
    world.request(done[1:])
    failed, requested = (f"{each.action_id}" for each in done)
    unfinished = UnfinishedActions(world.actions)
    assert unfinished.requested_by == ["enf-1"]
    assert unfinished.tried_elsewhere("enf-1") == [f"{failed} failed enf-1"]
    assert unfinished.tried_elsewhere("enf-2") == sorted(
        [f"{failed} failed enf-1", f"{requested} requested enf-1"]
    )


@pytest.mark.parametrize(
    ("kinds", "message"),
    [(("notify_sqs",), "notify_sqs.*has no target.*queue_url"), (("shred",), "'shred', which there is not")],
)
def test_an_action_without_a_target_is_a_clear_error(kinds: tuple[str, ...], message: str) -> None:
    named = policy(actions={"block": kinds})
    with pytest.raises(ModlakeTerminalError, match=f"(?s){message}"):
        Targets(TARGETS).check([named])
    Targets(TARGETS).check([policy(status="shadow", actions={"block": kinds}), policy()])


def test_intents_and_results_are_lines_of_json(world: World) -> None:
    intent = world.plan(BLOCK, image="s3://ugc/ü\n\u2028.jpg")[0]
    assert "\n" not in intent.to_json()
    read = Intent.from_json(intent.to_json())
    assert (read, read.decided_at) == (intent, intent.decided_at)
    result = ActionResult(intent.action_id, "gone", {"message": "é"}, "2026-11-22T03:00:00+00:00")
    assert ActionResult.from_json(result.to_json()) == result
