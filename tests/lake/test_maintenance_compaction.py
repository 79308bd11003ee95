from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import duckdb_extensions
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitStateUnknownException, ValidationException
from pyiceberg.manifest import ManifestEntry
from pyiceberg.table import Transaction
from pyiceberg.table.update.snapshot import _OverwriteFiles

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.catalog import ensure_tables
from modlake.lake.maintenance import compaction
from modlake.lake.maintenance.compaction import compact_tables
from modlake.lake.maintenance.findings import Finding
from modlake.lake.publish import publish_day
from tests.lake.conftest import Lake
from tests.lake.maintenance_lake import MaintainedLake, policy
from tests.support.days import DAY

KEYS = [f"{number}.jpg" for number in range(7)] + ["8.gif"]
NEXT_DAY = DAY + timedelta(days=1)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> MaintainedLake:
    """A day of eight files for images and seven for labels, and a day of few."""
    lake = MaintainedLake(tmp_path_factory.mktemp("lake"))
    lake.publish(KEYS, images_per_manifest=1)
    lake.publish(["x.jpg", "y.jpg"], images_per_manifest=1, day=NEXT_DAY, run_id="other")
    return lake


@pytest.fixture
def lake(template: MaintainedLake, tmp_path: Path) -> MaintainedLake:
    return template.copy(tmp_path / "lake")


def compact(lake: MaintainedLake, **changes: Any) -> dict[str, Finding]:
    findings = compact_tables(lake.open(), policy(**changes), lake.report.append)
    return {finding.scope: finding for finding in findings}


def warehouse(lake: MaintainedLake) -> set[str]:
    return lake.store.uris("s3://lake/warehouse/moderation/images/data/")


def test_a_day_of_many_files_becomes_one_sorted_file_with_the_same_rows(lake: MaintainedLake) -> None:
    before, landed = lake.everything(), lake.files("images")
    finding = compact(lake)["images"]
    assert lake.everything() == before
    files = lake.files("images")
    (new,) = set(files) - set(landed)
    assert len(files) == 1 + 2
    assert new.startswith(f"s3://lake/warehouse/moderation/images/data/day={DAY}/compacted-")
    rows = pq.read_table(lake.store.path(new), partitioning=None)
    assert rows["source_ref"].to_pylist() == sorted(f"s3://ugc/uploads/{DAY}/{key}" for key in KEYS)
    assert pq.ParquetFile(lake.store.path(new)).metadata.row_group(0).column(1).compression == "ZSTD"
    assert (finding.total, finding.found, finding.done) == (10, 8, 8)


def test_one_snapshot_replaces_the_files(lake: MaintainedLake) -> None:
    before = lake.open().load_table("moderation.images").metadata
    compact(lake)
    table = lake.open().load_table("moderation.images")
    assert len(table.metadata.snapshots) == len(before.snapshots) + 1
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary["modlake.day"] == DAY.isoformat()
    old = table.scan(snapshot_id=before.current_snapshot_id).to_arrow()
    assert len(old) == len(KEYS) + 2


def test_compacting_again_changes_nothing(lake: MaintainedLake) -> None:
    compact(lake)
    before = lake.files("images"), warehouse(lake)
    assert compact(lake)["images"].found == 0
    assert (lake.files("images"), warehouse(lake)) == before


def test_a_dry_run_only_tells(lake: MaintainedLake) -> None:
    before = lake.files("images"), lake.store.uris()
    finding = compact(lake, dry_run=True)["images"]
    assert (finding.found, finding.done, finding.notes) == (8, 0, ["1 days, into 1 files"])
    assert (lake.files("images"), lake.store.uris()) == before


def test_files_are_grouped_up_to_the_target_size_and_large_ones_stay(lake: MaintainedLake) -> None:
    sizes = [
        task.file.file_size_in_bytes
        for task in lake.open().load_table("moderation.images").scan(f"day = '{DAY}'").plan_files()
    ]
    before = lake.everything()
    compact(lake, target_file_size_bytes=3 * max(sizes))
    assert lake.everything() == before
    assert len([uri for uri in lake.files("images") if f"day={DAY}/compacted" in uri]) in {2, 3}
    assert compact(lake, target_file_size_bytes=max(sizes))["images"].found == 0


@pytest.mark.parametrize("name", ["images", "labels"])
def test_a_run_of_the_day_published_meanwhile_wins(
    lake: MaintainedLake, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The rival commits after the new file was written and before it is committed."""
    rewrite = compaction._rewrite

    def publish_first(table: Any, *arguments: Any) -> Any:
        file = rewrite(table, *arguments)
        if table.name()[-1] == name:
            lake.publish(["new.jpg"], run_id="run-2")
        return file

    monkeypatch.setattr(compaction, "_rewrite", publish_first)
    data_files = lake.store.uris(f"s3://lake/warehouse/moderation/{name}/data/")
    finding = compact(lake)[name]
    assert {row["run_id"] for row in lake.rows(name)} == {"run-2", "other"}
    assert finding.done == 0
    assert "gave way" in str(finding)
    assert lake.store.uris(f"s3://lake/warehouse/moderation/{name}/data/") == data_files


def test_a_publish_that_began_before_the_compaction_wins_too(
    lake: MaintainedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compaction commits while a run of the day has read the table and not yet committed."""
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    plan, audit = lake.audited(["new.jpg"], run_id="run-2")
    commit, left = Transaction.commit_transaction, ["compact"]

    def compact_first(self: Transaction) -> Any:
        if left and left.pop():
            compact(lake)
        return commit(self)

    monkeypatch.setattr(Transaction, "commit_transaction", compact_first)
    publish_day(lake.open(), plan, audit)
    assert {row["run_id"] for row in lake.rows("images")} == {"run-2", "other"}
    keys = [row["key"].rpartition("/")[2] for row in lake.rows("images") if row["day"] == DAY]
    assert sorted(keys) == sorted([*KEYS, "new.jpg"])


def test_another_day_published_meanwhile_is_no_rival(
    lake: MaintainedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite = compaction._rewrite

    def publish_first(table: Any, *arguments: Any) -> Any:
        lake.publish(["z.jpg"], day=NEXT_DAY + timedelta(days=1), run_id="third")
        return rewrite(table, *arguments)

    monkeypatch.setattr(compaction, "_rewrite", publish_first)
    assert compact(lake)["images"].done == 8
    assert len(lake.files("images")) == 1 + 2 + 1
    assert {row["run_id"] for row in lake.rows("images")} == {"run-1", "other", "third"}


class TestCommitsThatFailWithoutARival:
    """pyiceberg overlooks files to delete at times, and says so before it commits."""

    @pytest.fixture
    def failures(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Fail the next commit of a compaction for each text in the list."""
        failures: list[str] = []
        validate = _OverwriteFiles._validate_required_deletes

        def overlook(self: _OverwriteFiles, deleted_entries: list[ManifestEntry]) -> None:
            if failures:
                raise ValidationException(failures.pop())
            validate(self, deleted_entries)

        monkeypatch.setattr(_OverwriteFiles, "_validate_required_deletes", overlook)
        monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
        return failures

    def test_are_tried_again_with_the_files_written(self, lake: MaintainedLake, failures: list[str]) -> None:
        failures.extend(["Missing required files to delete: a, b"] * 3)
        before = lake.everything()
        finding = compact(lake)["images"]
        assert (finding.done, failures) == (8, [])
        assert lake.everything() == before
        assert warehouse(lake) == {uri for uri in lake.files("images") if "/compacted-" in uri}

    def test_leave_the_day_to_the_next_run_in_the_end(
        self, lake: MaintainedLake, failures: list[str]
    ) -> None:
        failures.extend(["Missing required files to delete: a, b"] * 8)
        before = lake.everything()
        finding = compact(lake)["images"]
        assert finding.done == 0
        assert f"{DAY} could not be compacted: other writers were faster 8 times" in str(finding)
        assert "Missing required files to delete" in str(finding)
        assert lake.everything() == before
        assert warehouse(lake) == set()


def test_the_publication_stands_after_a_compaction(lake: MaintainedLake) -> None:
    """A rerun of equal content recognises the day and commits nothing."""
    compact(lake)
    before = lake.files("images")
    publication = lake.publish(KEYS, images_per_manifest=1, run_id="run-2")
    assert (publication.run_id, publication.changed) == ("run-1", False)
    assert lake.files("images") == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows: rows.slice(1),
        lambda rows: rows.set_column(
            rows.schema.get_field_index("etag"),
            rows.schema.field("etag"),
            pa.array(["?"] * len(rows), rows.schema.field("etag").type),
        ),
    ],
)
def test_rows_that_would_change_are_never_committed(
    lake: MaintainedLake, monkeypatch: pytest.MonkeyPatch, damage: Callable[[pa.Table], pa.Table]
) -> None:
    before = lake.everything()

    class DamagingEncoder(compaction.ParquetEncoder):
        def add(self, table: pa.Table) -> None:
            super().add(damage(table))

    monkeypatch.setattr(compaction, "ParquetEncoder", DamagingEncoder)
    with pytest.raises(ModlakeTerminalError, match="would change it"):
        compact(lake)
    assert lake.everything() == before
    assert warehouse(lake) == set()


def test_files_of_a_commit_with_unknown_outcome_are_not_deleted(
    lake: MaintainedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, commit = lake.everything(), Transaction.commit_transaction

    def lose_reply(self: Transaction) -> None:
        commit(self)
        raise CommitStateUnknownException("no reply")

    monkeypatch.setattr(Transaction, "commit_transaction", lose_reply)
    with pytest.raises(CommitStateUnknownException):
        compact(lake)
    assert lake.everything() == before
    assert len(warehouse(lake)) == 1


def test_columns_added_since_are_null_in_the_new_file(lake: MaintainedLake) -> None:
    table = lake.open().load_table("moderation.images")
    with table.update_schema() as update:
        update.add_column("reviewer", table.schema().find_type("source_ref"))
    before = lake.everything()
    assert compact(lake)["images"].done == 8
    assert lake.everything() == before


def test_every_reader_reads_the_same_before_and_after(lake: MaintainedLake, tmp_path: Path) -> None:
    for extension in ("avro", "iceberg"):
        duckdb_extensions.import_extension(extension)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; LOAD avro; LOAD iceberg")
    (tmp_path / "local").mkdir()
    local = Lake(tmp_path / "local")
    catalog = local.open()

    def read(catalog: Catalog, name: str) -> list[list[dict[str, Any]]]:
        table = catalog.load_table(f"moderation.{name}")
        with_duckdb = connection.execute(
            "SELECT * FROM iceberg_scan(?) ORDER BY ALL", [table.metadata_location]
        )
        with_polars = pl.scan_iceberg(table).collect()
        return [
            with_duckdb.to_arrow_table().to_pylist(),
            with_polars.sort(with_polars.columns).to_dicts(),
        ]

    ensure_tables(catalog)
    publish_day(catalog, *local.audited(KEYS, images_per_manifest=1))
    before = [read(catalog, name) for name in ("images", "labels")]
    findings = compact_tables(catalog, policy(), lake.report.append)
    assert {finding.scope: finding.done for finding in findings if finding.done} == {"images": 8, "labels": 7}
    assert [read(catalog, name) for name in ("images", "labels")] == before
