from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal

from rich.console import Console

from cli.query import Rows
from cli.rows import Format, write

ROWS = Rows(
    ["day", "at", "key", "score", "labels", "nothing"],
    [
        (
            date(2026, 11, 21),
            datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC),
            'a "quoted",\nbroken [red]key',
            99.5,
            [{"name": "Weapons", "share": Decimal("0.5")}],
            None,
        ),
        (date(2026, 11, 22), None, "漢字", float("nan"), [], None),
    ],
)


def _written(rows: Rows, output_format: Format, *, terminal: bool = False) -> str:
    stream = io.StringIO()
    write(rows, output_format, Console(file=stream, force_terminal=terminal, width=200, color_system=None))
    return stream.getvalue()


def test_json_is_one_valid_line() -> None:
    text = _written(ROWS, Format.json)

    assert text.count("\n") == 1
    first, second = json.loads(text)
    assert first == {
        "day": "2026-11-21",
        "at": "2026-11-22T01:02:03+00:00",
        "key": 'a "quoted",\nbroken [red]key',
        "score": 99.5,
        "labels": [{"name": "Weapons", "share": "0.5"}],
        "nothing": None,
    }
    assert second["score"] is None  # JSON has no NaN


def test_json_of_no_rows_is_an_empty_list() -> None:
    assert _written(Rows(["a"], []), Format.json) == "[]\n"


def test_csv_is_read_back_and_its_lines_end_as_in_a_shell() -> None:
    text = _written(ROWS, Format.csv)

    assert text.startswith("day,at,key,score,labels,nothing\n")
    assert "\r" not in text
    _, first, second = csv.reader(io.StringIO(text, newline=""))
    assert first[:4] == ["2026-11-21", "2026-11-22T01:02:03+00:00", 'a "quoted",\nbroken [red]key', "99.5"]
    assert json.loads(first[4])[0]["name"] == "Weapons"
    assert second[-1] == ""


def test_csv_keeps_line_breaks_within_a_value() -> None:
    keys = ["a\rb", "a\nb", "a\r\n", "", "a"]

    text = _written(Rows(["key"], [(key,) for key in keys]), Format.csv)

    assert [row[0] for row in csv.reader(io.StringIO(text, newline=""))] == ["key", *keys]
    assert text.endswith("a\n")


def test_table_in_a_pipe_is_a_line_a_row() -> None:
    rows = Rows(["label", "images"], [("Pills", 3), ("Weapons", None)])

    assert _written(rows, Format.table) == "label\timages\nPills\t3\nWeapons\t\n"


def test_table_on_a_terminal_shows_values_as_they_are() -> None:
    text = _written(ROWS, Format.table, terminal=True)

    assert "[red]key" in text
    assert "漢字" in text
