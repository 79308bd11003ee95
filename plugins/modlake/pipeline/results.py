"""Reading the results file of a media analysis job (AWS, "Bulk analysis output manifests")."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import arro3.io
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.columns import Column, are_distinct, field_of, in_one_chunk, row_numbers

_LABEL = pa.struct(
    [
        ("Confidence", pa.float64()),
        ("Name", pa.string()),
        ("ParentName", pa.string()),
        ("TaxonomyLevel", pa.int64()),
    ]
)
_CONTENT_TYPE = pa.struct([("Confidence", pa.float64()), ("Name", pa.string())])
_ANSWER = pa.struct(
    [
        ("ModerationLabels", pa.list_(_LABEL)),
        ("ModerationModelVersion", pa.string()),
        ("ContentTypes", pa.list_(_CONTENT_TYPE)),
        ("ProjectVersion", pa.string()),
    ]
)
# ProjectVersion is documented for DetectModerationLabels; where a results line has it, no page says.
_LINE_SCHEMA = pa.schema(
    [
        ("source-ref", pa.string()),
        ("ProjectVersion", pa.string()),
        ("detect-moderation-labels", _ANSWER),
    ]
)

_LINES_AT_ONCE = 2048
"""More, and the parser asks the system for memory, and gives it back, with every file."""

_BYTES_AT_ONCE = 100_000
"""They stay in a core's cache. From 128 KiB on the system would look for new memory with every file."""

_SURROGATE = re.compile(rb"\\u[dD]")


@dataclass(frozen=True, slots=True)
class Results:
    """A results file in columns.

    ``lines`` has a row an image: ``source_ref``, ``answer`` (its row in ``answers``, null when the line has
    none) and ``project_version``. ``bad_lines`` counts the lines that could not be read.
    """

    lines: pa.Table
    answers: Column
    bad_lines: int


def read_results(file: Path, results_uri: str) -> Results:
    """Parse a results file: BOM, CRLF, blank lines, unknown keys and a truncated line lose nothing else.

    It has to be on this disk: arro3's parser asks for Python's lock with every few kilobytes of what is not.
    A line repeated word for word counts once. Raises ModlakeTerminalError when two lines of one image differ.
    """
    parsed, bad_lines = _parse_readable(file)
    answers = parsed["detect-moderation-labels"].combine_chunks()
    # An answer without the list says nothing of the image; clean images have an empty one.
    is_answer = pc.is_valid(field_of(answers, "ModerationLabels"))
    row: Column = pc.if_else(is_answer, row_numbers(len(answers)), pa.scalar(None, pa.int64()))
    project_version = pc.coalesce(
        field_of(answers, "ProjectVersion"), parsed["ProjectVersion"].combine_chunks()
    )
    lines = pa.table({"source_ref": parsed["source-ref"], "answer": row, "project_version": project_version})
    if lines["source_ref"].null_count:
        named = lines.filter(pc.is_valid(lines["source_ref"]))
        bad_lines += lines.num_rows - named.num_rows
        lines = named
    return Results(_drop_repeated(lines, answers, results_uri), answers, bad_lines)


def _parse_readable(file: Path) -> tuple[pa.Table, int]:
    if not file.stat().st_size:
        return _LINE_SCHEMA.empty_table(), 0
    with suppress(pa.ArrowException):
        return _parse_flawless(file), 0
    body = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    if body.startswith(b"{"):
        with suppress(pa.ArrowInvalid):
            return _parse(body), 0
    lines = list(filter(None, map(bytes.strip, body.split(b"\n"))))
    objects = [line for line in lines if line.startswith(b"{")]
    table, bad_lines = _parse_readable_lines(objects)
    return table, bad_lines + len(lines) - len(objects)


def _parse_flawless(file: Path) -> pa.Table:
    """Parse a file of objects with an image each, and no key but those that are known, nor any of them twice.

    It takes half the time of pyarrow's own parser. Raises pyarrow.ArrowException for any other file, such as
    one in which a confidence is NaN.
    """
    quotes, has_escapes = _scan(file)
    # arro3 0.9 reads another character where one is written as two escapes.
    if has_escapes and _SURROGATE.search(file.read_bytes()):
        raise pa.ArrowInvalid("escapes beyond the basic multilingual plane")
    reader = arro3.io.read_json(file, _LINE_SCHEMA, batch_size=_LINES_AT_ONCE)
    # pyarrow lets go of Python's lock while it reads the stream; arro3's own reading does not.
    table = pa.RecordBatchReader.from_stream(reader).read_all().combine_chunks()
    # Of a key that stands twice in an object this parser takes the last.
    if table["source-ref"].null_count or quotes != _quotes_of_fields(map(in_one_chunk, table.columns)):
        raise pa.ArrowInvalid("an object without an image, or more than was read")
    return table


def _scan(file: Path) -> tuple[int, bool]:
    """Return how many quotes a file holds, and whether a backslash.

    Block by block: to map a file into memory, and out of it, makes all threads of the process wait.
    """
    block = bytearray(_BYTES_AT_ONCE)
    quotes, has_escapes = 0, False
    with file.open("rb", buffering=0) as opened:
        while size := opened.readinto(block):
            quotes += int(np.count_nonzero(np.frombuffer(block, np.uint8, size) == ord('"')))
            has_escapes = has_escapes or block.find(b"\\", 0, size) >= 0
    return quotes, has_escapes


def _quotes_of_fields(fields: Iterable[Column]) -> int:
    """Return how many quotes it takes to write fields of objects: two a key, and two a text."""
    return sum(2 * (len(field) - field.null_count) + _quotes_of_values(field) for field in fields)


def _quotes_of_values(values: Column) -> int:
    if pa.types.is_struct(values.type):
        return _quotes_of_fields(field_of(values, field.name) for field in values.type)
    if pa.types.is_list(values.type):
        return _quotes_of_values(values.flatten())
    return 2 * (len(values) - values.null_count) if pa.types.is_string(values.type) else 0


def _parse_readable_lines(lines: list[bytes]) -> tuple[pa.Table, int]:
    """Return what can be parsed and the number of bad lines, found by halving: most files have none."""
    if not lines:
        return _LINE_SCHEMA.empty_table(), 0
    with suppress(pa.ArrowInvalid):
        return _parse(b"\n".join(lines)), 0
    if len(lines) == 1:
        return _LINE_SCHEMA.empty_table(), 1
    middle = len(lines) // 2
    first, bad_first = _parse_readable_lines(lines[:middle])
    second, bad_second = _parse_readable_lines(lines[middle:])
    return pa.concat_tables([first, second]), bad_first + bad_second


def _parse(body: bytes) -> pa.Table:
    """Parse lines that start with a brace: the parser does not survive a null in the first one."""
    table = pyarrow.json.read_json(
        io.BytesIO(body),
        # One block: a line that straddles two blocks is an error to pyarrow.
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(body) + 1),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=_LINE_SCHEMA, newlines_in_values=False, unexpected_field_behavior="ignore"
        ),
    )
    table.validate(full=True)  # the parser takes strings that are not UTF-8
    return table


def _drop_repeated(lines: pa.Table, answers: Column, results_uri: str) -> pa.Table:
    if are_distinct(lines["source_ref"]):
        return lines
    numbered = pa.table({"source_ref": lines["source_ref"], "row": row_numbers(lines.num_rows)})
    by_image = numbered.group_by("source_ref", use_threads=False).aggregate(
        [("row", "min"), ("row", "count")]
    )
    repeated = by_image.filter(pc.greater(by_image["row_count"], pa.scalar(1)))["source_ref"]
    versions: dict[str, set[str]] = {}
    for line in lines.filter(pc.is_in(lines["source_ref"], value_set=repeated)).to_pylist():
        answer = None if line["answer"] is None else answers[line["answer"]].as_py()
        said = json.dumps({**line, "answer": answer}, sort_keys=True)
        versions.setdefault(line["source_ref"], set()).add(said)
    contradicted = sorted(source_ref for source_ref, texts in versions.items() if len(texts) > 1)
    if contradicted:
        raise ModlakeTerminalError(
            f"{results_uri} holds different answers for {contradicted[0]!r} and {len(contradicted) - 1} "
            "more images. Trigger the day with fresh=true to have it analysed again, and show AWS the file."
        )
    return lines.take(by_image["row_min"])
