"""What the jobs of a shard said of its images: the first job of them all, and the retries of some."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.columns import Column, find_rows, taken
from modlake.pipeline.job_files import JobRecord, read_finished_jobs
from modlake.pipeline.manifests import manifest_images
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.outcomes import FailureCode
from modlake.pipeline.plan import Plan
from modlake.pipeline.results import read_results
from modlake.pipeline.scratch import on_disk
from modlake.pipeline.second_look import SecondLook, look_again
from modlake.pipeline.summary import ImageError, read_summary_errors

_NO_ANSWER = ImageError(
    FailureCode.NO_ANSWER, "The job's results have a line for this image, without an answer."
)
_UNACCOUNTED = ImageError(
    FailureCode.UNACCOUNTED, "Neither the job's results nor its summary name this image."
)
_REPLACED = ImageError(
    FailureCode.REPLACED,
    "The object was replaced after it was listed, and its answer may be about another image: run the day "
    "again.",
)
_REWRITTEN = ImageError(
    FailureCode.REWRITTEN,
    "The object was written again after its job had begun, and its answer may be about another image: run "
    "the day again, with fresh=true if this stays.",
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

    ``images`` has a row for each line of the manifest, in its order: ``source_ref``, ``answer`` (its row in
    ``answers``, null when there is none), ``project_version``, ``error_code`` and ``error_message`` (null
    where there is an answer), ``job`` (index into ``jobs``). ``answers`` are structs as
    DetectModerationLabels answers, some of them perhaps of no image. ``bad_lines`` counts the lines of
    results that could not be read. ``rewritten`` tells when images were written again that failed as
    REWRITTEN.
    """

    images: pa.Table
    answers: Column
    jobs: list[AskedJob]
    bad_lines: int
    rewritten: dict[str, str]


def read_answers(
    store: ObjectStore, plan: Plan, shard: int, listed: pa.Table, *, retries: int | None = None
) -> ShardAnswers:
    """Return what results and summaries of a shard's jobs say of its images.

    ``listed`` are their rows of the inventory, in the order of the manifest. An image that was asked for
    again has the outcome of its last try. ``retries`` is how many to regard, by default all there are. An
    image that neither results nor summary name has failed, too, for it must never pass as clean; so has one
    that was not the listed one all the while (:mod:`~modlake.pipeline.second_look`).

    Raises ModlakeTerminalError when a job has not succeeded, or its files name an image that it was not asked
    for, or contradict themselves.
    """
    manifest: Column = listed["source_ref"].combine_chunks()
    records = read_finished_jobs(store, plan, shard, retries=retries)
    asked = [_asked_for(store, plan, record, manifest) for record in records]
    looks = [
        look_again(store, plan, record, _rows_of(listed, images))
        for record, images in zip(records, asked, strict=True)
    ]
    tries = [
        _read_try(store, record, images, look)
        for record, images, look in zip(records, asked, looks, strict=True)
    ]
    said = _newest_first(tries)
    images = said
    if len(tries) > 1:
        newest: Column = pc.index_in(manifest, value_set=said["source_ref"])
        images = said.take(newest)
    judging: Column = pc.value_counts(images["job"].filter(pc.is_valid(images["answer"])))
    judged = {each["values"]: each["counts"] for each in judging.to_pylist()}
    return ShardAnswers(
        images=images.combine_chunks(),
        answers=pa.concat_arrays([each.answers for each in tries]),
        jobs=[
            AskedJob(record, len(images), judged.get(number, 0))
            for number, (record, images) in enumerate(zip(records, asked, strict=True))
        ],
        bad_lines=sum(each.bad_lines for each in tries),
        rewritten={ref: written for look in looks for ref, written in look.rewritten.items()},
    )


def _rows_of(listed: pa.Table, images: Column) -> pa.Table:
    if len(images) == listed.num_rows:
        return listed
    row: Column = pc.index_in(images, value_set=listed["source_ref"])
    return listed.take(row)


def _asked_for(store: ObjectStore, plan: Plan, record: JobRecord, manifest: Column) -> Column:
    if record.retry == 0:
        return manifest
    uri = plan.folder.manifest_uri(record.shard, record.retry)
    asked = pa.array(manifest_images(store.read(uri)), pa.string())
    foreign: Column = asked.filter(pc.invert(pc.is_in(asked, value_set=manifest)))
    if len(foreign):
        raise ModlakeTerminalError(
            f"{uri} asks again for {pc.min(foreign).as_py()!r} and {len(foreign) - 1} more images that shard "
            f"{record.shard} does not hold. Check that nobody else writes below the work bucket, then clear "
            "the plan task of that day."
        )
    return asked


@dataclass(frozen=True, slots=True)
class _Try:
    images: pa.Table
    answers: Column
    bad_lines: int


def _newest_first(tries: list[_Try]) -> pa.Table:
    """Return the images of all tries; their answers are numbered through the tries in their order."""
    numbered = []
    before = 0
    for each in tries:
        images, number = each.images, pc.add(each.images["answer"], pa.scalar(before, pa.int64()))
        numbered.append(images.set_column(images.column_names.index("answer"), "answer", number))
        before += len(each.answers)
    return pa.concat_tables(reversed(numbered))


def _read_try(store: ObjectStore, record: JobRecord, images: Column, look: SecondLook) -> _Try:
    if record.results_uri is None:
        raise ModlakeTerminalError(
            f"Job {record.job_id} SUCCEEDED without naming its results. "
            "Clear the analyse task of its group to ask for the job again."
        )
    with on_disk(store.read(record.results_uri)) as file:
        results = read_results(file, record.results_uri)
    line = find_rows(images, results.lines["source_ref"])
    if len(line) - line.null_count < results.lines.num_rows:
        _refuse_foreign(results.lines["source_ref"], images, record)
    errors: dict[str, ImageError] = {}
    if record.summary_uri is not None:
        errors = read_summary_errors(store.read(record.summary_uri), images, record.summary_uri)
    answer = taken(results.lines["answer"].combine_chunks(), line)
    answer, disbelieved = _disbelieve(images, answer, look)
    is_judged: Column = pc.is_valid(answer)
    error_code, error_message = _errors(images, is_judged, pc.is_valid(line), errors | disbelieved)
    table = pa.table(
        {
            "source_ref": images,
            "answer": answer,
            "project_version": taken(results.lines["project_version"].combine_chunks(), line),
            "error_code": error_code,
            "error_message": error_message,
            "job": pa.repeat(pa.scalar(record.retry, pa.int64()), len(images)),
        }
    )
    return _Try(table, results.answers, results.bad_lines)


def _refuse_foreign(answered: Column, asked: Column, record: JobRecord) -> None:
    foreign: Column = answered.filter(pc.invert(pc.is_in(answered, value_set=asked)))
    raise ModlakeTerminalError(
        f"{record.results_uri} judges {foreign[0].as_py()!r} and {len(foreign) - 1} more images that the "
        f"manifest of job {record.job_id} does not name. Check that nobody else writes below the work "
        "bucket, then trigger the day with fresh=true."
    )


def _disbelieve(images: Column, answer: Column, look: SecondLook) -> tuple[Column, dict[str, ImageError]]:
    """Take the answers away that may be about other images than the listed ones; say of which, and why."""
    reasons = dict.fromkeys(look.replaced, _REPLACED) | dict.fromkeys(look.rewritten, _REWRITTEN)
    if not reasons:
        return answer, {}
    is_doubtful = pc.and_(pc.is_valid(answer), pc.is_in(images, value_set=pa.array(reasons, pa.string())))
    doubtful = map(str, images.filter(is_doubtful).to_pylist())
    believed = pc.if_else(is_doubtful, pa.scalar(None, answer.type), answer)
    return believed, {image: reasons[image] for image in doubtful}


def _errors(
    asked: Column, is_judged: Column, has_line: Column, errors: dict[str, ImageError]
) -> tuple[Column, Column]:
    """Return code and message for every image that was not judged."""
    nothing = pa.nulls(len(asked), pa.string())
    if pc.all(is_judged, min_count=0).as_py():
        return nothing, nothing
    reported: Column = pc.index_in(asked, value_set=pa.array(errors, pa.string()))
    is_reported = pc.is_valid(reported)
    codes = pa.array([error.code for error in errors.values()], pa.string()).take(reported)
    messages = pa.array([error.message for error in errors.values()], pa.string()).take(reported)
    code: Column = pc.if_else(is_reported, codes, pc.if_else(has_line, _NO_ANSWER.code, _UNACCOUNTED.code))
    message: Column = pc.if_else(
        is_reported, messages, pc.if_else(has_line, _NO_ANSWER.message, _UNACCOUNTED.message)
    )
    return pc.if_else(is_judged, nothing, code), pc.if_else(is_judged, nothing, message)
