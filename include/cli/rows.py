"""Answers as a table, as CSV and as JSON."""

from __future__ import annotations

import csv
import json
import math
from datetime import date, datetime, time
from enum import StrEnum
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.query import Rows


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


def write(rows: Rows, output_format: Format, console: Console) -> None:
    """Writes to the console's stream; a table is for people, and becomes lines with tabs in a pipe."""
    if output_format is Format.json:
        records = [_plain(record) for record in rows.records()]
        console.file.write(json.dumps(records, ensure_ascii=False) + "\n")
    elif output_format is Format.csv:
        _write_csv(rows, console.file)
    elif console.is_terminal:
        _print_table(rows, console)
    else:
        for line in (rows.columns, *rows.rows):
            console.file.write("\t".join(_cell(value) for value in line) + "\n")


def _print_table(rows: Rows, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(rows.columns):
        is_number = any(isinstance(row[index], int | float) for row in rows.rows)
        table.add_column(Text(column), justify="right" if is_number else "left", overflow="fold")
    for row in rows.rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    console.print(table, soft_wrap=False)


def _write_csv(rows: Rows, stream: IO[str]) -> None:
    """RFC 4180, but with the line ends that shells expect."""
    writer = csv.writer(_UnixLines(stream))
    writer.writerow(rows.columns)
    writer.writerows([_cell(value) for value in row] for row in rows.rows)


class _UnixLines:
    """Ends lines with LF. A writer that was told to would leave a CR within a value unquoted."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        self._stream.write(line.removesuffix("\r\n") + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.15g}"
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """The value in JSON's terms; dates and times in ISO 8601."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)
