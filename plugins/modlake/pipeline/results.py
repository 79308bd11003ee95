"""Reading the results file of a media analysis job (AWS, "Bulk analysis output manifests")."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from modlake.exceptions import ModlakeTerminalError

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


@dataclass(frozen=True, slots=True)
class Results:
    """A results file in columns, a row an image.

    ``lines`` has ``source_ref``, ``answer`` (struct as DetectModerationLabels answers, null when the line has
    none) and ``project_version``. ``bad_lines`` counts the lines that could not be read.
    """

    lines: pa.Table
    bad_lines: int


def read_results(body: bytes, results_uri: str) -> Results:
    """Parse a results file: BOM, CRLF, blank lines, unknown keys and a truncated line lose nothing else.

    A line repeated word for word counts once. Raises ModlakeTerminalError when two lines of one image differ.
    """
    table, bad_lines = _parse_readable_lines(body)
    named = table.filter(pc.is_valid(table["source-ref"]))
    bad_lines += table.num_rows - named.num_rows
    answer = named["detect-moderation-labels"].combine_chunks()
    # An answer without the list says nothing of the image; clean images have an empty one.
    is_answer = pc.is_valid(pc.struct_field(answer, "ModerationLabels"))
    answer = pc.if_else(is_answer, answer, pa.scalar(None, answer.type))
    lines = pa.table(
        {
            "source_ref": named["source-ref"],
            "answer": answer,
            "project_version": pc.coalesce(
                pc.struct_field(answer, "ProjectVersion"), named["ProjectVersion"]
            ),
        }
    )
    return Results(_drop_repeated(lines, results_uri), bad_lines)


def _parse_readable_lines(body: bytes) -> tuple[pa.Table, int]:
    """Return what can be parsed and the number of bad lines, found by halving: most files have none."""
    if not body.strip():
        return _LINE_SCHEMA.empty_table(), 0
    try:
        return _parse(body), 0
    except pa.ArrowInvalid:
        lines = body.strip().split(b"\n")
    if len(lines) == 1:
        return _LINE_SCHEMA.empty_table(), 1
    middle = len(lines) // 2
    first, bad_first = _parse_readable_lines(b"\n".join(lines[:middle]))
    second, bad_second = _parse_readable_lines(b"\n".join(lines[middle:]))
    return pa.concat_tables([first, second]), bad_first + bad_second


def _parse(body: bytes) -> pa.Table:
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


def _drop_repeated(lines: pa.Table, results_uri: str) -> pa.Table:
    numbered = pa.table(
        {"source_ref": lines["source_ref"], "row": pa.array(range(lines.num_rows), pa.int64())}
    )
    by_image = numbered.group_by("source_ref", use_threads=False).aggregate(
        [("row", "min"), ("row", "count")]
    )
    if by_image.num_rows == lines.num_rows:
        return lines
    repeated = by_image.filter(pc.greater(by_image["row_count"], pa.scalar(1)))["source_ref"]
    versions: dict[str, set[str]] = {}
    for line in lines.filter(pc.is_in(lines["source_ref"], value_set=repeated)).to_pylist():
        versions.setdefault(line["source_ref"], set()).add(json.dumps(line, sort_keys=True))
    contradicted = sorted(source_ref for source_ref, texts in versions.items() if len(texts) > 1)
    if contradicted:
        raise ModlakeTerminalError(
            f"{results_uri} holds different answers for {contradicted[0]!r} and {len(contradicted) - 1} "
            "more images. Trigger the day with fresh=true to have it analysed again, and show AWS the file."
        )
    return lines.take(by_image["row_min"])
