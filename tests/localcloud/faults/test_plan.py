from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from localcloud.errors import LocalCloudError
from localcloud.faults import plan as plans
from localcloud.faults.ledger import FaultLedger
from localcloud.faults.plan import CallFault, When
from localcloud.faults.source import FaultSource

START = {"operation": "StartMediaAnalysisJob", "error": "ThrottlingException"}


def hits(when: When, events: int = 1000, salt: str = "7:call 0") -> list[int]:
    found: list[int] = []
    for number in range(1, events + 1):
        if when.is_due(number, len(found), salt):
            found.append(number)
    return found


def test_which_events_are_hit() -> None:
    assert hits(When(), 3) == [1, 2, 3]
    assert hits(When(nth=(2, 5))) == [2, 5]
    assert hits(When(every=300)) == [300, 600, 900]
    assert hits(When(every=10, times=2)) == [10, 20]


def test_chance_is_a_matter_of_the_seed() -> None:
    chosen = hits(When(probability=0.2))
    assert 150 < len(chosen) < 250
    assert hits(When(probability=0.2)) == chosen
    assert hits(When(probability=0.2), salt="8:call 0") != chosen


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"sead": 1}, "unknown key 'sead'"),
        ({"calls": [{"operation": "X"}]}, "must have one of error, cut and delay_seconds"),
        ({"calls": [START | {"cut": "reply"}]}, "must have one of"),
        ({"calls": [{"operation": "X", "cut": "off"}]}, "'off' is none of request, reply, body"),
        ({"calls": [START | {"service": "sqs"}]}, "'sqs' is none of"),
        ({"calls": [START | {"match": "("}]}, "unterminated subpattern"),
        ({"jobs": [{"fail": "BROKEN"}]}, "BROKEN is none of INTERNAL_ERROR"),
        ({"jobs": [{"results": "odd"}]}, "'odd' is none of missing"),
        ({"tokens": {"after": "new"}}, "unknown key 'after'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, plan: dict[str, Any], told: str) -> None:
    with pytest.raises(LocalCloudError, match=told):
        plans.write(tmp_path, plan)
    assert list(tmp_path.iterdir()) == []


def test_every_rule_counts_the_calls_it_concerns(tmp_path: Path) -> None:
    source = FaultSource(tmp_path)
    assert not source.befalls_calls_of("rekognition")
    rules = [START | {"nth": [2]}, {"operation": "*", "every": 3, "cut": "reply"}]
    plans.write(tmp_path, {"calls": rules})
    operations = ["Get", "StartMediaAnalysisJob", "StartMediaAnalysisJob", "Get", "Get", "Get"]
    found = [source.call_fault("rekognition", operation, "") for operation in operations]
    assert [fault.kind if fault else None for fault in found] == [
        None,
        None,
        "rekognition error ThrottlingException",  # it is the third call, too: the first rule wins
        None,
        None,
        "rekognition reply lost",
    ]
    assert source.call_fault("s3", "Get", "") is None


def test_a_rule_may_concern_some_objects_alone() -> None:
    fault = CallFault("PutObject", "s3", r"submissions/.*\.json$", error="SlowDown")
    assert fault.concerns("s3", "PutObject", "modlake-work/submissions/ab/00.json")
    assert not fault.concerns("s3", "PutObject", "modlake-work/runs/plan.json")
    assert not fault.concerns("s3", "GetObject", "modlake-work/submissions/ab/00.json")


def test_counts_outlive_a_server_and_start_anew_with_the_plan(tmp_path: Path) -> None:
    plans.write(tmp_path, {"calls": [START | {"nth": [2]}]})
    first = FaultSource(tmp_path)
    assert first.call_fault("rekognition", "StartMediaAnalysisJob", "") is None
    first.close()
    second = FaultSource(tmp_path)
    assert second.call_fault("rekognition", "StartMediaAnalysisJob", "") is not None
    plans.write(tmp_path, {"calls": [START | {"nth": [2]}]})
    assert second.call_fault("rekognition", "StartMediaAnalysisJob", "") is None


def test_what_befalls_a_job_is_decided_once(tmp_path: Path) -> None:
    plans.write(tmp_path, {"jobs": [{"nth": [1], "stuck": True}, {"every": 1, "results": "bom"}]})
    source = FaultSource(tmp_path)
    for _ in range(2):
        assert [fault.kind for fault in source.job_faults("one")] == ["job stuck", "results bom"]
        assert [fault.kind for fault in source.job_faults("two")] == ["results bom"]
    plans.write(tmp_path, None)
    assert source.job_faults("one") == []


def test_a_broken_plan_leaves_the_last_one_in_force(tmp_path: Path) -> None:
    plans.write(tmp_path, {"calls": [START]})
    source = FaultSource(tmp_path)
    assert source.befalls_calls_of("rekognition")
    (tmp_path / plans.FILE_NAME).write_text("{")
    assert source.befalls_calls_of("rekognition")
    (tmp_path / plans.FILE_NAME).unlink()
    assert not source.befalls_calls_of("rekognition")


def test_counts_by_kind(tmp_path: Path) -> None:
    ledger = FaultLedger(tmp_path)
    for kind in ("s3 delay", "job stuck", "s3 delay"):
        ledger.record(kind, "of something")
    assert ledger.counts() == {"job stuck": 1, "s3 delay": 2}
    assert [row[1:] for row in ledger.recorded(after=2)] == [("s3 delay", "of something")]


def test_the_plan_is_a_file_that_a_person_can_write(tmp_path: Path) -> None:
    text = json.dumps({"seed": 3, "jobs": [{"fail": "THROTTLED"}], "tokens": {"after_failed": "new"}})
    plan = plans.parse(text, "faults.json")
    assert (plan.seed, plan.jobs[0].kind, plan.tokens.after_failed) == (3, "job THROTTLED", "new")
