from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Transaction

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.maintenance.compaction import compact_tables
from modlake.lake.maintenance.findings import Finding, MaintenanceRefusedError
from modlake.lake.maintenance.orphans import sweep_orphans
from modlake.lake.maintenance.references import files_needed, load_tables, normalised
from modlake.lake.maintenance.snapshots import expire_snapshots
from modlake.lake.schemas import TABLES
from tests.lake.maintenance_lake import MaintainedLake, later, policy
from tests.support.days import DAY

KEYS = [f"{number}.jpg" for number in range(6)]
WAREHOUSE = "s3://lake/warehouse/moderation/"
# Data and metadata of each table.
PLACES = 2 * len(TABLES)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> MaintainedLake:
    lake = MaintainedLake(tmp_path_factory.mktemp("lake"))
    lake.publish(KEYS, images_per_manifest=1)
    return lake


@pytest.fixture
def lake(template: MaintainedLake, tmp_path: Path) -> MaintainedLake:
    return template.copy(tmp_path / "lake")


def sweep(lake: MaintainedLake, **changes: Any) -> dict[tuple[str, str], Finding]:
    findings = sweep_orphans(lake.open(), lake.store, policy(**changes), later(), lake.report.append)
    return {(finding.scope, finding.kind): finding for finding in findings}


def plant(lake: MaintainedLake, name: str) -> str:
    lake.store.write(f"{WAREHOUSE}{name}", b"orphan")
    return f"{WAREHOUSE}{name}"


def test_nothing_of_a_published_lake_is_an_orphan(lake: MaintainedLake) -> None:
    compact_tables(lake.open(), policy(), lake.report.append)
    lake.publish([*KEYS, "new.jpg"], run_id="run-2")
    before = lake.store.uris()
    findings = sweep(lake)
    assert sum(finding.found for finding in findings.values()) == 0
    assert sum(finding.total for finding in findings.values()) == len(lake.store.uris(WAREHOUSE))
    assert lake.store.uris() == before


def test_files_that_nothing_leads_to_are_deleted_and_logged(lake: MaintainedLake) -> None:
    before, expected = lake.everything(), lake.store.uris()
    orphans = [
        plant(lake, "images/data/day=2026-11-21/crashed.parquet"),
        plant(lake, "images/metadata/crashed-m0.avro"),
        plant(lake, "runs/metadata/00009-crashed.metadata.json"),
    ]
    plant(lake, "images_of_another_team/data/file.parquet")
    plant(lake, "images/notes.txt")
    findings = sweep(lake)
    assert sorted(lake.store.deleted) == sorted(orphans)
    assert expected <= lake.store.uris()
    assert lake.everything() == before
    finding = findings["images", "data files"]
    assert (finding.found, finding.done, finding.size_bytes, finding.samples) == (1, 1, 6, orphans[:1])
    assert all(any(f"Deleting {uri} (6 B" in line for line in lake.report) for uri in orphans)


def test_a_dry_run_deletes_nothing_and_finds_the_same(lake: MaintainedLake) -> None:
    uri = plant(lake, "images/data/crashed.parquet")
    finding = sweep(lake, dry_run=True)["images", "data files"]
    assert (finding.found, finding.done) == (1, 0)
    assert lake.store.exists(uri)
    assert sweep(lake)["images", "data files"].done == 1


def test_a_dry_run_counts_what_expiring_would_free(lake: MaintainedLake) -> None:
    lake.publish([*KEYS, "new.jpg"], run_id="run-2")
    dry = sweep(lake, dry_run=True)
    expire_snapshots(lake.open(), policy(), later(), lake.report.append)
    real = sweep(lake)
    assert dry["images", "metadata files"].found > 0
    for key in dry:
        # Expiring itself wrote a metadata file a table, and took no other away.
        assert (dry[key].found, dry[key].samples) == (real[key].found, real[key].samples)
    assert {row["run_id"] for row in lake.rows("images")} == {"run-2"}


def test_files_younger_than_the_grace_time_are_kept(lake: MaintainedLake) -> None:
    uri = plant(lake, "images/data/being-written.parquet")
    lake.store.date(uri, later() - timedelta(days=2))
    assert sweep(lake)["images", "data files"].found == 0
    assert sweep(lake, grace=timedelta(days=1))["images", "data files"].done == 1


@pytest.mark.parametrize(
    ("commit", "images"),
    [
        (lambda lake: lake.publish(["new.jpg"], run_id="run-2"), 7),
        (lambda lake: compact_tables(lake.open(), policy(), lake.report.append), 6),
        (lambda lake: lake.publish(["x.jpg"], run_id="x", day=DAY + timedelta(days=1)), 7),
    ],
)
@pytest.mark.parametrize("moment", [1, PLACES])
def test_what_is_committed_during_a_sweep_is_kept(
    lake: MaintainedLake, commit: Callable[[MaintainedLake], object], images: int, moment: int
) -> None:
    """The rival commits after the first place was listed, or right after the last."""
    lake.store.after_listing[moment] = lambda: commit(lake)
    sweep(lake)
    assert lake.store.listings == PLACES
    assert lake.store.deleted == []
    assert len(lake.rows("images")) == images
    lake.everything()


def test_files_that_were_old_when_they_were_committed_are_kept(lake: MaintainedLake) -> None:
    """Only metadata read after the listing knows them."""
    commit = Transaction.commit_transaction
    held: list[Transaction] = []

    def hold(self: Transaction) -> Any:
        held.append(self)
        return self._table

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transaction, "commit_transaction", hold)
        compact_tables(lake.open(), policy(), lake.report.append)
    files = sorted(lake.store.uris(f"{WAREHOUSE}images/data/"))
    lake.store.after_listing[8] = lambda: [commit(transaction) for transaction in held]
    assert sweep(lake)["images", "data files"].found == 0
    assert lake.files("images") == files
    assert len(lake.rows("images")) == len(KEYS)


def test_old_metadata_files_are_kept_while_the_log_names_them(lake: MaintainedLake) -> None:
    table = lake.open().load_table("moderation.images")
    with table.transaction() as transaction:
        transaction.set_properties({"write.metadata.previous-versions-max": "2"})
    for number in range(4):
        with lake.open().load_table("moderation.images").transaction() as transaction:
            transaction.set_properties({"note": str(number)})
    table = lake.open().load_table("moderation.images")
    expected = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    sweep(lake)
    kept = {uri for uri in lake.store.uris(f"{WAREHOUSE}images/metadata/") if uri.endswith("metadata.json")}
    assert kept == expected
    assert len(kept) == 3


def test_leftovers_of_a_commit_that_lost_a_race_are_swept(
    lake: MaintainedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog has written its metadata file when it finds that another commit was faster."""
    write, written = SqlCatalog._write_metadata, []

    def be_overtaken(metadata: Any, io: Any, metadata_path: str) -> None:
        write(metadata, io, metadata_path)
        written.append(metadata_path)
        if len(written) == 1:
            lake.publish(["x.jpg"], run_id="x", day=DAY + timedelta(days=1))

    monkeypatch.setattr(SqlCatalog, "_write_metadata", staticmethod(be_overtaken))
    with lake.open().load_table("moderation.images").transaction() as transaction:
        transaction.delete(f"day = '{DAY}'")
    assert sweep(lake)["images", "metadata files"].samples == written[:1]
    assert {row["run_id"] for row in lake.rows("images")} == {"x"}


def test_more_than_the_allowed_share_is_refused_and_nothing_deleted(lake: MaintainedLake) -> None:
    for number in range(3):
        plant(lake, f"runs/data/{number}.parquet")
    plant(lake, "images/metadata/one.avro")
    with pytest.raises(
        MaintenanceRefusedError, match=r"3 of 4 data files of runs: more than 50 %"
    ) as refusal:
        sweep(lake, max_removed_percent=50)
    assert lake.store.deleted == []
    assert {each.kind for each in refusal.value.findings} == {"data files", "metadata files"}
    assert sweep(lake, max_removed_percent=75)["runs", "data files"].done == 3


def test_deletes_are_bounded_oldest_first_and_the_rest_is_left(lake: MaintainedLake) -> None:
    uris = [plant(lake, f"images/data/{number}.parquet") for number in range(5)]
    for days, uri in enumerate(uris, start=1):
        lake.store.date(uri, datetime.now(UTC) - timedelta(days=days))
    finding = sweep(lake, max_deletes=2)["images", "data files"]
    assert lake.store.deleted == [uris[4], uris[3]]
    assert (finding.found, finding.done, finding.notes) == (5, 2, ["3 are left to the next run"])


def test_a_manifest_that_cannot_be_read_ends_the_sweep(lake: MaintainedLake) -> None:
    plant(lake, "images/data/crashed.parquet")
    snapshot = lake.open().load_table("moderation.images").current_snapshot()
    assert snapshot is not None
    lake.store.path(snapshot.manifest_list).unlink()
    with pytest.raises(FileNotFoundError):
        sweep(lake)
    assert lake.store.deleted == []


def test_an_empty_catalog_is_refused(tmp_path: Path, lake: MaintainedLake) -> None:
    for name in ("images", "labels", "jobs", "runs"):
        lake.open().drop_table(f"moderation.{name}")
    with pytest.raises(ModlakeTerminalError, match=r"no table moderation\.runs"):
        sweep(lake)


def test_needed_files_are_those_that_readers_open(lake: MaintainedLake) -> None:
    needed = files_needed(load_tables(lake.open()), lake.report.append)
    assert set(lake.files("images")) | set(lake.files("jobs")) <= needed
    assert lake.store.uris(WAREHOUSE) <= needed


@pytest.mark.parametrize("uri", ["s3://b/k", "s3a://b/k", "s3n://b/k"])
def test_other_engines_spell_the_scheme_differently(uri: str) -> None:
    assert normalised(uri) == "s3://b/k"
