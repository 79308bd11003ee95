"""The runner on S3 that is a dictionary, for what a real one does rarely."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localcloud.rekognition import runner as runner_module
from localcloud.rekognition.adapters import Adapters
from localcloud.rekognition.behaviour import Behaviour
from localcloud.rekognition.hooks import JobFailure, JobHook
from localcloud.rekognition.images import OpenedImage
from localcloud.rekognition.jobs import Job, JobStore
from localcloud.rekognition.judges import FirstOf, Judgement
from localcloud.rekognition.objects import ObjectAbsentError, StorageUnavailableError
from localcloud.rekognition.runner import Dependencies, JobRunner
from tests.localcloud.support import picture

IMAGES = 6
REQUEST = {
    "OperationsConfig": {"DetectModerationLabels": {}},
    "Input": {"S3Object": {"Bucket": "work", "Name": "m"}},
    "OutputConfig": {"S3Bucket": "work", "S3KeyPrefix": "out/"},
}


class Nothing:
    """A judge that finds nothing; counts, and may wait."""

    def __init__(self) -> None:
        self.judged = 0
        self.gate = threading.Event()
        self.gate.set()

    def judge(self, _: OpenedImage) -> Judgement:
        self.gate.wait(10)
        self.judged += 1
        return Judgement([], [])


class Bucket:
    """Everyone's objects; `trouble` is raised instead of an answer while it lasts."""

    def __init__(self) -> None:
        refs = [f"s3://ugc/{number}" for number in range(IMAGES)]
        self.objects = {f"ugc/{number}": picture(seed=number) for number in range(IMAGES)}
        self.objects["work/m"] = "\n".join(json.dumps({"source-ref": ref}) for ref in refs).encode()
        self.trouble: list[Exception] = []
        self.output_gone = False

    def of(self, _: str) -> Bucket:
        return self

    def read(self, bucket: str, key: str, version: str | None = None, *, limit_bytes: int) -> bytes:
        if self.trouble:
            raise self.trouble.pop()
        if f"{bucket}/{key}" not in self.objects:
            raise ObjectAbsentError(key)
        return self.objects[f"{bucket}/{key}"]

    def require_writable(self, bucket: str, key: str) -> None: ...

    def upload(self, path: Path, bucket: str, key: str, content_type: str) -> None:
        if self.output_gone:
            raise ObjectAbsentError("NoSuchBucket")
        self.objects[f"{bucket}/{key}"] = path.read_bytes()


class Stage:
    """A store with one job, and runners for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bucket = Bucket()
        self.judge = Nothing()
        self.store = JobStore(path / "jobs.sqlite")
        self.job_id = self.store.create(REQUEST, None, "key", 20).job_id

    def runner(self, *hooks: JobHook, **behaviour: Any) -> JobRunner:
        bucket: Any = self.bucket
        return JobRunner(
            Dependencies(
                store=self.store,
                objects=bucket,
                judges=FirstOf(self.judge),
                adapters=Adapters(self.path),
                behaviour=Behaviour(**behaviour),
                scratch_dir=self.path,
                hooks=hooks,
            )
        )

    def run(self, *hooks: JobHook, **behaviour: Any) -> Job:
        """The job after a runner took it up, let it end, and stopped."""
        runner = self.runner(*hooks, **behaviour)
        runner.resume()
        wait_for(lambda: self.job().status in ("SUCCEEDED", "FAILED"))
        runner.stop()
        return self.job()

    def job(self) -> Job:
        job = self.store.get(self.job_id)
        assert job is not None
        return job

    def result_lines(self) -> list[str]:
        return self.bucket.objects[f"work/{self.job().results_key}"].decode().splitlines()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.store.close()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise TimeoutError


def test_results_are_in_the_manifests_order(stage: Stage) -> None:
    assert stage.run().status == "SUCCEEDED"
    refs = [json.loads(line)["source-ref"] for line in stage.result_lines()]
    assert refs == [f"s3://ugc/{number}" for number in range(IMAGES)]


def test_trouble_with_s3_that_passes_is_waited_for(stage: Stage) -> None:
    stage.bucket.trouble = [StorageUnavailableError("restarting", throttled=False)] * 2
    assert stage.run().status == "SUCCEEDED"
    assert len(stage.result_lines()) == IMAGES


@pytest.mark.parametrize(("throttled", "code"), [(True, "THROTTLED"), (False, "INTERNAL_ERROR")])
def test_trouble_with_s3_that_stays(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, throttled: bool, code: str
) -> None:
    monkeypatch.setattr(runner_module, "_STORAGE_PATIENCE_SECONDS", 0)
    stage.bucket.trouble = [StorageUnavailableError("slow down", throttled=throttled)] * 100
    assert stage.run().failure_code == code


def test_an_output_bucket_that_goes_while_the_job_runs(stage: Stage) -> None:
    stage.bucket.output_gone = True
    assert stage.run().failure_code == "INVALID_OUTPUT_CONFIG"


def test_a_fault_of_the_stand_in_is_an_internal_error(stage: Stage) -> None:
    stage.bucket.trouble = [RuntimeError("a bug")]
    job = stage.run()
    assert (job.status, job.failure_code) == ("FAILED", "INTERNAL_ERROR")


def test_a_stopped_runner_leaves_the_job_and_the_next_judges_only_the_rest(stage: Stage) -> None:
    stage.judge.gate.clear()
    first = stage.runner(image_workers=1)
    first.resume()
    wait_for(lambda: stage.job().status == "IN_PROGRESS")
    stopping = threading.Thread(target=first.stop)
    stopping.start()
    stage.judge.gate.set()
    stopping.join()
    assert stage.job().status == "IN_PROGRESS"
    known = len(stage.store.known_lines(stage.job_id))
    assert known == stage.judge.judged < IMAGES

    assert stage.run().status == "SUCCEEDED"
    assert stage.judge.judged == IMAGES
    assert len(stage.result_lines()) == IMAGES


def test_a_job_waiting_for_its_time_can_be_stopped(stage: Stage) -> None:
    runner = stage.runner(job_seconds=600)
    runner.resume()
    wait_for(lambda: len(stage.store.known_lines(stage.job_id)) == IMAGES)
    runner.stop()
    assert stage.job().status == "IN_PROGRESS"
    assert stage.run().status == "SUCCEEDED"


def test_hooks_may_fail_a_job_or_change_its_lines(stage: Stage) -> None:
    class Doubling(JobHook):
        def result_lines(self, job: Job, lines: Iterator[str]) -> Iterator[str]:
            for line in lines:
                yield line
                yield line

    class Failing(JobHook):
        def on_start(self, job: Job) -> None:
            raise JobFailure("THROTTLED", "rehearsed")

    assert stage.run(Doubling()).status == "SUCCEEDED"
    assert len(stage.result_lines()) == 2 * IMAGES
    stage.job_id = stage.store.create(REQUEST, None, "key", 20).job_id
    assert stage.run(Failing()).failure_code == "THROTTLED"
