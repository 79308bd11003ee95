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
)
from modlake.operators.rekognition import AnalyseManifestsOperator
from modlake.pipeline.day import day_of_run
from modlake.sensors.ugc_day import UgcDaySensor

DOCUMENTATION = """
### A day of images, from uploads to labels

`wait_for_day → plan → (analyse → land) for each group of manifests → audit → publish`

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
quota; `modlake_publish` limits the commits at a time.
"""

# One mapped task carries so many jobs at a time, and takes as many slots of the quota's pool.
SHARDS_PER_GROUP = 5

DAY = "{{ day_of_run(partition_key, params.day) }}"
PLAN_URI = "{{ ti.xcom_pull(task_ids='plan', key='plan_uri') }}"
SHARDS = "shards {{ task.manifest_group['shards'] | join(', ') }}"

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
    default_args={
        "owner": "modlake",
        "retries": 4,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=15),
    },
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
        "image_retries": Param(
            1,
            type="integer",
            minimum=0,
            maximum=9,
            title="Tries again",
            description="How often images that got no answer are asked for again, in jobs of their own.",
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
        shards_per_group=SHARDS_PER_GROUP,
    )

    @task_group
    def shards(manifest_group: dict[str, Any]) -> Any:
        analyse = AnalyseManifestsOperator(
            task_id="analyse",
            manifest_group=manifest_group,
            pool="rekognition_media_analysis_jobs",
            pool_slots=SHARDS_PER_GROUP,
            map_index_template=SHARDS,
            deferrable=True,
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
        landed=shards.expand(manifest_group=plan.output),
        # A day without images has no groups: their tasks are skipped, and zero rows are published.
        trigger_rule=TriggerRule.NONE_FAILED,
    )

    publish = PublishDayOperator(
        task_id="publish",
        plan_uri=PLAN_URI,
        audit_uri="{{ ti.xcom_pull(task_ids='audit')['audit_uri'] }}",
        pool="modlake_publish",
        outlets=[Asset("moderation_labels")],
    )

    wait_for_day >> plan
    audit >> publish
