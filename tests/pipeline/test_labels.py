from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from modlake.pipeline.labels import content_type_confidence, flatten_labels, spread_labels, top_labels
from modlake.pipeline.taxonomy import known_labels
from tests.support.days import SMOKING, answer_line, label, parse_results


def answers(*images: list[dict[str, Any]], **answer: Any) -> pa.Array:
    lines = [answer_line(f"s3://u/{number}", labels, **answer) for number, labels in enumerate(images)]
    results = parse_results("\n".join(lines))
    return results.answers.take(results.lines["answer"].combine_chunks())


def paths(labels: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    rows = flatten_labels(answers(labels)).to_pylist()
    return [(row["parent_label"], row["taxonomy_level"], row["l1"], row["l2"], row["l3"]) for row in rows]


def test_every_known_label_has_its_path() -> None:
    known = list(known_labels().values())
    rows = flatten_labels(
        answers([label(one.name, one.parent or "", one.level, 50.0) for one in known])
    ).to_pylist()
    for one, row in zip(known, rows, strict=True):
        path = [*one.path, None, None][:3]
        assert [row["label"], row["parent_label"], row["taxonomy_level"]] == [one.name, one.parent, one.level]
        assert [row["l1"], row["l2"], row["l3"]] == path


@pytest.mark.parametrize(("parent", "level"), [(None, None), ("Drugs & Tobacco", None), (None, 2), ("", 2)])
def test_the_taxonomy_fills_in_what_a_known_label_leaves_out(parent: str | None, level: int | None) -> None:
    found = paths([label("Drugs & Tobacco Paraphernalia & Use", parent, level, 50.0)])
    assert found == [("Drugs & Tobacco", 2, "Drugs & Tobacco", "Drugs & Tobacco Paraphernalia & Use", None)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([label("New", "", 1, 1.0)], [(None, 1, "New", None, None)]),
        ([label("New", "Violence", 2, 1.0)], [("Violence", 2, "Violence", "New", None)]),
        ([label("New", "Odd", 2, 1.0)], [("Odd", 2, "Odd", "New", None)]),
        ([label("New", None, 2, 1.0)], [(None, 2, None, "New", None)]),
        # The taxonomy knows the parent.
        (
            [label("New", "Explicit Nudity", 3, 1.0)],
            [("Explicit Nudity", 3, "Explicit", "Explicit Nudity", "New")],
        ),
        # Only the image's other labels tell the way up.
        (
            [label("Leaf", "Mid", 3, 1.0), label("Mid", "Top", 2, 1.0)],
            [("Mid", 3, "Top", "Mid", "Leaf"), ("Top", 2, "Top", "Mid", None)],
        ),
        # Nobody tells.
        ([label("Leaf", "Mid", 3, 1.0)], [("Mid", 3, None, "Mid", "Leaf")]),
        # A known name in another place is another label.
        ([label("Smoking", "Violence", 2, 1.0)], [("Violence", 2, "Violence", "Smoking", None)]),
        # No level: neither claimed nor guessed.
        ([label("New", None, None, 1.0)], [(None, None, None, None, None)]),
        ([label("New", "Violence", None, 1.0)], [("Violence", None, "Violence", None, None)]),
        ([label("Deep", "Smoking", 4, 1.0)], [("Smoking", 4, *known_labels()["Smoking"].path)]),
    ],
)
def test_unknown_labels_are_kept_with_the_path_that_is_told(
    labels: list[dict[str, Any]], expected: list[tuple[Any, ...]]
) -> None:
    assert paths(labels) == expected


def test_ways_up_are_sought_in_the_same_answer() -> None:
    rows = flatten_labels(answers([label("Leaf", "Mid", 3, 1.0)], [label("Mid", "Top", 2, 1.0)])).to_pylist()
    assert [(row["answer"], row["l1"]) for row in rows] == [(0, None), (1, "Top")]


def test_nothing_said_has_no_rows() -> None:
    column = answers(SMOKING, [], SMOKING[:1]).take(pa.array([None, 2, 1, None, 0]))
    assert flatten_labels(column)["answer"].to_pylist() == [1, 4, 4, 4]


def test_images_share_an_answer_or_have_none() -> None:
    told = answers([], SMOKING, SMOKING[:1])
    flat = flatten_labels(told)
    rows = spread_labels(flat, told, pa.array([2, None, 0, 1, 2]))
    assert rows["image"].to_pylist() == [0, 3, 3, 3, 4]
    assert rows["label"].to_pylist() == ["Smoking", *(each["Name"] for each in SMOKING), "Smoking"]
    assert rows.column_names == ["image", *flat.column_names[1:]]
    assert spread_labels(flat, told, pa.array([None, 0], pa.int64())).num_rows == 0


def test_a_nan_confidence_becomes_null_and_a_nameless_label_stays() -> None:
    rows = flatten_labels(answers([label("X", "", 1, float("nan")), {"Confidence": 3.0}])).to_pylist()
    assert [(row["label"], row["confidence"]) for row in rows] == [("X", None), ("", 3.0)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([("B", 1, 10.0), ("A", 1, 90.0)], ("A", 90.0)),
        (list(zip(["Top", "Leaf", "Mid"], [1, 3, 2], [99.0] * 3, strict=True)), ("Leaf", 99.0)),
        ([("B", 2, 50.0), ("A", 2, 50.0)], ("A", 50.0)),
        ([("A", None, 50.0), ("B", 1, 50.0)], ("B", 50.0)),
        ([("A", 3, float("nan")), ("B", 1, 0.5)], ("B", 0.5)),
    ],
)
def test_the_top_label_is_most_confident_then_deepest_then_first_by_name(
    labels: list[tuple[str, int | None, float]], expected: tuple[str, float]
) -> None:
    flat = flatten_labels(answers([], [label(name, "", level, sure) for name, level, sure in labels], []))
    assert [(row["answer"], row["label"], row["confidence"]) for row in top_labels(flat).to_pylist()] == [
        (1, *expected)
    ]


def test_no_labels_have_no_top() -> None:
    assert top_labels(flatten_labels(answers([], []))).num_rows == 0


def test_content_types_are_read_by_name() -> None:
    first = answers(
        [],
        ContentTypes=[{"Name": "Illustrated", "Confidence": 90.0}, {"Name": "Animated", "Confidence": 72.5}],
    )
    column = pa.concat_arrays([answers([], []), first, answers([], ContentTypes=None)])
    assert content_type_confidence(column, "Animated").to_pylist() == [None, None, 72.5, None]
    assert content_type_confidence(column, "Illustrated").to_pylist() == [None, None, 90.0, None]
