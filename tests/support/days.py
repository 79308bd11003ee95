"""Days for tests: uploads, their plan, and the files that a media analysis job would leave."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from modlake.pipeline.audit import Audit, audit_day
from modlake.pipeline.landing import LandedShard, land_shard
from modlake.pipeline.manifests import read_manifest
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.plan import AnalysisParameters, ManifestLimits, Plan, build_plan
from modlake.pipeline.results import Results, read_results
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.pipeline.scratch import on_disk

DAY = date(2026, 11, 21)
PROJECT_VERSION = "arn:aws:rekognition:us-east-1:111122223333:project/m/version/v/1"


def upload(store: ObjectStore, keys: Iterable[str], day: date = DAY) -> None:
    for key in keys:
        store.write(f"s3://ugc/uploads/{day}/{key}", b"jpeg" + key.encode())


def plan_day(
    store: ObjectStore,
    *,
    day: date = DAY,
    run_id: str = "run-1",
    images_per_manifest: int = 10_000,
    adapter_arn: str | None = None,
    **changes: Any,
) -> Plan:
    arguments: dict[str, Any] = {
        "day": day,
        "source_uri": f"s3://ugc/uploads/{day}/",
        "work_uri": "s3://work/",
        "run_id": run_id,
        "airflow_run_id": "manual__1",
        "parameters": AnalysisParameters(min_confidence=50.0, adapter_arn=adapter_arn),
        "allowed_uris": ["s3://ugc/uploads/"],
        "price_per_image_usd": 0.001,
        "max_cost_usd": None,
        "shards_per_group": 5,
        "report": lambda _: None,
        "limits": ManifestLimits(images=images_per_manifest),
    }
    return build_plan(store, **arguments | changes)


def label(name: str, parent: str | None, level: int | None, confidence: float) -> dict[str, Any]:
    told = {"Name": name, "ParentName": parent, "TaxonomyLevel": level, "Confidence": confidence}
    return {key: value for key, value in told.items() if value is not None}


SMOKING = [
    label("Smoking", "Drugs & Tobacco Paraphernalia & Use", 3, 99.0),
    label("Drugs & Tobacco Paraphernalia & Use", "Drugs & Tobacco", 2, 99.0),
    label("Drugs & Tobacco", "", 1, 99.0),
]


def answer_line(source_ref: str, labels: Sequence[dict[str, Any]] = (), **answer: Any) -> str:
    """Return a line of a results file, as AWS's page shows it."""
    answered = {"ModerationLabels": list(labels), "ModerationModelVersion": "7.0", "ContentTypes": []}
    line = {"source-ref": source_ref, "detect-moderation-labels": answered | answer}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def parse_results(body: str | bytes) -> Results:
    with on_disk(body.encode() if isinstance(body, str) else body) as file:
        return read_results(file, "s3://work/r")


def finish_job(
    store: ObjectStore,
    plan: Plan,
    shard: int,
    results: str | bytes,
    errors: Sequence[dict[str, Any]] | None = (),
    *,
    retry: int = 0,
    name: str | None = None,
    **job: Any,
) -> None:
    """Leave what a succeeded job and the analysis leave; with ``errors=None`` there is no summary."""
    body = results.encode() if isinstance(results, str) else results
    name = name or (f"{shard}-r{retry}" if retry else f"{shard}")
    manifest_bucket, manifest_key = split_s3_uri(plan.folder.manifest_uri(shard, retry))
    results_key, summary_key = (
        f"out/{plan.run_id}/{plan.day}/{name}/r",
        f"out/{plan.run_id}/{plan.day}/{name}/s",
    )
    store.write(f"s3://work/{results_key}", body)
    answer = {
        "JobId": f"job-{name}",
        "JobName": f"name-{name}",
        "Status": "SUCCEEDED",
        "OperationsConfig": {"DetectModerationLabels": {"MinConfidence": 50.0}},
        "Input": {"S3Object": {"Bucket": manifest_bucket, "Name": manifest_key}},
        "Results": {"S3Object": {"Bucket": "work", "Name": results_key}},
        "CreationTimestamp": "2026-11-22T01:00:00+00:00",
        "CompletionTimestamp": "2026-11-22T01:05:00.250000+00:00",
    }
    if errors is not None:
        store.write(
            f"s3://work/{summary_key}", json.dumps({"version": "1.0", "errors": list(errors)}).encode()
        )
        answer["ManifestSummary"] = {"S3Object": {"Bucket": "work", "Name": summary_key}}
    record = {"shard": shard, "engine": "bulk", "job_id": f"job-{name}", "job": answer | job}
    store.write(plan.folder.job_uri(shard, retry), json.dumps(record).encode())


def judge_day(store: ObjectStore, plan: Plan, labels: Sequence[dict[str, Any]] = SMOKING) -> None:
    """Finish every shard's job; each second image of a manifest gets the labels, the others are clean."""
    for shard in plan.shards:
        refs = read_manifest(store, shard)
        lines = [answer_line(ref, labels if number % 2 == 0 else ()) for number, ref in enumerate(refs)]
        finish_job(store, plan, shard.shard, "\n".join(lines))


def land_day(store: ObjectStore, plan: Plan, attempt: str = "1") -> list[LandedShard]:
    return [land_shard(store, plan, shard.shard, attempt) for shard in plan.shards]


def audited_day(
    store: ObjectStore, keys: Iterable[str], *, day: date = DAY, run_id: str = "run-1", **changes: Any
) -> tuple[Plan, Audit]:
    """Upload, plan, judge, land and audit a day."""
    upload(store, keys, day)
    plan = plan_day(store, day=day, run_id=run_id, **changes)
    judge_day(store, plan)
    return plan, audit_day(store, plan, land_day(store, plan), "1")
