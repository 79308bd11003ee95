from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, ValidationException
from pyiceberg.table import Table, Transaction
from sqlalchemy.exc import OperationalError

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.lake.publish import Publication, publish_day
from modlake.lake.schemas import PUBLISHED_TABLES
from modlake.pipeline.audit import Audit
from modlake.pipeline.plan import Plan
from tests.lake.conftest import Lake
from tests.support.days import DAY

Rows = Callable[[str], list[dict[str, Any]]]

KEYS = ["a b.jpg", "b%+é😀.jpg", "c.jpg", "d.webp"]
NEXT_DAY = DAY + timedelta(days=1)


def snapshots(catalog: Catalog) -> list[int]:
    return [len(catalog.load_table(table.identifier).metadata.snapshots) for table in PUBLISHED_TABLES]


def without_names(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key not in ("run_id", "published_at")} for row in rows
    ]


def crash_before(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die when that table is to be committed."""
    commit = Transaction.commit_transaction

    def commit_or_crash(self: Transaction) -> Table:
        if self._table.name()[-1] == table:
            raise KeyboardInterrupt
        return commit(self)

    monkeypatch.setattr(Transaction, "commit_transaction", commit_or_crash)


def test_a_published_day_is_in_all_four_tables(lake: Lake, catalog: Catalog, rows: Rows) -> None:
    plan, audit = lake.audited(KEYS, images_per_manifest=2)
    publication = publish_day(catalog, plan, audit)
    assert publication == Publication(
        day=DAY,
        run_id="run-1",
        listed=4,
        judged=3,
        reused=0,
        ineligible=1,
        failed=0,
        incomplete=0,
        labels=6,
        model_versions=["7.0"],
        snapshot_ids=publication.snapshot_ids,
        changed=True,
    )
    assert {row["key"] for row in rows("images")} == {f"uploads/{DAY}/{key}" for key in KEYS}
    assert (len(rows("labels")), [row["shard"] for row in rows("jobs")]) == (6, [0, 1])
    (run,) = rows("runs")
    assert (run["listed"], run["judged"], run["model_versions"], run["content_digest"]) == (
        4,
        3,
        ["7.0"],
        audit.content_digest,
    )
    for name in ("images", "labels", "jobs"):
        snapshot = catalog.load_table(f"moderation.{name}").current_snapshot()
        assert snapshot is not None
        assert publication.snapshot_ids[name] == run[f"{name}_snapshot_id"] == snapshot.snapshot_id
        assert snapshot.summary is not None
        assert snapshot.summary.additional_properties["modlake.run_id"] == "run-1"
        assert snapshot.summary.additional_properties["modlake.day"] == "2026-11-21"


def test_landed_files_join_as_they_are_with_right_statistics(lake: Lake, catalog: Catalog) -> None:
    plan, audit = lake.audited(KEYS)
    other_plan, other = lake.audited(["x.jpg"], day=NEXT_DAY)
    publish_day(catalog, plan, audit)
    publish_day(catalog, other_plan, other)
    table = catalog.load_table("moderation.images")
    assert "schema.name-mapping.default" not in table.properties
    tasks = list(table.scan(f"day = '{DAY}'").plan_files())
    assert sorted(task.file.file_path for task in tasks) == sorted(audit.images_uris)
    assert sum(task.file.record_count for task in tasks) == 4
    assert list(table.scan("outcome = 'failed'").plan_files()) == []
    assert len(list(table.scan("outcome = 'ineligible'").plan_files())) == 1
    # One image is found without opening another's file.
    one = table.scan(f"source_ref = 's3://ugc/uploads/{NEXT_DAY}/x.jpg'").plan_files()
    assert [task.file.file_path for task in one] == other.images_uris


def test_publishing_the_same_content_again_commits_nothing(lake: Lake, catalog: Catalog, rows: Rows) -> None:
    first = publish_day(catalog, *lake.audited(KEYS))
    before = snapshots(catalog), rows("runs")
    second = publish_day(catalog, *lake.audited(KEYS, run_id="run-2"))
    assert second == replace(first, changed=False)
    assert (snapshots(catalog), rows("runs")) == before


@pytest.mark.parametrize("name", ["images", "labels", "jobs", "runs"])
def test_equal_content_is_published_again_where_a_table_lost_it(
    lake: Lake, catalog: Catalog, rows: Rows, name: str
) -> None:
    plan, audit = lake.audited(KEYS)
    publish_day(catalog, plan, audit)
    before = {
        table.name: without_names(rows(table.name)) for table in PUBLISHED_TABLES if table.name != "runs"
    }
    catalog.load_table(f"moderation.{name}").delete(f"day = '{DAY}'")
    assert publish_day(catalog, plan, audit).changed
    assert {name: without_names(rows(name)) for name in before} == before
    assert len(rows("runs")) == 1


def test_equal_counts_of_another_run_are_not_taken_for_this_one(
    lake: Lake, catalog: Catalog, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, audit = lake.audited(KEYS)
    publish_day(catalog, plan, audit)
    crash_before("labels", monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        publish_day(catalog, *lake.audited(["z.jpg", *KEYS[1:]], run_id="run-2"))
    monkeypatch.undo()
    assert {row["run_id"] for row in rows("images")} == {"run-2"}
    assert publish_day(catalog, plan, audit).changed
    assert {row["run_id"] for table in PUBLISHED_TABLES for row in rows(table.name)} == {"run-1"}


def test_a_new_run_replaces_its_day_and_no_other(lake: Lake, catalog: Catalog, rows: Rows) -> None:
    publish_day(catalog, *lake.audited(["x.jpg"], day=NEXT_DAY, run_id="other"))
    publish_day(catalog, *lake.audited(KEYS))
    publication = publish_day(catalog, *lake.audited(["new.jpg", "new.gif"], run_id="run-2"))
    assert (publication.run_id, publication.listed, publication.changed) == ("run-2", 2, True)
    for name, counts in {"images": (2, 1), "labels": (3, 3), "jobs": (1, 1), "runs": (1, 1)}.items():
        found = [row["run_id"] for row in rows(name)]
        assert (found.count("run-2"), found.count("other"), len(found)) == (*counts, sum(counts))


def test_an_empty_day_clears_the_rows_of_an_older_run(lake: Lake, catalog: Catalog, rows: Rows) -> None:
    publish_day(catalog, *lake.audited(["x.jpg"], day=NEXT_DAY, run_id="other"))
    publish_day(catalog, *lake.audited(KEYS))
    publication = publish_day(catalog, *lake.audited([], run_id="run-2"))
    assert (publication.listed, publication.labels, publication.changed) == (0, 0, True)
    assert {row["day"] for name in ("images", "labels", "jobs") for row in rows(name)} == {NEXT_DAY}
    assert {row["run_id"]: row["listed"] for row in rows("runs")} == {"run-2": 0, "other": 1}
    assert not publish_day(catalog, *lake.audited([], run_id="run-3")).changed


def test_an_empty_day_first_of_all(lake: Lake, catalog: Catalog, rows: Rows) -> None:
    publication = publish_day(catalog, *lake.audited([]))
    assert publication.snapshot_ids == {}
    (run,) = rows("runs")
    assert (run["listed"], run["images_snapshot_id"], run["model_versions"]) == (0, None, [])
    assert publish_day(catalog, *lake.audited([])) == replace(publication, changed=False)


@pytest.mark.parametrize("table", ["images", "labels"])
@pytest.mark.parametrize("change", ["another day", "other columns", "missing", "fewer rows"])
def test_wrong_files_are_refused_before_anything_is_committed(
    lake: Lake, catalog: Catalog, table: str, change: str
) -> None:
    plan, audit = lake.audited(KEYS, images_per_manifest=2)
    _, other = lake.audited(["x.jpg"], day=NEXT_DAY)
    good = {"images": audit.images_uris, "labels": audit.labels_uris}
    wrong, told = {
        "another day": (getattr(other, f"{table}_uris"), "2026-11-22"),
        "other columns": (good["labels" if table == "images" else "images"], f"part of {table}"),
        "missing": ([f"file://{lake.home}/none.parquet"], r"none\.parquet"),
        "fewer rows": (good[table][1:], f"rows of {table}"),
    }[change]
    with pytest.raises(ModlakeTerminalError, match=told):
        publish_day(catalog, plan, replace(audit, **{f"{table}_uris": wrong}))
    assert snapshots(catalog) == [0, 0, 0, 0]


def test_an_audit_of_another_run_is_refused(lake: Lake, catalog: Catalog) -> None:
    plan, _ = lake.audited(KEYS)
    _, audit = lake.audited(KEYS, run_id="run-2")
    with pytest.raises(ModlakeTerminalError, match="run-2"):
        publish_day(catalog, plan, audit)


@pytest.mark.parametrize("table", ["images", "labels", "jobs", "runs"])
def test_a_crash_between_tables_is_mended_by_publishing_again(
    lake: Lake, catalog: Catalog, rows: Rows, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    publish_day(catalog, *lake.audited(["old.jpg"], run_id="old"))
    plan, audit = lake.audited(KEYS)
    crash_before(table, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        publish_day(catalog, plan, audit)
    assert [row["run_id"] for row in rows("runs")] == ["old"]
    monkeypatch.undo()
    publish_day(catalog, plan, audit)
    assert {row["run_id"] for table in PUBLISHED_TABLES for row in rows(table.name)} == {"run-1"}
    assert len(rows("images")) == 4


@pytest.mark.parametrize("conflict", [ValidationException("rival"), CommitFailedException("rival")])
def test_conflicts_are_redone_from_the_tables_as_they_are_then(
    lake: Lake, catalog: Catalog, rows: Rows, monkeypatch: pytest.MonkeyPatch, conflict: Exception
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    commit, left = Transaction.commit_transaction, [conflict, conflict]

    def fail_first(self: Transaction) -> Table:
        if left:
            raise left.pop()
        return commit(self)

    monkeypatch.setattr(Transaction, "commit_transaction", fail_first)
    assert publish_day(catalog, *lake.audited(KEYS)).changed
    assert (len(rows("images")), len(rows("runs"))) == (4, 1)


def lose_reply(table: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the first commit to a table take effect, and the catalog's answer to it be lost."""
    commit, commits = SqlCatalog.commit_table, list[str]()

    def commit_and_lose(self: SqlCatalog, target: Table, *changes: Any) -> Any:
        answer = commit(self, target, *changes)
        commits.append(target.name()[-1])
        if commits[-1] == table and commits.count(table) == 1:
            raise error
        return answer

    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    monkeypatch.setattr(SqlCatalog, "commit_table", commit_and_lose)
    return commits


@pytest.mark.parametrize("table", ["images", "labels", "jobs", "runs"])
@pytest.mark.parametrize(
    "error", [CommitStateUnknownException("timeout"), OperationalError("commit", {}, Exception("gone"))]
)
@pytest.mark.parametrize("day_is_new", [True, False])
def test_a_lost_reply_to_a_commit_is_recognised(
    lake: Lake,
    catalog: Catalog,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    error: Exception,
    day_is_new: bool,
) -> None:
    if not day_is_new:
        publish_day(catalog, *lake.audited(["old.jpg"], run_id="old"))
    commits = lose_reply(table, error, monkeypatch)
    publication = publish_day(catalog, *lake.audited(KEYS))
    # What this call committed counts as its own, whoever heard of it.
    assert (publication.run_id, publication.changed) == ("run-1", True)
    assert commits.count("runs") == 1
    assert {row["run_id"] for each in PUBLISHED_TABLES for row in rows(each.name)} == {"run-1"}
    assert [len(rows(each.name)) for each in PUBLISHED_TABLES] == [4, 6, 1, 1]
    (run,) = rows("runs")
    for name in ("images", "labels", "jobs"):
        scan = catalog.load_table(f"moderation.{name}").scan(snapshot_id=run[f"{name}_snapshot_id"])
        assert {row["run_id"] for row in scan.to_arrow().to_pylist()} == {"run-1"}


@pytest.mark.parametrize("table", ["images", "labels", "jobs", "runs"])
def test_a_lost_reply_that_kills_the_task_is_mended_by_its_next_try(
    lake: Lake, catalog: Catalog, rows: Rows, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    plan, audit = lake.audited(KEYS)
    lose_reply(table, ConnectionResetError("the catalog went away"), monkeypatch)
    with pytest.raises(ConnectionResetError):
        publish_day(catalog, plan, audit)
    publication = publish_day(lake.open(), plan, audit)
    assert publication.changed == (table != "runs")
    assert [len(rows(each.name)) for each in PUBLISHED_TABLES] == [4, 6, 1, 1]


def test_conflicts_without_end_become_a_transient_error(
    lake: Lake, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)

    def fail(_: Transaction) -> Table:
        raise ValidationException("rival")

    monkeypatch.setattr(Transaction, "commit_transaction", fail)
    with pytest.raises(ModlakeTransientError, match="2026-11-21 could not be published"):
        publish_day(catalog, *lake.audited(KEYS))


@pytest.mark.parametrize("overtaken", ["images", "labels", "jobs", "runs"])
@pytest.mark.parametrize("day_is_new", [True, False])
def test_a_rival_of_the_same_day_in_the_middle_of_a_commit_leaves_one_whole_run(
    lake: Lake,
    catalog: Catalog,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    overtaken: str,
    day_is_new: bool,
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    if not day_is_new:
        publish_day(catalog, *lake.audited(["old.jpg"], run_id="old"))
    rival = lake.audited(["r.jpg", "s.jpg"], run_id="rival")
    commit, waiting = Transaction.commit_transaction, [overtaken]

    def let_rival_pass(self: Transaction) -> Table:
        if waiting == [self._table.name()[-1]]:
            waiting.clear()
            publish_day(lake.open(), *rival)
        return commit(self)

    monkeypatch.setattr(Transaction, "commit_transaction", let_rival_pass)
    assert publish_day(catalog, *lake.audited(KEYS)).run_id == "run-1"
    assert waiting == []
    assert {row["run_id"] for table in PUBLISHED_TABLES for row in rows(table.name)} == {"run-1"}
    assert [len(rows(table.name)) for table in PUBLISHED_TABLES] == [4, 6, 1, 1]


def _publish(lake: Lake, plan: Plan, audit: Audit) -> Publication:
    return publish_day(lake.open(), plan, audit)


def test_days_published_at_once_by_threads_all_land(lake: Lake, catalog: Catalog, rows: Rows) -> None:
    days = [date(2026, 11, number) for number in range(1, 5)]
    audited = [
        lake.audited([f"{number}.jpg" for number in range(3)], day=day, run_id=f"run-{day}") for day in days
    ]
    with ThreadPoolExecutor(len(days)) as executor:
        list(executor.map(lambda one: _publish(lake, *one), audited))
    for name, each in (("images", 3), ("labels", 6), ("jobs", 1), ("runs", 1)):
        found = rows(name)
        assert sorted(row["day"] for row in found) == sorted(days * each)
        assert all(row["run_id"] == f"run-{row['day']}" for row in found)


def test_days_published_at_once_by_processes_all_land(lake: Lake, catalog: Catalog, rows: Rows) -> None:
    days = [date(2026, 11, number) for number in range(1, 4)]
    audited = [lake.audited(["a.jpg"], day=day) for day in days]
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as executor:
        futures = [executor.submit(_publish, lake, *one) for one in audited]
        assert all(future.result().changed for future in futures)
    for table in PUBLISHED_TABLES:
        assert {row["day"] for row in rows(table.name)} == set(days)


def test_runs_of_one_day_at_once_end_as_one_whole_run(lake: Lake, catalog: Catalog, rows: Rows) -> None:
    audited = [
        lake.audited([f"{run}.jpg", f"{run}.gif", "all.jpg"][:run], run_id=f"run-{run}") for run in (1, 2, 3)
    ]
    with ThreadPoolExecutor(3) as executor:
        list(executor.map(lambda one: _publish(lake, *one), audited))
    (run,) = rows("runs")
    images, labels = rows("images"), rows("labels")
    assert {row["run_id"] for row in [*images, *labels, *rows("jobs")]} == {run["run_id"]}
    assert (len(images), len(labels)) == (run["listed"], run["labels"])


def test_days_share_manifests_once_there_are_many(lake: Lake, catalog: Catalog, rows: Rows) -> None:
    """Whoever reads a table of years would open a file for each commit before the first row."""
    for table in PUBLISHED_TABLES:
        with catalog.load_table(table.identifier).transaction() as transaction:
            transaction.set_properties({"commit.manifest.min-count-to-merge": "4"})
    days = [DAY + timedelta(days=number) for number in range(10)]
    for day in days:
        publish_day(catalog, *lake.audited(KEYS, day=day, run_id=f"run-{day}"))
    for table in PUBLISHED_TABLES:
        loaded = catalog.load_table(table.identifier)
        snapshot = loaded.current_snapshot()
        assert snapshot is not None
        assert len(snapshot.manifests(loaded.io)) <= 4

    publish_day(catalog, *lake.audited(["late.jpg"], day=days[1], run_id="again"))
    runs = {row["day"]: row["run_id"] for row in rows("runs")}
    assert runs == {day: f"run-{day}" for day in days} | {days[1]: "again"}
    for name in ("images", "labels", "jobs"):
        assert {(row["day"], row["run_id"]) for row in rows(name)} == set(runs.items())
    assert sum(row["day"] != days[1] for row in rows("images")) == 9 * len(KEYS)
