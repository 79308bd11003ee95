"""The proof that every listed image of a day has exactly one outcome."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline import landed_schemas
from modlake.pipeline.columns import Column, are_distinct, in_order
from modlake.pipeline.cost import estimate_cost_usd
from modlake.pipeline.inventory import INELIGIBLE, REUSED, read_shard_inventory
from modlake.pipeline.job_files import JobRecord, read_finished_jobs
from modlake.pipeline.landing import LandedShard
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.outcomes import Outcome
from modlake.pipeline.parquet import ParquetEncoder, decode_parquet
from modlake.pipeline.plan import Plan, ReusedBatch
from modlake.pipeline.side_by_side import side_by_side
from modlake.pipeline.verdicts import check_complete, check_models

COUNTS = ("listed", "judged", "reused", "ineligible", "failed", "incomplete", "labels")
"""What is counted of a day: of its images, but for ``labels``."""


@dataclass(frozen=True, slots=True)
class Audit:
    """An audited run, as audit.json holds it; listed = judged + reused + ineligible + failed.

    ``incomplete`` of the failed images have no answer although asking again could help. ``jobs`` are rows of
    the lake's table of that name, times as ISO 8601 texts. ``content_digest`` is equal for two runs that
    would publish the same, but for the names of run and files.
    """

    day: date
    run_id: str
    listed: int
    judged: int
    reused: int
    ineligible: int
    failed: int
    incomplete: int
    labels: int
    model_versions: list[str]
    failed_by_code: dict[str, int]
    images_uris: list[str]
    labels_uris: list[str]
    jobs: list[dict[str, Any]]
    content_digest: str
    audit_uri: str

    @property
    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in COUNTS}

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"day": self.day.isoformat()}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Audit:
        fields: dict[str, Any] = json.loads(text)
        return cls(**fields | {"day": date.fromisoformat(fields["day"])})


def read_audit(store: ObjectStore, audit_uri: str) -> Audit:
    """Return the audit stored at that URI; raise ObjectNotFoundError when there is none."""
    return Audit.from_json(store.read(audit_uri))


def audit_day(store: ObjectStore, plan: Plan, landed: list[LandedShard], attempt: str) -> Audit:
    """Prove that a run's files account for its listing, write the rows of ineligible images, then audit.json.

    For each shard the images of manifest, inventory and landed file are compared as multisets, so are the
    reused images of each batch, and for the day the sums. Memory is bounded by a shard, a batch, and the
    compressed rows of ineligible images.

    Raises ModlakeTerminalError naming shard and numbers when anything is missing or too much, ModelDriftError
    when not the model that was asked for has judged, IncompleteDayError when too many images have no answer.
    """
    by_shard = _order_by_shard(plan, landed)
    for _ in side_by_side(partial(_prove_shard, store, plan), by_shard):
        pass
    for _ in side_by_side(partial(_prove_batch, store, plan), plan.reused_batches):
        pass
    check_models(plan, by_shard)
    incomplete = check_complete(store, plan, by_shard)
    ineligible_uri, listing_digest = _account_for_listing(store, plan, attempt)
    files: list[LandedShard | ReusedBatch] = [*by_shard, *plan.reused_batches]
    jobs = list(chain.from_iterable(side_by_side(partial(_job_rows, store, plan), by_shard)))
    jobs += [row | {"run_id": plan.run_id} for row in plan.own_jobs]
    judged = sum(shard.judged for shard in by_shard)
    failed = sum(shard.failed for shard in by_shard)
    if plan.listed != judged + plan.reused + plan.ineligible + failed:
        raise ModlakeTerminalError(
            f"{plan.day}: {plan.listed} images were listed, but {judged} judged + {plan.reused} reused + "
            f"{plan.ineligible} ineligible + {failed} failed. Clear the plan task of that day to begin anew."
        )
    audit = Audit(
        day=plan.day,
        run_id=plan.run_id,
        listed=plan.listed,
        judged=judged,
        reused=plan.reused,
        ineligible=plan.ineligible,
        failed=failed,
        incomplete=incomplete,
        labels=sum(part.labels for part in files),
        model_versions=_model_versions(plan, by_shard),
        failed_by_code=_add_up(shard.failed_by_code for shard in by_shard),
        images_uris=[part.images_uri for part in files] + ([ineligible_uri] if ineligible_uri else []),
        labels_uris=[part.labels_uri for part in files if part.labels_uri is not None],
        jobs=jobs,
        content_digest=_digest_content(plan, by_shard, listing_digest),
        audit_uri=plan.folder.audit_uri,
    )
    store.write(audit.audit_uri, audit.to_json().encode())
    return audit


def _order_by_shard(plan: Plan, landed: list[LandedShard]) -> list[LandedShard]:
    by_shard = sorted(landed, key=lambda shard: shard.shard)
    if [shard.shard for shard in by_shard] != [shard.shard for shard in plan.shards]:
        raise ModlakeTerminalError(
            f"{plan.day}: shards {[shard.shard for shard in by_shard]} landed, but {len(plan.shards)} were "
            "planned, numbered from 0. Clear the land task of the groups that are missing."
        )
    return by_shard


def _prove_shard(store: ObjectStore, plan: Plan, shard: LandedShard) -> None:
    """Compare what was planned, what the landed files hold, and what landing said of them."""
    planned = _source_refs(read_shard_inventory(store, plan, shard.shard))
    images = decode_parquet(store.read(shard.images_uri), ["source_ref", "outcome", "label_count"])
    labels = 0
    if shard.labels_uri is not None:
        labels = decode_parquet(store.read(shard.labels_uri), ["source_ref"]).num_rows
    outcomes = Counter(images["outcome"].to_pylist())
    landed = _source_refs(images)
    if not are_distinct(planned):
        different = len(pc.unique(planned))
        _refuse(plan, shard, f"{len(planned)} images were planned, {different} of them different")
    if not planned.equals(landed):
        asked, found = set(planned.to_pylist()), set(landed.to_pylist())
        missing, foreign = len(asked - found), len(found - asked)
        _refuse(
            plan,
            shard,
            f"{len(planned)} images were planned and {len(landed)} landed, {missing} of the planned ones "
            f"missing, {foreign} never planned",
        )
    if outcomes != Counter({Outcome.JUDGED: shard.judged, Outcome.FAILED: shard.failed}):
        _refuse(
            plan,
            shard,
            f"{shard.judged} judged and {shard.failed} failed by its report, {dict(outcomes)} by its rows",
        )
    label_count = pc.sum(images["label_count"]).as_py() or 0
    if not shard.labels == labels == label_count:
        _refuse(
            plan, shard, f"{shard.labels} labels by its report, {labels} rows, {label_count} by its images"
        )


def _prove_batch(store: ObjectStore, plan: Plan, batch: ReusedBatch) -> None:
    """Compare what the inventory says was carried over, and what the landed files hold."""
    parts = [
        decode_parquet(store.read(plan.inventory_uris[part]), ["source_ref", "fate"])
        for part in batch.inventory_parts
    ]
    listed = pa.concat_tables(parts)
    planned = _source_refs(listed.filter(pc.equal(listed["fate"], pa.scalar(REUSED))))
    images = decode_parquet(store.read(batch.images_uri), ["source_ref", "outcome", "label_count"])
    labels = 0
    if batch.labels_uri is not None:
        labels = decode_parquet(store.read(batch.labels_uri), ["source_ref"]).num_rows
    label_count = pc.sum(images["label_count"]).as_py() or 0
    if (
        not are_distinct(planned)
        or not planned.equals(_source_refs(images))
        or set(images["outcome"].to_pylist()) != {Outcome.REUSED}
        or len(planned) != batch.image_count
        or not batch.labels == labels == label_count
    ):
        raise ModlakeTerminalError(
            f"{batch.images_uri} holds {images.num_rows} images with {labels} labels, but {len(planned)} "
            f"images were carried over, {batch.image_count} with {batch.labels} labels by the plan. Clear "
            "the plan task of that day to begin anew."
        )


def _model_versions(plan: Plan, landed: list[LandedShard]) -> list[str]:
    versions = {version for shard in landed for version in shard.model_versions}
    if plan.reused and plan.model_version is not None:
        versions.add(plan.model_version)
    return sorted(versions)


def _refuse(plan: Plan, shard: LandedShard, finding: str) -> None:
    raise ModlakeTerminalError(
        f"Shard {shard.shard} of {plan.run_uri}: {finding}. Clear the land task of its group."
    )


def _source_refs(rows: pa.Table) -> Column:
    """Return a multiset of images, equal to another one when the images are."""
    return in_order(rows.select(["source_ref"]), "source_ref")["source_ref"].combine_chunks()


def _account_for_listing(store: ObjectStore, plan: Plan, attempt: str) -> tuple[str | None, str]:
    """Write the rows of ineligible images; return their URI, if there are any, and the listing's digest."""
    digest = hashlib.sha256()
    listed = 0
    encoder = ParquetEncoder(landed_schemas.IMAGES)
    for part in side_by_side(store.read, plan.inventory_uris):
        digest.update(part)
        inventory = decode_parquet(part)
        listed += inventory.num_rows
        encoder.add(_ineligible_rows(plan, inventory))
    if (listed, encoder.rows) != (plan.listed, plan.ineligible):
        raise ModlakeTerminalError(
            f"{plan.run_uri}: the inventory holds {listed} images, {encoder.rows} of them ineligible; the "
            f"plan says {plan.listed} and {plan.ineligible}. Clear the plan task of that day to begin anew."
        )
    if not encoder.rows:
        return None, digest.hexdigest()
    ineligible_uri = plan.folder.landed_uri("images", "ineligible", attempt)
    store.write(ineligible_uri, encoder.finish())
    return ineligible_uri, digest.hexdigest()


def _ineligible_rows(plan: Plan, inventory: pa.Table) -> pa.Table:
    ineligible = inventory.filter(pc.equal(inventory["fate"], pa.scalar(INELIGIBLE))).sort_by("source_ref")
    columns = (*landed_schemas.LISTED_COLUMNS, "error_code", "error_message")
    return landed_schemas.assemble(
        landed_schemas.IMAGES,
        ineligible.num_rows,
        {name: ineligible[name] for name in columns}
        | {"day": plan.day, "outcome": Outcome.INELIGIBLE, "run_id": plan.run_id},
    )


def _job_rows(store: ObjectStore, plan: Plan, shard: LandedShard) -> list[dict[str, Any]]:
    records = read_finished_jobs(store, plan, shard.shard, retries=len(shard.jobs) - 1)
    return [
        _job_row(plan, record, **counts, model_versions=shard.model_versions)
        for record, counts in zip(records, shard.jobs, strict=True)
    ]


def _job_row(
    plan: Plan, record: JobRecord, *, retry: int, image_count: int, judged: int, model_versions: list[str]
) -> dict[str, Any]:
    return {
        "day": plan.day.isoformat(),
        "run_id": plan.run_id,
        "shard": record.shard,
        "job_id": record.job_id,
        "job_name": record.job.get("JobName"),
        "engine": record.engine,
        "status": record.job["Status"],
        "failure_code": None,
        "failure_message": None,
        "manifest_uri": record.manifest_uri or plan.folder.manifest_uri(record.shard, retry),
        "results_uri": record.results_uri,
        "summary_uri": record.summary_uri,
        "image_count": image_count,
        "judged_count": judged,
        "failed_count": image_count - judged,
        "model_version": ", ".join(model_versions) or None,
        "adapter_arn": record.adapter_arn,
        "min_confidence": plan.parameters.min_confidence,
        "started_at": record.started_at and record.started_at.isoformat(),
        "completed_at": record.completed_at and record.completed_at.isoformat(),
        # AWS charges for the images that were judged.
        "estimated_cost_usd": estimate_cost_usd(judged, plan.price_per_image_usd),
        "retry": retry,
    }


def _add_up(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _digest_content(plan: Plan, landed: list[LandedShard], listing_digest: str) -> str:
    content = {
        "listing": listing_digest,
        "parameters": asdict(plan.parameters),
        "shards": [[shard.content_sha256, shard.judged, shard.failed, shard.labels] for shard in landed],
        "reused": [batch.content_sha256 for batch in plan.reused_batches],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
