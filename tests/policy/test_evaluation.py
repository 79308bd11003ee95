from __future__ import annotations

from typing import Any

import pytest

from modlake.policy.evaluation import VERDICTS, evaluate
from modlake.policy.policy_files import check_files
from tests.policy.tables import image_table, label_table

REF = "s3://ugc/uploads/1.jpg"
EXPLICIT = ["Explicit", "Explicit Nudity"]
CARVED = "{label: Explicit, at_least: 80, except: Exposed Female Nipple}"


def decide(when: str, labels: dict[str, float | None], *, more: str = "", **image: Any) -> dict[str, Any]:
    """Decide one image by a policy of one blocking rule."""
    text = f"name: p\nstatus: live\n{more}\nrules:\n- {{name: r, verdict: block, when: {when}}}"
    checked = check_files({"p.yaml": text.encode()})
    assert not checked.errors
    images = image_table([{"source_ref": REF, **image}])
    rows = label_table([(REF, label, confidence) for label, confidence in labels.items()])
    (decided,) = evaluate(checked.policies["p.yaml"], images, rows).to_pylist()
    return decided


@pytest.mark.parametrize(
    ("others", "verdict"),
    [
        ({}, "allow"),
        # Parents speak for the exception, also when they are surer than it is.
        ({"Explicit": 99.0, "Explicit Nudity": 97.0}, "allow"),
        # Something else under the label, by its own confidence.
        ({"Exposed Male Genitalia": 80.0}, "block"),
        ({"Sex Toys": 85.0}, "block"),
        ({"Sex Toys": 79.9}, "allow"),
        ({"Violence": 99.0}, "allow"),
    ],
)
def test_other_labels_decide_beside_an_exception(others: dict[str, float], verdict: str) -> None:
    labels = dict.fromkeys([*EXPLICIT, "Exposed Female Nipple"], 95.0) | others
    assert decide(CARVED, labels)["verdict"] == verdict


def test_parent_alone_counts_beside_an_exception_that_is_not_there() -> None:
    assert decide(CARVED, dict.fromkeys(EXPLICIT, 95.0))["verdict"] == "block"


def test_parent_counts_that_an_exception_below_the_threshold_can_not_explain() -> None:
    labels = dict.fromkeys(EXPLICIT, 95.0) | {"Exposed Female Nipple": 55.0}
    decided = decide(CARVED, labels)
    assert decided["verdict"] == "block"
    assert [reason["label"] for reason in decided["reasons"]] == EXPLICIT


def test_a_label_is_found_without_its_parents_rows() -> None:
    assert decide("{label: Violence}", {"Self-Harm": 51.0})["verdict"] == "block"


def test_names_that_contain_each_other_are_not_confused() -> None:
    assert decide("{label: Explicit Nudity}", {"Non-Explicit Nudity": 99.0})["verdict"] == "allow"


def test_unknown_confidence_meets_no_threshold_but_is_there() -> None:
    assert decide("{label: Violence, at_least: 0}", {"Violence": None})["verdict"] == "allow"
    assert decide("{label: Violence}", {"Violence": None})["verdict"] == "block"


@pytest.mark.parametrize("outcome", ["failed", "ineligible", "something new"])
def test_image_without_an_answer_is_never_clean(outcome: str) -> None:
    decided = decide("always", {}, outcome=outcome)
    assert (decided["verdict"], decided["rule"], decided["reasons"]) == ("review", None, [])


def test_reasons_name_content_types_and_leave_out_what_did_not_count() -> None:
    when = "{any: [{label: Violence, surface: elsewhere/}, {label: Alcohol, content_type: Animated}]}"
    decided = decide(when, {"Violence": 99.0, "Alcohol": 70.0, "Gambling": 60.0}, animated_confidence=80.0)
    assert decided["reasons"] == [
        {"label": "Animated", "confidence": 80.0},
        {"label": "Alcohol", "confidence": 70.0},
    ]


def test_first_match_and_most_severe_differ() -> None:
    rules = (
        "rules: [{name: a, verdict: allow, when: {label: Weapons}}, {name: b, verdict: block, when: always}]"
    )
    images, labels = image_table([{"source_ref": REF}]), label_table([(REF, "Weapons", 90.0)])

    def rule(match: str) -> Any:
        policy = check_files({"p": f"name: p\nstatus: live\nmatch: {match}\n{rules}".encode()}).policies["p"]
        return evaluate(policy, images, labels)["rule"].to_pylist()

    assert rule("first") == ["a"]
    assert rule("most_severe") == ["b"]


@pytest.mark.parametrize(
    ("surface", "key", "hits"),
    [
        ("up/", "up/1.jpg", True),
        ("up/", "x/up/1.jpg", False),
        ("up/*.jpg", "up/1.jpg", True),
        ("up/*.jpg", "up/a/1.jpg", False),
        ("up/**.jpg", "up/a/1.jpg", True),
        ("up/?.jpg", "up/12.jpg", False),
        ("up/*/avatars/", "up/9/avatars/x/1.jpg", True),
        ("s3://ugc/up", "up/1.jpg", True),
        ("s3://other/", "up/1.jpg", False),
        ("u.p/(1)+[a].jpg", "u.p/(1)+[a].jpg", True),
        ("u.p/", "uxp/1.jpg", False),
        ("up/**", "up/a\nb/%2F ü.jpg", True),
    ],
)
def test_surfaces(surface: str, key: str, hits: bool) -> None:
    decided = decide(f'{{surface: "{surface}"}}', {}, source_ref=f"s3://ugc/{key}")
    assert (decided["verdict"] == "block") is hits


def test_a_day_without_images_or_labels() -> None:
    policy = check_files(
        {"p": b"name: p\nstatus: live\nrules: [{name: a, verdict: block, when: always}]"}
    ).policies["p"]
    assert evaluate(policy, image_table([]), label_table([])).schema == VERDICTS
    decided = evaluate(policy, image_table([{"source_ref": REF}]), label_table([]))
    assert decided["rule"].to_pylist() == ["a"]
