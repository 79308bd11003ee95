from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.maintenance import runs
from modlake.lake.maintenance.compaction import compact_tables
from modlake.lake.maintenance.findings import Finding, MaintenanceRefusedError
from modlake.lake.maintenance.runs import sweep_runs
from modlake.lake.maintenance.snapshots import expire_snapshots
from modlake.lake.publish import publish_day
from modlake.pipeline.landing import land_shard
from modlake.pipeline.object_store import ObjectNotFoundError
from modlake.pipeline.plan import read_plan
from modlake.pipeline.submissions import fingerprint
from tests.lake.maintenance_lake import LATER, MaintainedLake, later, policy
from tests.support.days import DAY

KEYS = [f"{number}.jpg" for number in range(6)]
NEXT_DAY = DAY + timedelta(days=1)
WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> MaintainedLake:
    """Run-1 is superseded by run-2, run-3 was never published; one day more."""
    lake = MaintainedLake(tmp_path_factory.mktemp("lake"))
    lake.publish(KEYS, images_per_manifest=1)
    lake.publish([*KEYS, "new.jpg"], run_id="run-2")
    lake.audited(KEYS, run_id="run-3", images_per_manifest=2)
    lake.publish(["x.jpg"], day=NEXT_DAY, run_id="other")
    return lake


@pytest.fixture
def lake(template: MaintainedLake, tmp_path: Path) -> MaintainedLake:
    return template.copy(tmp_path / "lake")


def folder(run_id: str, day: Any = DAY) -> str:
    return f"s3://work/runs/day={day}/{run_id}/"


def sweep(
    lake: MaintainedLake,
    *,
    weeks: int = 0,
    is_going: Callable[[str], bool] = lambda _: False,
    **changes: Any,
) -> dict[tuple[str, str], Finding]:
    """Sweep 100 days after the lake was made, and so many weeks."""
    findings = sweep_runs(
        lake.open(),
        lake.store,
        "s3://work",
        policy=policy(**changes),
        now=later() + weeks * WEEK,
        is_going=is_going,
        report=lake.report.append,
    )
    return {(finding.scope, finding.kind): finding for finding in findings}


def retired_at(lake: MaintainedLake, run_id: str, weeks: int = 0) -> None:
    """Let a marker that was just written be as old as the sweep that wrote it."""
    marker = f"{folder(run_id)}retired.json"
    if lake.store.path(marker).stat().st_mtime < (later() - timedelta(days=1)).timestamp():
        lake.store.date(marker, later() + weeks * WEEK)


def expire(lake: MaintainedLake) -> None:
    expire_snapshots(lake.open(), policy(), later(), lake.report.append)


def names(lake: MaintainedLake, run_id: str) -> set[str]:
    return {uri.removeprefix(folder(run_id)).split("/")[0] for uri in lake.store.uris(folder(run_id))}


class TestRetiring:
    def test_superseded_and_unpublished_runs_lose_their_heads_and_nothing_else(
        self, lake: MaintainedLake
    ) -> None:
        before, uris = lake.everything(), lake.store.uris()
        finding = sweep(lake)["runs", "runs to retire"]
        assert lake.everything() == before
        gone = {f"{folder(run)}{head}" for run in ("run-1", "run-3") for head in ("plan.json", "audit.json")}
        assert uris - lake.store.uris() == gone
        assert lake.store.uris() - uris == {f"{folder(run)}retired.json" for run in ("run-1", "run-3")}
        assert (finding.total, finding.found, finding.done) == (4, 2, 2)

    def test_the_story_of_a_retired_run_can_still_be_read(self, lake: MaintainedLake) -> None:
        plan = json.loads(lake.store.read(f"{folder('run-1')}plan.json"))
        audit = json.loads(lake.store.read(f"{folder('run-1')}audit.json"))
        sweep(lake)
        story = json.loads(lake.store.read(f"{folder('run-1')}retired.json"))
        assert (story["plan"], story["audit"]) == (plan, audit)
        assert story["reason"] == "run-2 is the day's published run"

    def test_a_retired_run_can_not_be_published_any_more(self, lake: MaintainedLake) -> None:
        sweep(lake)
        with pytest.raises(ObjectNotFoundError):
            read_plan(lake.store, f"{folder('run-1')}plan.json")

    def test_a_dry_run_changes_nothing(self, lake: MaintainedLake) -> None:
        uris = lake.store.uris()
        finding = sweep(lake, dry_run=True)["runs", "runs to retire"]
        assert (finding.found, finding.done) == (2, 0)
        assert lake.store.uris() == uris

    def test_a_run_in_which_something_happened_lately_is_kept(self, lake: MaintainedLake) -> None:
        lake.store.date(f"{folder('run-1')}landed/images-00000-1.parquet", later() - timedelta(days=29))
        assert sweep(lake)["runs", "runs to retire"].samples == [folder("run-3")]

    def test_a_run_whose_airflow_run_is_going_is_kept(self, lake: MaintainedLake) -> None:
        asked: list[str] = []

        def is_going(run_id: str) -> bool:
            asked.append(run_id)
            return True

        uris = lake.store.uris()
        assert sweep(lake, is_going=is_going)["runs", "runs to retire"].found == 0
        assert set(asked) == {"manual__1"}
        assert lake.store.uris() == uris

    def test_a_run_that_is_cleared_at_the_last_moment_is_kept(self, lake: MaintainedLake) -> None:
        answers = iter([False, False, True, True])
        finding = sweep(lake, is_going=lambda _: next(answers))["runs", "runs to retire"]
        assert (finding.found, finding.done) == (2, 0)
        assert "plan.json" in names(lake, "run-1")

    @pytest.mark.parametrize("deleted", [[], ["plan.json"], ["audit.json"]])
    def test_a_retirement_that_was_cut_short_is_finished(
        self, lake: MaintainedLake, monkeypatch: pytest.MonkeyPatch, deleted: list[str]
    ) -> None:
        plan = json.loads(lake.store.read(f"{folder('run-1')}plan.json"))
        delete = lake.store.delete

        def crash(uris: Any) -> None:
            delete(uri for uri in uris if uri.rpartition("/")[2] in deleted)
            raise KeyboardInterrupt

        monkeypatch.setattr(lake.store, "delete", crash)
        with pytest.raises(KeyboardInterrupt):
            sweep(lake)
        monkeypatch.undo()
        retired_at(lake, "run-1", weeks=-8)
        sweep(lake)
        assert not {"plan.json", "audit.json"} & names(lake, "run-1")
        story = json.loads(lake.store.read(f"{folder('run-1')}retired.json"))
        assert story["plan"] == plan
        assert story["audit"] is not None

    def test_a_run_that_never_got_a_plan_is_retired_too(self, lake: MaintainedLake) -> None:
        lake.store.write(f"{folder('crashed')}manifests/00000.jsonl", b"{}")
        sweep(lake)
        assert names(lake, "crashed") == {"manifests", "retired.json"}
        retired_at(lake, "crashed")
        sweep(lake, weeks=1)
        assert names(lake, "crashed") == {"retired.json"}
        sweep(lake, weeks=2)
        assert names(lake, "crashed") == set()


class TestFilesOfRetiredRuns:
    def test_they_stay_for_a_grace_time(self, lake: MaintainedLake) -> None:
        sweep(lake)
        retired_at(lake, "run-1")
        retired_at(lake, "run-3")
        uris = lake.store.uris()
        assert sweep(lake)["runs", "files of retired runs"].found == 0
        assert lake.store.uris() == uris

    def test_then_only_what_others_need_is_left(self, lake: MaintainedLake) -> None:
        """Old snapshots lead to run-1's landed files; submissions lead to manifests and results."""
        sweep(lake)
        retired_at(lake, "run-1")
        retired_at(lake, "run-3")
        before = lake.everything()
        sweep(lake, weeks=1)
        assert names(lake, "run-1") == {"landed", "manifests", "results", "retired.json"}
        assert names(lake, "run-3") == {"manifests", "results", "retired.json"}
        assert lake.everything() == before
        old = lake.open().load_table("moderation.images").metadata.snapshots[0].snapshot_id
        assert len(lake.open().load_table("moderation.images").scan(snapshot_id=old).to_arrow()) == len(KEYS)

    def test_landed_files_go_when_no_snapshot_leads_to_them(self, lake: MaintainedLake) -> None:
        sweep(lake)
        retired_at(lake, "run-1")
        expire(lake)
        before = lake.everything()
        sweep(lake, weeks=1)
        assert names(lake, "run-1") == {"manifests", "results", "retired.json"}
        assert lake.everything() == before

    def test_a_file_written_since_by_a_task_that_lived_on_is_kept(self, lake: MaintainedLake) -> None:
        sweep(lake)
        retired_at(lake, "run-3")
        late = f"{folder('run-3')}landed/images-00000-late.parquet"
        lake.store.write(late, b"")
        lake.store.date(late, later() + WEEK)
        sweep(lake, weeks=1)
        assert lake.store.exists(late)

    @pytest.mark.parametrize("listing", [1, 2])
    def test_a_run_published_while_it_was_being_retired_is_whole(
        self, lake: MaintainedLake, listing: int
    ) -> None:
        """Its publish task had read plan and audit before, and commits when the files' time has come."""
        plan, audit = lake.audited(KEYS, run_id="run-4", images_per_manifest=3)
        sweep(lake)
        for run in ("run-1", "run-3", "run-4"):
            retired_at(lake, run)
        before = names(lake, "run-4")
        submission = f"s3://work/submissions/{fingerprint(plan.shards[0].sha256, plan.parameters)}/"
        listed = lake.store.listings + listing
        lake.store.after_listing[listed] = lambda: publish_day(lake.open(), plan, audit)
        sweep(lake, weeks=1, analysis_retention=timedelta(days=90))
        assert {row["run_id"] for row in lake.rows("images") if row["day"] == DAY} == {"run-4"}
        lake.everything()
        assert names(lake, "run-4") == before
        assert lake.store.uris(submission)

    def test_files_that_jobs_names_are_kept(self, lake: MaintainedLake) -> None:
        """The published run found the results of a job that an earlier run had started."""
        plan, audit = lake.audited(["even-newer.jpg"], run_id="run-4")
        place = f"{folder('run-3')}results/00000/job/results.json"
        job = audit.jobs[0] | {"results_uri": place}
        assert publish_day(lake.open(), plan, replace(audit, jobs=[job])).changed
        sweep(lake)
        retired_at(lake, "run-3")
        for uri in lake.store.uris("s3://work/submissions/"):
            lake.store.path(uri).unlink()
        sweep(lake, weeks=1)
        assert lake.store.uris(folder("run-3")) == {place, f"{folder('run-3')}retired.json"}

    def test_files_that_a_run_may_still_land_from_are_kept(self, lake: MaintainedLake) -> None:
        """An unfinished run found the results of a retired one; its submission is gone since."""
        plan, _ = lake.audited(KEYS, run_id="run-4", images_per_manifest=2)
        record = json.loads(lake.store.read(plan.folder.job_uri(0)))
        place = f"{folder('run-3')}results/00000/job/results.json"
        key = place.removeprefix("s3://work/")
        record["job"]["Results"] = {"S3Object": {"Bucket": "work", "Name": key}}
        lake.store.write(plan.folder.job_uri(0), json.dumps(record).encode())
        sweep(lake)
        retired_at(lake, "run-3")
        for uri in lake.store.uris("s3://work/submissions/"):
            lake.store.path(uri).unlink()
        for uri in lake.store.uris(folder("run-4")):
            lake.store.date(uri, later() + WEEK)
        (lake.store.path(f"{folder('run-4')}retired.json")).unlink()
        lake.store.write(plan.folder.plan_uri, plan.to_json().encode())
        sweep(lake, weeks=1)
        assert lake.store.exists(place)

    @pytest.mark.parametrize("listing", [1, 2])
    def test_so_are_those_that_a_run_found_which_is_superseded_during_the_sweep(
        self, lake: MaintainedLake, listing: int
    ) -> None:
        published = read_plan(lake.store, f"{folder('run-2')}plan.json")
        record = json.loads(lake.store.read(published.folder.job_uri(0)))
        place = f"{folder('run-3')}results/00000/job/results.json"
        record["job"]["Results"] = {"S3Object": {"Bucket": "work", "Name": place.removeprefix("s3://work/")}}
        lake.store.write(published.folder.job_uri(0), json.dumps(record).encode())
        sweep(lake)
        retired_at(lake, "run-3")
        for uri in lake.store.uris("s3://work/submissions/"):
            lake.store.path(uri).unlink()
        plan, audit = lake.audited(["newest.jpg"], run_id="run-4")
        listed = lake.store.listings + listing
        lake.store.after_listing[listed] = lambda: publish_day(lake.open(), plan, audit)
        sweep(lake, weeks=1)
        assert lake.store.exists(place)
        assert "manifests" not in names(lake, "run-3")

    def test_parts_of_retries_are_kept_which_no_plan_names(self, lake: MaintainedLake) -> None:
        """Retries of images get manifests, results and submissions of their own while a run goes on."""
        key = folder("run-3").removeprefix("s3://work/")
        request = {
            "Input": {"S3Object": {"Bucket": "work", "Name": f"{key}manifests/00000-r1.jsonl"}},
            "OutputConfig": {"S3Bucket": "work", "S3KeyPrefix": f"{key}results/00000-r1/"},
        }
        parts = {f"{folder('run-3')}{name}" for name in ("manifests/00000-r1.jsonl", "results/00000-r1/j/r")}
        for uri in parts:
            lake.store.write(uri, b"")
        lake.store.write("s3://work/submissions/of-a-retry/00.json", json.dumps(request).encode())
        sweep(lake)
        retired_at(lake, "run-3")
        sweep(lake, weeks=1)
        assert parts <= lake.store.uris()

    def test_a_submission_that_can_not_be_read_ends_the_sweep(self, lake: MaintainedLake) -> None:
        sweep(lake)
        retired_at(lake, "run-1")
        lake.store.deleted.clear()
        lake.store.write("s3://work/submissions/of-somebody/00.json", b"{}")
        with pytest.raises(ModlakeTerminalError, match=r"of-somebody/00\.json is no request"):
            sweep(lake, weeks=1)
        assert lake.store.deleted == []

    def test_no_submission_is_read_as_long_as_none_can_matter(
        self, lake: MaintainedLake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = lake.store.read
        asked: list[str] = []
        monkeypatch.setattr(lake.store, "read", lambda uri: (asked.append(uri), read(uri))[1])
        sweep(lake)
        assert not [uri for uri in asked if "/submissions/" in uri]
        retired_at(lake, "run-1")
        sweep(lake, weeks=1)
        assert [uri for uri in asked if "/submissions/" in uri]


class TestSubmissions:
    def expired(self, lake: MaintainedLake) -> dict[tuple[str, str], Finding]:
        """Sweep when run-1 and run-3 are retired, and the submissions past their retention."""
        sweep(lake)
        retired_at(lake, "run-1")
        retired_at(lake, "run-3")
        findings = sweep(lake, weeks=1, analysis_retention=timedelta(days=90))
        retired_at(lake, "run-1", weeks=1)
        retired_at(lake, "run-3", weeks=1)
        return findings

    def test_a_submission_goes_first_and_its_parts_a_grace_time_later(self, lake: MaintainedLake) -> None:
        plan = read_plan(lake.store, f"{folder('run-3')}plan.json")
        records = {
            uri
            for shard in plan.shards
            for uri in lake.store.uris(f"s3://work/submissions/{fingerprint(shard.sha256, plan.parameters)}/")
        }
        finding = self.expired(lake)["runs", "records of submissions"]
        assert finding.done == finding.found > 0
        assert len(records) == 2 * len(plan.shards)
        assert not records & lake.store.uris()
        assert names(lake, "run-3") == {"manifests", "results", "retired.json"}
        sweep(lake, weeks=1, analysis_retention=timedelta(days=90))
        assert names(lake, "run-3") == {"manifests", "results", "retired.json"}
        sweep(lake, weeks=2, analysis_retention=timedelta(days=90))
        assert names(lake, "run-3") == {"retired.json"}
        sweep(lake, weeks=3, analysis_retention=timedelta(days=90))
        assert names(lake, "run-3") == set()

    def test_those_of_published_runs_stay(self, lake: MaintainedLake) -> None:
        plan = read_plan(lake.store, f"{folder('run-2')}plan.json")
        self.expired(lake)
        for shard in plan.shards:
            name = fingerprint(shard.sha256, plan.parameters)
            assert len(lake.store.uris(f"s3://work/submissions/{name}/")) == 2
        assert {"manifests", "results", "plan.json", "jobs"} <= names(lake, "run-2")

    @pytest.mark.parametrize("place", ["results/00000/deeper/", "results"])
    def test_one_stays_that_points_anywhere_into_a_published_run(
        self, lake: MaintainedLake, place: str
    ) -> None:
        request = {
            "Input": {"S3Object": {"Bucket": "work", "Name": "elsewhere/manifest.jsonl"}},
            "OutputConfig": {
                "S3Bucket": "work",
                "S3KeyPrefix": f"{folder('run-2')}{place}".removeprefix("s3://work/"),
            },
        }
        lake.store.write("s3://work/submissions/by-hand/00.json", json.dumps(request).encode())
        self.expired(lake)
        assert lake.store.exists("s3://work/submissions/by-hand/00.json")

    def test_one_with_a_generation_in_a_kept_run_stays(self, lake: MaintainedLake) -> None:
        plan = read_plan(lake.store, f"{folder('run-3')}plan.json")
        uri = f"s3://work/submissions/{fingerprint(plan.shards[0].sha256, plan.parameters)}/"
        request = json.loads(lake.store.read(f"{uri}00.json"))
        key = f"{folder('run-2')}results/00000/".removeprefix("s3://work/")
        request["OutputConfig"]["S3KeyPrefix"] = key
        lake.store.write(f"{uri}01.json", json.dumps(request).encode())
        self.expired(lake)
        assert len(lake.store.uris(uri)) == 3

    def test_a_renewed_one_stays_whole(self, lake: MaintainedLake) -> None:
        plan = read_plan(lake.store, f"{folder('run-3')}plan.json")
        uri = f"s3://work/submissions/{fingerprint(plan.shards[0].sha256, plan.parameters)}/"
        lake.store.write(f"{uri}01.json", lake.store.read(f"{uri}00.json"))
        lake.store.date(f"{uri}01.json", later())
        self.expired(lake)
        assert len(lake.store.uris(uri)) == 3
        sweep(lake, weeks=2, analysis_retention=timedelta(days=90))
        assert len(lake.store.uris(f"{folder('run-3')}results/00000/")) == 1
        assert len(lake.store.uris(f"{folder('run-3')}results/00001/")) == 0


class TestLandedFilesOfPublishedRuns:
    def compacted(self, lake: MaintainedLake) -> None:
        """The day of six files is the published one, compacted, and nothing leads to them any more."""
        lake.publish(["z.jpg"], run_id="run-5", images_per_manifest=1)
        compact_tables(lake.open(), policy(), lake.report.append)
        expire(lake)

    def test_they_stay_while_the_tables_consist_of_them(self, lake: MaintainedLake) -> None:
        finding = sweep(lake)["images", "landed files"]
        assert finding.found == 0
        assert finding.total == len([uri for uri in lake.store.uris() if "/landed/images-" in uri])

    def test_compaction_and_expiry_free_them(self, lake: MaintainedLake) -> None:
        self.compacted(lake)
        before = lake.everything()
        findings = sweep(lake)
        assert findings["images", "landed files"].done == 8
        assert findings["labels", "landed files"].done == 8
        assert lake.everything() == before
        assert {"plan.json", "audit.json", "manifests", "results", "jobs"} <= names(lake, "run-5")
        assert "landed" not in names(lake, "run-5")

    def test_a_dry_run_counts_what_expiring_would_free(self, lake: MaintainedLake) -> None:
        lake.publish(["z.jpg"], run_id="run-5", images_per_manifest=1)
        compact_tables(lake.open(), policy(), lake.report.append)
        assert sweep(lake, dry_run=True)["images", "landed files"].found == 8
        assert sweep(lake)["images", "landed files"].found == 0

    def test_attempts_that_came_to_nothing_are_swept(self, lake: MaintainedLake) -> None:
        plan = read_plan(lake.store, f"{folder('run-2')}plan.json")
        land_shard(lake.store, plan, 0, "killed")
        findings = sweep(lake)
        assert [uri for uri in lake.store.deleted if "landed" in uri] == [
            f"{folder('run-2')}landed/{table}-00000-killed.parquet" for table in ("images", "labels")
        ]
        assert (findings["images", "landed files"].done, findings["labels", "landed files"].done) == (1, 1)

    def test_none_goes_while_the_run_is_worked_on(self, lake: MaintainedLake) -> None:
        self.compacted(lake)
        late = f"{folder('run-5')}landed/images-00000-again.parquet"
        lake.store.write(late, b"")
        lake.store.date(late, later())
        assert sweep(lake)["images", "landed files"].found == 0

    def test_none_goes_while_its_airflow_run_is_going(self, lake: MaintainedLake) -> None:
        self.compacted(lake)
        uris = lake.store.uris(folder("run-5"))
        finding = sweep(lake, is_going=lambda _: True)["images", "landed files"]
        assert (finding.found, finding.done, finding.notes) == (8, 0, ["8 are left to the next run"])
        assert lake.store.uris(folder("run-5")) == uris

    @pytest.mark.parametrize("listing", [1, 2])
    def test_none_goes_of_a_run_that_is_superseded_during_the_sweep(
        self, lake: MaintainedLake, listing: int
    ) -> None:
        """A cleared task may publish it again."""
        self.compacted(lake)
        plan, audit = lake.audited(["newest.jpg"], run_id="run-6")
        listed = lake.store.listings + listing
        lake.store.after_listing[listed] = lambda: publish_day(lake.open(), plan, audit)
        sweep(lake, run_retention=LATER + WEEK)
        assert "landed" in names(lake, "run-5")

    def test_those_of_an_unpublished_run_wait_for_a_cleared_task(self, lake: MaintainedLake) -> None:
        plan, audit = lake.audited(["late.jpg"], run_id="run-4")
        sweep(lake, run_retention=LATER + WEEK)
        publish_day(lake.open(), plan, audit)
        assert {row["run_id"] for row in lake.rows("images") if row["day"] == DAY} == {"run-4"}


@pytest.mark.parametrize(
    ("moment", "call"),
    [
        ("listed", 1),
        ("_published_runs", 1),
        ("_published_runs", 2),
        ("find_submissions", 1),
        ("load_tables", 1),
        ("_named_by_jobs", 1),
        ("_landed", 1),
        ("_published_runs", 3),
    ],
)
def test_an_old_run_published_at_any_moment_of_a_sweep_is_whole(
    lake: MaintainedLake, monkeypatch: pytest.MonkeyPatch, moment: str, call: int
) -> None:
    """Its files are past every age, and nobody says that its Airflow run is going."""
    sweep(lake)
    retired_at(lake, "run-1")
    retired_at(lake, "run-3")
    plan, audit = lake.audited(KEYS, run_id="run-4", images_per_manifest=1)
    published = []

    def publish() -> None:
        published.append(publish_day(lake.open(), plan, audit))

    if moment == "listed":
        lake.store.after_listing[lake.store.listings + 1] = publish
    else:
        step = getattr(runs, moment)
        calls = itertools.count(1)

        def before(*arguments: Any, **named: Any) -> Any:
            if next(calls) == call:
                publish()
            return step(*arguments, **named)

        monkeypatch.setattr(runs, moment, before)
    expire(lake)
    sweep(lake, weeks=1)
    assert published
    assert {row["run_id"] for row in lake.rows("images") if row["day"] == DAY} == {"run-4"}
    assert {"plan.json", "audit.json", "landed"} <= names(lake, "run-4")
    lake.everything()
    sweep(lake, weeks=2)
    lake.everything()


class TestRefusals:
    def test_a_catalog_that_knows_none_of_the_runs(self, lake: MaintainedLake) -> None:
        lake.open().load_table("moderation.runs").delete("listed >= 0")
        with pytest.raises(MaintenanceRefusedError, match="names none of the 4 runs"):
            sweep(lake)
        assert lake.store.deleted == []

    def test_too_many_runs(self, lake: MaintainedLake) -> None:
        with pytest.raises(MaintenanceRefusedError, match="2 of 4 runs to retire of runs: more than 40 %"):
            sweep(lake, max_removed_percent=40)
        assert lake.store.deleted == []
        assert "retired.json" not in names(lake, "run-1")

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"grace": timedelta(hours=23)}, "could remove files that are being published"),
            ({"run_retention": timedelta(days=2)}, "run_retention"),
            ({"analysis_retention": timedelta(days=2)}, "analysis_retention"),
            ({"min_snapshots": 0}, "min_snapshots"),
        ],
    )
    def test_policies_that_contradict_themselves(self, changes: dict[str, Any], match: str) -> None:
        with pytest.raises(ModlakeTerminalError, match=match):
            policy(**changes)


def test_objects_of_others_are_nobodys_business(lake: MaintainedLake) -> None:
    others = {
        "s3://work/runs/README.txt",
        "s3://work/runs/day=2026-11-21/note.txt",
        "s3://work/runs/day=someday/run-9/plan.json",
        "s3://work/maintenance/1.json",
    }
    for uri in others:
        lake.store.write(uri, b"{}")
    for week in range(3):
        sweep(lake, weeks=week, analysis_retention=timedelta(days=60))
    assert others <= lake.store.uris()
