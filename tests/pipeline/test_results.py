from __future__ import annotations

import json
import random
from typing import Any

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.results import Results
from tests.support.days import SMOKING, answer_line, parse_results

EMPTY = '"detect-moderation-labels":{"ModerationLabels":[]}'
LINES = [answer_line(f"s3://u/{name}", SMOKING) for name in "abc"]


def rows(line: object) -> list[dict[str, Any]]:
    results = parse_results(json.dumps(line))
    return [{**row, "answer": said(results, row["answer"])} for row in results.lines.to_pylist()]


def said(results: Results, answer: int | None) -> Any:
    return None if answer is None else results.answers[answer].as_py()


def refs(body: str | bytes) -> tuple[list[str], int]:
    results = parse_results(body)
    return sorted(map(str, results.lines["source_ref"].to_pylist())), results.bad_lines


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
        "null",
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
    (row,) = rows(line)
    assert row["answer"] == {
        "ModerationLabels": [],
        "ModerationModelVersion": None,
        "ContentTypes": None,
        "ProjectVersion": None,
    }


@pytest.mark.parametrize("answer", [None, {}, {"ModerationLabels": None}, {"ModerationModelVersion": "7.0"}])
def test_a_line_without_labels_is_no_answer(answer: object) -> None:
    (row,) = rows({"source-ref": "s3://u/a", "detect-moderation-labels": answer})
    assert row["answer"] is None


@pytest.mark.parametrize("inside", [True, False])
def test_the_adapter_is_read_where_a_line_has_it(inside: bool) -> None:
    line = json.loads(answer_line("s3://u/a"))
    (line["detect-moderation-labels"] if inside else line)["ProjectVersion"] = "arn:x"
    (row,) = rows(line)
    assert row["project_version"] == "arn:x"


def test_equal_lines_count_once() -> None:
    nan = answer_line("s3://u/n", [{"Name": "X", "Confidence": float("nan")}])
    assert refs("\n".join([LINES[0], nan, LINES[1], LINES[0], nan, LINES[0]])) == (
        ["s3://u/a", "s3://u/b", "s3://u/n"],
        0,
    )


def test_lines_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ModlakeTerminalError, match="s3://u/a"):
        refs("\n".join([*LINES, answer_line("s3://u/a")]))


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize(
    "key",
    [
        "plain.jpg",
        "a b+%20'.jpg",
        "ünï-雪.jpg",
        "beyond-𠀀.jpg",
        'q"uote.jpg',
        "back\\slash.jpg",
        "new\nline",
    ],
)
def test_every_line_keeps_its_own_answer(key: str, *, spaced: bool) -> None:
    separators = (", ", ": ") if spaced else (",", ":")
    told = {
        f"s3://u/{number}/{key if number % 3 == 0 else 'x'}": {
            "ModerationLabels": [{**SMOKING[0], "Confidence": 50.0 + number}] * (number % 2),
            "ModerationModelVersion": f"7.{number % 5}",
        }
        for number in range(20)
    }
    lines = [
        json.dumps(
            {"source-ref": ref, "detect-moderation-labels": answer},
            ensure_ascii=number % 4 == 0,
            separators=separators,
        )
        for number, (ref, answer) in enumerate(told.items())
    ]
    results = parse_results("\n".join(lines))
    assert results.bad_lines == 0
    found = {row["source_ref"]: said(results, row["answer"]) for row in results.lines.to_pylist()}
    assert found == {
        ref: {"ContentTypes": None, "ProjectVersion": None, **answer} for ref, answer in told.items()
    }


@pytest.mark.parametrize(
    "line",
    [
        # A key of the answer's name elsewhere, the image named twice, keys in another order.
        '{"source-ref":"s3://u/z","meta":{"detect-moderation-labels":1},' + EMPTY + "}",
        "{" + EMPTY + ',"source-ref":"s3://u/z"}',
        '{"new":{"source-ref":"s3://u/y"},"source-ref":"s3://u/z",' + EMPTY + "}",
        '{"source-ref" : "s3://u/z" , "detect-moderation-labels" : {"ModerationLabels" : [ ] } }',
        '{"source-ref":"s3:\\/\\/u\\/z",' + EMPTY + "}",
        '{"source-ref":"s3://u/z","job":"1",' + EMPTY + "}",
    ],
)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_lines_of_another_form_are_read_too(line: str, place: int) -> None:
    lines = list(LINES)
    lines.insert(place, line)
    results = parse_results("\n".join(lines))
    found = {row["source_ref"]: said(results, row["answer"]) for row in results.lines.to_pylist()}
    assert found.keys() == {"s3://u/a", "s3://u/b", "s3://u/c", "s3://u/z"}
    assert results.bad_lines == 0
    assert found["s3://u/z"]["ModerationLabels"] == []
    assert len(found["s3://u/b"]["ModerationLabels"]) == 3


def test_an_object_that_names_no_image_is_bad_and_so_is_one_that_names_two() -> None:
    images = ["s3://u/a", "s3://u/b", "s3://u/c"]
    nameless_behind = '{"source-ref":"s3://u/z",' + EMPTY + '}{"a":{}}'
    assert refs("\n".join([*LINES, nameless_behind])) == ([*images, "s3://u/z"], 1)
    named_twice = '{"source-ref":"s3://u/z",' + EMPTY + ',"source-ref":"s3://u/y"}'
    assert refs("\n".join([*LINES, named_twice])) == (images, 1)


@pytest.mark.parametrize(
    "line",
    [
        LINES[0],
        answer_line("s3://u/z"),
        answer_line(
            "s3://u/é雪\U00020000.jpg", SMOKING, ContentTypes=[{"Confidence": 72.7, "Name": "Animated"}]
        ),
        answer_line("s3://u/z", ProjectVersion="arn:x"),
        '{"source-ref":"s3:\\/\\/u\\/z","ProjectVersion":"arn:x",' + EMPTY + "}",
        '{"source-ref" : "s3://u/z" , "detect-moderation-labels" : {"ModerationLabels" : [ ] } }',
        '{"source-ref":"s3://u/z"}',
    ],
)
def test_lines_as_documented_need_no_strict_parser(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modlake.pipeline.results._BYTES_AT_ONCE", 100)
    monkeypatch.setattr("modlake.pipeline.results._parse", lambda _: pytest.fail("parsed twice"))
    assert refs("\n".join([LINES[1], line, LINES[2]]))[1] == 0


@pytest.mark.parametrize(
    "twice",
    [
        ("}}", "}," + EMPTY + "}"),
        ("}}", r'},"detect-moderation\u002dlabels":{"ModerationLabels":[]}}'),
        ('"ContentTypes":[]', '"ContentTypes":[],"ModerationLabels":[]'),
        ('"ContentTypes":[]', r'"ContentTypes":[],"Moderation\u004cabels":[]'),
        ('"Name":"Smoking"', '"Name":"Smoking","Name":"Products"'),
        ('"TaxonomyLevel":1', '"TaxonomyLevel":1,"TaxonomyLevel":2'),
    ],
)
def test_an_object_with_a_key_twice_is_bad(twice: tuple[str, str]) -> None:
    line = LINES[1].replace(*twice)
    assert line != LINES[1]
    assert refs("\n".join([LINES[0], line, LINES[2]])) == (["s3://u/a", "s3://u/c"], 1)
    unknown = LINES[0].replace("}}", '},"new":1}')
    assert refs("\n".join([unknown, line, LINES[2]])) == (["s3://u/a", "s3://u/c"], 1)


@pytest.mark.parametrize("bytes_at_once", [1, 7, 4096])
def test_what_needs_the_strict_parser_is_seen_wherever_it_stands(
    bytes_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modlake.pipeline.results._BYTES_AT_ONCE", bytes_at_once)
    many = [answer_line(f"s3://u/{number}", SMOKING) for number in range(50)]
    escaped = r'{"source-ref":"s3://u/\ud840\udc00",' + EMPTY + "}"
    assert refs("\n".join([*many, escaped, LINES[0]]))[0][-1] == "s3://u/\U00020000"
    twice = LINES[1].replace("}}", "}," + EMPTY + "}")
    assert refs("\n".join([*many, twice])) == (sorted(f"s3://u/{number}" for number in range(50)), 1)
