from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from modlake.pipeline.run_folder import RunFolder, new_run_id


def test_run_id_is_the_utc_time_and_six_digits_of_the_entropy() -> None:
    now = datetime(2026, 11, 24, 8, 26, 10, tzinfo=timezone(timedelta(hours=2)))
    first, second = new_run_id(now, "manual__1/try 1"), new_run_id(now, "manual__1/try 2")
    assert first[:17] == second[:17] == "20261124T062610Z-"
    assert first != second
    assert len(first) == 23
    assert first == new_run_id(now.astimezone(UTC), "manual__1/try 1")


@pytest.mark.parametrize("work_uri", ["s3://work", "s3://work/"])
def test_folder_names_every_file(work_uri: str) -> None:
    folder = RunFolder(work_uri, date(2026, 11, 21), "r1")
    run = "s3://work/runs/day=2026-11-21/r1/"
    assert folder.uri == run
    assert folder.plan_uri == f"{run}plan.json"
    assert folder.inventory_uri(3) == f"{run}inventory/part-00003.parquet"
    assert folder.manifest_uri(0) == f"{run}manifests/00000.jsonl"
    assert folder.job_uri(12) == f"{run}jobs/00012.json"
    assert folder.results_uri(12) == f"{run}results/00012/"
    assert folder.landed_uri("labels", 7, "a1") == f"{run}landed/labels-00007-a1.parquet"
    assert folder.landed_uri("images", "ineligible", "a1") == f"{run}landed/images-ineligible-a1.parquet"
    assert folder.audit_uri == f"{run}audit.json"
