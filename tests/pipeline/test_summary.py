from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.summary import ImageError, read_summary_errors

MANIFEST = ["s3://u/a", "s3://u/b", "s3://u/c"]


def read(*errors: dict[str, Any]) -> dict[str, ImageError]:
    return read_summary_errors(json.dumps({"errors": errors}).encode(), pa.array(MANIFEST), "s3://work/s")


@pytest.mark.parametrize("spelling", ["line-numer", "line-number"])
def test_errors_are_found_by_line_in_either_spelling(spelling: str) -> None:
    assert read({spelling: 2, "code": "X", "message": "m"}) == {"s3://u/b": ImageError("X", "m")}


def test_source_ref_counts_more_than_the_line() -> None:
    assert read({"line-number": 1, "source-ref": "s3://u/c", "code": "X"}) == {
        "s3://u/c": ImageError("X", None)
    }


def test_lines_from_zero_are_recognised_by_a_line_zero() -> None:
    found = read({"line-numer": 0, "code": "X"}, {"line-numer": 2, "code": "Y"})
    assert {ref: error.code for ref, error in found.items()} == {"s3://u/a": "X", "s3://u/c": "Y"}


@pytest.mark.parametrize("error", [{"line-number": 4}, {"line-number": -1}, {"line-number": "2"}, {}])
def test_errors_of_no_line_are_left_out(error: dict[str, Any]) -> None:
    assert read(error) == {}


def test_an_error_without_code_has_one_of_ours() -> None:
    assert read({"line-number": 1, "message": "m"}) == {"s3://u/a": ImageError("ERROR_WITHOUT_CODE", "m")}


def test_an_image_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(ModlakeTerminalError, match="s3://elsewhere/x"):
        read({"source-ref": "s3://elsewhere/x", "code": "X"})


@pytest.mark.parametrize(
    "body", [b"{}", b'{"errors":null}', b'\xef\xbb\xbf{"errors":[]}', b'{"version":"1.0"}']
)
def test_a_summary_without_errors_names_none(body: bytes) -> None:
    assert read_summary_errors(body, pa.array(MANIFEST), "s3://work/s") == {}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"errors":[1]}', b"\xff"])
def test_what_is_no_summary_is_refused(body: bytes) -> None:
    with pytest.raises(ModlakeTerminalError, match="s3://work/s"):
        read_summary_errors(body, pa.array(MANIFEST), "s3://work/s")
