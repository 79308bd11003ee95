"""Tests of what exists against what should exist: one job a manifest, whatever happens in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.pipeline.media_analysis import (
    TRIES,
    MediaAnalysisJobFailedError,
    MediaAnalysisJobInterruptedError,
    MediaAnalysisJobNotFoundError,
    MediaAnalysisReconciler,
    Progress,
    TokenParametersMismatchError,
    analysis_of,
    failure_of,
    has_ended,
)
from modlake.pipeline.plan import AnalysisParameters, Plan, Shard
from modlake.pipeline.submissions import client_request_token, fingerprint
from tests.support.fake_rekognition import LOST, FakeRekognition
from tests.support.memory_store import MemoryObjectStore

DAY = date(2026, 11, 21)
SHAS = ["a" * 64, "b" * 64, "c" * 64]
PASSING = ["INTERNAL_ERROR", "THROTTLED", "RESOURCE_NOT_READY"]
LASTING = [
    "INVALID_S3_OBJECT",
    "INVALID_MANIFEST",
    "INVALID_OUTPUT_CONFIG",
    "INVALID_KMS_KEY",
    "ACCESS_DENIED",
    "RESOURCE_NOT_FOUND",
]


class Memory(dict[str, tuple[int, str]]):
    def recall(self, fingerprint: str) -> tuple[int, str] | None:
        return self.get(fingerprint)

    def remember(self, fingerprint: str, generation: int, job_id: str) -> None:
        self[fingerprint] = (generation, job_id)


def make_plan(run_id: str = "20261122T000000Z-aaaaaa", **parameters: Any) -> Plan:
    run_uri = f"s3://work/runs/day={DAY}/{run_id}/"
    return Plan(
        day=DAY,
        run_id=run_id,
        run_uri=run_uri,
        source_uri="s3://ugc/uploads/2026-11-21/",
        airflow_run_id="manual",
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        parameters=AnalysisParameters(**{"min_confidence": 50.0, "adapter_arn": None, **parameters}),
        listed=300,
        eligible=300,
        ineligible=0,
        reused=0,
        ineligible_by_code={},
        shards=[
            Shard(number, f"{run_uri}manifests/{number:05d}.jsonl", 100, 5_000, sha, sha)
            for number, sha in enumerate(SHAS)
        ],
        groups=[[0, 1, 2]],
        inventory_uris=[],
        estimated_cost_usd=0.3,
        price_per_image_usd=0.001,
    )


class Task:
    """The attempts of one task instance over one store and one account."""

    def __init__(
        self, aws: FakeRekognition, store: MemoryObjectStore | None = None, plan: Plan | None = None
    ) -> None:
        self.aws = aws
        self.store = store or MemoryObjectStore()
        self.plan = plan or make_plan()
        self.memory = Memory()
        self.lines: list[str] = []

    def attempt(
        self, first_generations: dict[str, int] | None = None, jobs_at_once: int | None = None
    ) -> MediaAnalysisReconciler:
        return MediaAnalysisReconciler(
            self.aws,
            [analysis_of(self.store, self.plan, shard, self.memory) for shard in self.plan.shards],
            report=self.lines.append,
            first_generations=first_generations,
            jobs_at_once=jobs_at_once,
        )

    def job_id(self, shard: int) -> str:
        _, job_id = self.memory[fingerprint(SHAS[shard], self.plan.parameters)]
        return job_id

    def job_file(self, shard: int) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.store.read(self.plan.folder.job_uri(shard)))
        return content


def reconcile_to_the_end(attempt: MediaAnalysisReconciler, passes: int = 20) -> Progress:
    for _ in range(passes):
        progress = attempt.reconcile()
        if progress.is_complete:
            return progress
    pytest.fail(f"not complete after {passes} passes: {progress}")


@pytest.fixture
def aws() -> FakeRekognition:
    return FakeRekognition()


@pytest.fixture
def task(aws: FakeRekognition) -> Task:
    return Task(aws)


def test_the_jobs_of_a_group_are_started_once_and_followed_to_their_end(
    task: Task, aws: FakeRekognition
) -> None:
    progress = reconcile_to_the_end(task.attempt())

    assert len(aws.started) == 3
    assert progress.succeeded == 3
    assert (progress.images_done, progress.image_count) == (300, 300)
    request = aws.started[1]
    identity = fingerprint(SHAS[1], task.plan.parameters)
    assert request == {
        "OperationsConfig": {"DetectModerationLabels": {"MinConfidence": 50.0}},
        "Input": {
            "S3Object": {"Bucket": "work", "Name": task.plan.shards[1].manifest_uri[len("s3://work/") :]}
        },
        "OutputConfig": {
            "S3Bucket": "work",
            "S3KeyPrefix": f"runs/day={DAY}/{task.plan.run_id}/results/00001/",
        },
        "JobName": f"modlake-2026-11-21-00001-{identity[:16]}-g0",
        "ClientRequestToken": client_request_token(identity, 0),
    }


def test_adapter_and_key_are_asked_for(aws: FakeRekognition) -> None:
    arn = "arn:aws:rekognition:us-east-1:123456789012:project/p/version/v/1700000000000"
    reconcile_to_the_end(Task(aws, plan=make_plan(adapter_arn=arn, kms_key_id="alias/k")).attempt())

    assert aws.started[0]["OperationsConfig"]["DetectModerationLabels"]["ProjectVersion"] == arn
    assert aws.started[0]["KmsKeyId"] == "alias/k"


def test_the_run_folder_tells_of_each_job(task: Task, aws: FakeRekognition) -> None:
    reconcile_to_the_end(task.attempt())

    told = task.job_file(2)
    assert told["shard"] == 2
    assert told["engine"] == "bulk"
    assert told["generation"] == 0
    assert told["fingerprint"] == fingerprint(SHAS[2], task.plan.parameters)
    assert told["request"] == aws.started[2]
    assert told["job_id"] == told["job"]["JobId"]
    assert told["job"]["Status"] == "SUCCEEDED"
    assert told["job"]["Results"]["S3Object"]["Bucket"] == "work"
    assert datetime.fromisoformat(told["job"]["CompletionTimestamp"]).tzinfo is not None


def test_the_job_file_is_there_while_the_job_runs(task: Task) -> None:
    attempt = task.attempt()
    attempt.reconcile()
    attempt.reconcile()

    assert task.job_file(0)["job"]["Status"] == "CREATED"


def test_a_submission_is_written_down_before_it_is_made(task: Task, aws: FakeRekognition) -> None:
    aws.faults["StartMediaAnalysisJob"] = ["AccessDeniedException"]
    with pytest.raises(ModlakeTerminalError):
        task.attempt().reconcile()

    identity = fingerprint(SHAS[0], task.plan.parameters)
    recorded = json.loads(task.store.read(f"s3://work/submissions/{identity}/00.json"))
    assert recorded["ClientRequestToken"] == client_request_token(identity, 0)
    assert not task.store.exists(f"s3://work/submissions/{identity}/00.job.json")


@pytest.mark.parametrize("passes", [1, 2], ids=["first look", "end"])
def test_a_job_is_done_when_its_record_is_written(task: Task, passes: int) -> None:
    attempt = task.attempt(jobs_at_once=3)
    task.aws.script = ("IN_PROGRESS", "SUCCEEDED")
    for _ in range(passes):
        attempt.reconcile()
    task.store.refused = ["jobs/00001.json"] * 2
    progress = attempt.reconcile()

    assert progress.succeeded == (0 if passes == 1 else 2)
    # Whoever waits for jobs has it among them, and it keeps its slot.
    assert task.job_id(1) in progress.active_job_ids
    assert not progress.awaiting
    assert "SlowDown" in str(attempt.trouble)
    reconcile_to_the_end(attempt)
    assert task.store.refused == []
    assert [task.job_file(shard)["job"]["Status"] for shard in range(3)] == ["SUCCEEDED"] * 3


def test_an_ended_job_that_is_taken_up_is_done_when_its_record_is_written(task: Task) -> None:
    reconcile_to_the_end(task.attempt())
    plan_again(task)
    task.store.refused = ["jobs/00001.json"]
    attempt = task.attempt()

    assert attempt.reconcile().succeeded == 2
    reconcile_to_the_end(attempt)
    assert task.job_file(1)["job"]["Status"] == "SUCCEEDED"


def test_a_job_is_done_when_its_id_is_written_down(task: Task, aws: FakeRekognition) -> None:
    task.store.refused = ["/00.job.json"] * 2
    attempt = task.attempt(jobs_at_once=2)
    progress = attempt.reconcile()

    # It has its slot, and whoever carries on may not rely on its id.
    assert len(aws.started) == len(progress.active_job_ids) == 2
    assert progress.awaiting == ("shard 00000", "shard 00001", "shard 00002")
    assert attempt.submitted == {}
    reconcile_to_the_end(attempt)
    assert sum(uri.endswith("/00.job.json") for uri in task.store.objects) == 3
    assert len(attempt.submitted) == 3


def test_the_id_of_a_job_found_by_its_name_is_written_down_too(task: Task, aws: FakeRekognition) -> None:
    task.attempt().reconcile()
    forget_job_ids(task)
    task.store.refused = ["/00.job.json"] * 4
    reconcile_to_the_end(task.attempt())

    assert sum(uri.endswith("/00.job.json") for uri in task.store.objects) == 3
    assert len(aws.started) == 3


Crash = Callable[[Task], None]


def forget_task_memory(task: Task) -> None:
    task.memory.clear()


def forget_job_ids(task: Task) -> None:
    """As if every attempt had died between Start's answer and writing it down."""
    task.memory.clear()
    for uri in [uri for uri in task.store.objects if uri.endswith(".job.json")]:
        del task.store.objects[uri]


def forget_job_ids_and_tokens(task: Task) -> None:
    forget_job_ids(task)
    task.aws.forgets_tokens = True


def plan_again(task: Task) -> None:
    """A new run of the day: the same manifests in another folder."""
    task.memory.clear()
    task.plan = make_plan(run_id="20261123T000000Z-bbbbbb")


@pytest.mark.parametrize(
    "happens",
    [lambda task: None, forget_task_memory, forget_job_ids, forget_job_ids_and_tokens, plan_again],
    ids=["retry", "memory lost", "crash before persisting", "token expired too", "new run of the day"],
)
@pytest.mark.parametrize("passes", [1, 2, 10])
def test_another_attempt_takes_the_jobs_up(
    task: Task, aws: FakeRekognition, happens: Crash, passes: int
) -> None:
    first = task.attempt()
    for _ in range(passes):
        first.reconcile()
    happens(task)
    reconcile_to_the_end(task.attempt())

    assert len(aws.started) == 3
    assert task.job_file(0)["job"]["Status"] == "SUCCEEDED"


def test_a_reply_lost_after_the_start_took_effect_starts_nothing_twice(
    task: Task, aws: FakeRekognition
) -> None:
    aws.faults["StartMediaAnalysisJob"] = [LOST, None, LOST, LOST]
    attempt = task.attempt()
    progress = attempt.reconcile()

    assert progress.awaiting == ("shard 00000", "shard 00002")
    assert "ServiceUnavailable" in str(attempt.trouble)
    reconcile_to_the_end(attempt)
    assert len(aws.started) == 3


def test_two_attempts_at_once_share_one_job(aws: FakeRekognition) -> None:
    store = MemoryObjectStore()
    one = Task(aws, store)
    other = Task(aws, store, plan=make_plan(run_id="20261123T000000Z-bbbbbb"))
    attempts = [one.attempt(), other.attempt()]
    for _ in range(4):
        for attempt in attempts:
            attempt.reconcile()

    assert len(aws.started) == 3
    assert one.job_file(0)["job_id"] == other.job_file(0)["job_id"]
    # The results lie where the first writer asked for them.
    assert other.job_file(0)["job"]["OutputConfig"]["S3KeyPrefix"].startswith(
        f"runs/day={DAY}/{one.plan.run_id}/"
    )


def test_a_manifest_in_another_work_bucket_finds_the_job_by_name(aws: FakeRekognition) -> None:
    reconcile_to_the_end(Task(aws).attempt())
    elsewhere = Task(aws, MemoryObjectStore(), plan=make_plan(run_id="20261123T000000Z-bbbbbb"))
    reconcile_to_the_end(elsewhere.attempt())

    assert len(aws.started) == 3
    assert elsewhere.job_file(1)["job"]["Status"] == "SUCCEEDED"


def test_a_token_used_for_something_else_is_a_clear_error(task: Task, aws: FakeRekognition) -> None:
    token = client_request_token(fingerprint(SHAS[0], task.plan.parameters), 0)
    aws.start_media_analysis_job(ClientRequestToken=token, JobName="foreign", OutputConfig={"S3Bucket": "x"})

    with pytest.raises(TokenParametersMismatchError, match="fresh"):
        task.attempt().reconcile()


def test_fresh_pays_again(task: Task, aws: FakeRekognition) -> None:
    reconcile_to_the_end(task.attempt())
    task.plan = replace(task.plan, parameters=replace(task.plan.parameters, fresh="manual__1"))
    reconcile_to_the_end(task.attempt())

    assert len(aws.started) == 6


@pytest.mark.parametrize("code", PASSING)
def test_a_passing_failure_is_followed_by_a_new_generation(
    task: Task, aws: FakeRekognition, code: str
) -> None:
    aws.scripts = [("IN_PROGRESS", f"FAILED:{code}")]
    reconcile_to_the_end(task.attempt())

    assert len(aws.started) == 4
    assert aws.started[3]["JobName"].endswith("-g1")
    assert aws.started[3]["ClientRequestToken"] != aws.started[0]["ClientRequestToken"]
    assert task.job_file(0)["generation"] == 1
    assert any(code in line for line in task.lines)


def test_passing_failures_end_an_attempt_but_not_the_next(task: Task, aws: FakeRekognition) -> None:
    aws.script = ("FAILED:INTERNAL_ERROR",)
    attempt = task.attempt()
    with pytest.raises(MediaAnalysisJobInterruptedError) as caught:
        reconcile_to_the_end(attempt)

    assert caught.value.code == "INTERNAL_ERROR"
    # Three shards share the passes, one of them has used its tries up.
    assert [request["JobName"][-3:] for request in aws.started if "-00000-" in request["JobName"]] == [
        f"-g{generation}" for generation in range(TRIES)
    ]
    aws.script = ("SUCCEEDED",)
    reconcile_to_the_end(task.attempt())
    assert task.job_file(0)["generation"] == TRIES


@pytest.mark.parametrize("code", [*LASTING, "SOMETHING_NEW", ""])
def test_a_lasting_failure_is_final_and_recorded(task: Task, aws: FakeRekognition, code: str) -> None:
    aws.scripts = [(f"FAILED:{code}",)]
    attempt = task.attempt()
    attempt.reconcile()
    with pytest.raises(MediaAnalysisJobFailedError, match="Mend: ") as caught:
        attempt.reconcile()

    assert caught.value.code == code
    assert caught.value.job_id == task.job_file(0)["job_id"]
    assert task.job_file(0)["job"]["FailureDetails"]["Code"] == code
    assert len(aws.started) == 3


def test_a_lasting_failure_found_by_the_next_attempt_was_mended(task: Task, aws: FakeRekognition) -> None:
    aws.scripts = [("FAILED:ACCESS_DENIED",)]
    attempt = task.attempt()
    attempt.reconcile()
    with pytest.raises(MediaAnalysisJobFailedError):
        attempt.reconcile()
    reconcile_to_the_end(task.attempt())

    assert len(aws.started) == 4
    assert task.job_file(0)["generation"] == 1


def test_a_failure_that_a_resumed_attempt_finds_is_its_own(task: Task, aws: FakeRekognition) -> None:
    aws.scripts = [("IN_PROGRESS", "FAILED:ACCESS_DENIED")]
    before_the_deferral = task.attempt()
    before_the_deferral.reconcile()
    before_the_deferral.reconcile()

    resumed = task.attempt(first_generations=json.loads(json.dumps(before_the_deferral.first_generations)))
    with pytest.raises(MediaAnalysisJobFailedError):
        resumed.reconcile()
    assert len(aws.started) == 3


def of_many_shards(plan: Plan, shards: int) -> Plan:
    made = [replace(plan.shards[0], shard=number, images_sha256=f"{number:064x}") for number in range(shards)]
    return replace(plan, shards=made)


class TestAGroupOfMoreJobsThanRunAtOnce:
    def test_each_starts_when_another_has_ended(self, task: Task, aws: FakeRekognition) -> None:
        task.plan = of_many_shards(task.plan, 7)
        attempt = task.attempt(jobs_at_once=2)
        most = 0
        for _ in range(30):
            progress = attempt.reconcile()
            most = max(most, len(aws._running()))

        assert progress.is_complete
        assert attempt.trouble is None
        assert most == 2
        assert len(aws.started) == 7

    def test_what_waits_its_turn_is_not_submitted(self, task: Task) -> None:
        progress = task.attempt(jobs_at_once=2).reconcile()

        assert progress.awaiting == ("shard 00002",)
        records = [each.key for page in task.store.list_objects("work", "submissions/") for each in page]
        assert len([key for key in records if key.endswith("/00.json")]) == 2

    def test_another_attempt_starts_no_more_than_is_free(self, task: Task, aws: FakeRekognition) -> None:
        task.plan = of_many_shards(task.plan, 7)
        aws.script = ("IN_PROGRESS",) * 50
        task.attempt(jobs_at_once=3).reconcile()
        for crash in (forget_task_memory, forget_job_ids, plan_again_alike):
            crash(task)
            again = task.attempt(jobs_at_once=3)
            again.reconcile()
            again.reconcile()

            assert len(aws.started) == 3

    def test_a_failed_job_is_followed_by_another(self, task: Task, aws: FakeRekognition) -> None:
        aws.scripts = [("FAILED:THROTTLED",)]
        reconcile_to_the_end(task.attempt(jobs_at_once=1))

        assert len(aws.started) == 4

    def test_all_are_looked_at_by_one_call(self, task: Task, aws: FakeRekognition) -> None:
        task.plan = of_many_shards(task.plan, 8)
        task.attempt().reconcile()
        aws.calls.clear()
        resumed = task.attempt()
        resumed.reconcile()

        assert aws.calls == ["ListMediaAnalysisJobs"]
        aws.faults["ListMediaAnalysisJobs"] = ["ThrottlingException"]
        aws.calls.clear()
        resumed.reconcile()
        assert aws.calls == ["ListMediaAnalysisJobs", *["GetMediaAnalysisJob"] * 8]


def plan_again_alike(task: Task) -> None:
    """A new run of the day, whose tasks remember nothing."""
    task.memory.clear()
    task.plan = replace(task.plan, run_id="20261123T000000Z-bbbbbb")


def test_a_full_account_is_waited_out(task: Task, aws: FakeRekognition) -> None:
    aws.slots = 1
    attempt = task.attempt()
    progress = attempt.reconcile()

    assert progress.awaiting == ("shard 00001", "shard 00002")
    assert "L-22FA69BA" in str(attempt.trouble)
    # Refused once, the others are not even tried in this pass.
    assert aws.calls.count("StartMediaAnalysisJob") == 2
    reconcile_to_the_end(attempt)
    assert len(aws.started) == 3
    assert attempt.trouble is None


def test_waiting_for_a_slot_searches_each_name_once_and_then_only_before_a_start(
    task: Task, aws: FakeRekognition
) -> None:
    aws.slots = 0
    first = task.attempt()
    first.reconcile()
    assert aws.calls.count("ListMediaAnalysisJobs") == 0  # what was only just written down can't exist
    resumed = task.attempt(first_generations=first.first_generations)
    resumed.reconcile()
    assert aws.calls.count("ListMediaAnalysisJobs") == 3
    resumed.reconcile()
    assert aws.calls.count("ListMediaAnalysisJobs") == 4


@pytest.mark.parametrize(
    "fault", ["ThrottlingException", "InternalServerError", "ProvisionedThroughputExceededException"]
)
@pytest.mark.parametrize("operation", ["StartMediaAnalysisJob", "GetMediaAnalysisJob"])
def test_weather_is_waited_out(task: Task, aws: FakeRekognition, operation: str, fault: str) -> None:
    aws.faults[operation] = [fault, fault, None, fault]
    reconcile_to_the_end(task.attempt())

    assert len(aws.started) == 3


def test_a_job_that_aws_does_not_know_is_not_paid_again_on_suspicion(
    task: Task, aws: FakeRekognition
) -> None:
    """A connection to the wrong account or region looks the same as a job that AWS has forgotten."""
    task.attempt().reconcile()
    aws.jobs.clear()
    with pytest.raises(MediaAnalysisJobNotFoundError, match=r"region.*fresh"):
        task.attempt().reconcile()

    assert len(aws.started) == 3


def test_a_job_that_aws_has_forgotten_is_known_by_what_was_seen_of_its_end(
    task: Task, aws: FakeRekognition
) -> None:
    """AWS keeps jobs for a year; results lie in the work bucket as long as anything points at them."""
    reconcile_to_the_end(task.attempt())
    aws.jobs.clear()
    later = Task(aws, task.store, make_plan("20280101T000000Z-bbbbbb"))
    progress = later.attempt().reconcile()

    assert progress.is_complete
    assert progress.images_per_second == pytest.approx(1.0)
    assert len(aws.started) == 3
    assert [later.job_file(shard)["job"] for shard in range(3)] == [
        task.job_file(shard)["job"] for shard in range(3)
    ]


def test_an_end_that_was_seen_is_not_taken_for_that_of_another_job(task: Task, aws: FakeRekognition) -> None:
    reconcile_to_the_end(task.attempt())
    aws.jobs.clear()
    for uri in task.store.objects:
        if uri.endswith("00.job.json"):
            task.store.write(uri, b'{"job_id": "another"}')
    with pytest.raises(MediaAnalysisJobNotFoundError):
        Task(aws, task.store).attempt().reconcile()


def test_a_remapped_task_ignores_what_it_remembers_of_other_manifests(
    task: Task, aws: FakeRekognition
) -> None:
    reconcile_to_the_end(task.attempt())
    other = replace(
        task.plan, shards=[replace(shard, images_sha256=f"{shard.shard}" * 64) for shard in task.plan.shards]
    )
    task.plan = other
    reconcile_to_the_end(task.attempt())

    assert len(aws.started) == 6


def test_an_unknown_status_is_an_error(task: Task, aws: FakeRekognition) -> None:
    aws.script = ("PAUSED",)
    attempt = task.attempt()
    attempt.reconcile()
    with pytest.raises(ModlakeTerminalError, match="PAUSED"):
        attempt.reconcile()


@pytest.mark.parametrize(
    ("status", "ended"),
    [("CREATED", False), ("QUEUED", False), ("IN_PROGRESS", False), ("SUCCEEDED", True), ("FAILED", True)],
)
def test_statuses(status: str, ended: bool) -> None:
    assert has_ended({"JobId": "j", "Status": status}) is ended


@pytest.mark.parametrize("code", [*PASSING, *LASTING])
def test_every_failure_code_says_whether_to_try_again_and_what_to_do(code: str) -> None:
    failure = failure_of(
        {"JobId": "job-1", "Status": "FAILED", "FailureDetails": {"Code": code, "Message": "why"}}
    )

    assert isinstance(failure, ModlakeTransientError if code in PASSING else ModlakeTerminalError)
    assert all(part in str(failure) for part in ("job-1", code, "why", "Mend: "))


@pytest.mark.parametrize("code", ["ACCESS_DENIED", "INVALID_S3_OBJECT"])
def test_denied_job_names_the_policies_that_let_rekognition_in(code: str) -> None:
    failure = str(failure_of({"JobId": "job-1", "Status": "FAILED", "FailureDetails": {"Code": code}}))

    iam = Path(__file__).parents[2] / "include" / "iam"
    policies = [path.name for path in iam.glob("rekognition-*.json")]
    assert len(policies) == 2
    assert all(name in failure for name in policies)


def test_failure_codes_are_those_of_the_service_model() -> None:
    import botocore.session

    model = botocore.session.get_session().get_service_model("rekognition")
    codes: Any = model.shape_for("MediaAnalysisJobFailureCode")
    assert sorted(codes.enum) == sorted([*PASSING, *LASTING])


def test_progress_reads_like_a_sentence() -> None:
    progress = Progress(
        jobs=5,
        succeeded=3,
        active_job_ids=("x",),
        awaiting=("shard 00004",),
        image_count=50_000,
        images_done=30_000,
        images_per_second=25.0,
    )

    assert str(progress) == (
        "3 of 5 jobs done, 1 running, 1 waiting to start, 30,000 of 50,000 images, 25.0 images/s, "
        "about 13 min left"
    )


def test_speed_is_measured_by_the_jobs_that_ended(task: Task, aws: FakeRekognition) -> None:
    aws.scripts = [("SUCCEEDED",)]
    attempt = task.attempt()
    attempt.reconcile()
    progress = attempt.reconcile()

    # 100 images in 100 s by one job, and two jobs still run.
    assert progress.images_per_second == pytest.approx(2.0)


def test_a_token_that_expired_since_a_lost_reply_starts_nothing_twice(
    task: Task, aws: FakeRekognition
) -> None:
    aws.faults["StartMediaAnalysisJob"] = [LOST, LOST, LOST]
    attempt = task.attempt()
    attempt.reconcile()
    aws.forgets_tokens = True
    resumed = task.attempt(first_generations=json.loads(json.dumps(attempt.first_generations)))
    attempt.reconcile()
    reconcile_to_the_end(resumed)

    assert len(aws.started) == 3


def test_what_was_claimed_but_not_started_is_looked_for_again(aws: FakeRekognition) -> None:
    """Meanwhile another run may have started it, and its token expired."""
    store = MemoryObjectStore()
    one, other = Task(aws, store), Task(aws, store)
    aws.slots = 0
    waiting = one.attempt()
    waiting.reconcile()
    aws.slots = 20
    other.attempt().reconcile()
    aws.forgets_tokens = True
    reconcile_to_the_end(waiting)

    assert len(aws.started) == 3


def test_what_another_run_has_started_meanwhile_is_not_started_again(
    aws: FakeRekognition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither name nor token tell of it any more, the record does."""
    store = MemoryObjectStore()
    one, other = Task(aws, store), Task(aws, store)
    aws.slots = 0
    waiting = one.attempt()
    waiting.reconcile()
    aws.slots = 20
    other.attempt().reconcile()
    aws.forgets_tokens = True
    monkeypatch.setattr(aws, "find_media_analysis_job", lambda name, *, max_pages: None)
    reconcile_to_the_end(waiting)

    assert len(aws.started) == 3


def test_a_later_generation_that_waited_for_its_slot_is_started(task: Task, aws: FakeRekognition) -> None:
    """The task remembers the job before it."""
    task.plan = of_many_shards(task.plan, 1)
    aws.scripts = [("FAILED:THROTTLED",)]
    attempt = task.attempt()
    attempt.reconcile()
    aws.slots = 0
    attempt.reconcile()
    aws.slots = 1
    reconcile_to_the_end(attempt)

    assert [request["JobName"][-3:] for request in aws.started] == ["-g0", "-g1"]


def test_waiting_for_a_slot_reads_one_record_a_pass(task: Task, aws: FakeRekognition) -> None:
    aws.slots = 0
    attempt = task.attempt()
    attempt.reconcile()
    attempt.reconcile()
    with mock.patch.object(task.store, "list_objects", wraps=task.store.list_objects) as listed:
        attempt.reconcile()
    assert listed.call_count == 1


def test_an_attempt_that_lags_behind_takes_no_end_back(task: Task, aws: FakeRekognition) -> None:
    aws.script = ("IN_PROGRESS", "SUCCEEDED")
    lagging = task.attempt()
    lagging.reconcile()
    old = {name: dict(job) for name, job in lagging.jobs.items()}
    reconcile_to_the_end(task.attempt())

    for analysis in lagging._analyses:
        analysis.record(lagging._submissions[analysis.name], {**old[analysis.name], "Status": "IN_PROGRESS"})

    assert [task.job_file(shard)["job"]["Status"] for shard in range(3)] == ["SUCCEEDED"] * 3
