from __future__ import annotations

import json
import random

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.results import read_results
from tests.support.days import SMOKING, answer_line

LINES = [answer_line(f"s3://u/{name}", SMOKING) for name in "abc"]


def refs(body: str | bytes) -> tuple[list[str | None], int]:
    results = read_results(body.encode() if isinstance(body, str) else body, "s3://work/r")
    return results.lines["source_ref"].to_pylist(), results.bad_lines


@pytest.mark.parametrize(
    "body",
    [
        "\n".join(LINES),
        "\n".join(LINES) + "\n",
        "\r\n".join(LINES) + "\r\n",
        "\n\n".join(LINES) + "\n\n",
        "\ufeff" + "\n".join(LINES),
    ],
)
def test_line_ends_blank_lines_and_bom_lose_nothing(body: str) -> None:
    assert refs(body) == (["s3://u/a", "s3://u/b", "s3://u/c"], 0)


@pytest.mark.parametrize("body", ["", "\n", "\r\n  \n", "\ufeff", "\ufeff\n"])
def test_an_empty_file_has_no_lines(body: str) -> None:
    assert refs(body) == ([], 0)


@pytest.mark.parametrize(
    "bad",
    [
        LINES[1][:-20],
        "not json",
        "[1]",
        "{}",
        '{"source-ref":7}',
        '{"detect-moderation-labels":{"ModerationLabels":[]}}',
        '{"source-ref":"s3://u/x","detect-moderation-labels":{"ModerationLabels":"none"}}',
        '{"source-ref":"\\ud83d"}',
        b'{"source-ref":"\xff"}'.decode("latin-1"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_bad_line_loses_no_other(bad: str, place: int) -> None:
    lines = [line.encode() for line in LINES]
    lines.insert(place, bad.encode("latin-1"))
    assert refs(b"\n".join(lines)) == (["s3://u/a", "s3://u/b", "s3://u/c"], 1)


def test_many_bad_lines_are_each_counted() -> None:
    lines = [answer_line(f"s3://u/{number}") for number in range(300)] + ["{"] * 40
    random.Random(1).shuffle(lines)
    found, bad_lines = refs("\n".join(lines))
    assert (len(set(found)), bad_lines) == (300, 40)


def test_bom_survives_the_search_for_bad_lines() -> None:
    assert refs("\ufeff" + "\n".join([*LINES, "{"])) == (["s3://u/a", "s3://u/b", "s3://u/c"], 1)


def test_unknown_keys_are_ignored_and_missing_ones_null() -> None:
    line = {
        "source-ref": "s3://u/a",
        "new": {"deep": [1]},
        "detect-moderation-labels": {"ModerationLabels": [], "New": 1},
    }
    (row,) = read_results(json.dumps(line).encode(), "s3://work/r").lines.to_pylist()
    assert row["answer"] == {
        "ModerationLabels": [],
        "ModerationModelVersion": None,
        "ContentTypes": None,
        "ProjectVersion": None,
    }


@pytest.mark.parametrize("answer", [None, {}, {"ModerationLabels": None}, {"ModerationModelVersion": "7.0"}])
def test_a_line_without_labels_is_no_answer(answer: object) -> None:
    line = json.dumps({"source-ref": "s3://u/a", "detect-moderation-labels": answer})
    (row,) = read_results(line.encode(), "s3://work/r").lines.to_pylist()
    assert row["answer"] is None


@pytest.mark.parametrize("inside", [True, False])
def test_the_adapter_is_read_where_a_line_has_it(inside: bool) -> None:
    line = json.loads(answer_line("s3://u/a"))
    (line["detect-moderation-labels"] if inside else line)["ProjectVersion"] = "arn:x"
    (row,) = read_results(json.dumps(line).encode(), "s3://work/r").lines.to_pylist()
    assert row["project_version"] == "arn:x"


def test_equal_lines_count_once() -> None:
    nan = answer_line("s3://u/n", [{"Name": "X", "Confidence": float("nan")}])
    assert refs("\n".join([LINES[0], nan, LINES[1], LINES[0], nan, LINES[0]])) == (
        ["s3://u/a", "s3://u/n", "s3://u/b"],
        0,
    )


def test_lines_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ModlakeTerminalError, match="s3://u/a"):
        refs("\n".join([*LINES, answer_line("s3://u/a")]))
