"""What the jobs of a shard said of its images: the first job of them all, and the retries of some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.job_files import JobRecord, read_finished_jobs
from modlake.pipeline.manifests import manifest_images
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.outcomes import FailureCode
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
class AskedJob:
    """A job of a shard: what it was asked, and how many images have their answer from it."""

    record: JobRecord
    image_count: int
    judged: int


@dataclass(frozen=True, slots=True)
class ShardAnswers:
    """The last word on each image of a shard.

    ``images`` has a row for each line of the manifest, in its order: ``source_ref``, ``answer`` (struct as
    DetectModerationLabels answers, null when there is none), ``project_version``, ``error_code`` and
    ``error_message`` (null where there is an answer), ``job`` (index into ``jobs``). ``bad_lines`` counts the
    lines of results that could not be read.
    """

    images: pa.Table
    jobs: list[AskedJob]
    bad_lines: int


def read_answers(
    store: ObjectStore, plan: Plan, shard: int, manifest: list[str], *, retries: int | None = None
) -> ShardAnswers:
    """Return what results and summaries of a shard's jobs say of the images of its manifest.

    An image that was asked for again has the outcome of its last try. ``retries`` is how many to regard, by
    default all there are. An image that neither results nor summary name has failed, too, for it must never
    pass as clean.

    Raises ModlakeTerminalError when a job has not succeeded, or its files name an image that it was not asked
    for, or contradict themselves.
    """
    records = read_finished_jobs(store, plan, shard, retries=retries)
    asked = [_asked_for(store, plan, record, manifest) for record in records]
    tries = [_read_try(store, record, images) for record, images in zip(records, asked, strict=True)]
    said = pa.concat_tables([table for table, _ in reversed(tries)])
    images = said.take(pc.index_in(pa.array(manifest, pa.string()), value_set=said["source_ref"]))
    judged = images.filter(pc.is_valid(images["answer"]))["job"].to_pylist()
    return ShardAnswers(
        images=images.combine_chunks(),
        jobs=[
            AskedJob(record, len(images), judged.count(number))
            for number, (record, images) in enumerate(zip(records, asked, strict=True))
        ],
        bad_lines=sum(bad_lines for _, bad_lines in tries),
    )


def _asked_for(store: ObjectStore, plan: Plan, record: JobRecord, manifest: list[str]) -> list[str]:
    if record.retry == 0:
        return manifest
    uri = plan.folder.manifest_uri(record.shard, record.retry)
    asked = manifest_images(store.read(uri))
    foreign = set(asked) - set(manifest)
    if foreign:
        raise ModlakeTerminalError(
            f"{uri} asks again for {min(foreign)!r} and {len(foreign) - 1} more images that shard "
            f"{record.shard} does not hold. Check that nobody else writes below the work bucket, then clear "
            "the plan task of that day."
        )
    return asked


def _read_try(store: ObjectStore, record: JobRecord, asked: list[str]) -> tuple[pa.Table, int]:
    if record.results_uri is None:
        raise ModlakeTerminalError(
            f"Job {record.job_id} SUCCEEDED without naming its results. "
            "Clear the analyse task of its group to ask for the job again."
        )
    results = read_results(store.read(record.results_uri), record.results_uri)
    images = pa.array(asked, pa.string())
    _require_asked(results.lines["source_ref"], images, record)
    errors: dict[str, ImageError] = {}
    if record.summary_uri is not None:
        errors = read_summary_errors(store.read(record.summary_uri), asked, record.summary_uri)
    line = pc.index_in(images, value_set=results.lines["source_ref"])
    answer = results.lines["answer"].combine_chunks().take(line)
    error_code, error_message = _errors(images, pc.is_valid(line), errors)
    nothing = pa.scalar(None, pa.string())
    is_judged = pc.is_valid(answer)
    table = pa.table(
        {
            "source_ref": images,
            "answer": answer,
            "project_version": results.lines["project_version"].combine_chunks().take(line),
            "error_code": pc.if_else(is_judged, nothing, error_code),
            "error_message": pc.if_else(is_judged, nothing, error_message),
            "job": pa.repeat(pa.scalar(record.retry, pa.int64()), len(images)),
        }
    )
    return table, results.bad_lines


def _require_asked(answered: pa.ChunkedArray[Any], asked: pa.Array[Any], record: JobRecord) -> None:
    foreign = answered.filter(pc.invert(pc.is_in(answered, value_set=asked)))
    if len(foreign):
        raise ModlakeTerminalError(
            f"{record.results_uri} judges {foreign[0].as_py()!r} and {len(foreign) - 1} more images that the "
            f"manifest of job {record.job_id} does not name. Check that nobody else writes below the work "
            "bucket, then trigger the day with fresh=true."
        )


def _errors(
    asked: pa.Array[Any], has_line: pa.Array[Any], errors: dict[str, ImageError]
) -> tuple[pa.Array[Any], pa.Array[Any]]:
    """Return code and message for every image, as if all had failed."""
    reported = pc.index_in(asked, value_set=pa.array(errors, pa.string()))
    is_reported = pc.is_valid(reported)
    codes = pa.array([error.code for error in errors.values()], pa.string()).take(reported)
    messages = pa.array([error.message for error in errors.values()], pa.string()).take(reported)
    return (
        pc.if_else(is_reported, codes, pc.if_else(has_line, _NO_ANSWER.code, _UNACCOUNTED.code)),
        pc.if_else(is_reported, messages, pc.if_else(has_line, _NO_ANSWER.message, _UNACCOUNTED.message)),
    )
