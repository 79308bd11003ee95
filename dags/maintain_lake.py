"""The weekly maintenance of the lake: what nothing needs any more is found, and on request removed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, TriggerRule, chain

from modlake.operators.lake_maintenance import (
    CompactTablesOperator,
    ExpireSnapshotsOperator,
    ReportMaintenanceOperator,
    SweepOrphansOperator,
    SweepRunsOperator,
)

DOCUMENTATION = """
### Keep the lake small, and lose nothing

`expire_snapshots → compact_tables → sweep_orphans → sweep_runs → report`

**A run changes nothing** unless the param `dry_run` is off: it finds what a real run would remove, and tells
it in the logs and in `maintenance/<time>.json` of the work bucket. Read that, then trigger a real run.

**What is never touched.** What a published snapshot needs, the folders of published runs (but for landed
files that compaction has replaced), what is younger than the grace time, runs whose Airflow run is queued or
running, and the results of analyses that a day run again would otherwise pay for again.

**Brakes.** A step that would remove more than a share of a table's files, or of all runs, removes nothing and
fails; what one step deletes is bounded, and the rest is left to the next run.
"""

WORK_URI = "{{ var.value.modlake_work_uri }}"
STEPS = ["expire_snapshots", "compact_tables", "sweep_orphans", "sweep_runs"]
PARAMS = {
    "dry_run": Param(
        True,
        type="boolean",
        title="Dry run",
        description="Only find and report; change nothing.",
    ),
    "steps": Param(
        STEPS,
        type="array",
        items={"type": "string", "enum": STEPS},
        examples=STEPS,
        title="Steps",
        description="The others are skipped: leave out what the catalog's optimizers, Spark or Athena do.",
    ),
    "snapshot_retention_days": Param(
        30,
        type="number",
        minimum=1,
        title="Retention of snapshots (days)",
        description="How long the tables can be read as they were. Snapshots that rows of runs name are kept "
        "as long, and no longer.",
        section="How long to keep",
    ),
    "min_snapshots": Param(
        10,
        type="integer",
        minimum=1,
        title="Snapshots at least",
        description="So many of a table's newest snapshots are kept, whatever their age.",
        section="How long to keep",
    ),
    "orphan_grace_hours": Param(
        72,
        type="number",
        minimum=24,
        title="Grace time of orphans (hours)",
        description="Younger files are never removed: somebody may be about to commit them.",
        section="How long to keep",
    ),
    "run_retention_days": Param(
        30,
        type="number",
        minimum=1,
        title="Retention of run folders (days)",
        description="How long a run that isn't published, or no longer, is kept after the last thing that "
        "happened in it. Published runs are kept.",
        section="How long to keep",
    ),
    "analysis_retention_days": Param(
        400,
        type="number",
        minimum=1,
        title="Retention of analyses (days)",
        description="How long results can be used again without paying. AWS keeps jobs for a year; sooner, "
        "a day run again may fail for lack of results, or be paid for twice.",
        section="How long to keep",
    ),
    "target_file_size_mb": Param(
        64,
        type="number",
        minimum=1,
        title="Target file size (MB)",
        description="Days with at least five files smaller than three quarters of it are compacted. The task "
        "needs some twenty times as much memory.",
        section="Compaction",
    ),
    "max_removed_percent": Param(
        50,
        type="number",
        minimum=0,
        maximum=100,
        title="Safety stop (%)",
        description="Remove nothing when more than this share of a table's files, or of the runs, would go.",
        section="Brakes",
    ),
    "max_deletes": Param(
        100_000,
        type="integer",
        minimum=1,
        title="Deletes at most",
        description="How many objects one step deletes; the rest is left to the next run.",
        section="Brakes",
    ),
}
POLICY = {name: f"{{{{ params.{name} }}}}" for name in PARAMS}

with DAG(
    dag_id="maintain_lake",
    description="Expires snapshots, compacts small files, removes orphans and superseded runs",
    doc_md=DOCUMENTATION,
    tags=["modlake", "maintenance"],
    schedule="30 4 * * 0",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "owner": "modlake",
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        # A step may be left out.
        "trigger_rule": TriggerRule.NONE_FAILED,
    },
    render_template_as_native_obj=True,
    params=PARAMS,
):
    steps = [
        ExpireSnapshotsOperator(task_id="expire_snapshots", policy=POLICY, pool="modlake_publish"),
        CompactTablesOperator(task_id="compact_tables", policy=POLICY, pool="modlake_publish"),
        SweepOrphansOperator(task_id="sweep_orphans", policy=POLICY),
        SweepRunsOperator(task_id="sweep_runs", policy=POLICY, work_uri=WORK_URI),
    ]
    report = ReportMaintenanceOperator(
        task_id="report",
        work_uri=WORK_URI,
        policy=POLICY,
        steps=STEPS,
        # What was found is told also when a step failed or refused.
        trigger_rule=TriggerRule.ALL_DONE,
    )
    chain(*steps, report)
