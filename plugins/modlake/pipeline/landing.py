"""From a shard's result files to data files of the lake, a row an image and a row a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline import landed_schemas
from modlake.pipeline.answers import ShardAnswers, read_answers
from modlake.pipeline.columns import Column, field_of, in_order, is_constant, places_of, taken
from modlake.pipeline.digests import TableDigest
from modlake.pipeline.inventory import read_shard_inventory
from modlake.pipeline.job_files import JobRecord
from modlake.pipeline.labels import content_type_confidence, flatten_labels, spread_labels, top_labels
from modlake.pipeline.model_versions import remember_model_version
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.outcomes import Outcome
from modlake.pipeline.parquet import encode_parquet
from modlake.pipeline.plan import Plan
from modlake.pipeline.side_by_side import side_by_side


@dataclass(frozen=True, slots=True)
class LandedShard:
    """A shard's data files and how its images came out; image_count = judged + failed.

    ``labels_uri`` is None when no image has a label. ``models`` tells who judged: ``model_version``,
    ``adapter_arn`` and the number of ``images``, as answered. ``jobs`` has ``retry``, ``image_count`` and
    ``judged`` of each of the shard's jobs. ``bad_lines`` counts lines of results that could not be read.
    ``content_sha256`` digests the rows, but for the name of the run.
    """

    shard: int
    images_uri: str
    labels_uri: str | None
    image_count: int
    judged: int
    failed: int
    labels: int
    models: list[dict[str, Any]]
    failed_by_code: dict[str, int]
    jobs: list[dict[str, int]]
    bad_lines: int
    content_sha256: str

    @property
    def model_versions(self) -> list[str]:
        """The model versions that answered."""
        return sorted({model["model_version"] for model in self.models} - {None})


def land_shards(store: ObjectStore, plan: Plan, shards: Iterable[int], attempt: str) -> Iterator[LandedShard]:
    """Land shards, some of them at once, and yield them in their order; see :func:`land_shard`.

    Memory is bounded by the shards that are landed at once, some 50 MB each.
    """
    return side_by_side(lambda shard: land_shard(store, plan, shard, attempt), shards)


def land_shard(store: ObjectStore, plan: Plan, shard: int, attempt: str) -> LandedShard:
    """Write a shard's rows of ``images`` and ``labels`` as Parquet, sorted by source_ref.

    ``attempt`` makes the file names unique. Each image of the manifest comes out judged or failed, by the
    last job that was asked about it.

    Raises ModlakeTerminalError as :func:`~modlake.pipeline.answers.read_answers` does.
    """
    inventory = read_shard_inventory(store, plan, shard)
    answers = read_answers(store, plan, shard, inventory)
    rows = in_order(inventory, "source_ref")
    said = in_order(answers.images, "source_ref")
    flat = flatten_labels(answers.answers)
    images = _image_rows(plan, answers, rows, said, flat)
    labels = _label_rows(plan, images, said, spread_labels(flat, answers.answers, said["answer"].chunk(0)))
    images_uri = plan.folder.landed_uri("images", shard, attempt)
    store.write(images_uri, encode_parquet(images))
    labels_uri = None
    if labels.num_rows:
        labels_uri = plan.folder.landed_uri("labels", shard, attempt)
        store.write(labels_uri, encode_parquet(labels))
    failed_by_code = Counter(map(str, images["error_code"].drop_null().to_pylist()))
    models = _count_models(images)
    _remember_model(store, plan, models, answers)
    return LandedShard(
        shard=shard,
        images_uri=images_uri,
        labels_uri=labels_uri,
        image_count=images.num_rows,
        judged=images.num_rows - failed_by_code.total(),
        failed=failed_by_code.total(),
        labels=labels.num_rows,
        models=models,
        failed_by_code=dict(sorted(failed_by_code.items())),
        jobs=[
            {"retry": job.record.retry, "image_count": job.image_count, "judged": job.judged}
            for job in answers.jobs
        ],
        bad_lines=answers.bad_lines,
        content_sha256=digest_rows(images, labels),
    )


def _remember_model(
    store: ObjectStore, plan: Plan, models: list[dict[str, Any]], answers: ShardAnswers
) -> None:
    """Let the next plan know which model answers now, when that is beyond doubt."""
    answered_at = answers.jobs[-1].record.completed_at
    if len(models) != 1 or answered_at is None:
        return
    (model,) = models
    if model["model_version"] is not None and model["adapter_arn"] == plan.parameters.adapter_arn:
        remember_model_version(
            store, plan.folder.work_uri, model["adapter_arn"], model["model_version"], answered_at
        )


def digest_rows(*tables: pa.Table) -> str:
    """Digest rows of the lake, but for the name of the run."""
    digest = TableDigest()
    for table in tables:
        rows = table.drop_columns(["run_id"])
        constant = [name for name in rows.column_names if is_constant(rows[name])]
        digest.update(pa.table({"rows": [rows.num_rows]}))
        digest.update(rows.select(constant)[:1])
        digest.update(rows.drop_columns(constant))
    return digest.hexdigest()


def _image_rows(
    plan: Plan, answers: ShardAnswers, inventory: pa.Table, said: pa.Table, labels: pa.Table
) -> pa.Table:
    answer = said["answer"].combine_chunks()
    is_judged = pc.is_valid(answer)
    told = taken(_facts_of(answers.answers, labels), answer)
    completed_at = _of_job(answers, said, lambda job: job.completed_at, landed_schemas.TIMESTAMP)
    return landed_schemas.assemble(
        landed_schemas.IMAGES,
        inventory.num_rows,
        {name: inventory[name] for name in landed_schemas.LISTED_COLUMNS}
        | {name: told[name] for name in told.column_names}
        | {
            "day": plan.day,
            "outcome": pc.if_else(is_judged, Outcome.JUDGED, Outcome.FAILED),
            "error_code": said["error_code"],
            "error_message": said["error_message"],
            "adapter_arn": pc.if_else(is_judged, said["project_version"], pa.scalar(None, pa.string())),
            "min_confidence": plan.parameters.min_confidence,
            "engine": _of_job(answers, said, lambda job: job.engine, pa.string()),
            "job_id": _of_job(answers, said, lambda job: job.job_id, pa.string()),
            "run_id": plan.run_id,
            "judged_at": pc.if_else(is_judged, completed_at, pa.scalar(None, landed_schemas.TIMESTAMP)),
        },
    )


def _facts_of(answers: Column, labels: pa.Table) -> pa.Table:
    """Return the columns of an image that its answer alone tells, a row an answer."""
    top = top_labels(labels)
    top = top.take(places_of(top["answer"].combine_chunks(), len(answers)))
    return pa.table(
        {
            "label_count": pc.list_value_length(field_of(answers, "ModerationLabels")),
            "top_label": top["label"],
            "top_confidence": top["confidence"],
            "animated_confidence": content_type_confidence(answers, "Animated"),
            "illustrated_confidence": content_type_confidence(answers, "Illustrated"),
            "model_version": field_of(answers, "ModerationModelVersion"),
        }
    )


def _of_job(
    answers: ShardAnswers, said: pa.Table, fact: Callable[[JobRecord], Any], arrow_type: pa.DataType
) -> pa.Array[Any]:
    """Return a fact of each image's job."""
    return pa.array([fact(job.record) for job in answers.jobs], arrow_type).take(said["job"].combine_chunks())


def _label_rows(plan: Plan, images: pa.Table, said: pa.Table, labels: pa.Table) -> pa.Table:
    image = labels["image"].combine_chunks()
    columns = ("label", "parent_label", "taxonomy_level", "l1", "l2", "l3", "confidence")
    return landed_schemas.assemble(
        landed_schemas.LABELS,
        labels.num_rows,
        {name: labels[name] for name in columns}
        | {name: images[name].take(image) for name in ("source_ref", "model_version", "job_id")}
        | {
            "day": plan.day,
            "adapter_arn": said["project_version"].take(image),
            "run_id": plan.run_id,
        },
    )


def _count_models(images: pa.Table) -> list[dict[str, Any]]:
    who = ["model_version", "adapter_arn"]
    judged = images.select(who).filter(pc.equal(images["outcome"], pa.scalar(Outcome.JUDGED)))
    counted = judged.group_by(who, use_threads=False).aggregate([([], "count_all")]).to_pylist()
    return [
        {**{name: row[name] for name in who}, "images": row["count_all"]}
        for row in sorted(counted, key=lambda row: tuple(str(row[name]) for name in who))
    ]
