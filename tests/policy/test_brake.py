"""When a person must approve, and what that person reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest

from modlake.policy.approval import approval_body, approval_subject, as_code
from modlake.policy.brake import Excess, Move, ShareHistory, Tally, find_excesses
from modlake.policy.intents import Intent
from modlake.policy.policy import Brake
from tests.support.days import DAY
from tests.support.labelled_days import policy

IMAGES = 1_000


def intents(number: int, *, rule: str = "nudity", undo: bool = False, **changes: Any) -> list[Intent]:
    facts = {"policy": "house", "policy_version": "v1", "verdict": "block"} | changes
    return [
        Intent(
            f"act-{rule}-{undo}-{image}-{kind}",
            DAY.isoformat(),
            f"s3://ugc/{rule}-{image:04d}.jpg",
            "e1",
            kind,
            "target",
            undoes="act-0" if undo else None,
            rule=rule,
            **facts,
        )
        for image in range(number)
        for kind in ("tag", "quarantine")
    ]


def tally_of(moved: Iterable[Intent]) -> Tally:
    tally = Tally()
    assert list(tally.counting(moved)) == list(moved)
    return tally


def history(
    shares: Iterable[float],
    *,
    released: Iterable[float] = (),
    rule: str = "nudity",
    version: str = "v0",
) -> ShareHistory:
    rows = []
    released = list(released)
    for number, share in enumerate(shares):
        blocked = round(share * IMAGES)
        let_go = round(released[number] * IMAGES) if released else 0
        facts = {
            "policy": "house", "policy_version": version, "day": DAY - timedelta(days=number + 1)
        }  # fmt: skip
        rows += [
            facts | {"rule": rule, "verdict": "block", "images": blocked, "released": let_go},
            facts | {"rule": None, "verdict": "allow", "images": IMAGES - blocked, "released": 0},
        ]
    return ShareHistory(rows)


def held(moved: list[Intent], brake: Brake | None, before: ShareHistory | None = None) -> list[Excess]:
    return find_excesses(tally_of(moved), IMAGES, [policy(brake=brake)], before or history([]))


def test_images_are_counted_once_whatever_is_done_about_them() -> None:
    tally = tally_of(intents(7) + intents(2, rule="hate") + intents(3, rule="arms", verdict="review"))
    assert tally.images == {
        Move("block", "house", None): 9,
        Move("block", "house", "nudity"): 7,
        Move("block", "house", "hate"): 2,
    }
    assert tally.kinds == {"tag": 12, "quarantine": 12}


def test_samples_are_drawn_from_all_images_and_the_same_ones_again() -> None:
    labels = [{"label": "Explicit", "confidence": 97.5}]
    move = Move("block", "house", "nudity")
    drawn = tally_of(intents(500, detail={"labels": labels})).samples(move)
    names = [sample.source_ref for sample in drawn]
    assert len(names) == len(set(names)) == 5
    assert names == sorted(names)
    assert names[-1] > "s3://ugc/nudity-0100.jpg"
    assert drawn[0].labels == labels
    later_batch_first = intents(500)[500:] + intents(500)[:500]
    assert [sample.source_ref for sample in tally_of(later_batch_first).samples(move)] == names
    undone = tally_of(intents(9, undo=True, detail={"original": {"labels": labels}}))
    assert undone.samples(Move("release", "house", None))[0].labels == labels


@pytest.mark.parametrize(
    ("brake", "passes"),
    [
        (None, True),
        (Brake(), True),
        (Brake(max_images=50), True),
        (Brake(max_images=49), False),
        (Brake(max_share=0.05), True),
        (Brake(max_share=0.049), False),
    ],
)
@pytest.mark.parametrize("undo", [False, True])
def test_fixed_bounds(brake: Brake | None, undo: bool, passes: bool) -> None:
    assert (held(intents(50, undo=undo), brake) == []) is passes


def test_a_bound_is_of_the_policy_as_a_whole_too() -> None:
    found = held(intents(30) + intents(30, rule="hate"), Brake(max_images=40))
    assert [(excess.rule, excess.images) for excess in found] == [(None, 60)]


def test_the_usual_band_is_of_the_history_of_the_share() -> None:
    usual = history([0.02, 0.03, 0.02, 0.03, 0.025, 0.02, 0.03])
    brake = Brake(min_days=7, spreads=6)
    assert held(intents(50), brake, usual) == []
    found = held(intents(56), brake, usual)
    assert [excess.rule for excess in found] == [None, "nudity"]
    assert found[0].usual_share == 0.025
    assert found[0].max_share == pytest.approx(0.025 + 6 * 0.005)
    assert found[0].days == 7


def test_a_short_history_says_nothing() -> None:
    assert held(intents(900), Brake(min_days=7), history([0.02] * 6)) == []


def test_a_history_without_variation_leaves_room_for_chance() -> None:
    usual = history([0.02] * 10)
    # The standard deviation of a count with this share is 4.4 of 1,000.
    assert held(intents(46), Brake(spreads=6), usual) == []
    assert held(intents(47), Brake(spreads=6), usual) != []
    assert held(intents(6), Brake(spreads=6), history([0.0] * 10)) == []
    assert held(intents(7), Brake(spreads=6), history([0.0] * 10)) != []


def test_releases_are_held_by_the_history_of_releases() -> None:
    usual = history([0.2] * 10)
    assert held(intents(200), Brake(spreads=6), usual) == []
    found = held(intents(200, undo=True), Brake(spreads=6), usual)
    assert [(excess.movement, excess.rule) for excess in found] == [("release", None), ("release", "nudity")]
    used_to = history([0.2] * 10, released=[0.2] * 10)
    assert held(intents(200, undo=True), Brake(spreads=6), used_to) == []


def test_releases_of_a_policy_that_is_gone_are_always_asked_for() -> None:
    assert [excess.images for excess in held(intents(1, undo=True, policy="old"), Brake())] == [1, 1]
    assert held(intents(1, policy="house"), Brake()) == []


def test_a_rule_that_is_new_is_held_by_the_policy_alone() -> None:
    found = held(intents(300, rule="new"), Brake(min_days=7), history([0.02] * 10))
    assert [excess.rule for excess in found] == [None]


def enforcement(moves: list[Excess]) -> dict[str, Any]:
    return {
        "day": DAY.isoformat(),
        "images": IMAGES,
        "intents": {"tag": 60, "quarantine": 60},
        "held": [asdict(move) for move in moves],
        "rules": {"house": {"nudity": "Nudity | sex", "hate": ""}},
    }


def test_the_request_names_figures_rules_and_samples() -> None:
    labels = [{"label": "Explicit Nudity", "confidence": 97.46}, {"label": "A|B", "confidence": 60.0}]
    labels.append({"label": "Weapons", "confidence": None})
    moved = intents(56, detail={"labels": labels}) + intents(4, rule="hate")
    found = held(moved, Brake(max_images=20), history([0.02] * 9 + [0.03]))
    content = enforcement(found)
    assert approval_subject(content) == f"{DAY}: 60 to be blocked of 1,000 images, more than usual"
    body = approval_body(content, "s3://work/enforcements/day=2026-11-21/enf-1/enforcement.json")
    assert "On *Approve*: 60 images moved to quarantine, 60 images tagged." in body
    assert "### house: 60 images to be blocked" in body
    assert "| **all rules** | **60** | **6.00%** | 2.00% | 20 (policy) |" in body
    assert "| nudity | **56** | **5.60%** | 2.00% | 20 (policy) |" in body
    assert "| hate | 4 | 0.40% | no history |  |" in body
    assert "Shares on the last 7 of 10 other days: 11-14 **2.00%**, 11-15 **2.00%**" in body
    assert "11-20 **2.00%**." in body
    assert "11-13" not in body
    assert f"This version of the policy, {found[0].policy_version}, **decides for the first time**." in body
    assert r"**nudity**: Nudity \| sex" in body
    sample = found[1].samples[0]["source_ref"]
    assert rf"- `{sample}`: Explicit Nudity 97 %, A\|B 60 %, Weapons ?" in body
    assert "`s3://work/enforcements/day=2026-11-21/enf-1/enforcement.json`" in body
    for forbidden in ("http", "X-Amz", "Signature", "<img", "!["):
        assert forbidden not in body


def test_what_no_rule_does_alone_has_its_rules_and_samples_told_too() -> None:
    found = held(intents(30) + intents(31, rule="hate"), Brake(max_images=40, max_share=0.05))
    body = approval_body(enforcement(found), "s3://work/e")
    assert "| **all rules** | **61** | **6.10%** | no history | 40 (policy) |" in body
    assert "No other day is known." in body
    assert body.index("| hate | 31 |") < body.index("| nudity | 30 |")
    assert "no rule alone passes one" in body
    assert body.count("- `s3://ugc/") == 5


def test_a_rule_alone_that_is_over_and_one_that_is_gone_are_told() -> None:
    usual = history([0.02, 0.03] * 5)
    found = [excess for excess in held(intents(80), Brake(), usual) if excess.rule]
    body = approval_body(enforcement(found), "s3://work/e")
    assert "### house: 80 images to be blocked" in body
    assert "| nudity | **80** | **8.00%** | 2.50% | 55 (usual band) |" in body
    assert "Shares of nudity on the last 7 of 10 other days: " in body
    gone = held(intents(3, rule="old", undo=True, policy="gone"), None)
    body = approval_body(enforcement(gone), "s3://work/e")
    assert "### gone: 3 images to be released" in body
    assert "The policy is there no more." in body
    assert "**old**: not a rule of the policy any more" in body


def test_the_brake_tells_a_changed_policy_from_other_uploads() -> None:
    version = policy(brake=Brake(max_images=1)).version
    found = held(intents(5), Brake(max_images=1), history([0.02] * 3, version=version))
    assert found[0].version_days == 3
    assert f"{version}, decided 3 other days, too." in approval_body(enforcement(found), "s3://work/e")


@pytest.mark.parametrize(
    ("brake", "passing"),
    [
        (Brake(max_share=0.029), "29 (policy)"),
        (Brake(max_share=0.029, max_images=30), "29 (policy)"),
        (Brake(max_share=0.029, max_images=28), "28 (policy)"),
        (Brake(max_images=0), "0 (policy)"),
        (Brake(max_share=0.04, min_days=7, spreads=1), "24 (usual band)"),
    ],
)
def test_the_bound_is_told_in_images(brake: Brake, passing: str) -> None:
    usual = history([0.02] * 10) if brake.min_days == 7 and brake.spreads == 1 else None
    body = approval_body(enforcement(held(intents(60), brake, usual)), "s3://work/e")
    assert f"| nudity | **60** | **6.00%** | {'2.00%' if usual else 'no history'} | {passing} |" in body


def test_actions_are_told_in_words() -> None:
    moves = held(intents(5), Brake(max_images=1))
    kinds = {"undo quarantine": 1, "undo tag": 2, "notify_webhook": 3, "shout": 4}
    body = approval_body(enforcement(moves) | {"intents": kinds}, "s3://work/e")
    assert (
        "On *Approve*: the webhook notified of 3 images, shout: 4 images, 1 image brought back from "
        "quarantine, the tag of 2 images taken back."
    ) in body


def test_names_cannot_leave_their_place_in_the_request() -> None:
    assert as_code("s3://b/a`b\n](http://x) é%.jpg") == "`s3://b/a%60b%0A](http://x) %C3%A9%25.jpg`"
    moves = held(intents(5, rule="a|b](x)`\n#"), Brake(max_images=1))
    body = approval_body(enforcement(moves), "s3://work/e")
    assert r"| a\|b\]\(x\)\` \# |" in body


def test_a_move_of_both_kinds_is_told_in_the_subject() -> None:
    moved = intents(5) + intents(3, rule="arms", undo=True)
    subject = approval_subject(enforcement(held(moved, Brake(max_images=0))))
    assert subject == f"{DAY}: 5 to be blocked and 3 to be released of 1,000 images, more than usual"
