"""What moderation policies have done about a published day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Asset, Param, PartitionedAssetTimetable, TriggerRule

from modlake.operators.moderation_actions import ActOperator
from modlake.operators.moderation_policy import (
    BrakeOperator,
    DecideOperator,
    RecordActionsOperator,
    RequestActionsOperator,
)
from modlake.pipeline.day import day_of_run
from modlake.retries import PATIENT_RETRIES, TERMINAL_ERRORS_FAIL

DOCUMENTATION = """
### A published day, from labels to actions

`decide → brake → request → act for each batch → record`

**Which day.** Each event of the asset `moderation_labels` has its day decided, from stored labels: nothing is
scanned or paid for again. A run by hand takes the param `day`.

**Again.** What is to be done is the difference between what the policies ask for and what the table `actions`
says was done. So a second run finds nothing to do, and a run after a kill finds the rest. A policy that was
changed has new images acted on, and others released: their actions are undone. What a person has undone stays
undone until the image changes.

**The brake.** When more images would be blocked or released than a policy's `brake` lets pass, the task
`brake` waits for a person: open *Required Actions*. *Approve* has all of it done, *Reject* nothing; without
an answer within a day, nothing. The decisions stay either way, and the next run for the day asks again.

**What comes out.** The tables `decisions`, `enforcements` and `actions`, and an event of the asset
`moderation_decisions` for the partition of the day. Policies in `shadow` are decided and never acted on.

**Where it reads and writes.** The Airflow variables `modlake_policies_uri`, `modlake_action_targets` and
`modlake_work_uri` say so; the connection is `aws_default`. A slot of the pool `moderation_actions` is one
batch that is carried out.
"""

DAY = "{{ day_of_run(partition_key, params.day) }}"
ENFORCEMENT_URI = "{{ ti.xcom_pull(task_ids='decide', key='enforcement_uri') }}"
APPROVAL = "{{ ti.xcom_pull(task_ids='brake', key='approval') }}"

with DAG(
    dag_id="enforce_policy",
    description="Decides a published day by the moderation policies and has the decisions carried out",
    doc_md=DOCUMENTATION,
    tags=["modlake", "moderation", "policy"],
    schedule=PartitionedAssetTimetable(assets=Asset("moderation_labels")),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # Many days may wait for a person, and must not keep the next night from its turn.
    max_active_runs=400,
    default_args={"owner": "modlake", **PATIENT_RETRIES},
    user_defined_macros={"day_of_run": day_of_run},
    render_template_as_native_obj=True,
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Day",
            description="The published day to decide, YYYY-MM-DD. Leave empty in runs of a partition.",
            section="What to decide",
        ),
        "policy_uri": Param(
            None,
            type=["null", "string"],
            title="Policy",
            description="A policy file, on the worker's disk or in S3, that stands in for the policy of the "
            "same name in this run. Empty: the policies as they are.",
            section="What to decide",
        ),
        "actions_per_batch": Param(
            1_000,
            type="integer",
            minimum=1,
            maximum=100_000,
            title="Actions a batch",
            description="How many actions one task carries out, about.",
            section="How to act",
        ),
        "actions_per_second": Param(
            50,
            type="number",
            exclusiveMinimum=0,
            title="Actions a second",
            description="How many actions of a batch may begin in a second.",
            section="How to act",
        ),
    },
):
    decide = DecideOperator(
        task_id="decide",
        day=DAY,
        work_uri="{{ var.value.modlake_work_uri }}",
        policies_uri="{{ var.value.modlake_policies_uri }}",
        policy_uri="{{ params.policy_uri }}",
        targets="{{ var.json.modlake_action_targets }}",
        actions_per_batch="{{ params.actions_per_batch }}",
        pool="modlake_publish",
    )

    brake = BrakeOperator(
        task_id="brake",
        enforcement_uri=ENFORCEMENT_URI,
        response_timeout=timedelta(hours=24),
    )

    request = RequestActionsOperator(
        task_id="request",
        enforcement_uri=ENFORCEMENT_URI,
        approval=APPROVAL,
        pool="modlake_publish",
    )

    act = ActOperator.partial(
        task_id="act",
        actions_per_second="{{ params.actions_per_second }}",
        pool="moderation_actions",
        # What an operator sets for itself, it sets when it is unmapped.
        retry_policy=TERMINAL_ERRORS_FAIL,
        map_index_template="batch {{ task.batch['batch'] }}",
    ).expand(batch=decide.output)

    record = RecordActionsOperator(
        task_id="record",
        enforcement_uri=ENFORCEMENT_URI,
        approval=APPROVAL,
        pool="modlake_publish",
        outlets=[Asset("moderation_decisions")],
        # What was done is recorded also when some of it failed, and what was rejected is told.
        trigger_rule=TriggerRule.ALL_DONE,
    )

    decide >> brake >> request >> act >> record
