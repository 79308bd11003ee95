from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcloud.rekognition.jobs import ImageOutcome, JobStore, TokenReusedError, TooManyJobsError
from localcloud.rekognition.manifest import LineError, ManifestLine

REQUEST = {"JobName": "j"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[JobStore]:
    store = JobStore(path)
    yield store
    store.close()


def answered(number: int) -> ImageOutcome:
    return ImageOutcome(ManifestLine(number, f"s3://b/{number}", "b", str(number)), answer={"n": number})


def failed(number: int) -> ImageOutcome:
    line = ManifestLine(number, f"s3://b/{number}", "b", str(number))
    return ImageOutcome(line, error=LineError(number, line.source_ref, "CODE", "message"))


def bill(path: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(path) as database:
        return database.execute("SELECT job_id, line_number FROM bill ORDER BY 1, 2").fetchall()


def test_states(store: JobStore) -> None:
    job = store.create(REQUEST, None, "key", 20)
    assert (job.status, job.request, job.access_key) == ("CREATED", REQUEST, "key")
    store.queue(job.job_id)
    assert store.get(job.job_id).status == "QUEUED"  # type: ignore[union-attr]
    store.begin(job.job_id)
    begun = store.get(job.job_id)
    assert begun is not None
    assert begun.status == "IN_PROGRESS"
    store.queue(job.job_id)
    store.begin(job.job_id)
    assert store.get(job.job_id) == begun
    assert [unfinished.job_id for unfinished in store.unfinished()] == [job.job_id]
    store.fail(job.job_id, "INTERNAL_ERROR", "why")
    done = store.get(job.job_id)
    assert done is not None
    assert (done.status, done.failure_code, done.failure_message) == ("FAILED", "INTERNAL_ERROR", "why")
    assert store.unfinished() == []


def test_a_token_is_one_job_for_ever(store: JobStore, path: Path) -> None:
    job = store.create(REQUEST, "token", "key", 1)
    assert store.create(REQUEST, "token", "key", 1) == job
    store.fail(job.job_id, "INTERNAL_ERROR", "why")
    store.close()
    again = JobStore(path)
    assert again.create(REQUEST, "token", "key", 1).job_id == job.job_id
    with pytest.raises(TokenReusedError):
        again.create({"JobName": "other"}, "token", "key", 1)
    again.close()


def test_threads_with_one_token_start_one_job(store: JobStore) -> None:
    barrier = threading.Barrier(8)
    started: list[str] = []

    def start() -> None:
        barrier.wait()
        started.append(store.create(REQUEST, "token", "key", 20).job_id)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 8
    assert len(set(started)) == len(store.page(None, 100)) == 1


def test_the_limit_counts_unfinished_jobs(store: JobStore) -> None:
    first = store.create(REQUEST, None, "key", 2)
    store.create(REQUEST, None, "key", 2)
    with pytest.raises(TooManyJobsError):
        store.create(REQUEST, None, "key", 2)
    store.succeed(first.job_id, "results", "summary")
    store.create(REQUEST, None, "key", 2)


def test_only_answered_images_are_billed_and_only_once(store: JobStore, path: Path) -> None:
    job_id = store.create(REQUEST, None, "key", 20).job_id
    store.record(job_id, [answered(1), failed(2)])
    store.record(job_id, [answered(1), answered(3)])
    assert store.known_lines(job_id) == {1, 2, 3}
    assert [
        (number, answer, error and error.code) for number, _, answer, error in store.outcomes(job_id)
    ] == [
        (1, {"n": 1}, None),
        (2, None, "CODE"),
        (3, {"n": 3}, None),
    ]
    store.succeed(job_id, "results", "summary")
    assert bill(path) == [(job_id, 1), (job_id, 3)]
    assert store.known_lines(job_id) == set()


def test_outcomes_come_in_the_manifests_order_and_all_of_them(store: JobStore) -> None:
    job_id = store.create(REQUEST, None, "key", 20).job_id
    store.record(job_id, [answered(number) for number in range(1200, 0, -1)])
    assert [number for number, *_ in store.outcomes(job_id)] == list(range(1, 1201))


def test_pages_are_newest_first(store: JobStore) -> None:
    numbers = [store.create(REQUEST, None, "key", 20).number for _ in range(5)]
    first = store.page(None, 2)
    assert [job.number for job in first] == numbers[:2:-1]
    assert [job.number for job in store.page(first[-1].number, 10)] == numbers[2::-1]
