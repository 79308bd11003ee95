"""Days planned over a real lake: what is carried over from before, and what is judged again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import FileScanTask, Table, Transaction

from modlake.lake.actions import add_intents, read_actions, record_results
from modlake.lake.ledger import LakeLedger
from modlake.lake.publish import Publication, publish_day
from modlake.lake.quarantine import DayQuarantine
from modlake.lake.schemas import PUBLISHED_TABLES
from modlake.lake.table_files import TableFiles
from modlake.pipeline import row_index
from modlake.pipeline.audit import audit_day
from modlake.pipeline.manifests import read_manifest
from modlake.pipeline.plan import AnalysisParameters, Plan, read_plan
from modlake.pipeline.reuse import PublishedRun, ReuseMode
from modlake.pipeline.run_folder import RunFolder
from modlake.pipeline.set_aside import SetAside
from modlake.pipeline.verdicts import ModelDriftError
from modlake.policy.actions.journal import Journal
from modlake.policy.enforcement_folder import EnforcementFolder
from modlake.policy.intents import ActionResult, Intent, Status, undo_of
from tests.lake.conftest import Lake
from tests.support.days import (
    DAY,
    PROJECT_VERSION,
    answer_line,
    finish_job,
    label,
    land_day,
    plan_day,
)
from tests.support.memory_store import LAST_MODIFIED, MemoryObjectStore

Rows = Callable[[str], list[dict[str, Any]]]

NEXT_DAY = DAY + timedelta(days=1)
ALL_DAYS = "s3://ugc/uploads/"
LABELS = [label("Violence", "", 1, 90.0), label("Weapons", "Violence", 2, 60.0)]


class Pipeline:
    """Runs of days in one work bucket and one lake."""

    def __init__(self, lake: Lake, catalog: Catalog) -> None:
        self.lake = lake
        self.catalog = catalog
        self.store = MemoryObjectStore()
        self.runs = 0
        self.ended: dict[str, str] = {}

    def upload(self, *names: str, body: str | None = None) -> None:
        for name in names:
            self.store.write(f"{ALL_DAYS}{name}", (body or name).encode())

    def plan(self, day: date = DAY, **changes: Any) -> Plan:
        self.runs += 1
        arguments: dict[str, Any] = {
            "source_uri": ALL_DAYS,
            "ledger": LakeLedger(self.catalog),
            "reuse": ReuseMode.OBJECT,
            "allow_incomplete": 1.0,
        }
        return plan_day(self.store, day=day, run_id=f"run-{self.runs}", **arguments | changes)

    def run(
        self,
        day: date = DAY,
        *,
        labels: Iterable[dict[str, Any]] = LABELS,
        unanswered: str = "",
        model: str = "7.0",
        adapter: str | None = None,
        **changes: Any,
    ) -> tuple[Plan, Publication]:
        """Run a day; images whose key holds ``clean`` have no labels."""
        plan = self.plan(day, adapter_arn=adapter, **changes)
        for shard in plan.shards:
            answer = {"ModerationModelVersion": model} | ({"ProjectVersion": adapter} if adapter else {})
            lines = [
                answer_line(ref, () if "clean" in ref else list(labels), **answer)
                for ref in read_manifest(self.store, shard)
                if not unanswered or unanswered not in ref
            ]
            # As in an account: an analysis that was made before is not made again.
            name = f"{shard.sha256[:8]}-{plan.parameters.fresh or ''}"
            ended = self.ended.setdefault(name, f"2026-11-22T01:{self.runs:02d}:00+00:00")
            results = "\n".join(lines)
            finish_job(self.store, plan, shard.shard, results, name=name, CompletionTimestamp=ended)
        audit = audit_day(self.store, plan, land_day(self.store, plan), "1")
        copied = replace(
            audit,
            images_uris=[self.lake._copy(self.store, uri) for uri in audit.images_uris],
            labels_uris=[self.lake._copy(self.store, uri) for uri in audit.labels_uris],
        )
        return plan, publish_day(self.catalog, plan, copied)

    @property
    def quarantine(self) -> DayQuarantine:
        return DayQuarantine(self.catalog, self.store, day=DAY, work_uri="s3://work/")

    def rows(self, table: str, day: date) -> list[dict[str, Any]]:
        scan = self.catalog.load_table(f"moderation.{table}").scan(f"day = '{day}'")
        return sorted(scan.to_arrow().to_pylist(), key=lambda row: str(row.get("source_ref")))

    def outcomes(self, day: date) -> dict[str, tuple[str, str | None]]:
        return {
            row["source_ref"].removeprefix(ALL_DAYS): (row["outcome"], row["reused_from"])
            for row in self.rows("images", day)
        }


@pytest.fixture
def pipeline(lake: Lake, catalog: Catalog) -> Pipeline:
    return Pipeline(lake, catalog)


def snapshots(catalog: Catalog) -> list[int | None]:
    return [catalog.load_table(table.identifier).metadata.current_snapshot_id for table in PUBLISHED_TABLES]


def test_an_image_judged_before_is_carried_over_with_its_labels(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg", "clean.jpg")
    pipeline.run(DAY)
    pipeline.upload("new.jpg")
    plan, publication = pipeline.run(NEXT_DAY)

    assert (plan.listed, plan.eligible, plan.reused, plan.estimated_cost_usd) == (3, 1, 2, 0.001)
    assert (publication.judged, publication.reused, publication.labels) == (1, 2, 4)
    assert pipeline.outcomes(NEXT_DAY) == {
        "a.jpg": ("reused", "2026-11-21"),
        "clean.jpg": ("reused", "2026-11-21"),
        "new.jpg": ("judged", None),
    }
    first, second = ({row["key"]: row for row in pipeline.rows("images", day)} for day in (DAY, NEXT_DAY))
    for key in ("uploads/a.jpg", "uploads/clean.jpg"):
        changed = {name: value for name, value in second[key].items() if value != first[key][name]}
        assert changed == {
            "day": NEXT_DAY,
            "outcome": "reused",
            "reused_from": "2026-11-21",
            "run_id": plan.run_id,
        }
    carried = [row for row in pipeline.rows("labels", NEXT_DAY) if row["source_ref"].endswith("a.jpg")]
    expected = [row | {"day": NEXT_DAY, "run_id": plan.run_id} for row in pipeline.rows("labels", DAY)]
    assert sorted(carried, key=lambda row: row["label"]) == sorted(expected, key=lambda row: row["label"])


@pytest.mark.parametrize(
    "change",
    [
        {"reuse": ReuseMode.OFF},
        {"ledger": None},
        {"adapter": PROJECT_VERSION},
        {"parameters": AnalysisParameters(min_confidence=49.0, adapter_arn=None)},
    ],
)
def test_what_was_asked_for_otherwise_is_judged_anew(pipeline: Pipeline, change: dict[str, Any]) -> None:
    pipeline.upload("a.jpg")
    pipeline.run(DAY)
    if change.get("reuse") is ReuseMode.OFF:
        change["ledger"] = None
    adapter = change.pop("adapter", None)
    pipeline.run(NEXT_DAY, adapter=adapter, **change)
    assert pipeline.outcomes(NEXT_DAY) == {"a.jpg": ("judged", None)}


def test_a_changed_object_is_judged_anew(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg", "b.jpg")
    pipeline.run(DAY)
    pipeline.upload("a.jpg", body="another image")
    pipeline.run(NEXT_DAY)
    assert pipeline.outcomes(NEXT_DAY) == {"a.jpg": ("judged", None), "b.jpg": ("reused", "2026-11-21")}


def test_a_higher_floor_of_confidence_filters_the_labels(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg")
    pipeline.run(DAY)
    parameters = AnalysisParameters(min_confidence=80.0, adapter_arn=None)
    pipeline.run(NEXT_DAY, parameters=parameters)
    assert [row["label"] for row in pipeline.rows("labels", NEXT_DAY)] == ["Violence"]
    (image,) = pipeline.rows("images", NEXT_DAY)
    assert (image["label_count"], image["top_label"], image["min_confidence"]) == (1, "Violence", 80.0)

    higher = AnalysisParameters(min_confidence=95.0, adapter_arn=None)
    pipeline.run(NEXT_DAY, parameters=higher)
    (image,) = pipeline.rows("images", NEXT_DAY)
    assert (image["outcome"], image["label_count"], image["top_label"], image["top_confidence"]) == (
        "reused",
        0,
        None,
        None,
    )
    # What was carried over with few labels can't stand for a judgement with all of them.
    pipeline.run(NEXT_DAY)
    (image,) = pipeline.rows("images", NEXT_DAY)
    assert (image["outcome"], image["reused_from"], image["label_count"]) == ("reused", "2026-11-21", 2)


def test_failed_images_are_asked_for_again(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg", "lost.jpg")
    pipeline.run(DAY, unanswered="lost")
    plan, _ = pipeline.run(NEXT_DAY)
    assert read_manifest(pipeline.store, plan.shards[0]) == [f"{ALL_DAYS}lost.jpg"]


def test_equal_content_is_carried_over_when_that_is_asked_for(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg", body="the image")
    pipeline.run(DAY)
    pipeline.upload("b.jpg", "c.jpg", body="the image")
    pipeline.upload("d.jpg", body="the imagf")
    assert pipeline.plan(NEXT_DAY).reused == 1
    pipeline.run(NEXT_DAY, reuse=ReuseMode.CONTENT)
    assert pipeline.outcomes(NEXT_DAY) == {
        **dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), ("reused", "2026-11-21")),
        "d.jpg": ("judged", None),
    }
    labels = [row["source_ref"][-5:] for row in pipeline.rows("labels", NEXT_DAY)]
    assert labels == ["a.jpg", "a.jpg", "b.jpg", "b.jpg", "c.jpg", "c.jpg", "d.jpg", "d.jpg"]


def test_of_two_judgements_the_newest_is_carried_over(pipeline: Pipeline) -> None:
    # The older one lies in the file that begins first, and so is read first.
    pipeline.upload("0.jpg", "a.jpg")
    pipeline.run(DAY)
    del pipeline.store.objects[f"{ALL_DAYS}0.jpg"]
    pipeline.run(NEXT_DAY, ledger=None)
    pipeline.run(NEXT_DAY + timedelta(days=1))
    assert pipeline.outcomes(NEXT_DAY + timedelta(days=1)) == {"a.jpg": ("reused", NEXT_DAY.isoformat())}


@pytest.mark.parametrize("mode", [ReuseMode.OBJECT, ReuseMode.CONTENT])
def test_an_image_whose_hash_was_forged_is_judged(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, mode: ReuseMode
) -> None:
    pipeline.upload("clean.jpg")
    pipeline.run(DAY)
    pipeline.upload("forged.jpg")
    monkeypatch.setattr(row_index, "_row_hashes", lambda columns: np.zeros(len(columns[0]), np.uint64))
    pipeline.run(NEXT_DAY, reuse=mode)
    assert pipeline.outcomes(NEXT_DAY) == {
        "clean.jpg": ("reused", DAY.isoformat()),
        "forged.jpg": ("judged", None),
    }


@pytest.mark.parametrize("mode", [ReuseMode.OBJECT, ReuseMode.CONTENT])
def test_an_image_keeps_its_own_labels_although_hashes_were_forged(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, mode: ReuseMode
) -> None:
    pipeline.upload("a.jpg", "b.jpg")
    pipeline.run(DAY)
    monkeypatch.setattr(row_index, "_row_hashes", lambda columns: np.zeros(len(columns[0]), np.uint64))
    pipeline.run(NEXT_DAY, reuse=mode)
    assert pipeline.outcomes(NEXT_DAY) == {"a.jpg": ("reused", DAY.isoformat()), "b.jpg": ("judged", None)}
    assert [row["source_ref"][-5:] for row in pipeline.rows("labels", NEXT_DAY)] == 2 * ["a.jpg"] + 2 * [
        "b.jpg"
    ]


def test_a_rerun_of_an_unchanged_day_changes_nothing(pipeline: Pipeline, catalog: Catalog) -> None:
    pipeline.upload("a.jpg", "b.jpg")
    pipeline.run(DAY)
    pipeline.upload("c.jpg", "d.gif")
    first, _ = pipeline.run(NEXT_DAY)
    for day in (NEXT_DAY, DAY, NEXT_DAY):
        before = snapshots(catalog)
        if day == DAY:
            # Its listing has grown.
            _, publication = pipeline.run(DAY)
            assert publication.reused == 3
        else:
            again, publication = pipeline.run(NEXT_DAY, max_cost_usd=0.0)
            assert (again.eligible, again.estimated_cost_usd) == (first.eligible, 0)
            assert (publication.changed, snapshots(catalog)) == (False, before)
            assert [shard.sha256 for shard in again.shards] == [shard.sha256 for shard in first.shards]


def test_a_rerun_after_a_fresh_analysis_keeps_it(pipeline: Pipeline, catalog: Catalog) -> None:
    pipeline.upload("a.jpg")
    pipeline.run(DAY)
    fresh = AnalysisParameters(min_confidence=50.0, adapter_arn=None, fresh="manual__2")
    plan, publication = pipeline.run(DAY, parameters=fresh, ledger=None)
    assert (plan.reused, publication.changed) == (0, True)
    before = snapshots(catalog)
    again, publication = pipeline.run(DAY)
    assert again.parameters == fresh
    assert (publication.changed, snapshots(catalog)) == (False, before)


def test_late_images_of_a_day_are_the_only_ones_to_pay_for(pipeline: Pipeline, catalog: Catalog) -> None:
    pipeline.upload("a.jpg", "b.jpg")
    pipeline.run(DAY)
    (job,) = pipeline.rows("jobs", DAY)
    for number, late in enumerate(("late.jpg", "later.jpg"), 1):
        pipeline.upload(late)
        plan, publication = pipeline.run(DAY)
        assert (plan.eligible, publication.judged, publication.reused) == (1, 1, 1 + number)
        assert pipeline.outcomes(DAY)["a.jpg"] == ("reused", "2026-11-21")
        jobs = pipeline.rows("jobs", DAY)
        assert len(jobs) == 1 + number
        assert {row["run_id"] for row in jobs} == {plan.run_id}
        assert job["job_id"] in {row["job_id"] for row in jobs}
        assert {row["job_id"] for row in pipeline.rows("images", DAY)} == {row["job_id"] for row in jobs}
    before = snapshots(catalog)
    _, publication = pipeline.run(DAY)
    assert (publication.changed, snapshots(catalog)) == (False, before)
    # The day's own judgements serve other days too.
    assert pipeline.plan(NEXT_DAY).reused == 4


def run_cut_short(pipeline: Pipeline, at: str, **changes: Any) -> Plan:
    """Run a day whose publish dies before it commits to that table."""
    commit = Transaction.commit_transaction

    def die(self: Transaction) -> Table:
        if self._table.name()[-1] == at:
            raise KeyboardInterrupt
        return commit(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transaction, "commit_transaction", die)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(DAY, **changes)
    return read_plan(pipeline.store, RunFolder("s3://work/", DAY, f"run-{pipeline.runs}").plan_uri)


@pytest.mark.parametrize("at", ["labels", "jobs", "runs"])
def test_a_publish_that_is_cut_short_hides_no_judgement(
    pipeline: Pipeline, catalog: Catalog, at: str
) -> None:
    pipeline.upload("a.jpg", "b.jpg", "clean.jpg")
    pipeline.run(DAY)
    labels, jobs = pipeline.rows("labels", DAY), pipeline.rows("jobs", DAY)
    pipeline.upload("late.jpg")
    cut_short = run_cut_short(pipeline, at)

    assert pipeline.plan(NEXT_DAY).reused == 3
    plan, publication = pipeline.run(DAY)

    assert [shard.sha256 for shard in plan.shards] == [shard.sha256 for shard in cut_short.shards]
    assert (publication.judged, publication.reused, publication.labels) == (1, 3, 6)
    kept = [row for row in pipeline.rows("labels", DAY) if "late" not in row["source_ref"]]
    assert len(kept) == len(labels)
    assert all(row | {"run_id": "run-1"} in labels for row in kept)
    assert {row["job_id"] for row in pipeline.rows("jobs", DAY)} > {row["job_id"] for row in jobs}
    before = snapshots(catalog)
    assert not pipeline.run(DAY)[1].changed
    assert snapshots(catalog) == before


def test_judgements_outlast_several_publishes_that_are_cut_short(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg")
    pipeline.run(DAY)
    fresh = AnalysisParameters(min_confidence=90.0, adapter_arn=None, fresh="manual__2")
    run_cut_short(pipeline, "runs", parameters=fresh, ledger=None)
    del pipeline.store.objects[f"{ALL_DAYS}a.jpg"]
    run_cut_short(pipeline, "jobs")
    pipeline.upload("a.jpg", "late.jpg")
    plan, publication = pipeline.run(DAY)
    assert (plan.eligible, plan.reused, publication.labels) == (1, 1, 4)
    assert len(pipeline.rows("jobs", DAY)) == 2


def test_a_day_whose_listing_is_as_published_again_carries_over_what_that_run_did(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg")
    pipeline.run(DAY)
    pipeline.upload("b.jpg")
    published, _ = pipeline.run(DAY)
    pipeline.upload("late.jpg")
    run_cut_short(pipeline, "labels")
    del pipeline.store.objects[f"{ALL_DAYS}late.jpg"]
    plan, publication = pipeline.run(DAY)
    assert [shard.sha256 for shard in plan.shards] == [shard.sha256 for shard in published.shards]
    assert (publication.judged, publication.reused, publication.labels) == (1, 1, 4)


def test_rows_of_a_run_that_is_not_published_are_no_judgements(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg")
    run_cut_short(pipeline, "runs")
    assert len(pipeline.rows("images", DAY)) == 1
    assert pipeline.plan(NEXT_DAY).reused == 0
    pipeline.run(DAY)
    assert pipeline.plan(NEXT_DAY).reused == 1


def test_a_judgement_without_all_its_labels_is_none(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg", "clean.jpg")
    pipeline.run(DAY)
    pipeline.catalog.load_table("moderation.labels").delete("label = 'Weapons'")
    pipeline.run(NEXT_DAY)
    assert pipeline.outcomes(NEXT_DAY) == {"a.jpg": ("judged", None), "clean.jpg": ("reused", "2026-11-21")}


def test_judgements_of_an_older_model_are_not_carried_over(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg")
    pipeline.run(DAY)
    pipeline.upload("b.jpg")
    pipeline.run(NEXT_DAY, model="8.0", ledger=None)
    pipeline.upload("c.jpg")
    plan, publication = pipeline.run(NEXT_DAY + timedelta(days=1), model="8.0")
    assert (plan.model_version, plan.reused, publication.model_versions) == ("8.0", 2, ["8.0"])


def test_a_model_that_changes_while_a_day_is_judged_stops_it_once(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg")
    pipeline.run(DAY)
    pipeline.upload("b.jpg")
    with pytest.raises(ModelDriftError, match=r"1 images by 8\.0 .* 1 images carry over what 7\.0 judged"):
        pipeline.run(NEXT_DAY, model="8.0")
    _, publication = pipeline.run(NEXT_DAY, model="8.0")
    assert (publication.judged, publication.reused, publication.model_versions) == (2, 0, ["8.0"])


def test_a_published_day_is_kept_although_a_newer_model_answers_elsewhere(
    pipeline: Pipeline, catalog: Catalog
) -> None:
    pipeline.upload("a.jpg")
    pipeline.run(DAY)
    pipeline.run(NEXT_DAY, model="8.0", ledger=None)
    _, publication = pipeline.run(DAY)
    assert not publication.changed


def test_a_deleted_image_leaves_the_day(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg", "b.jpg")
    pipeline.run(DAY)
    del pipeline.store.objects[f"{ALL_DAYS}b.jpg"]
    plan, _ = pipeline.run(DAY)
    assert (plan.shards, pipeline.outcomes(DAY)) == ([], {"a.jpg": ("reused", "2026-11-21")})


def request_quarantine(pipeline: Pipeline, name: str) -> Intent:
    """What an enforcement of the day leaves before it moves an image."""
    (row,) = [row for row in pipeline.rows("images", DAY) if row["key"].endswith(name)]
    intent = Intent(
        action_id=f"act-{name}",
        day=DAY.isoformat(),
        source_ref=row["source_ref"],
        etag=row["etag"],
        kind="quarantine",
        target="s3://quarantine/",
    )
    add_intents(pipeline.catalog, DAY, [intent])
    return intent


def move(pipeline: Pipeline, intent: Intent) -> dict[str, Any]:
    """Write down what the object is like, and take it away; return what is written down."""
    body = pipeline.store.objects.pop(intent.source_ref)
    origin = {"size_bytes": len(body), "last_modified": LAST_MODIFIED.isoformat()}
    journal = Journal.of_day(pipeline.store, EnforcementFolder("s3://work/", DAY, "e"))
    return journal.remember(intent.action_id, lambda: {"origin": origin})


def record(pipeline: Pipeline, intent: Intent, detail: dict[str, Any], status: Status = "completed") -> None:
    ended = "2026-11-22T03:00:00+00:00"
    record_results(
        pipeline.catalog, DAY, [ActionResult(intent.action_id, status, detail, ended, intent.undoes)]
    )


def quarantine(pipeline: Pipeline, name: str) -> Intent:
    """What an enforcement of the day leaves: a completed action, and the object moved away."""
    intent = request_quarantine(pipeline, name)
    record(pipeline, intent, move(pipeline, intent))
    return intent


def take_back(pipeline: Pipeline, intent: Intent) -> None:
    (row,) = read_actions(pipeline.catalog, action_ids=[intent.action_id]).to_pylist()
    undo = undo_of(row, enforcement_id="undo-1", actor="ada", reason=None)
    add_intents(pipeline.catalog, DAY, [undo])
    record(pipeline, undo, {})


@pytest.mark.parametrize("names", [["b.jpg"], ["c.jpg"], ["a.jpg", "b.jpg", "c.jpg"]])
def test_images_in_quarantine_stay_in_their_day(pipeline: Pipeline, names: list[str]) -> None:
    pipeline.upload("a.jpg", "b.jpg", "c.jpg")
    pipeline.run(DAY)
    labels = pipeline.rows("labels", DAY)
    for name in names:
        quarantine(pipeline, name)
    plan, _ = pipeline.run(DAY, quarantine=pipeline.quarantine)
    assert (plan.shards, plan.listed, plan.reused, plan.ineligible) == ([], 3, 3, 0)
    assert pipeline.outcomes(DAY) == dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), ("reused", "2026-11-21"))
    kept = pipeline.rows("labels", DAY)
    assert len(kept) == len(labels)
    assert all(row | {"run_id": "run-1"} in labels for row in kept)
    _, publication = pipeline.run(DAY, quarantine=pipeline.quarantine)
    assert not publication.changed


def test_an_image_on_its_way_into_quarantine_stays_in_its_day(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg", "b.jpg", "c.jpg")
    pipeline.run(DAY)
    intent = request_quarantine(pipeline, "b.jpg")
    detail = move(pipeline, intent)
    plan, _ = pipeline.run(DAY, quarantine=pipeline.quarantine)
    assert (plan.shards, plan.listed, plan.reused, plan.ineligible) == ([], 3, 3, 0)
    before = pipeline.rows("images", DAY)
    record(pipeline, intent, detail)
    _, publication = pipeline.run(DAY, quarantine=pipeline.quarantine)
    assert not publication.changed
    assert pipeline.rows("images", DAY) == before


def test_an_image_whose_move_failed_after_it_had_left_its_place_stays_in_its_day(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg", "b.jpg", "c.jpg")
    pipeline.run(DAY)
    moved, not_begun = (request_quarantine(pipeline, name) for name in ("b.jpg", "c.jpg"))
    move(pipeline, moved)
    for intent in (moved, not_begun):
        record(pipeline, intent, {"message": "s3:DeleteObjectVersion is denied"}, "failed")
    del pipeline.store.objects[not_begun.source_ref]  # by its owner
    pipeline.run(DAY, quarantine=pipeline.quarantine)
    assert pipeline.outcomes(DAY) == dict.fromkeys(("a.jpg", "b.jpg"), ("reused", "2026-11-21"))


def test_an_image_that_left_its_day_while_it_lies_in_quarantine_comes_back(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg", "b.jpg")
    pipeline.run(DAY)
    (known,) = [row for row in pipeline.rows("images", DAY) if row["key"].endswith("b.jpg")]
    quarantine(pipeline, "b.jpg")
    pipeline.run(DAY)
    assert list(pipeline.outcomes(DAY)) == ["a.jpg"]
    pipeline.run(DAY, quarantine=pipeline.quarantine)
    (row,) = [row for row in pipeline.rows("images", DAY) if row["key"].endswith("b.jpg")]
    same = ("source_ref", "bucket", "key", "size_bytes", "etag", "last_modified")
    assert [row[name] for name in same] == [known[name] for name in same]


def test_an_image_that_its_owner_deleted_before_it_was_moved_leaves_the_day(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg", "b.jpg")
    pipeline.run(DAY)
    request_quarantine(pipeline, "b.jpg")
    del pipeline.store.objects[f"{ALL_DAYS}b.jpg"]
    pipeline.run(DAY, quarantine=pipeline.quarantine)
    assert list(pipeline.outcomes(DAY)) == ["a.jpg"]


def test_images_that_are_moved_while_their_day_is_listed_stay_in_it(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.upload("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    pipeline.run(DAY)
    returning, leaving = (quarantine(pipeline, name) for name in ("b.jpg", "d.jpg"))
    take_back(pipeline, leaving)  # and its owner deletes it
    list_objects = pipeline.store.list_objects

    def moving(bucket: str, prefix: str) -> Iterator[Any]:
        if prefix == "uploads/":
            move(pipeline, request_quarantine(pipeline, "a.jpg"))
        yield from list_objects(bucket, prefix)
        if prefix == "uploads/":
            take_back(pipeline, returning)
            pipeline.upload("b.jpg")

    monkeypatch.setattr(pipeline.store, "list_objects", moving)
    pipeline.run(DAY, quarantine=pipeline.quarantine)
    assert pipeline.outcomes(DAY) == dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), ("reused", "2026-11-21"))


def test_an_image_in_quarantine_is_found_although_it_is_listed_after_all_others(
    pipeline: Pipeline, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modlake.pipeline.inventory.ROWS_PER_PART", 2)
    monkeypatch.setattr("modlake.pipeline.fates.PARTS_PER_BATCH", 1)
    names = [f"{letter}.jpg" for letter in "abcdef"]
    pipeline.upload(*names)
    pipeline.run(DAY)
    quarantine(pipeline, "b.jpg")
    plan, _ = pipeline.run(DAY, quarantine=pipeline.quarantine)
    assert (plan.reused, plan.ineligible, len(plan.reused_batches)) == (6, 0, 3)
    assert pipeline.outcomes(DAY) == dict.fromkeys(names, ("reused", "2026-11-21"))


def test_an_image_in_quarantine_cannot_be_judged_anew(pipeline: Pipeline, catalog: Catalog) -> None:
    pipeline.upload("a.jpg", "b.jpg")
    pipeline.run(DAY)
    quarantine(pipeline, "b.jpg")
    plan, _ = pipeline.run(
        DAY,
        ledger=None,
        quarantine=pipeline.quarantine,
        parameters=AnalysisParameters(50.0, None, fresh="again"),
    )
    assert plan.ineligible_by_code == {"QUARANTINED": 1}
    assert pipeline.outcomes(DAY)["b.jpg"] == ("ineligible", None)


def test_an_image_uploaded_in_the_place_of_one_in_quarantine_is_judged(
    pipeline: Pipeline, catalog: Catalog
) -> None:
    pipeline.upload("a.jpg", "b.jpg")
    pipeline.run(DAY)
    quarantine(pipeline, "b.jpg")
    pipeline.upload("b.jpg", body="another one")
    plan, _ = pipeline.run(DAY, quarantine=pipeline.quarantine)
    assert (plan.listed, plan.eligible) == (2, 1)
    assert pipeline.outcomes(DAY)["b.jpg"] == ("judged", None)


@pytest.mark.parametrize("known_to_be_away", [False, True])
def test_an_image_uploaded_once_more_in_its_place_is_published_with_its_new_time(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, known_to_be_away: bool
) -> None:
    pipeline.upload("a.jpg", "b.jpg")
    pipeline.run(DAY)
    quarantine(pipeline, "b.jpg")
    if known_to_be_away:
        pipeline.run(DAY, quarantine=pipeline.quarantine)
    assert {row["last_modified"] for row in pipeline.rows("images", DAY)} == {LAST_MODIFIED}
    later = LAST_MODIFIED + timedelta(days=1)
    monkeypatch.setattr("tests.support.memory_store.LAST_MODIFIED", later)
    pipeline.upload("b.jpg")
    plan, publication = pipeline.run(DAY, quarantine=pipeline.quarantine)
    assert publication.changed
    assert plan.estimated_cost_usd == 0
    assert {row["last_modified"] for row in pipeline.rows("images", DAY)} == {later}


def test_an_image_set_aside_later_costs_no_other_one(pipeline: Pipeline) -> None:
    pipeline.upload(*(f"{number}.jpg" for number in range(9)))
    pipeline.run(DAY, images_per_manifest=3)
    aside = SetAside(pa.array([f"{ALL_DAYS}0.jpg"]))
    plan, _ = pipeline.run(DAY, images_per_manifest=3, set_aside=aside)
    assert (plan.shards, plan.reused, plan.ineligible_by_code) == ([], 8, {"SET_ASIDE": 1})
    _, publication = pipeline.run(DAY, images_per_manifest=3, set_aside=aside)
    assert not publication.changed


def test_an_image_in_quarantine_that_is_set_aside_has_no_judgement(pipeline: Pipeline) -> None:
    pipeline.upload("a.jpg", "b.jpg")
    pipeline.run(DAY)
    quarantine(pipeline, "a.jpg")
    aside = SetAside(pa.array([f"{ALL_DAYS}a.jpg"]))
    for _ in range(2):
        pipeline.run(DAY, quarantine=pipeline.quarantine, set_aside=aside)
        (row,) = [row for row in pipeline.rows("images", DAY) if row["key"].endswith("a.jpg")]
        assert (row["outcome"], row["error_code"], row["label_count"]) == ("ineligible", "SET_ASIDE", None)
        assert not [each for each in pipeline.rows("labels", DAY) if each["source_ref"] == row["source_ref"]]


def test_batches_are_looked_up_one_by_one(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modlake.pipeline.inventory.ROWS_PER_PART", 3)
    monkeypatch.setattr("modlake.pipeline.fates.PARTS_PER_BATCH", 2)
    monkeypatch.setattr("modlake.lake.judgement_lookup.ROWS_KEPT_AT_ONCE", 4)
    monkeypatch.setattr("modlake.lake.judgement_lookup.ROWS_COMPARED_AT_ONCE", 4)
    pipeline.upload(*(f"{number:02d}.jpg" for number in range(20)))
    pipeline.run(DAY, images_per_manifest=5)
    pipeline.upload("new.jpg", "05x.jpg", "07.gif")
    plan, publication = pipeline.run(NEXT_DAY, images_per_manifest=5)
    assert [batch.image_count for batch in plan.reused_batches] == [6, 4, 6, 4]
    assert (publication.judged, publication.reused, publication.labels) == (2, 20, 44)


def test_equal_content_is_found_whatever_batch_it_is_listed_in(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modlake.pipeline.inventory.ROWS_PER_PART", 3)
    monkeypatch.setattr("modlake.pipeline.fates.PARTS_PER_BATCH", 1)
    monkeypatch.setattr("modlake.lake.judgement_lookup.ROWS_KEPT_AT_ONCE", 4)
    monkeypatch.setattr("modlake.lake.listed_batches.GROUPS", 4)
    names = [f"{number:02d}.jpg" for number in range(20)]
    for name in names:
        pipeline.upload(name)
    pipeline.run(DAY, images_per_manifest=5)
    for name in names:
        pipeline.store.objects[f"{ALL_DAYS}{99 - int(name[:2])}.jpg"] = pipeline.store.objects.pop(
            f"{ALL_DAYS}{name}"
        )
    pipeline.upload("new.jpg")
    plan, publication = pipeline.run(NEXT_DAY, reuse=ReuseMode.CONTENT)
    assert [batch.image_count for batch in plan.reused_batches] == [3, 3, 3, 3, 3, 3, 2]
    assert (publication.judged, publication.reused, publication.labels) == (1, 20, 42)


def test_a_data_file_is_read_once_however_many_batches_are_looked_up(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modlake.pipeline.inventory.ROWS_PER_PART", 2)
    monkeypatch.setattr("modlake.pipeline.fates.PARTS_PER_BATCH", 1)
    pipeline.upload(*(f"{number:02d}.jpg" for number in range(20)))
    pipeline.run(DAY, images_per_manifest=5)
    opened: list[str] = []
    open_file = TableFiles._open

    def count(files: TableFiles, task: FileScanTask) -> Any:
        opened.append(task.file.file_path)
        return open_file(files, task)

    monkeypatch.setattr(TableFiles, "_open", count)
    plan = pipeline.plan(NEXT_DAY)

    assert (plan.reused, len(plan.reused_batches)) == (20, 10)
    assert len(opened) == len(set(opened)) == 8


def test_a_file_that_only_pyiceberg_can_read_is_filtered_like_any_other(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.upload("a.jpg", "b.jpg")
    pipeline.run(DAY, parameters=AnalysisParameters(60.0, None))
    monkeypatch.setattr(TableFiles, "_open", lambda *_: None)
    assert pipeline.plan(NEXT_DAY, parameters=AnalysisParameters(60.0, None)).reused == 2
    assert pipeline.plan(NEXT_DAY, parameters=AnalysisParameters(50.0, None)).reused == 0


def test_without_any_judgement_nothing_is_looked_up(pipeline: Pipeline) -> None:
    assert pipeline.plan(DAY).reused == 0
    pipeline.upload("a.jpg")
    plan = pipeline.plan(DAY)
    assert (plan.reused, plan.eligible, plan.model_version) == (0, 1, None)


def test_no_file_is_opened_to_know_which_runs_are_published(lake: Lake, catalog: Catalog) -> None:
    """Each night would open as many as there were nights before."""
    days = [DAY + timedelta(days=number) for number in range(3)]
    for day in days:
        publish_day(catalog, *lake.audited(["a.jpg"], day=day, run_id=f"run-of-{day}"))
    for task in catalog.load_table("moderation.runs").scan().plan_files():
        Path(task.file.file_path.removeprefix("file://")).unlink()
    ledger = LakeLedger(catalog)
    assert [ledger.published_run(day) for day in days] == [PublishedRun(f"run-of-{day}", 0) for day in days]


def test_published_runs_are_read_where_statistics_do_not_tell_them(lake: Lake, catalog: Catalog) -> None:
    publish_day(catalog, *lake.audited(["a.jpg"], run_id="run-1"))
    runs = catalog.load_table("moderation.runs")
    with runs.transaction() as transaction:
        transaction.set_properties({"write.metadata.metrics.column.run_id": "truncate(4)"})
    runs.overwrite(runs.scan().to_arrow())  # as another engine may
    assert LakeLedger(catalog).published_run(DAY) == PublishedRun("run-1", 0)
