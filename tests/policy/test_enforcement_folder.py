"""The files of an enforcement."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.policy import enforcement_folder
from modlake.policy.enforcement_folder import (
    EnforcementFolder,
    new_enforcement_id,
    read_all_intents,
    read_intents,
    read_results,
    write_enforcement,
    write_intents,
)
from modlake.policy.intents import ActionResult, Intent
from tests.support.days import DAY
from tests.support.memory_store import MemoryObjectStore

FOLDER = EnforcementFolder("s3://work/modlake", DAY, "enf-1")


def intents(images: int, kinds: int) -> list[Intent]:
    return [
        Intent(f"act-{image}-{kind}", DAY.isoformat(), f"s3://ugc/{image}", "e1", f"kind-{kind}", "t")
        for image in range(images)
        for kind in range(kinds)
    ]


def test_the_folder_is_found_by_the_uris_in_it() -> None:
    assert FOLDER.enforcement_uri == "s3://work/modlake/enforcements/day=2026-11-21/enf-1/enforcement.json"
    found = EnforcementFolder.of_uri(FOLDER.enforcement_uri)
    assert (found.uri, found.day, found.enforcement_id) == (FOLDER.uri, DAY, "enf-1")
    assert EnforcementFolder.of_uri(FOLDER.uri) == found
    with pytest.raises(ModlakeTerminalError, match="names no enforcement"):
        EnforcementFolder.of_uri("s3://work/enforcements/enf-1/")


def test_an_image_is_in_one_batch_with_all_its_intents() -> None:
    store = MemoryObjectStore()
    assert write_intents(store, FOLDER, intents(5, 3), 4) == 3
    write_enforcement(store, FOLDER, {"batches": 3})
    batches = [read_intents(store, FOLDER, batch) for batch in range(3)]
    assert [len(batch) for batch in batches] == [6, 6, 3]
    assert list(read_all_intents(store, FOLDER)) == intents(5, 3)


def test_very_many_intents_still_are_few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enforcement_folder, "BATCHES_OF_A_SIZE", 2)
    store = MemoryObjectStore()
    assert write_intents(store, FOLDER, intents(17, 1), 1) == 7
    assert [len(read_intents(store, FOLDER, batch)) for batch in range(7)] == [1, 1, 2, 2, 4, 4, 3]


def test_nothing_to_do_is_no_batch() -> None:
    assert write_intents(MemoryObjectStore(), FOLDER, [], 4) == 0


def test_of_an_action_the_first_result_counts() -> None:
    store = MemoryObjectStore()
    first = ActionResult("act-1", "completed", {}, "2026-11-22T03:00:00+00:00")
    for name, result in (("00000-00000", first), ("00000-00001", replace(first, status="failed"))):
        store.write(f"{FOLDER.results_uri}{name}.jsonl", f"{result.to_json()}\n".encode())
    assert list(read_results(store, FOLDER)) == [first]


def test_the_same_work_has_the_same_name() -> None:
    name = new_enforcement_id(DAY, "run-1", ["a 1 live", "b 2 shadow"])
    assert name == new_enforcement_id(DAY, "run-1", ["b 2 shadow", "a 1 live"])
    others = {
        new_enforcement_id(date(2026, 11, 22), "run-1", ["a 1 live", "b 2 shadow"]),
        new_enforcement_id(DAY, "run-2", ["a 1 live", "b 2 shadow"]),
        new_enforcement_id(DAY, "run-1", ["a 1 live", "b 2 live"]),
        new_enforcement_id(DAY, "run-1", ["a 1 live", "b 2 shadow"], ["act-1 enf-1"]),
    }
    assert len(others | {name}) == 5
