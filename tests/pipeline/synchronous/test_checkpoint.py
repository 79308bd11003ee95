"""Parts and completions: what is known of a manifest, whoever wrote it."""

from __future__ import annotations

import pytest

from modlake.pipeline.synchronous.checkpoint import Answers, CheckpointFolder, Completion
from modlake.pipeline.synchronous.lease import LeaseLostError
from modlake.pipeline.synchronous.result_lines import ImageFailure, result_line
from tests.support.memory_store import MemoryObjectStore

REF = "s3://ugc/ü\n\u2028\u0085 %+.jpg"
OPEN = ImageFailure(REF, "InvalidS3ObjectException", "gone", is_final=False)
FINAL = ImageFailure(REF, "ImageTooLargeException", "large", is_final=True)


def folder() -> CheckpointFolder:
    return CheckpointFolder(MemoryObjectStore(), "s3://work/", "f" * 64)


def completion(generation: int = 0, completed_at: str = "2026-11-22T00:00:00+00:00") -> Completion:
    return Completion(generation, ["parts/00000-00000.jsonl"], [], "2026-11-22T00:00:00+00:00", completed_at)


def test_a_part_holds_everything_and_any_key() -> None:
    line = result_line(REF, {"ModerationLabels": [], "ContentTypes": [], "ResponseMetadata": {}})
    answers = Answers({3: line, 1: line}, {2: OPEN}, {"7.0"})
    assert Answers.from_part(answers.to_part()) == answers
    assert b"ResponseMetadata" not in line


def test_a_part_of_failures_alone() -> None:
    answers = Answers({}, {2: OPEN}, set())
    assert Answers.from_part(answers.to_part()) == answers


def test_the_first_result_stays_and_stands_over_failures() -> None:
    known = Answers({1: b"first"}, {2: OPEN, 3: OPEN}, {"7.0"})
    known.merge(Answers({1: b"second", 2: b"late"}, {3: FINAL, 1: OPEN}, {"7.1"}))
    assert known == Answers({1: b"first", 2: b"late"}, {3: FINAL}, {"7.0", "7.1"})
    assert known.settled == {1, 2, 3}


def test_open_failures_are_not_settled() -> None:
    assert Answers({1: b"x"}, {2: OPEN, 3: FINAL}, set()).settled == {1, 3}


def test_parts_are_read_in_order_and_never_replaced() -> None:
    checkpoint = folder()
    checkpoint.write_part(1, 0, Answers({1: b"later"}, {}, set()))
    checkpoint.write_part(0, 7, Answers({1: b"earlier"}, {}, set()))
    with pytest.raises(LeaseLostError, match=r"Another attempt has written .*parts/00000-00007"):
        checkpoint.write_part(0, 7, Answers({1: b"other"}, {}, set()))
    assert checkpoint.read_parts(checkpoint.list().parts).results == {1: b"earlier"}


def test_a_part_whose_reply_was_lost_is_taken_as_written() -> None:
    checkpoint = folder()
    for _ in range(2):
        checkpoint.write_part(0, 0, Answers({1: b"mine"}, {2: OPEN}, {"7.0"}))
    assert checkpoint.read_parts(checkpoint.list().parts).results == {1: b"mine"}


def test_the_first_completion_of_a_generation_counts() -> None:
    checkpoint = folder()
    assert checkpoint.list().completion is None
    assert checkpoint.complete(completion()) == completion()
    assert checkpoint.complete(completion(completed_at="later")) == completion()
    checkpoint.complete(completion(generation=1))
    assert checkpoint.list().completion == completion(generation=1)
