from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Transaction

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.lake.maintenance.findings import Finding
from modlake.lake.maintenance.snapshots import expire_snapshots
from tests.lake.maintenance_lake import MaintainedLake, later, policy
from tests.support.days import DAY

NEXT_DAY = DAY + timedelta(days=1)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> MaintainedLake:
    lake = MaintainedLake(tmp_path_factory.mktemp("lake"))
    lake.publish(["a.jpg", "b.jpg"])
    lake.publish(["c.jpg"], run_id="run-2")
    lake.publish(["x.jpg"], day=NEXT_DAY, run_id="other")
    return lake


@pytest.fixture
def lake(template: MaintainedLake, tmp_path: Path) -> MaintainedLake:
    return template.copy(tmp_path / "lake")


def expire(lake: MaintainedLake, **changes: Any) -> dict[str, Finding]:
    findings = expire_snapshots(lake.open(), policy(**changes), later(), lake.report.append)
    return {finding.scope: finding for finding in findings}


def snapshot_ids(lake: MaintainedLake, name: str = "images") -> list[int]:
    metadata = lake.open().load_table(f"moderation.{name}").metadata
    return [snapshot.snapshot_id for snapshot in metadata.snapshots]


def test_only_the_current_state_is_left_and_reads_the_same(lake: MaintainedLake) -> None:
    before, ids, files = lake.everything(), snapshot_ids(lake), lake.store.uris()
    finding = expire(lake)["images"]
    assert snapshot_ids(lake) == ids[-1:]
    assert lake.everything() == before
    assert lake.store.uris() >= files
    assert (finding.total, finding.found, finding.done) == (len(ids), len(ids) - 1, len(ids) - 1)
    assert finding.samples[0] == str(ids[0])


def test_a_dry_run_only_tells(lake: MaintainedLake) -> None:
    ids = snapshot_ids(lake)
    finding = expire(lake, dry_run=True)["images"]
    assert snapshot_ids(lake) == ids
    assert (finding.found, finding.done) == (len(ids) - 1, 0)


@pytest.mark.parametrize(
    ("changes", "left"), [({"min_snapshots": 3}, 3), ({"snapshot_retention": timedelta(days=101)}, None)]
)
def test_the_newest_and_the_young_are_kept(
    lake: MaintainedLake, changes: dict[str, Any], left: int | None
) -> None:
    ids = snapshot_ids(lake)
    expire(lake, **changes)
    assert snapshot_ids(lake) == (ids[-left:] if left else ids)


def test_what_a_tag_points_at_is_kept(lake: MaintainedLake) -> None:
    table = lake.open().load_table("moderation.images")
    first = table.metadata.snapshots[0].snapshot_id
    table.manage_snapshots().create_tag(first, "evidence").commit()
    expire(lake)
    assert snapshot_ids(lake)[0] == first
    assert len(lake.open().load_table("moderation.images").scan(snapshot_id=first).to_arrow()) == 2


def test_rows_of_runs_outlive_the_snapshots_they_name(lake: MaintainedLake) -> None:
    named = {row["run_id"]: row["images_snapshot_id"] for row in lake.rows("runs")}
    finding = expire(lake)["images"]
    assert "1 of them are named by rows of runs" in str(finding)
    assert {row["run_id"]: row["images_snapshot_id"] for row in lake.rows("runs")} == named
    assert named["run-2"] not in snapshot_ids(lake)


def test_a_day_published_at_the_same_moment_is_not_lost(
    lake: MaintainedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rival commits between the decision and the commit; the decision is made anew."""
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    commit, left = Transaction.commit_transaction, ["publish"]

    def publish_first(self: Transaction) -> Any:
        if left and left.pop():
            lake.publish(["new.jpg"], run_id="run-3")
            raise CommitFailedException("rival")
        return commit(self)

    monkeypatch.setattr(Transaction, "commit_transaction", publish_first)
    expire(lake)
    assert {row["run_id"] for row in lake.rows("images")} == {"run-3", "other"}
    assert len(snapshot_ids(lake)) == 1


def test_rivals_without_end_become_a_transient_error(
    lake: MaintainedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)

    def fail(_: Transaction) -> None:
        raise CommitFailedException("rival")

    monkeypatch.setattr(Transaction, "commit_transaction", fail)
    with pytest.raises(ModlakeTransientError, match="images"):
        expire(lake)


def test_a_catalog_without_runs_is_refused(lake: MaintainedLake) -> None:
    lake.open().drop_table("moderation.runs")
    with pytest.raises(ModlakeTerminalError, match=r"no table moderation\.runs"):
        expire_snapshots(lake.open(), policy(), later(), lake.report.append)
