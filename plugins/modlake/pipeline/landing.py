"""From a shard's result files to data files of the lake, a row an image and a row a label."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline import landed_schemas
from modlake.pipeline.inventory import read_shard_inventory, source_refs
from modlake.pipeline.job_files import JobRecord, read_finished_job
from modlake.pipeline.labels import content_type_confidence, flatten_labels, top_labels
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.outcomes import FailureCode, Outcome
from modlake.pipeline.parquet import encode_parquet
from modlake.pipeline.plan import Plan
from modlake.pipeline.results import read_results
from modlake.pipeline.summary import ImageError, read_summary_errors

_NO_ANSWER = ImageError(
    FailureCode.NO_ANSWER, "The job's results have a line for this image, without an answer."
)
_UNACCOUNTED = ImageError(
    FailureCode.UNACCOUNTED, "Neither the job's results nor its summary name this image."
)


@dataclass(frozen=True, slots=True)
class LandedShard:
    """A shard's data files and how its images came out; image_count = judged + failed.

    ``labels_uri`` is None when no image has a label. ``bad_lines`` counts lines of the results file that
    could not be read. ``content_sha256`` digests the rows, but for the name of the run.
    """

    shard: int
    images_uri: str
    labels_uri: str | None
    image_count: int
    judged: int
    failed: int
    labels: int
    model_versions: list[str]
    failed_by_code: dict[str, int]
    bad_lines: int
    content_sha256: str


@dataclass(frozen=True, slots=True)
class _Answers:
    """The answers of a shard, one for each row of its inventory; null where an image has none."""

    answer: pa.Array[Any]
    project_version: pa.Array[Any]
    has_line: pa.Array[Any]
    bad_lines: int

    @property
    def is_judged(self) -> pa.Array[Any]:
        return pc.is_valid(self.answer)


def land_shard(store: ObjectStore, plan: Plan, shard: int, attempt: str) -> LandedShard:
    """Write a shard's rows of ``images`` and ``labels`` as Parquet, sorted by source_ref.

    ``attempt`` makes the file names unique. Each image of the manifest comes out judged or failed; what
    neither results nor summary name has failed, too, for it must never pass as clean.

    Raises ModlakeTerminalError when the job has not succeeded, or its files name an image that was not asked
    for, or contradict themselves.
    """
    record = read_finished_job(store, plan, shard)
    inventory = read_shard_inventory(store, plan, shard)
    manifest = source_refs(inventory)
    rows = inventory.sort_by("source_ref").combine_chunks()
    answers = _read_answers(store, record, rows["source_ref"].combine_chunks())
    errors: dict[str, ImageError] = {}
    if record.summary_uri is not None:
        errors = read_summary_errors(store.read(record.summary_uri), manifest, record.summary_uri)
    flat = flatten_labels(answers.answer)
    images = _image_rows(plan, record, rows, answers, flat, errors)
    labels = _label_rows(plan, record, rows, answers, flat)
    images_uri = plan.folder.landed_uri("images", shard, attempt)
    store.write(images_uri, encode_parquet(images))
    labels_uri = None
    if labels.num_rows:
        labels_uri = plan.folder.landed_uri("labels", shard, attempt)
        store.write(labels_uri, encode_parquet(labels))
    failed_by_code = Counter(map(str, images["error_code"].drop_null().to_pylist()))
    return LandedShard(
        shard=shard,
        images_uri=images_uri,
        labels_uri=labels_uri,
        image_count=images.num_rows,
        judged=images.num_rows - failed_by_code.total(),
        failed=failed_by_code.total(),
        labels=labels.num_rows,
        model_versions=sorted(map(str, images["model_version"].drop_null().unique().to_pylist())),
        failed_by_code=dict(sorted(failed_by_code.items())),
        bad_lines=answers.bad_lines,
        content_sha256=_digest_content(images, labels),
    )


def _read_answers(store: ObjectStore, record: JobRecord, asked: pa.Array[Any]) -> _Answers:
    if record.results_uri is None:
        raise ModlakeTerminalError(
            f"Job {record.job_id} SUCCEEDED without naming its results. "
            "Clear the analyse task of its group to ask for the job again."
        )
    results = read_results(store.read(record.results_uri), record.results_uri)
    answered = results.lines["source_ref"]
    foreign = answered.filter(pc.invert(pc.is_in(answered, value_set=asked)))
    if len(foreign):
        raise ModlakeTerminalError(
            f"{record.results_uri} judges {foreign[0].as_py()!r} and {len(foreign) - 1} more images that the "
            f"manifest of job {record.job_id} does not name. Check that nobody else writes below the work "
            "bucket, then trigger the day with fresh=true."
        )
    line = pc.index_in(asked, value_set=answered)
    return _Answers(
        answer=results.lines["answer"].combine_chunks().take(line),
        project_version=results.lines["project_version"].combine_chunks().take(line),
        has_line=pc.is_valid(line),
        bad_lines=results.bad_lines,
    )


def _image_rows(
    plan: Plan,
    record: JobRecord,
    inventory: pa.Table,
    answers: _Answers,
    labels: pa.Table,
    errors: dict[str, ImageError],
) -> pa.Table:
    is_judged = answers.is_judged
    top = top_labels(labels)
    top = top.take(pc.index_in(pa.array(range(inventory.num_rows), pa.int64()), value_set=top["image"]))
    label_count = pc.fill_null(pc.list_value_length(pc.struct_field(answers.answer, "ModerationLabels")), 0)
    nothing = pa.scalar(None, pa.string())
    error_code, error_message = _errors_by_row(inventory["source_ref"], answers.has_line, errors)
    return landed_schemas.assemble(
        landed_schemas.IMAGES,
        inventory.num_rows,
        {name: inventory[name] for name in landed_schemas.LISTED_COLUMNS}
        | {
            "day": plan.day,
            "outcome": pc.if_else(is_judged, Outcome.JUDGED, Outcome.FAILED),
            "error_code": pc.if_else(is_judged, nothing, error_code),
            "error_message": pc.if_else(is_judged, nothing, error_message),
            "label_count": pc.if_else(is_judged, label_count, pa.scalar(None, label_count.type)),
            "top_label": top["label"],
            "top_confidence": top["confidence"],
            "animated_confidence": content_type_confidence(answers.answer, "Animated"),
            "illustrated_confidence": content_type_confidence(answers.answer, "Illustrated"),
            "model_version": pc.struct_field(answers.answer, "ModerationModelVersion"),
            "adapter_arn": pc.if_else(is_judged, answers.project_version, nothing),
            "min_confidence": plan.parameters.min_confidence,
            "engine": record.engine,
            "job_id": record.job_id,
            "run_id": plan.run_id,
            "judged_at": pc.if_else(
                is_judged, pa.scalar(record.completed_at, landed_schemas.TIMESTAMP), None
            ),
        },
    )


def _errors_by_row(
    asked: pa.ChunkedArray[Any], has_line: pa.Array[Any], errors: dict[str, ImageError]
) -> tuple[pa.ChunkedArray[Any], pa.ChunkedArray[Any]]:
    """Return code and message for every row, as if all had failed."""
    reported = pc.index_in(asked, value_set=pa.array(errors, pa.string()))
    is_reported = pc.is_valid(reported)
    codes = pa.array([error.code for error in errors.values()], pa.string()).take(reported)
    messages = pa.array([error.message for error in errors.values()], pa.string()).take(reported)
    return (
        pc.if_else(is_reported, codes, pc.if_else(has_line, _NO_ANSWER.code, _UNACCOUNTED.code)),
        pc.if_else(is_reported, messages, pc.if_else(has_line, _NO_ANSWER.message, _UNACCOUNTED.message)),
    )


def _label_rows(
    plan: Plan, record: JobRecord, inventory: pa.Table, answers: _Answers, labels: pa.Table
) -> pa.Table:
    image = labels["image"]
    model_version = pc.struct_field(answers.answer, "ModerationModelVersion")
    columns = ("label", "parent_label", "taxonomy_level", "l1", "l2", "l3", "confidence")
    return landed_schemas.assemble(
        landed_schemas.LABELS,
        labels.num_rows,
        {name: labels[name] for name in columns}
        | {
            "day": plan.day,
            "source_ref": inventory["source_ref"].take(image),
            "model_version": model_version.take(image.combine_chunks()),
            "adapter_arn": answers.project_version.take(image.combine_chunks()),
            "job_id": record.job_id,
            "run_id": plan.run_id,
        },
    )


def _digest_content(*tables: pa.Table) -> str:
    digest = hashlib.sha256()
    for table in tables:
        digest.update(encode_parquet(table.drop_columns(["run_id"])))
    return digest.hexdigest()
