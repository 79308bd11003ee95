"""Objects that a known-hash stage has set aside."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.decidable import decidable
from modlake.pipeline.parquet import encode_parquet
from modlake.pipeline.set_aside import read_set_aside
from tests.support.memory_store import MemoryObjectStore

KNOWN = "s3://ugc/known\u2028.jpg"
REFS = pa.chunked_array([[KNOWN], ["s3://ugc/a.jpg", "s3://ugc/known"]])

LISTS = {
    "s3://work/aside/2026-11-21.jsonl": json.dumps({"source_ref": KNOWN, "case": 7}).encode() + b"\r\n\n",
    "s3://work/aside/2026-11-21.parquet": encode_parquet(pa.table({"source_ref": [KNOWN], "case": [7]})),
}


@pytest.mark.parametrize("uri", LISTS)
def test_a_list_names_objects(uri: str) -> None:
    aside = read_set_aside(MemoryObjectStore(LISTS), uri)
    assert len(aside) == 1
    assert aside.among(REFS).to_pylist() == [True, False, False]


def test_objects_that_are_set_aside_are_ineligible_by_that_and_nothing_else() -> None:
    aside = read_set_aside(MemoryObjectStore(LISTS), "s3://work/aside/2026-11-21.jsonl")
    codes = pa.array(["TOO_LARGE", None, "EMPTY_OBJECT"])
    marked = aside.mark(REFS.combine_chunks(), codes, codes)
    assert marked[0].to_pylist() == ["SET_ASIDE", None, "EMPTY_OBJECT"]
    assert marked[1].to_pylist() == ["Set aside before planning.", None, "EMPTY_OBJECT"]


@pytest.mark.parametrize(
    ("uri", "body"),
    [
        ("s3://w/x.jsonl", b""),
        ("s3://w/x.parquet", encode_parquet(pa.table({"source_ref": pa.array([], pa.string())}))),
    ],
)
def test_an_empty_list_sets_nothing_aside(uri: str, body: bytes) -> None:
    aside = read_set_aside(MemoryObjectStore({uri: body}), uri)
    assert aside.among(REFS).to_pylist() == [False] * 3


def test_without_a_stage_nothing_is_set_aside() -> None:
    assert read_set_aside(MemoryObjectStore(), None).among(REFS).to_pylist() == [False] * 3


def test_a_missing_list_means_that_the_stage_has_not_run() -> None:
    with pytest.raises(ModlakeTerminalError, match=r"known-hash stage has not run.*nothing is judged"):
        read_set_aside(MemoryObjectStore(), "s3://work/aside/2026-11-21.jsonl")


@pytest.mark.parametrize(
    ("uri", "body"),
    [
        ("s3://w/x.jsonl", b'{"source_ref": "s3://ugc/secret.jpg"'),
        ("s3://w/x.jsonl", b'["s3://ugc/secret.jpg"]'),
        ("s3://w/x.jsonl", b'{"source_ref": 7}'),
        ("s3://w/x.jsonl", b'{"source_ref": null}'),
        ("s3://w/x.jsonl", b'{"source_ref": "ugc/secret.jpg"}'),
        ("s3://w/x.jsonl", b'{"key": "s3://ugc/secret.jpg"}'),
        ("s3://w/x.parquet", b"PAR1 s3://ugc/secret.jpg"),
        ("s3://w/x.parquet", encode_parquet(pa.table({"key": ["s3://ugc/secret.jpg"]}))),
    ],
)
def test_a_list_that_cannot_be_read_is_an_error_that_names_no_object(uri: str, body: bytes) -> None:
    with pytest.raises(ModlakeTerminalError, match="not the list of a known-hash stage") as caught:
        read_set_aside(MemoryObjectStore({uri: body}), uri)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_what_was_set_aside_or_lies_unjudged_in_quarantine_is_not_decided_on() -> None:
    codes = pa.array([None, "SET_ASIDE", "TOO_LARGE", "QUARANTINED"], pa.string())
    images = pa.table({"source_ref": ["a", "b", "c", "d"], "error_code": codes})
    assert decidable(images)["source_ref"].to_pylist() == ["a", "c"]
