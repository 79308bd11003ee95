"""Deciding a published day, and the difference to what was decided before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table, Transaction

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.lake import decisions, labelled_batches
from modlake.lake.decisions import DayDecisions, Figures, is_current, read_published
from modlake.lake.maintenance.compaction import compact_tables
from modlake.policy.policy import Policy
from tests.lake.conftest import Lake
from tests.lake.maintenance_lake import policy as maintenance
from tests.support.days import DAY
from tests.support.labelled_days import policy, publish_labels

Rows = Callable[[str], list[dict[str, Any]]]

IMAGES = {
    "a.jpg": {"Explicit": 95.0, "Exposed Male Genitalia": 95.0},
    "b.jpg": {"Explicit": 70.0},
    "c.jpg": {"Weapons": 90.0},
    "d.jpg": {},
}
NEXT_DAY = DAY + timedelta(days=1)


def decide(
    catalog: Catalog, *policies: Policy, enforcement_id: str = "enf-1"
) -> tuple[pa.Table, dict[tuple[str, str | None, str], Figures], bool]:
    deciding = DayDecisions(catalog, read_published(catalog, DAY), policies)
    batches = list(deciding.batches())
    figures, changed = deciding.commit(enforcement_id)
    return pa.concat_tables(batches), {(f.policy, f.rule, f.verdict): f for f in figures}, changed


def verdicts(rows: Sequence[dict[str, Any]], name: str = "house") -> dict[str, tuple[str, str | None]]:
    return {
        row["source_ref"].rpartition("/")[2]: (row["verdict"], row["rule"])
        for row in rows
        if row["policy"] == name
    }


def counts(figures: Figures) -> tuple[int, int, int, int]:
    return figures.images, figures.newly_hit, figures.released, figures.unchanged


def snapshots(catalog: Catalog) -> list[int]:
    return [len(catalog.load_table(f"moderation.{n}").snapshots()) for n in ("decisions", "enforcements")]


def data_files(lake: Lake) -> int:
    return len(list((lake.home / "warehouse").rglob("decided-*.parquet")))


def test_every_image_is_decided_by_every_policy_that_is_not_a_draft(catalog: Catalog, rows: Rows) -> None:
    publish_labels(catalog, DAY, IMAGES)
    shadow = policy("trial", status="shadow", block_at=60)
    batch, figures, changed = decide(catalog, policy(), shadow, policy("idea", status="draft"))

    stored = rows("decisions")
    assert changed
    assert verdicts(stored) == {
        "a.jpg": ("block", "nudity"),
        "b.jpg": ("allow", None),
        "c.jpg": ("review", "arms"),
        "d.jpg": ("allow", None),
    }
    assert verdicts(stored, "trial") | {"b.jpg": ("block", "nudity")} == verdicts(stored, "trial")
    assert Counter(row["mode"] for row in stored) == {"live": 4, "shadow": 4}
    (blocked,) = [row for row in stored if row["policy"] == "house" and row["verdict"] == "block"]
    assert {reason["label"] for reason in blocked["reasons"]} == {"Explicit", "Exposed Male Genitalia"}
    assert (blocked["policy_version"], blocked["run_id"]) == (policy().version, "run-1")
    assert set(batch["etag"].to_pylist()) == {f"etag-{key}" for key in IMAGES}
    assert counts(figures["house", "nudity", "block"]) == (1, 1, 0, 0)
    assert counts(figures["trial", "nudity", "block"]) == (2, 2, 0, 0)
    assert counts(figures["house", None, "allow"]) == (2, 2, 0, 0)


def test_a_label_without_a_confidence_is_a_reason_without_one(catalog: Catalog, rows: Rows) -> None:
    publish_labels(catalog, DAY, {"a.jpg": {"Exposed Male Genitalia": None, "Explicit": 95.0}})
    decide(catalog, policy(block_at=None))
    (row,) = rows("decisions")
    assert (row["verdict"], row["rule"]) == ("block", "nudity")
    assert row["reasons"] == [
        {"label": "Explicit", "confidence": 95.0},
        {"label": "Exposed Male Genitalia", "confidence": None},
    ]


def test_figures_stand_in_enforcements_also_of_rules_without_a_hit(catalog: Catalog, rows: Rows) -> None:
    publish_labels(catalog, DAY, {"d.jpg": {}, "c.jpg": {"Weapons": 90.0}})
    decide(catalog, policy())
    found = {(row["rule"], row["verdict"]): row for row in rows("enforcements")}
    assert {key: (row["images"], row["share"]) for key, row in found.items()} == {
        ("nudity", "block"): (0, 0.0),
        ("arms", "review"): (1, 0.5),
        (None, "allow"): (1, 0.5),
    }
    assert {row["enforcement_id"] for row in found.values()} == {"enf-1"}


def test_the_same_again_commits_nothing_and_leaves_no_file(lake: Lake, catalog: Catalog) -> None:
    publish_labels(catalog, DAY, IMAGES)
    decide(catalog, policy())
    before = snapshots(catalog), data_files(lake)
    _, figures, changed = decide(lake.open(), policy(), enforcement_id="enf-2")
    assert not changed
    assert (snapshots(catalog), data_files(lake)) == before
    assert counts(figures["house", "nudity", "block"]) == (1, 0, 0, 1)


def test_a_changed_policy_tells_what_is_newly_hit_and_released(catalog: Catalog, rows: Rows) -> None:
    publish_labels(catalog, DAY, IMAGES)
    decide(catalog, policy())
    _, figures, changed = decide(catalog, policy(block_at=60, review_at=None))
    assert changed
    assert counts(figures["house", "nudity", "block"]) == (2, 1, 0, 1)
    # The rule is not there any more, and what it had found is released.
    assert counts(figures["house", "arms", "review"]) == (0, 0, 1, 0)
    assert counts(figures["house", None, "allow"]) == (2, 1, 1, 1)
    assert {row["policy_version"] for row in rows("decisions")} == {
        policy(block_at=60, review_at=None).version
    }
    assert len(rows("decisions")) == 4


def test_a_policy_that_is_gone_and_an_image_that_is_gone_count_as_released(catalog: Catalog) -> None:
    publish_labels(catalog, DAY, IMAGES)
    decide(catalog, policy(), policy("other"))
    publish_labels(catalog, DAY, {key: IMAGES[key] for key in ("b.jpg", "d.jpg")}, run_id="run-2")
    _, figures, _ = decide(catalog, policy())
    assert counts(figures["house", "nudity", "block"]) == (0, 0, 1, 0)
    assert counts(figures["other", "nudity", "block"]) == (0, 0, 1, 0)
    assert figures["other", "nudity", "block"].mode == "live"


def test_other_days_stay_as_they_are(catalog: Catalog, rows: Rows) -> None:
    publish_labels(catalog, NEXT_DAY, {"z.jpg": {"Explicit": 99.0}})
    deciding = DayDecisions(catalog, read_published(catalog, NEXT_DAY), [policy()])
    list(deciding.batches())
    deciding.commit("enf-0")
    publish_labels(catalog, DAY, IMAGES)
    decide(catalog, policy())
    assert Counter(row["day"] for row in rows("decisions")) == {DAY: 4, NEXT_DAY: 1}


def test_images_that_were_set_aside_are_not_decided(catalog: Catalog, rows: Rows) -> None:
    aside = {"outcome": "ineligible", "error_code": "SET_ASIDE"}
    corrupt = {"outcome": "ineligible", "error_code": "NOT_AN_IMAGE"}
    publish_labels(
        catalog, DAY, {**IMAGES, "x.jpg": {}, "y.jpg": {}}, images={"x.jpg": aside, "y.jpg": corrupt}
    )
    _, figures, _ = decide(catalog, policy())
    assert verdicts(rows("decisions"))["y.jpg"] == ("review", None)
    assert "x.jpg" not in verdicts(rows("decisions"))
    assert sum(each.images for each in figures.values()) == 5


def test_a_day_is_decided_some_images_at_a_time(
    catalog: Catalog, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "ROWS_PER_FILE", 20)
    monkeypatch.setattr(
        decisions,
        "read_labelled_batches",
        lambda *args, **kwargs: labelled_batches.read_labelled_batches(*args, **kwargs, images_at_once=7),
    )
    labels = {f"{number:03d}.jpg": {"Explicit": 51.0 + number % 49} for number in range(100)}
    publish_labels(catalog, DAY, labels)
    deciding = DayDecisions(catalog, read_published(catalog, DAY), [policy()])
    assert [batch.num_rows for batch in deciding.batches()] == [7] * 14 + [2]
    deciding.commit("enf-1")
    found = verdicts(rows("decisions"))
    assert {key for key, (verdict, _) in found.items() if verdict == "block"} == {
        key for key, found in labels.items() if found["Explicit"] >= 80
    }
    files = catalog.load_table("moderation.decisions").inspect.data_files()
    assert (files.num_rows, sum(files["record_count"].to_pylist())) == (5, 100)
    before = sorted(rows("decisions"), key=lambda row: row["source_ref"])
    (compacted,) = [
        finding for finding in compact_tables(catalog, maintenance(dry_run=False), print) if finding.done
    ]
    assert (compacted.scope, compacted.done) == ("decisions", 5)
    assert rows("decisions") == before
    _, figures, changed = decide(catalog, policy())
    assert not changed
    assert figures["house", "nudity", "block"].unchanged == 40


def test_an_empty_day_clears_the_decisions_of_an_older_run(catalog: Catalog, rows: Rows) -> None:
    publish_labels(catalog, DAY, IMAGES)
    decide(catalog, policy())
    publish_labels(catalog, DAY, {}, run_id="run-2")
    deciding = DayDecisions(catalog, read_published(catalog, DAY), [policy()])
    assert list(deciding.batches()) == []
    assert deciding.commit("enf-2")[1]
    assert rows("decisions") == []
    assert all(row["share"] == 0 for row in rows("enforcements"))


def test_a_day_that_is_not_published_is_a_clear_error(catalog: Catalog) -> None:
    with pytest.raises(ModlakeTerminalError, match=f"{DAY} is not published.*run moderate_images"):
        read_published(catalog, DAY)


def test_a_day_that_is_published_anew_meanwhile_is_decided_again(lake: Lake, catalog: Catalog) -> None:
    publish_labels(catalog, DAY, IMAGES)
    deciding = DayDecisions(catalog, read_published(catalog, DAY), [policy()])
    publish_labels(catalog, DAY, {"new.jpg": {}}, run_id="run-2")
    with pytest.raises(ModlakeTransientError, match="published anew"):
        list(deciding.batches())
    assert data_files(lake) == 0


def crash_between_the_tables(catalog: Catalog, *policies: Policy, enforcement_id: str) -> None:
    commit = Transaction.commit_transaction

    def crash(self: Transaction) -> Table:
        if self._table.name()[-1] == "decisions":
            raise KeyboardInterrupt
        return commit(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transaction, "commit_transaction", crash)
        with pytest.raises(KeyboardInterrupt):
            decide(catalog, *policies, enforcement_id=enforcement_id)


def versions(rows: Rows) -> list[set[str]]:
    return [{row["policy_version"] for row in rows(name)} for name in ("decisions", "enforcements")]


def test_a_crash_between_the_tables_is_mended_by_deciding_again(catalog: Catalog, rows: Rows) -> None:
    publish_labels(catalog, DAY, IMAGES)
    decide(catalog, policy())
    crash_between_the_tables(catalog, policy(block_at=60), enforcement_id="enf-2")
    assert verdicts(rows("decisions"))["b.jpg"] == ("allow", None)
    _, figures, changed = decide(catalog, policy(block_at=60), enforcement_id="enf-2")
    assert changed
    assert counts(figures["house", "nudity", "block"]) == (2, 1, 0, 1)
    assert verdicts(rows("decisions"))["b.jpg"] == ("block", "nudity")


def test_a_crash_between_the_tables_is_mended_by_the_policy_of_before(catalog: Catalog, rows: Rows) -> None:
    publish_labels(catalog, DAY, IMAGES)
    decide(catalog, policy())
    crash_between_the_tables(catalog, policy(block_at=60), enforcement_id="enf-2")
    _, figures, changed = decide(catalog, policy())
    assert changed
    assert versions(rows) == [{policy().version}] * 2
    assert is_current(catalog, DAY, "run-1", map(asdict, figures.values()))
    before = snapshots(catalog)
    assert not decide(catalog, policy())[2]
    assert snapshots(catalog) == before


@pytest.mark.parametrize("after", ["enforcements", "decisions"])
def test_of_two_that_decide_at_once_one_ends_as_a_whole(catalog: Catalog, rows: Rows, after: str) -> None:
    publish_labels(catalog, DAY, IMAGES)
    commit = Transaction.commit_transaction
    is_alone = True
    others: list[Figures] = []

    def beside_another(self: Transaction) -> Table:
        nonlocal is_alone
        committed = commit(self)
        if self._table.name()[-1] == after and is_alone:
            is_alone = False
            others.extend(decide(catalog, policy(block_at=60), enforcement_id="enf-2")[1].values())
        return committed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transaction, "commit_transaction", beside_another)
        _, figures, changed = decide(catalog, policy())
    assert changed
    decided, counted = versions(rows)
    assert len(rows("decisions")) == len(IMAGES)
    assert decided == counted
    assert [is_current(catalog, DAY, "run-1", map(asdict, each)) for each in (figures.values(), others)] == [
        decided == {policy().version},
        decided == {policy(block_at=60).version},
    ]
