"""Carries media analysis jobs from CREATED to SUCCEEDED or FAILED."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import tenacity

from localcloud.faults.plan import TokenMemory
from localcloud.rekognition import manifest
from localcloud.rekognition.adapters import AdapterNotReadyError, Adapters, UnknownAdapterError
from localcloud.rekognition.analysis import analyse
from localcloud.rekognition.behaviour import Behaviour
from localcloud.rekognition.hooks import JobFailure, JobHook
from localcloud.rekognition.images import MAX_OBJECT_BYTES, ImageError
from localcloud.rekognition.jobs import ImageOutcome, Job, JobStore
from localcloud.rekognition.judges import FirstOf
from localcloud.rekognition.manifest import LineError, ManifestLine
from localcloud.rekognition.objects import (
    ObjectAbsentError,
    ObjectError,
    ObjectForbiddenError,
    Objects,
    ObjectsByCaller,
    ObjectTooLargeError,
    StorageUnavailableError,
)

log = logging.getLogger(__name__)
_RECORD_SECONDS = 0.5
_ASK_AGAIN_SECONDS = 0.2
_STORAGE_PATIENCE_SECONDS = 120.0


class _StoppingError(Exception):
    """The service is going down: the job stays as it is and goes on after the restart."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a runner works with."""

    store: JobStore
    objects: ObjectsByCaller
    judges: FirstOf
    adapters: Adapters
    behaviour: Behaviour
    scratch_dir: Path
    hooks: Sequence[JobHook] = field(default=())
    tokens: Callable[[], TokenMemory] = TokenMemory


class JobRunner:
    """Runs some jobs at once, all of them sharing a bounded pool of image workers."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._with = dependencies
        self._stopping = threading.Event()
        self._jobs = ThreadPoolExecutor(dependencies.behaviour.running_jobs, "job")
        self._images = ThreadPoolExecutor(dependencies.behaviour.image_workers, "image")

    def resume(self) -> None:
        """Take up what an earlier process left unfinished, oldest first."""
        for job in self._with.store.unfinished():
            self.submit(job.job_id)

    def submit(self, job_id: str) -> None:
        """Queue a job of the store."""
        self._with.store.queue(job_id)
        self._jobs.submit(self._run, job_id)

    def stop(self) -> None:
        """Finish the images in hand, record them, and leave the rest for the next start."""
        self._stopping.set()
        self._jobs.shutdown(cancel_futures=True)
        self._images.shutdown(cancel_futures=True)

    def _run(self, job_id: str) -> None:
        store = self._with.store
        try:
            store.begin(job_id)
            job = store.get(job_id)
            assert job is not None
            results_key, summary_key = self._carry_out(job)
            store.succeed(job_id, results_key, summary_key)
            log.info("job %s SUCCEEDED", job_id)
        except _StoppingError:
            log.info("job %s goes on after the restart", job_id)
        except JobFailure as failure:
            store.fail(job_id, failure.code, failure.message)
            log.info("job %s FAILED: %s: %s", job_id, failure.code, failure.message)
        except Exception:
            log.exception("job %s failed by a fault of the stand-in", job_id)
            store.fail(job_id, "INTERNAL_ERROR", "Internal error of the local cloud: see rekognition.log")

    def _carry_out(self, job: Job) -> tuple[str, str | None]:
        for hook in self._with.hooks:
            hook.on_start(job)
        adapter = self._adapter(job)
        self._require_kms_key(job)
        with _storage_failures():
            objects = self._with.objects.of(job.access_key)
            lines = self._manifest(job, objects)
            bucket, prefix = _output(job)
            self._require_output(objects, bucket, f"{prefix}results.jsonl")
            self._process(job, objects, adapter, [line for line in lines if isinstance(line, ManifestLine)])
            self._rest(job)
            return self._write(job, objects, lines, bucket, prefix)

    def _adapter(self, job: Job) -> str | None:
        try:
            return self._with.adapters.effective(_config(job).get("ProjectVersion"))
        except UnknownAdapterError as error:
            raise JobFailure("RESOURCE_NOT_FOUND", str(error)) from error
        except AdapterNotReadyError as error:
            raise JobFailure("RESOURCE_NOT_READY", str(error)) from error

    def _require_kms_key(self, job: Job) -> None:
        key_id = job.request.get("KmsKeyId")
        if key_id is not None and key_id not in self._with.behaviour.kms_keys:
            raise JobFailure("INVALID_KMS_KEY", f"The KMS key {key_id} does not exist or can't be used.")

    def _manifest(self, job: Job, objects: Objects) -> list[ManifestLine | LineError]:
        source = job.request["Input"]["S3Object"]
        try:
            body = self._patient(
                objects.read,
                source["Bucket"],
                source["Name"],
                source.get("Version"),
                limit_bytes=manifest.MAX_BYTES,
            )
        except ObjectTooLargeError as error:
            raise JobFailure("INVALID_MANIFEST", f"The manifest is too large: {error}.") from error
        except ObjectAbsentError as error:
            raise JobFailure("INVALID_S3_OBJECT", f"The manifest can't be read: {error}") from error
        lines = list(islice(manifest.parse(body), manifest.MAX_LINES + 1))
        if len(lines) > manifest.MAX_LINES:
            raise JobFailure("INVALID_MANIFEST", f"The manifest has more than {manifest.MAX_LINES} lines.")
        if not any(isinstance(line, ManifestLine) for line in lines):
            raise JobFailure("INVALID_MANIFEST", "The manifest has no valid JSON Line with a source-ref.")
        return lines

    def _require_output(self, objects: Objects, bucket: str, key: str) -> None:
        """Before the first image is billed."""
        try:
            self._patient(objects.require_writable, bucket, key)
        except ObjectAbsentError as error:
            raise JobFailure(
                "INVALID_OUTPUT_CONFIG", f"The output bucket {bucket} does not exist."
            ) from error

    def _process(self, job: Job, objects: Objects, adapter: str | None, lines: list[ManifestLine]) -> None:
        known = self._with.store.known_lines(job.job_id)
        waiting = iter([line for line in lines if line.line_number not in known])
        window = 2 * self._with.behaviour.image_workers
        config = _config(job)
        in_hand: set[Future[ImageOutcome]] = set()
        done: list[ImageOutcome] = []
        recorded_at = time.monotonic()
        try:
            while True:
                if not self._stopping.is_set():
                    for line in islice(waiting, window - len(in_hand)):
                        in_hand.add(self._images.submit(self._outcome, line, objects, config, adapter))
                if not in_hand:
                    break
                finished, in_hand = wait(in_hand, return_when=FIRST_COMPLETED)
                done += [future.result() for future in finished]
                if time.monotonic() - recorded_at > _RECORD_SECONDS:
                    self._with.store.record(job.job_id, done)
                    done, recorded_at = [], time.monotonic()
        finally:
            self._with.store.record(job.job_id, done)
        self._raise_if_stopping()

    def _outcome(
        self, line: ManifestLine, objects: Objects, config: dict[str, Any], adapter: str | None
    ) -> ImageOutcome:
        try:
            data = self._patient(objects.read, line.bucket, line.key, limit_bytes=MAX_OBJECT_BYTES)
            answer = analyse(data, self._with.judges, config, adapter)
            return ImageOutcome(line, answer=answer, sha256=hashlib.sha256(data).hexdigest())
        except ImageError as error:
            return _failed(line, error.code, error.message)
        except ObjectTooLargeError as error:
            return _failed(line, "ERROR_IMAGE_TOO_LARGE", f"The image is too large: {error}.")
        except ObjectForbiddenError:
            return _failed(line, "ERROR_ACCESS_DENIED", "The image can't be read: access denied.")
        except StorageUnavailableError:
            raise
        except ObjectError as error:
            return _failed(line, "ERROR_INVALID_S3_OBJECT", f"Unable to get the image from S3: {error}")

    def _rest(self, job: Job) -> None:
        """A job takes at least `job_seconds`, or what a hook asks for."""
        assert job.started_at is not None
        while not self._stopping.is_set():
            asked = [hook.seconds(job) for hook in self._with.hooks]
            seconds = max([self._with.behaviour.job_seconds, *asked])
            left = job.started_at + seconds - time.time()
            if left <= 0:
                return
            self._stopping.wait(min(left, _ASK_AGAIN_SECONDS))
        self._raise_if_stopping()

    def _write(
        self, job: Job, objects: Objects, lines: list[ManifestLine | LineError], bucket: str, prefix: str
    ) -> tuple[str, str | None]:
        invalid = [line for line in lines if isinstance(line, LineError)]
        errors = list(invalid)
        result_lines = self._result_lines(job, errors)
        for hook in self._with.hooks:
            result_lines = hook.result_lines(job, result_lines)
        results_key, summary_key = f"{prefix}results.jsonl", f"{prefix}manifest-summary.json"
        self._upload(
            objects, (f"{line}\n" for line in result_lines), bucket, results_key, "application/jsonlines"
        )
        errors.sort(key=lambda error: error.line_number)
        summary: dict[str, Any] | None = manifest.summary(
            len(lines), len(invalid), errors, self._with.behaviour.line_number_key
        )
        for hook in self._with.hooks:
            summary = summary and hook.summary(job, summary)
        if summary is None:
            return results_key, None
        text = json.dumps(summary, ensure_ascii=False)
        self._upload(objects, [text], bucket, summary_key, "application/json")
        return results_key, summary_key

    def _result_lines(self, job: Job, errors: list[LineError]) -> Iterator[str]:
        """Lines in the manifest's order; adds the failed images to `errors`."""
        for _, source_ref, answer, error in self._with.store.outcomes(job.job_id):
            if error is not None:
                errors.append(error)
            if answer is not None:
                yield _line({"source-ref": source_ref, "detect-moderation-labels": answer})
            elif self._with.behaviour.failed_image_line == "without-answer":
                yield _line({"source-ref": source_ref})

    def _upload(
        self, objects: Objects, parts: Iterable[str], bucket: str, key: str, content_type: str
    ) -> None:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="", dir=self._with.scratch_dir, suffix=".part"
        ) as draft:
            draft.writelines(parts)
            draft.flush()
            self._patient(objects.upload, Path(draft.name), bucket, key, content_type)

    def _patient(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        """Call, again and again while S3 is down (it may be restarting)."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(StorageUnavailableError),
            wait=tenacity.wait_fixed(1),
            stop=tenacity.stop_any(
                tenacity.stop_after_delay(_STORAGE_PATIENCE_SECONDS),
                tenacity.stop_when_event_set(self._stopping),
            ),
            sleep=tenacity.sleep_using_event(self._stopping),
            reraise=True,
        )
        try:
            return retrying(call, *args, **kwargs)
        except StorageUnavailableError:
            self._raise_if_stopping()
            raise

    def _raise_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise _StoppingError


@contextmanager
def _storage_failures() -> Iterator[None]:
    """What S3 refuses beyond one image fails the job."""
    try:
        yield
    except ObjectForbiddenError as error:
        raise JobFailure("ACCESS_DENIED", f"Access to S3 was denied: {error}") from error
    except StorageUnavailableError as error:
        code = "THROTTLED" if error.throttled else "INTERNAL_ERROR"
        raise JobFailure(code, f"S3 did not answer: {error}") from error
    except ObjectAbsentError as error:  # the bucket was there when the job began
        raise JobFailure("INVALID_OUTPUT_CONFIG", f"The results can't be written: {error}") from error


def _config(job: Job) -> dict[str, Any]:
    config: dict[str, Any] = job.request["OperationsConfig"]["DetectModerationLabels"]
    return config


def _output(job: Job) -> tuple[str, str]:
    """Bucket and key prefix of the job's own folder. The layout is ours; clients read it from Get."""
    output = job.request["OutputConfig"]
    prefix = output.get("S3KeyPrefix", "")
    separator = "/" if prefix and not prefix.endswith("/") else ""
    return output["S3Bucket"], f"{prefix}{separator}{job.job_id}/"


def _failed(line: ManifestLine, code: str, message: str) -> ImageOutcome:
    return ImageOutcome(line, error=LineError(line.line_number, line.source_ref, code, message))


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
