"""
Media analysis jobs as a reconciler: what should exist (one job a manifest) against what exists.

A job is paid for and can't be stopped, so every way to find one again is tried before another is started.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from modlake.exceptions import ModlakeError, ModlakeTerminalError, ModlakeTransientError
from modlake.pipeline.engine_claims import require_bulk
from modlake.pipeline.object_store import ObjectExistsError
from modlake.pipeline.submissions import (
    JobMemory,
    StoredSubmissionLedger,
    Submission,
    SubmissionLedger,
    fingerprint,
    start_request,
)

if TYPE_CHECKING:
    from modlake.pipeline.object_store import ObjectStore
    from modlake.pipeline.plan import Plan, Shard

SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
ACTIVE_STATUSES = frozenset({"CREATED", "QUEUED", "IN_PROGRESS"})
"""With the two above, every ``Status`` of the service model; an unknown one is an error, not "running"."""

TRIES = 3
"""Jobs one attempt of a task starts for a manifest before it leaves the matter to the task's retries."""

NAME_SEARCH_PAGES = 10
"""Pages of 100 jobs, newest first, that a search by job name reads."""

RETRY_SECONDS = 60.0
"""What a full account refused is asked for again after so long, or twice as long."""

GETS_WORTH_A_LIST = 4
"""By default AWS grants 20 Get a second and 5 List: from the fifth job on one List is the smaller share."""


class MediaAnalysisApi(Protocol):
    """The calls of Amazon Rekognition that the reconciler makes; ``RekognitionHook`` fulfils it."""

    def start_media_analysis_job(self, **request: Any) -> str:
        """Return the job id; raise NoJobSlotError or TokenParametersMismatchError."""
        ...

    def get_media_analysis_job(self, job_id: str) -> dict[str, Any]:
        """Return GetMediaAnalysisJob's answer; raise MediaAnalysisJobNotFoundError."""
        ...

    def iter_media_analysis_jobs(self, *, max_pages: int) -> Iterator[dict[str, Any]]:
        """Yield the account's jobs as Get describes them, newest first."""
        ...

    def find_media_analysis_job(self, job_name: str, *, max_pages: int) -> dict[str, Any] | None:
        """Return the newest job of that name."""
        ...


class NoJobSlotError(ModlakeTransientError):
    """The account's quota of concurrent jobs is used up: a wait, not a failure."""


class TokenParametersMismatchError(ModlakeTerminalError):
    """A client request token was used before, with other parameters."""


class MediaAnalysisJobNotFoundError(ModlakeTerminalError):
    """The account has no such job in this region, or no longer."""


class MediaAnalysisJobFailedError(ModlakeTerminalError):
    """A job ended FAILED, and would again. Attributes: ``job_id``, ``code``."""

    def __init__(self, message: str, *, job_id: str = "", code: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id
        self.code = code


class MediaAnalysisJobInterruptedError(ModlakeTransientError):
    """A job ended FAILED for a passing reason. Attributes: ``job_id``, ``code``."""

    def __init__(self, message: str, *, job_id: str = "", code: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id
        self.code = code


# FailureDetails.Code of the service model. AWS documents no meanings: these follow from the names.
_PASSING_FAILURES = {
    "INTERNAL_ERROR": "the service had a problem of its own: start the analysis again.",
    "RESOURCE_NOT_READY": "wait until the adapter is TRAINING_COMPLETED, then start the analysis again.",
    "THROTTLED": "run fewer jobs at once (the Airflow pool of these jobs), then start the analysis again.",
}
# AWS documents neither who reads the manifest and the images nor who writes the results.
_BUCKET_POLICIES = (
    "let in Rekognition itself (include/iam/rekognition-work-bucket-policy.json, "
    "rekognition-uploads-bucket-policy.json)"
)
_LASTING_FAILURES = {
    "ACCESS_DENIED": (
        "let the connection's identity read the manifest and its images and write to the output bucket; if "
        f"it may already, {_BUCKET_POLICIES}; then clear the task."
    ),
    "INVALID_KMS_KEY": (
        "check kms_key_id, its region, and that its policy lets the identity and Rekognition use it, then "
        "clear the task."
    ),
    "INVALID_MANIFEST": "write one JSON object with a source-ref a line, 1 to 10,000 lines, at most 50 MB.",
    "INVALID_OUTPUT_CONFIG": "check that the output bucket exists in the job's region, then clear the task.",
    "INVALID_S3_OBJECT": (
        "check that the manifest exists in the job's region and that the connection's identity may read it; "
        f"if so, {_BUCKET_POLICIES}; then clear the task."
    ),
    "RESOURCE_NOT_FOUND": "check the adapter's ARN (project_version), the account and the region.",
}


def failure_of(job: Mapping[str, Any]) -> MediaAnalysisJobFailedError | MediaAnalysisJobInterruptedError:
    """Return the error that a FAILED job means; its type says whether another job can do better."""
    details = job.get("FailureDetails") or {}
    job_id, code, said = str(job.get("JobId")), details.get("Code", ""), details.get("Message", "")
    cause = f"Media analysis job {job_id} FAILED: {code or 'no code given'}{f' ({said})' if said else ''}."
    if code in _PASSING_FAILURES:
        message = f"{cause} Mend: {_PASSING_FAILURES[code]}"
        return MediaAnalysisJobInterruptedError(message, job_id=job_id, code=code)
    # An unknown code is final: images that a failed job has judged may be paid for, so a person decides.
    mend = _LASTING_FAILURES.get(code, "look the job up in the Rekognition console, then clear the task.")
    return MediaAnalysisJobFailedError(f"{cause} Mend: {mend}", job_id=job_id, code=code)


def has_ended(job: Mapping[str, Any]) -> bool:
    """
    Tell whether a job's status is final.

    :raises ModlakeTerminalError: the status is none that the service model names
    """
    status = job["Status"]
    if status not in ACTIVE_STATUSES and status not in {SUCCEEDED, FAILED}:
        raise ModlakeTerminalError(
            f"Media analysis job {job.get('JobId')} has the unknown status {status!r}. Mend: look the job up "
            "in the Rekognition console; a newer Modlake may know the status."
        )
    return status in {SUCCEEDED, FAILED}


def unstoppable(job_ids: Iterable[str]) -> str:
    """Say what becomes of jobs whose task is killed: no operation of AWS stops one."""
    return (
        f"AWS can't stop media analysis jobs: {', '.join(job_ids)} will run to the end and be paid for. "
        "The next try of the task takes them up again; nothing is started twice."
    )


def _record_nothing(submission: Submission, job: dict[str, Any]) -> None:
    """Keep no record of a job."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """
    A manifest that should have one job.

    :param name: what progress lines and errors call it, unique in its group
    :param request_for: the StartMediaAnalysisJob request of a generation
    :param image_count: None when nobody counted
    :param record: told what AWS says of the job at the first look and at its end
    """

    name: str
    fingerprint: str
    request_for: Callable[[int], dict[str, Any]]
    ledger: SubmissionLedger
    image_count: int | None = None
    record: Callable[[Submission, dict[str, Any]], None] = _record_nothing


@dataclass(frozen=True, slots=True)
class Progress:
    """
    Where a group of analyses stands.

    :param awaiting: names of the analyses that have no job yet, or whose job could not be written down yet
    :param images_per_second: of all running jobs, judging by the ended ones; None before one has ended
    """

    jobs: int
    succeeded: int
    active_job_ids: tuple[str, ...]
    awaiting: tuple[str, ...]
    image_count: int
    images_done: int
    images_per_second: float | None

    @property
    def is_complete(self) -> bool:
        return self.succeeded == self.jobs

    def __str__(self) -> str:
        parts = [f"{self.succeeded} of {self.jobs} jobs done, {len(self.active_job_ids)} running"]
        if self.awaiting:
            parts.append(f"{len(self.awaiting)} waiting to start")
        if self.image_count:
            parts.append(f"{self.images_done:,} of {self.image_count:,} images")
        if self.images_per_second:
            parts.append(f"{self.images_per_second:,.1f} images/s")
            minutes_left = (self.image_count - self.images_done) / self.images_per_second / 60
            parts.append(
                f"about {minutes_left:,.0f} min left" if minutes_left >= 1 else "under a minute left"
            )
        return ", ".join(parts)


class MediaAnalysisReconciler:
    """
    Bring the jobs of a group of analyses about.

    Attributes: ``jobs``, by analysis name the last that AWS said of its job; ``trouble``, why the last pass
    could not do all it should; ``first_generations``, for a reconciler that carries the same attempt on;
    ``may_start``, which another thread may set to False to have nothing more started, also in a running pass.

    :param report: gets lines of progress
    :param first_generations: by fingerprint, the generation at which the running attempt of a task began to
        follow an analysis. A FAILED job of that generation or a later one is this attempt's to judge; one
        that an attempt finds FAILED at its beginning is an earlier attempt's, mended since by somebody.
    :param jobs_at_once: start no more while so many of the group's jobs run; None sets no limit
    """

    def __init__(
        self,
        api: MediaAnalysisApi,
        analyses: list[Analysis],
        *,
        report: Callable[[str], None],
        first_generations: Mapping[str, int] | None = None,
        jobs_at_once: int | None = None,
    ) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.trouble: str | None = None
        self.may_start = True
        self.first_generations = dict(first_generations or {})
        self._api = api
        self._analyses = analyses
        self._report = report
        self._jobs_at_once = jobs_at_once
        self._submissions: dict[str, Submission] = {}
        self._unsettled: set[str] = set()
        self._searched: set[str] = set()
        self._unsubmitted: set[str] = set()
        self._newest: dict[str, dict[str, Any]] | None = None
        self._refusal: NoJobSlotError | None = None

    def reconcile(self) -> Progress:
        """
        Make one pass: start what should exist and does not, look at what exists.

        Throttling, a full account and the like leave the pass incomplete and say so in ``trouble``.

        :raises MediaAnalysisJobFailedError: a job failed for a lasting reason
        :raises MediaAnalysisJobInterruptedError: ``TRIES`` jobs of one manifest failed for a passing reason
        :raises MediaAnalysisJobNotFoundError: AWS does not know a job that was started, and nobody has seen
            its end: nothing is paid twice on the suspicion that it is gone
        :raises ModlakeTerminalError: AWS or the object store refused a request
        """
        self.trouble = self._refusal = self._newest = None
        for analysis in self._analyses:
            if self.jobs.get(analysis.name, {}).get("Status") == SUCCEEDED:
                continue
            try:
                self._advance(analysis)
            except MediaAnalysisJobInterruptedError:
                raise
            except ModlakeTransientError as error:
                if str(error) != self.trouble:
                    self._report(f"{analysis.name}: {error}")
                self.trouble = str(error)
        return self._progress()

    @property
    def active_job_ids(self) -> tuple[str, ...]:
        """The jobs that had not ended when last looked at."""
        return tuple(job["JobId"] for job in self.jobs.values() if job["Status"] in ACTIVE_STATUSES)

    @property
    def submitted(self) -> dict[str, tuple[int, str]]:
        """Generation and job id of what was started and is written down, by fingerprint."""
        found: dict[str, tuple[int, str]] = {}
        for analysis in self._analyses:
            submission = self._submissions.get(analysis.name)
            # What is not has to be found, and written down, by whoever carries on.
            if submission is None or analysis.name in self._unsettled:
                continue
            if submission.job_id is not None:
                found[analysis.fingerprint] = (submission.generation, submission.job_id)
        return found

    @property
    def is_held_up(self) -> bool:
        """Tell whether the last pass left undone what another one soon may do."""
        return self.trouble is not None and not self._is_full

    @property
    def is_refused(self) -> bool:
        """Tell whether the last pass found the account full."""
        return self._refusal is not None

    @property
    def _is_full(self) -> bool:
        if not self.may_start:
            return True
        return self._jobs_at_once is not None and len(self.active_job_ids) >= self._jobs_at_once

    def _advance(self, analysis: Analysis) -> None:
        if analysis.name in self._unsettled:
            self._write_down(analysis)
        submission = self._submission_of(analysis)
        while submission is not None:
            if submission.job_id is None and self._is_full and analysis.name in self._searched:
                return
            job = self._existing_job(analysis, submission)
            if job is None:
                if self._is_full:
                    return
                submission = self._start(analysis, submission)
                continue
            self._look(analysis, job)
            if not has_ended(job) or job["Status"] == SUCCEEDED:
                self.first_generations.setdefault(analysis.fingerprint, submission.generation)
                return
            submission = self._move_on(analysis, submission.generation, failure_of(job))

    def _submission_of(self, analysis: Analysis) -> Submission | None:
        """Return what was submitted, or is to be; None when it was not, and has to wait its turn."""
        known = self._submissions.get(analysis.name)
        if known is None and not (self._is_full and analysis.name in self._unsubmitted):
            known = analysis.ledger.latest()
        if known is not None:
            self._submissions[analysis.name] = require_bulk(known, analysis.name)
            return known
        if self._is_full:
            self._unsubmitted.add(analysis.name)
            # Nobody has submitted it: this attempt answers for its first job, wherever that is started.
            self.first_generations.setdefault(analysis.fingerprint, 0)
            return None
        return self._claim(analysis, 0)

    def _claim(self, analysis: Analysis, generation: int) -> Submission:
        claimed = analysis.ledger.claim(generation, analysis.request_for(generation))
        require_bulk(claimed, analysis.name)
        # New only now: by the next pass another run may have read it and started the job.
        self._submissions[analysis.name] = replace(claimed, is_new=False)
        return claimed

    def _existing_job(self, analysis: Analysis, submission: Submission) -> dict[str, Any] | None:
        if submission.job_id is not None:
            known = self._newest_jobs().get(submission.job_id)
            try:
                return known or self._api.get_media_analysis_job(submission.job_id)
            except MediaAnalysisJobNotFoundError:
                # Of a day of long ago, whose results are there all the same.
                ended = analysis.ledger.concluded_job(submission)
                if ended is None:
                    raise
                return ended
        if submission.is_new:
            return None
        if self._refusal is not None and analysis.name in self._searched:
            raise self._refusal
        # Right before every Start, so that its token bridges no more than the time of that one call: a job
        # that started before is found by its name, one that starts since is what the token answers.
        self._searched.add(analysis.name)
        return self._find_by_name(analysis, submission)

    def _newest_jobs(self) -> dict[str, dict[str, Any]]:
        """Return the newest jobs of the account by id: one call a pass, instead of one for each job."""
        if self._newest is None:
            self._newest = {}
            if len(self._analyses) > GETS_WORTH_A_LIST:
                with suppress(ModlakeError):  # each can be asked for by its id, too
                    self._newest = {
                        job["JobId"]: job for job in self._api.iter_media_analysis_jobs(max_pages=1)
                    }
        return self._newest

    def _find_by_name(self, analysis: Analysis, submission: Submission) -> dict[str, Any] | None:
        name = submission.request["JobName"]
        # Names need not be unique: only one that carries the fingerprint tells that a job is this analysis.
        if analysis.fingerprint[:16] not in name:
            return None
        job = self._api.find_media_analysis_job(name, max_pages=NAME_SEARCH_PAGES)
        if job is not None:
            self._report(f"{analysis.name}: found job {job['JobId']} by its name {name}")
            self._settle(analysis, submission, job["JobId"])
        return job

    def _start(self, analysis: Analysis, submission: Submission) -> Submission | None:
        """Start a job, unless others have gone on from the submission meanwhile: then return theirs."""
        # This attempt answers for what it starts, also when the first look finds it FAILED.
        self.first_generations.setdefault(analysis.fingerprint, submission.generation)
        if self._refusal is not None:
            raise self._refusal
        # It may have waited for hours, in which another run was denied its Start and took to single calls.
        current = submission if submission.is_new else analysis.ledger.current(submission)
        if current is not submission:
            self._submissions[analysis.name] = require_bulk(current, analysis.name)
            return current
        try:
            job_id = self._api.start_media_analysis_job(**submission.request)
        except NoJobSlotError as refusal:
            self._refusal = refusal
            raise
        except TokenParametersMismatchError:
            job = self._find_by_name(analysis, submission)
            if job is None:
                raise
            self._look(analysis, job)
            return None
        self._report(f"{analysis.name}: job {job_id} is {submission.request['JobName']}")
        self._settle(analysis, submission, job_id)
        return None

    def _settle(self, analysis: Analysis, submission: Submission, job_id: str) -> None:
        self._submissions[analysis.name] = replace(submission, job_id=job_id, is_new=False)
        # It runs and has its slot, whether or not that can be written down now.
        self.jobs[analysis.name] = _unseen(job_id)
        self._unsettled.add(analysis.name)
        self._write_down(analysis)

    def _write_down(self, analysis: Analysis) -> None:
        analysis.ledger.settle(self._submissions[analysis.name])
        self._unsettled.remove(analysis.name)

    def _look(self, analysis: Analysis, job: dict[str, Any]) -> None:
        # Until what is seen is recorded, the job counts as one that nobody has looked at: so it is looked at
        # again, and whoever waits for the end of all jobs finds every record written.
        known = self.jobs.setdefault(analysis.name, _unseen(job["JobId"]))
        is_first_look = "CreationTimestamp" not in known
        if is_first_look or has_ended(job):
            analysis.record(self._submissions[analysis.name], job)
        if job["Status"] == SUCCEEDED:
            analysis.ledger.conclude(self._submissions[analysis.name], job)
        self.jobs[analysis.name] = job

    def _move_on(
        self,
        analysis: Analysis,
        generation: int,
        failure: MediaAnalysisJobFailedError | MediaAnalysisJobInterruptedError,
    ) -> Submission:
        first = self.first_generations.get(analysis.fingerprint)
        is_final = isinstance(failure, MediaAnalysisJobFailedError)
        if first is not None and (is_final or generation - first + 1 >= TRIES):
            raise failure
        self._report(f"{analysis.name}: {failure} It is analysed again, as generation {generation + 1}.")
        self.jobs.pop(analysis.name, None)
        return self._claim(analysis, generation + 1)

    def _progress(self) -> Progress:
        done = [each for each in self._analyses if self.jobs.get(each.name, {}).get("Status") == SUCCEEDED]
        active = self.active_job_ids
        images_done = sum(analysis.image_count or 0 for analysis in done)
        seconds = sum(duration_seconds(self.jobs[analysis.name]) for analysis in done)
        return Progress(
            jobs=len(self._analyses),
            succeeded=len(done),
            active_job_ids=active,
            awaiting=tuple(
                each.name
                for each in self._analyses
                if each.name not in self.jobs or each.name in self._unsettled
            ),
            image_count=sum(analysis.image_count or 0 for analysis in self._analyses),
            images_done=images_done,
            images_per_second=images_done / seconds * max(1, len(active)) if seconds else None,
        )


def _unseen(job_id: str) -> dict[str, Any]:
    """Return what stands for a job until it has been looked at, with a status of our own making."""
    return {"JobId": job_id, "Status": "CREATED"}


def duration_seconds(job: Mapping[str, Any]) -> float:
    """Return how long an ended job took by AWS's clock, 0 when AWS does not say."""
    started, ended = job.get("CreationTimestamp"), job.get("CompletionTimestamp")
    return max(0.0, (ended - started).total_seconds()) if started and ended else 0.0


def analysis_of(store: ObjectStore, plan: Plan, shard: Shard, memory: JobMemory) -> Analysis:
    """Return the analysis of a shard, or of a retry of some of its images."""
    identity = fingerprint(shard.images_sha256, plan.parameters, shard.retry)

    def record(submission: Submission, job: dict[str, Any]) -> None:
        content = {
            "shard": shard.shard,
            "retry": shard.retry,
            "engine": "bulk",
            "fingerprint": identity,
            "generation": submission.generation,
            "request": submission.request,
            "job_id": submission.job_id,
            "job": job,
        }
        body = json.dumps(content, indent=1, default=_timestamp).encode()
        # Another attempt may have told the end already, and be reading it.
        with suppress(ObjectExistsError):
            store.write(plan.folder.job_uri(shard.shard, shard.retry), body, if_absent=not has_ended(job))

    return Analysis(
        name=shard.name,
        fingerprint=identity,
        request_for=lambda generation: start_request(plan, shard, identity, generation),
        ledger=StoredSubmissionLedger(store, plan.folder.work_uri, identity, memory),
        image_count=shard.image_count,
        record=record,
    )


def _timestamp(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} has no JSON form")
