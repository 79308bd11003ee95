"""`./modlake undo` on the local cloud."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from pyiceberg.catalog import Catalog
from typer.testing import CliRunner, Result

from cli import undo
from cli.airflow_environment import connections
from cli.app import app
from cli.settings import CHECKOUT
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError
from modlake.hooks.moderation_actions import ModeratedObjectsHook
from modlake.hooks.moderation_actions_kinds import action_kinds
from modlake.lake.actions import add_intents, read_actions, record_results
from modlake.policy.actions.batch import carry_out
from modlake.policy.actions.kinds import result_of
from modlake.policy.actions.taking_back import plan_undo
from modlake.policy.enforcement_folder import EnforcementFolder, write_intents
from modlake.policy.intents import undo_id
from tests.support.actions import Buckets, all_of, intent, taking_back
from tests.support.cloud import running_cloud
from tests.support.story_lake import DAY, configured, make_lake

NOW = datetime(2026, 11, 22, tzinfo=UTC)
UGC = "s3://modlake-ugc/uploads/2026-11-21/"
TARGETS = {
    "tag": "moderation=block",
    "quarantine": "s3://modlake-quarantine/",
    "review_queue": "s3://modlake-work/review/",
}


@dataclass
class Scene:
    catalog: Catalog
    hook: ModeratedObjectsHook
    environment: dict[str, str]
    enforcements: int = 0

    def content(self) -> dict[str, Any]:
        buckets = Buckets(self.hook)
        folders = (UGC, "s3://modlake-quarantine/", "s3://modlake-work/review/")
        return {uri: buckets.content(uri) for uri in folders}

    def upload(self, name: str) -> str:
        """Return the ETag."""
        return Buckets(self.hook).put(UGC + name, name.encode(), tags="a=1", Metadata={"uploader": "42"})

    def act(
        self, etags: dict[str, str], rule: str | None, kinds: tuple[str, ...] = tuple(TARGETS)
    ) -> list[str]:
        """Act on images, and return the actions' ids."""
        intents = [
            intent(UGC + name, etag, kind, TARGETS[kind], rule=rule)
            for name, etag in etags.items()
            for kind in kinds
        ]
        self.enforcements += 1
        folder = EnforcementFolder("s3://modlake-work/", DAY, f"enf-{self.enforcements}")
        add_intents(self.catalog, DAY, intents)
        write_intents(self.hook, folder, intents, 1_000)
        done = carry_out(
            self.hook,
            folder,
            0,
            action_kinds(self.hook, folder, {"aws_conn_id": "aws_default"}),
            holder="test",
            still_requested=all_of,
            report=lambda _: None,
        )
        record_results(self.catalog, DAY, done)
        assert {result.status for result in done} == {"completed"}
        return [each.action_id for each in intents]

    def undo(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, ["undo", *arguments], env=self.environment | {"COLUMNS": "200"})
        assert not result.exception or isinstance(result.exception, SystemExit), result.exception
        return result

    def rows(self, action_ids: list[str]) -> list[dict[str, Any]]:
        return read_actions(self.catalog, action_ids=action_ids).to_pylist()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    home = tmp_path_factory.mktemp("undo")
    catalog = make_lake(home / "lake")
    with (
        mock.patch.dict(os.environ),
        running_cloud(home / "cloud") as settings,
        configured(catalog),
    ):
        os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = _connection(settings)
        yield Scene(catalog, ModeratedObjectsHook(aws_conn_id="aws_default"), settings.to_environment())


def _connection(settings: CloudSettings) -> str:
    return json.dumps(connections(settings)["aws_default"])


@pytest.mark.integration
def test_a_rule_is_taken_back_byte_for_byte(stage: Scene) -> None:
    etags = {name: stage.upload(name) for name in ("a +%é.jpg", "b.jpg")}
    other = stage.act({"c.jpg": stage.upload("c.jpg")}, "another", ("tag",))
    before = stage.content()
    action_ids = stage.act(etags, "nudity")
    assert stage.content() != before

    planned = stage.undo("--day", "2026-11-21", "--rule", "nudity", "--actor", "ada", "--dry-run")
    assert planned.exit_code == 0
    assert "move the image back" in planned.output
    assert stage.content() != before

    undone = stage.undo(
        "--day", "2026-11-21", "--rule", "nudity", "--actor", "ada", "--reason", "a toy", "--yes"
    )
    assert undone.exit_code == 0, undone.output
    assert stage.content() == before
    rows = stage.rows(action_ids)
    assert {row["status"] for row in rows} == {"undone"}
    undos = stage.rows([row["undone_by"] for row in rows])
    assert {(row["actor"], row["reason"], row["status"]) for row in undos} == {("ada", "a toy", "completed")}
    assert stage.rows(other)[0]["status"] == "completed"

    again = stage.undo("--day", "2026-11-21", "--rule", "nudity", "--yes", "--actor", "ada")
    assert again.exit_code == 0
    assert "Nothing is in effect" in again.output
    assert stage.content() == before


@pytest.mark.integration
def test_an_image_whose_place_is_taken_stays_in_quarantine(stage: Scene) -> None:
    (action_id,) = stage.act({"d.jpg": stage.upload("d.jpg")}, "place", ("quarantine",))
    stage.upload("d.jpg")
    Buckets(stage.hook).put(f"{UGC}d.jpg", b"new")
    before = stage.content()
    undone = stage.undo("--action", action_id, "--actor", "ada")
    assert undone.exit_code == 1
    assert "was uploaded anew, and is left alone" in " ".join(undone.output.split())
    assert stage.content() == before
    assert stage.rows([action_id])[0]["status"] == "completed"
    assert stage.undo("--action", action_id, "--actor", "ada").exit_code == 1

    stage.hook.delete([f"{UGC}d.jpg"])  # as the message says
    assert stage.undo("--image", f"{UGC}d.jpg", "--actor", "ada").exit_code == 0
    assert stage.rows([action_id])[0]["status"] == "undone"
    assert stage.hook.read(f"{UGC}d.jpg") == b"d.jpg"


@pytest.mark.integration
def test_a_tag_of_an_image_that_came_back_by_another_etag_is_taken_off(stage: Scene) -> None:
    image = f"{UGC}f.jpg"
    etag = Buckets(stage.hook).put(image, b"f", tags="moderation=block")
    tag, quarantine = (intent(image, "before", kind, TARGETS[kind]) for kind in ("tag", "quarantine"))
    tagged = result_of(tag, "completed", key="moderation", value="block", tags_before={})
    moved = result_of(quarantine, "completed")
    back = taking_back(quarantine, moved)
    add_intents(stage.catalog, DAY, [tag, quarantine, back])
    record_results(stage.catalog, DAY, [tagged, moved, result_of(back, "completed", restored_etag=etag)])
    undone = stage.undo("--action", tag.action_id, "--actor", "ada")
    assert undone.exit_code == 0, undone.output
    assert stage.hook.tags(image) == {}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        ([], "Say what to take back: --day YYYY-MM-DD --rule RULE"),
        (["--rule", "nudity"], "Say what to take back"),
        (["--action", "act-1", "--image", "s3://b/k"], "Say what to take back"),
        (["--action", "act-none"], "No action meets --action act-none."),
        (["--image", f"{UGC}none.jpg"], f"No action meets --image {UGC}none.jpg."),
        (
            ["--day", "2026-11-21", "--rule", "none"],
            "No action meets --day 2026-11-21 --rule none. The rules of",
        ),
        (["--image", f"{UGC}c.jpg", "--actor", "modlake"], "is no person"),
    ],
)
def test_a_wrong_call_says_what_to_write(stage: Scene, arguments: list[str], mend: str) -> None:
    result = stage.undo(*arguments)
    assert result.exit_code == 1
    assert mend in " ".join(result.output.split())


@pytest.mark.integration
def test_what_no_rule_hit_is_taken_back_by_the_name_that_the_error_gives(stage: Scene) -> None:
    action_ids = stage.act({"f.jpg": stage.upload("f.jpg")}, None, ("tag",))
    wrong = stage.undo("--day", "2026-11-21", "--rule", "None", "--dry-run")
    assert wrong.exit_code == 1
    assert "The rules of that day are (no rule), another" in wrong.output

    undone = stage.undo("--day", "2026-11-21", "--rule", "(no rule)", "--actor", "ada")
    assert undone.exit_code == 0, undone.output
    assert stage.rows(action_ids)[0]["status"] == "undone"


@pytest.mark.integration
def test_where_the_work_bucket_is_out_of_reach_nothing_is_requested(
    stage: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    (action_id,) = stage.act({"e.jpg": stage.upload("e.jpg")}, "far", ("tag",))
    retries = {"retries": {"mode": "standard", "total_max_attempts": 1}}
    nowhere = {"region_name": "us-east-1", "endpoint_url": "http://127.0.0.1:1", "config_kwargs": retries}
    connection = {"conn_type": "aws", "login": "a", "password": "b", "extra": nowhere}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))

    unset = stage.undo("--aws", "--action", action_id, "--actor", "ada")
    assert unset.exit_code == 1
    assert "The variable modlake_work_uri is not set in the environment" in unset.output

    monkeypatch.setenv("AIRFLOW_VAR_MODLAKE_WORK_URI", "s3://acme-modlake/")
    out_of_reach = stage.undo("--aws", "--action", action_id, "--actor", "ada")
    assert out_of_reach.exit_code == 1
    assert "S3 can't be reached for s3://acme-modlake/enforcements/" in out_of_reach.output
    assert stage.rows([action_id, undo_id(action_id)]) == stage.rows([action_id])


def test_aws_never_means_the_local_lake(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "undo", "--aws", "--action", "act-1", "--dry-run"],
        env={
            "HOME": str(tmp_path),
            "MODLAKE_HOME": str(tmp_path / "home"),
            "PYTHONPATH": f"{CHECKOUT}/plugins:{CHECKOUT}/include",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "No Iceberg catalog named modlake can be opened" in ended.stderr


def test_many_actions_need_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    undo._confirm(10, yes=False)
    undo._confirm(1_000, yes=True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(ModlakeTerminalError, match=r"11 actions would be taken back: look .* then add --yes"):
        undo._confirm(11, yes=False)


def test_a_plan_leaves_out_what_cannot_be_in_effect() -> None:
    row: dict[str, Any] = {
        "day": DAY,
        "source_ref": "s3://b/k",
        "etag": "e",
        "kind": "tag",
        "target": "moderation=block",
        "detail": '{"key": "moderation"}',
        "undoes": None,
        "policy": None,
        "policy_version": None,
        "rule": None,
        "verdict": "block",
    }
    statuses = ("completed", "requested", "undone", "failed", "completed")
    rows = [row | {"action_id": f"act-{number}", "status": status} for number, status in enumerate(statuses)]
    rows.append(row | {"action_id": "act-9", "status": "completed", "undoes": "act-2", "enforcement_id": "u"})
    plan = plan_undo(rows, actor="ada", reason=None, now=NOW)
    (day,) = plan.days
    assert [each.undoes for each in day.intents] == ["act-0", "act-1", "act-4"]
    assert day.intents[0].detail == {"original": {"key": "moderation"}}
    oldest_last = plan_undo(list(reversed(rows)), actor="ada", reason=None, now=NOW).days[0]
    assert [each.undoes for each in oldest_last.intents] == ["act-4", "act-1", "act-0"]
    assert plan.skipped == {"undone": 1, "failed": 1}
    # A move may fail after the image has left its place.
    moves = [each | {"kind": "quarantine"} for each in rows]
    assert "act-3" in [
        each.undoes for each in plan_undo(moves, actor="ada", reason=None, now=NOW).days[0].intents
    ]
    rows[-1] |= {"undoes": "act-0", "status": "requested", "enforcement_id": day.enforcement_id}
    assert plan_undo(rows, actor="ada", reason=None, now=NOW).days[0].enforcement_id == day.enforcement_id
    rows[-1] |= {"enforcement_id": "undo-later"}  # where an earlier one failed
    assert plan_undo(rows, actor="ada", reason=None, now=NOW).days[0].enforcement_id != day.enforcement_id
    rows[-1] |= {"status": "failed"}
    assert plan_undo(rows, actor="ada", reason=None, now=NOW).days[0].enforcement_id != day.enforcement_id
    rows.pop()
    assert (
        plan_undo(list(reversed(rows)), actor="bob", reason="x", now=NOW).days[0].enforcement_id
        == day.enforcement_id
    )
