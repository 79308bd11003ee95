"""The operators of policy enforcement: what they hand on, what they refuse, and whom they ask."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import DownstreamTasksSkipped, TaskAwaitingInput
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.actions import read_actions
from modlake.lake.catalog import ensure_tables
from modlake.operators.moderation_policy import (
    BrakeOperator,
    DecideOperator,
    RecordActionsOperator,
    RequestActionsOperator,
)
from modlake.policy.enforcement_folder import EnforcementFolder, read_all_intents, read_enforcement
from modlake.policy.intents import ActionResult
from tests.support.days import DAY
from tests.support.labelled_days import TARGETS, publish_labels
from tests.support.memory_store import MemoryObjectStore

POLICY = """
name: house
status: live
match: most_severe
default: allow
actions: {{block: [tag, quarantine]}}
brake: {{max_images: {max_images}}}
rules: [{{name: nudity, verdict: block, when: {{label: Explicit, at_least: {block_at}}}}}]
"""
ANSWERED_AT = datetime(2026, 11, 22, 3, tzinfo=UTC)


class Night:
    """A published day, and the tasks of its enforcement with their XComs."""

    def __init__(self, home: Path, catalog: Catalog) -> None:
        self.catalog = catalog
        self.store = MemoryObjectStore()
        self.policies = home / "policies"
        self.policies.mkdir()
        self.use()
        self.xcoms: dict[str, Any] = {}
        ti = mock.Mock(map_index=-1)
        ti.xcom_push.side_effect = lambda key, value: self.xcoms.__setitem__(key, value)
        self.event = mock.Mock(extra={})
        self.context = {
            "ti": ti,
            "task_instance": ti,
            "outlet_events": {Asset("moderation_decisions"): self.event},
        }

    def use(self, *, block_at: float = 80, max_images: int = 10) -> None:
        self.write("house.yaml", block_at, max_images)

    def write(self, name: str, block_at: float, max_images: int = 10) -> Path:
        path = self.policies / name
        path.write_text(POLICY.format(block_at=block_at, max_images=max_images))
        return path

    def run(self, operator: Any) -> Any:
        operator.__dict__["hook"] = self.store
        return operator.execute(self.context)

    def decide(self, **changes: Any) -> Any:
        arguments: dict[str, Any] = {
            "day": DAY.isoformat(),
            "work_uri": "s3://work/",
            "policies_uri": str(self.policies),
            "targets": TARGETS,
        }
        return self.run(DecideOperator(task_id="decide", **arguments | changes))

    def brake(self, operator: BrakeOperator | None = None) -> BrakeOperator:
        operator = operator or BrakeOperator(task_id="brake", enforcement_uri=self.uri)
        with mock.patch("modlake.operators.moderation_policy.S3ObjectStoreHook", return_value=self.store):
            operator.execute(self.context)
        return operator

    def request(self) -> Any:
        operator = RequestActionsOperator(
            task_id="request", enforcement_uri=self.uri, approval=self.xcoms.get("approval")
        )
        return self.run(operator)

    def record(self, **changes: Any) -> Any:
        arguments = {"enforcement_uri": self.uri, "approval": self.xcoms.get("approval")} | changes
        return self.run(
            RecordActionsOperator(task_id="record", outlets=[Asset("moderation_decisions")], **arguments)
        )

    def act(self, *statuses: Any) -> None:
        """Leave results of the intents, in their order; none where the status is None."""
        intents = list(read_all_intents(self.store, self.folder))
        lines = [
            ActionResult(intent.action_id, status, {}, ANSWERED_AT.isoformat(), intent.undoes).to_json()
            for intent, status in zip(intents, statuses, strict=True)
            if status is not None
        ]
        self.store.write(f"{self.folder.results_uri}00000-00000.jsonl", "\n".join(lines).encode())

    @property
    def uri(self) -> str:
        return str(self.xcoms["enforcement_uri"])

    @property
    def folder(self) -> EnforcementFolder:
        return EnforcementFolder.of_uri(self.uri)

    def statuses(self) -> list[str]:
        return [row["status"] for row in read_actions(self.catalog, day=DAY).to_pylist()]


@pytest.fixture
def night(tmp_path: Path) -> Any:
    catalog = SqlCatalog(
        "modlake", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse"
    )
    ensure_tables(catalog)
    publish_labels(catalog, DAY, {"a.jpg": {"Explicit": 95.0}, "b.jpg": {"Explicit": 70.0}})
    with mock.patch("modlake.lake.catalog.open_catalog", return_value=catalog):
        yield Night(tmp_path, catalog)


def test_a_usual_day_passes_by_itself_and_is_recorded(night: Night) -> None:
    assert night.decide() == [{"enforcement_uri": night.uri, "batch": 0}]
    version = night.xcoms["summary"]["policies"][0]["policy_version"]
    assert night.xcoms["summary"] | {"enforcement_id": "", "run_id": ""} == {
        "day": DAY.isoformat(),
        "enforcement_id": "",
        "run_id": "",
        "images": 2,
        "policies": [
            {
                "policy": "house",
                "policy_version": version,
                "mode": "live",
                "block": 1,
                "review": 0,
                "newly_hit": 1,
                "released": 0,
                "unchanged": 0,
            }
        ],
        "changed": True,
        "intents": {"tag": 1, "quarantine": 1},
        "held": 0,
    }
    night.brake()
    assert night.xcoms["approval"] == {"asked": False, "approved": True, "by": None}
    assert night.request() == 2
    assert night.statuses() == ["requested"] * 2
    night.act("completed", "replaced")
    facts = night.record()
    assert sorted(night.statuses()) == ["completed", "replaced"]
    assert facts["actions"] == {"completed": 1, "replaced": 1}
    assert facts["verdicts"] == {"block": 1, "allow": 1}
    assert (facts["newly_hit"], facts["released"], facts["changed"]) == (2, 0, True)
    night.event.add_partitions.assert_called_once_with(DAY.isoformat())
    assert night.event.extra == facts
    assert night.decide() == []


def test_actions_are_cut_into_batches(night: Night) -> None:
    publish_labels(night.catalog, DAY, {f"{n}.jpg": {"Explicit": 95.0} for n in range(5)}, run_id="run-2")
    assert [batch["batch"] for batch in night.decide(actions_per_batch="4")] == [0, 1, 2]
    with pytest.raises(ModlakeTerminalError, match="'0' is no number of actions"):
        night.decide(actions_per_batch=0)


def test_targets_may_be_json_and_must_be_sound(night: Night) -> None:
    assert len(night.decide(targets=json.dumps(TARGETS))) == 1
    for unsound in ("{", "[]", '{"tag": "moderation"}', None):
        with pytest.raises(ModlakeTerminalError, match="modlake_action_targets"):
            night.decide(targets=unsound)


def test_a_policy_file_stands_in_for_the_policy_of_its_name(night: Night, tmp_path: Path) -> None:
    night.decide()
    night.policies = tmp_path
    tried = night.write("tried.yaml", block_at=60)
    night.decide(policies_uri=str(tmp_path / "policies"), policy_uri=str(tried))
    story = read_enforcement(night.store, night.folder)
    assert [policy["name"] for policy in story["policies"]] == ["house"]
    assert {each["rule"]: each["newly_hit"] for each in story["figures"]} == {"nudity": 1, None: 0}


def test_policies_may_lie_in_s3(night: Night) -> None:
    night.store.write("s3://config/policies/house.yaml", POLICY.format(block_at=60, max_images=9).encode())
    assert night.decide(policies_uri="s3://config/policies/")
    assert night.xcoms["summary"]["intents"] == {"tag": 2, "quarantine": 2}


def test_more_than_usual_asks_a_person(night: Night) -> None:
    night.use(max_images=0)
    night.decide()
    operator = BrakeOperator(task_id="brake", enforcement_uri=night.uri)
    with (
        mock.patch("airflow.providers.standard.operators.hitl.upsert_hitl_detail") as asked,
        pytest.raises(TaskAwaitingInput),
    ):
        night.brake(operator)
    question = asked.call_args.kwargs
    assert (question["options"], question["defaults"]) == (["Approve", "Reject"], ["Reject"])
    assert question["subject"] == f"{DAY}: 1 to be blocked of 2 images, more than usual"
    assert "`s3://ugc/a.jpg`" in question["body"]
    assert "approval" not in night.xcoms


def answer(option: str, by: str | None) -> dict[str, Any]:
    user = {"id": "1", "name": by} if by else None
    return {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": ANSWERED_AT,
        "responded_by_user": user,
        "timedout": by is None,
    }


def waiting(night: Night) -> BrakeOperator:
    night.use(max_images=0)
    night.decide()
    with DAG("enforce_policy", schedule=None):
        operator = BrakeOperator(task_id="brake", enforcement_uri=night.uri)
        operator >> RequestActionsOperator(task_id="request", enforcement_uri=night.uri)
    night.context["task"] = operator
    return operator


def test_where_nothing_is_to_be_done_nothing_is_requested(night: Night) -> None:
    night.use(block_at=99)
    night.decide()
    with DAG("enforce_policy", schedule=None):
        operator = BrakeOperator(task_id="brake", enforcement_uri=night.uri)
        operator >> RequestActionsOperator(task_id="request", enforcement_uri=night.uri)
    night.context["task"] = operator
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        night.brake(operator)
    assert skipped.value.tasks == ["request"]
    assert night.record()["approval"] == {"asked": False, "approved": True, "by": None}


def test_a_yes_goes_on(night: Night) -> None:
    waiting(night).execute_complete(night.context, answer("Approve", "ada"))
    assert night.xcoms["approval"] == {"asked": True, "approved": True, "by": "ada"}
    assert night.request() > 0
    details = read_actions(night.catalog)["detail"].to_pylist()
    assert {json.loads(detail)["approved_by"] for detail in details} == {"ada"}


@pytest.mark.parametrize("by", ["ada", None])
def test_a_no_or_silence_skips_what_is_downstream_and_leaves_the_actions_alone(
    night: Night, by: str | None
) -> None:
    operator = waiting(night)
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        operator.execute_complete(night.context, answer("Reject", by))
    assert skipped.value.tasks == ["request"]
    assert night.xcoms["approval"] == {"asked": True, "approved": False, "by": by}
    facts = night.record()
    assert night.statuses() == []
    assert (facts["actions"], facts["approval"]["approved"]) == ({}, False)
    # The next run asks again.
    night.decide()
    assert night.xcoms["summary"]["held"] == 2
    assert night.xcoms["summary"]["changed"] is False


def test_what_was_approved_and_is_out_of_date_is_not_done(night: Night) -> None:
    night.decide()
    approved = night.uri
    night.use(block_at=60)
    night.decide()
    with pytest.raises(ModlakeTerminalError, match="was decided otherwise since"):
        night.run(RequestActionsOperator(task_id="request", enforcement_uri=approved))
    assert night.statuses() == []
    assert night.request() == 4


def test_what_has_no_result_is_an_error_after_the_rest_was_recorded(night: Night) -> None:
    night.decide()
    night.brake()
    night.request()
    night.act("completed", None)
    with pytest.raises(ModlakeTerminalError, match=r"1 actions have no result.*clear act"):
        night.record()
    assert sorted(night.statuses()) == ["completed", "requested"]
    night.event.add_partitions.assert_not_called()


def test_what_failed_is_an_error_and_the_next_run_tries_only_that(night: Night) -> None:
    night.decide()
    night.brake()
    night.request()
    night.act("completed", "failed")
    with pytest.raises(ModlakeTerminalError, match="1 actions failed"):
        night.record()
    assert len(night.decide()) == 1
    assert night.xcoms["summary"]["intents"] == {"quarantine": 1}


@pytest.mark.parametrize("changes", [{"enforcement_uri": None}, {"approval": None}])
def test_without_a_decision_there_is_nothing_to_record(night: Night, changes: dict[str, Any]) -> None:
    night.decide()
    night.brake()
    with pytest.raises(ModlakeTerminalError, match="decide or brake did not finish"):
        night.record(**changes)
