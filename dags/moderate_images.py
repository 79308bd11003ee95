"""The nightly moderation of a day of user-generated images."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, CronPartitionTimetable, Param, TriggerRule, task_group

from modlake.operators.moderation_day import (
    AuditDayOperator,
    BuildManifestsOperator,
    LandResultsOperator,
    PublishDayOperator,
    SynchronousGroupsOperator,
)
from modlake.operators.rekognition import AnalyseManifestsOperator
from modlake.operators.rekognition_synchronous import DetectModerationLabelsOperator
from modlake.pipeline.day import day_of_run
from modlake.retries import PATIENT_RETRIES
from modlake.sensors.ugc_day import UgcDaySensor

DOCUMENTATION = """
### A day of images, from uploads to labels

`wait_for_day → plan → (analyse → land) for each group of manifests → audit → publish`

**By which engine.** `shards` judges by media analysis jobs, `single_calls` by a call of
`DetectModerationLabels` for each image; the rows are the same. The param `engine` chooses. `auto` takes jobs
where the account has bulk analysis, which AWS opens to no new account, and single calls elsewhere; with
`deadline_minutes` both, when jobs alone would be late. The log of `plan` shows what it has estimated, and why
it chose. What one engine was given stays with it in any later run, so that nothing is paid twice.

**Which day.** Scheduled and backfill runs moderate the day that is their partition key; each night moderates
the day that just ended (UTC). A run by hand takes the param `day`.

**Again.** To run a day again is harmless: images judged before are not judged, or paid for, again, and the
tables change only where the day did. So are images of other days that are the same object still; the param
`reuse` says how far that goes. The param `fresh` has everything analysed anew.

**What is missing.** Images that got no answer are asked for again, `image_retries` times. A day that still
lacks more than the share `allow_incomplete` of its answers is not published; the error says what is missing.

**What comes out.** The tables `images`, `labels`, `jobs` and `runs`, and an event of the asset
`moderation_labels` for the partition of the day, with the counts and snapshot ids as its extra.

**Where it reads and writes.** The Airflow variables `modlake_ugc_uri`, `modlake_ugc_marker_uri`,
`modlake_work_uri`, `modlake_allowed_ugc_uris` and `modlake_price_per_image_usd` say so; the connection is
`aws_default`. A slot of the pool `rekognition_media_analysis_jobs` is one concurrent job of the AWS account's
quota; `modlake_publish` limits the commits at a time. Where the variable `modlake_inventory_uri` is set, the
day is not listed, but read from what it names: an S3 Inventory report, or Parquet files of somebody upstream.
What the list in `modlake_set_aside_uri` names, where that is set, is counted and never judged.

A slot of the pool `rekognition_detect_moderation_labels` is a share of the account's rate of single calls:
all of it, by default, as the pool has one slot. For more tasks at once give it N slots, and the variable
`modlake_detect_rate_share` the value 1/N. The rate is read from Service Quotas, else it is AWS's default; the
variable `modlake_detect_requests_per_second` sets another.
"""

# One mapped task has so many jobs at a time, and takes as many slots of the quota's pool; it carries its
# share of the night's manifests, up to so many. See docs/scale.md for other quotas and larger days.
JOBS_AT_ONCE = 5
GROUPS_AT_ONCE = 4
SHARDS_PER_GROUP = 25

DAY = "{{ day_of_run(partition_key, params.day) }}"
PLAN_URI = "{{ ti.xcom_pull(task_ids='plan', key='plan_uri') }}"
DETECT_REQUESTS_PER_SECOND = "{{ var.value.get('modlake_detect_requests_per_second', none) }}"
SHARDS = (
    "{% set numbers = task.manifest_group['shards'] %}"
    "shards {{ numbers | first }}{% if numbers | length > 1 %} to {{ numbers | last }}{% endif %}"
)

with DAG(
    dag_id="moderate_images",
    description="Moderates a day of user-generated images and publishes their labels",
    doc_md=DOCUMENTATION,
    tags=["modlake", "moderation", "rekognition"],
    schedule=CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1, key_format="%Y-%m-%d"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # Backfills bring a limit of their own; what AWS grants is guarded by the pool.
    max_active_runs=4,
    default_args={"owner": "modlake", **PATIENT_RETRIES},
    user_defined_macros={"day_of_run": day_of_run},
    render_template_as_native_obj=True,
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Day",
            description="The day to moderate, YYYY-MM-DD. Leave empty in runs of a partition.",
            section="What to moderate",
        ),
        "max_cost_usd": Param(
            None,
            type=["null", "number"],
            minimum=0,
            title="Budget (USD)",
            description="Submit nothing when the day is estimated to cost more. Empty: no limit.",
            section="What to moderate",
        ),
        "fresh": Param(
            False,
            type="boolean",
            title="Analyse anew",
            description="Analyse, and pay for, images again that were judged before.",
            section="What to moderate",
        ),
        "min_confidence": Param(
            50,
            type="number",
            minimum=0,
            maximum=100,
            title="Least confidence",
            description="Labels that Rekognition is less sure of are not reported (0 to 100).",
            section="How to judge",
        ),
        "adapter_arn": Param(
            None,
            type=["null", "string"],
            title="Adapter",
            description="ARN of a custom adapter's project version. Empty: Rekognition's own model.",
            section="How to judge",
        ),
        "reuse": Param(
            "object",
            type="string",
            enum=["object", "content", "off"],
            title="Reuse",
            description="Carry over what was judged before instead of paying again. `object`: of the same "
            "bucket, key and ETag. `content`: of any key with the same ETag and size; choose it only when "
            "you trust who uploads. An ETag is an MD5 at best (and none for objects of several parts or "
            "under a KMS key), and two images with one MD5, a clean one and another, can be forged. "
            "`off`: nothing.",
            section="What to moderate",
        ),
        "engine": Param(
            "auto",
            type="string",
            enum=["auto", "bulk", "sync"],
            title="Engine",
            description="`bulk`: media analysis jobs. `sync`: a DetectModerationLabels call for each image. "
            "`auto`: jobs where the account has bulk analysis, else single calls; both to meet a deadline.",
            section="Who judges",
        ),
        "deadline_minutes": Param(
            None,
            type=["null", "number"],
            exclusiveMinimum=0,
            title="Deadline (minutes)",
            description="Within how long the images should be judged. `auto` splits a day over both engines "
            "when jobs alone would take longer. Empty: no deadline.",
            section="Who judges",
        ),
        "image_retries": Param(
            1,
            type="integer",
            minimum=0,
            maximum=9,
            title="Tries again",
            description="How often images that got no answer are asked for again.",
            section="When answers are missing",
        ),
        "allow_incomplete": Param(
            0,
            type="number",
            minimum=0,
            maximum=1,
            title="Allowed to be missing",
            description="The share of images (0 to 1) that may be left without an answer. A day that lacks "
            "more is not published. Images that can't be judged, such as corrupt ones, don't count.",
            section="When answers are missing",
        ),
    },
):
    wait_for_day = UgcDaySensor(
        task_id="wait_for_day",
        day=DAY,
        marker_uri="{{ var.value.modlake_ugc_marker_uri }}",
        poke_interval=60,
        timeout=timedelta(hours=20),
        deferrable=True,
    )

    plan = BuildManifestsOperator(
        task_id="plan",
        day=DAY,
        source_uri="{{ var.value.modlake_ugc_uri }}",
        inventory_uri="{{ var.value.get('modlake_inventory_uri', none) }}",
        set_aside_uri="{{ var.value.get('modlake_set_aside_uri', none) }}",
        work_uri="{{ var.value.modlake_work_uri }}",
        allowed_uris="{{ var.json.modlake_allowed_ugc_uris }}",
        price_per_image_usd="{{ var.value.modlake_price_per_image_usd }}",
        min_confidence="{{ params.min_confidence }}",
        adapter_arn="{{ params.adapter_arn }}",
        max_cost_usd="{{ params.max_cost_usd }}",
        fresh="{{ params.fresh }}",
        image_retries="{{ params.image_retries }}",
        allow_incomplete="{{ params.allow_incomplete }}",
        reuse="{{ params.reuse }}",
        engine="{{ params.engine }}",
        deadline_minutes="{{ params.deadline_minutes }}",
        detect_requests_per_second=DETECT_REQUESTS_PER_SECOND,
        shards_per_group=SHARDS_PER_GROUP,
        jobs_at_once=JOBS_AT_ONCE,
        groups_at_once=GROUPS_AT_ONCE,
    )

    @task_group
    def shards(manifest_group: dict[str, Any]) -> Any:
        analyse = AnalyseManifestsOperator(
            task_id="analyse",
            manifest_group=manifest_group,
            pool="rekognition_media_analysis_jobs",
            pool_slots=JOBS_AT_ONCE,
            jobs_at_once=JOBS_AT_ONCE,
            poll_interval=10,
            map_index_template=SHARDS,
            deferrable=True,
        )
        land = LandResultsOperator(
            task_id="land",
            manifest_group=analyse.output,
            map_index_template=SHARDS,
        )
        return land.output

    single_call_groups = SynchronousGroupsOperator(task_id="single_call_groups", plan_uri=PLAN_URI)

    @task_group
    def single_calls(manifest_group: dict[str, Any]) -> Any:
        analyse = DetectModerationLabelsOperator(
            task_id="analyse",
            manifest_group=manifest_group,
            rate_share="{{ var.value.get('modlake_detect_rate_share', 1.0) }}",
            pool="rekognition_detect_moderation_labels",
            map_index_template=SHARDS,
        )
        land = LandResultsOperator(
            task_id="land",
            manifest_group=analyse.output,
            map_index_template=SHARDS,
        )
        return land.output

    audit = AuditDayOperator(
        task_id="audit",
        plan_uri=PLAN_URI,
        landed=[
            shards.expand(manifest_group=plan.output),
            single_calls.expand(manifest_group=single_call_groups.output),
        ],
        # An engine without groups has its tasks skipped; without any, zero rows are published.
        trigger_rule=TriggerRule.NONE_FAILED,
    )

    publish = PublishDayOperator(
        task_id="publish",
        plan_uri=PLAN_URI,
        audit_uri="{{ ti.xcom_pull(task_ids='audit')['audit_uri'] }}",
        pool="modlake_publish",
        outlets=[Asset("moderation_labels")],
    )

    wait_for_day >> plan >> single_call_groups
    audit >> publish
