"""The synchronous engine, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.pipeline.job_files import read_finished_job
from modlake.pipeline.plan import AnalysisParameters, Plan
from modlake.pipeline.synchronous.detection import NoAnswerError, ThrottledError
from modlake.pipeline.synchronous.engine import (
    SILENCE_SECONDS,
    NoImageJudgedError,
    RekognitionSilentError,
    SynchronousAnalysisStoppedError,
    SynchronousEngine,
    window_size,
)
from modlake.pipeline.synchronous.lease import LeaseLostError
from modlake.pipeline.verdicts import IncompleteDayError, check_complete
from tests.pipeline.synchronous.virtual_time import VirtualTimeLoop
from tests.pipeline.synchronous.world import RATE, WINDOW, World, failed, refused
from tests.support.days import PROJECT_VERSION, land_day
from tests.support.memory_store import MemoryObjectStore

# Processes that are killed leave coroutines behind, which Python ends when it finds them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def image(number: int) -> str:
    return f"s3://ugc/uploads/2026-11-21/{number:04d} +%ü.jpg"


def run_files(store: MemoryObjectStore, plan: Plan) -> dict[str, Any]:
    """Return results by image, failures by image, and the job of each shard."""
    content: dict[str, Any] = {"results": {}, "failures": {}, "jobs": []}
    for shard in plan.shards:
        record = read_finished_job(store, plan, shard.shard)
        assert record.results_uri is not None
        assert record.summary_uri is not None
        for line in store.read(record.results_uri).splitlines():
            result = json.loads(line)
            content["results"][result["source-ref"]] = result["detect-moderation-labels"]
        for error in json.loads(store.read(record.summary_uri))["errors"]:
            content["failures"][error["source-ref"]] = error["code"]
        content["jobs"].append((record.job_id, record.started_at, record.completed_at))
    return content


def stop_after_six_seconds(engine: SynchronousEngine, loop: VirtualTimeLoop) -> None:
    loop.call_later(6, engine.stop)


class TestJudging:
    def test_every_image_is_judged_once_and_the_run_folder_tells_it(self) -> None:
        world = World()
        plan = world.plan()
        reports: list[str] = []
        tally = world.attempt(plan, report=reports.append)
        assert tally is not None
        assert (tally.judged, tally.calls) == (250, 250)
        assert set(world.paid.values()) == {1}
        content = run_files(world.store, plan)
        assert len(content["results"]) == 250
        assert content["results"][image(1)] == {
            "ModerationLabels": [],
            "ModerationModelVersion": "7.0",
            "ContentTypes": [],
        }
        assert content["failures"] == {}
        assert "250 images judged, 0 failed (none), 0 settled before" in reports[-1]

    def test_the_job_is_shaped_as_a_media_analysis_job(self) -> None:
        world = World()
        plan = world.plan(images=3)
        world.attempt(plan)
        record = json.loads(world.store.read(plan.folder.job_uri(0)))
        job = record["job"]
        assert record["engine"] == "sync"
        assert record["job_id"] == job["JobId"] == f"sync-{record['fingerprint'][:16]}-g0"
        assert job["OperationsConfig"] == {"DetectModerationLabels": {"MinConfidence": 50.0}}
        assert job["Input"]["S3Object"]["Name"].endswith("manifests/00000.jsonl")
        assert job["Results"]["ModelVersions"] == {"Moderation": "7.0"}
        assert job["Results"]["S3Object"]["Name"].startswith("runs/day=2026-11-21/run-1/results/00000/")
        assert job["CreationTimestamp"] < job["CompletionTimestamp"]
        summary = json.loads(world.store.read(f"s3://work/{job['ManifestSummary']['S3Object']['Name']}"))
        assert summary == {
            "version": "1.0",
            "statistics": {"total-json-lines": 3, "valid-json-lines": 3, "invalid-json-lines": 0},
            "errors": [],
        }

    def test_landing_takes_it_as_it_takes_a_bulk_job(self) -> None:
        world = World(always=lambda ref: refused("ImageTooLargeException") if "0007" in ref else None)
        plan = world.plan()
        world.attempt(plan)
        landed = land_day(world.store, plan)
        assert sum(shard.judged for shard in landed) == 249
        assert landed[0].failed_by_code == {"ImageTooLargeException": 1}
        assert sum(shard.labels for shard in landed) == 125 * 3

    def test_the_quota_is_kept_and_shards_follow_one_another_without_a_pause(self) -> None:
        world = World()
        plan = world.plan(images=1_000, shard_size=100)
        world.attempt(plan)
        assert 1_000 / RATE <= world.time <= 1_000 / (0.9 * RATE) + 3

    def test_memory_is_bounded_by_the_window(self) -> None:
        world = World()
        most = 0

        def watch(engine: SynchronousEngine, loop: VirtualTimeLoop) -> None:
            def look() -> None:
                nonlocal most
                unsaved = sum(analysis.unsaved for analysis in engine._open)
                most = max(most, len(engine._in_flight) + unsaved)
                loop.call_later(0.05, look)

            loop.call_soon(look)

        world.attempt(world.plan(images=400), before=watch)
        assert 20 <= most <= WINDOW == window_size(RATE)

    def test_an_expired_adapter_shows_as_answers_without_it(self) -> None:
        world = World()
        plan = world.plan(images=2, adapter_arn=PROJECT_VERSION)
        world.attempt(plan)
        record = read_finished_job(world.store, plan, 0)
        assert record.adapter_arn == PROJECT_VERSION
        assert "ProjectVersion" not in run_files(world.store, plan)["results"][image(0)]

    def test_kms_keys_are_refused(self) -> None:
        world = World()
        plan = world.plan(images=1, parameters=AnalysisParameters(50.0, None, kms_key_id="alias/x"))
        with pytest.raises(ModlakeTerminalError, match="kms_key_id"):
            world.attempt(plan)


class TestOnceOnly:
    def test_another_run_of_the_day_pays_nothing_and_leaves_the_same(self) -> None:
        world = World()
        first, second = world.plan(), world.plan(run_id="run-2")
        world.attempt(first)
        world.pass_by(3_600)
        world.answers_differ_by = "-new"
        tally = world.attempt(second)
        assert tally is not None
        assert (tally.calls, tally.resumed) == (0, 250)
        assert run_files(world.store, first) == run_files(world.store, second)
        digests = [
            [shard.content_sha256 for shard in land_day(world.store, plan)] for plan in (first, second)
        ]
        assert digests[0] == digests[1]

    def test_a_fresh_analysis_pays_again(self) -> None:
        world = World()
        world.attempt(world.plan())
        world.attempt(world.plan(run_id="run-2", parameters=AnalysisParameters(50.0, None, fresh="run-2")))
        assert set(world.paid.values()) == {2}

    def test_two_runs_at_once_pay_once(self) -> None:
        world = World()
        plans = [world.plan(images=600, run_id=f"run-{number}") for number in (1, 2)]
        loop = VirtualTimeLoop()
        engines = [world.engine(plan, loop) for plan in plans]

        async def both() -> list[Any]:
            return await asyncio.gather(*(engine.run() for engine in engines))

        tallies = loop.run_until_complete(both())
        assert set(world.paid.values()) == {1}
        assert all(tally.judged > 100 for tally in tallies)
        assert run_files(world.store, plans[0]) == run_files(world.store, plans[1])

    def test_a_killed_attempt_is_waited_for_no_longer_than_its_lease(self) -> None:
        world = World(kill_at=120)
        plan = world.plan()
        assert world.attempt(plan) is None
        killed_at = world.time
        world.kill_at = None
        reports: list[str] = []
        world.attempt(plan, report=reports.append)
        assert "Another attempt is judging shard 00000" in "".join(reports)
        assert world.time - killed_at < 35 + 250 / RATE + 5

    def test_an_attempt_that_lost_its_lease_stops_and_what_it_knows_is_kept(self) -> None:
        world = World()
        plan = world.plan()

        def usurp(engine: SynchronousEngine, loop: VirtualTimeLoop) -> None:
            def take() -> None:
                term = next(uri for uri in world.store.objects if uri.endswith("terms/00000.json"))
                world.store.write(
                    term.replace("00000.json", "00001.json"), b'{"expires_at": "2026-01-01T00:00:00+00:00"}'
                )

            loop.call_later(3, take)

        with pytest.raises(LeaseLostError, match="Another attempt"):
            world.attempt(plan, before=usurp)
        assert world.time < 10
        world.attempt(plan)
        assert set(world.paid.values()) == {1}


class TestKills:
    """SIGKILL at any write and any call, before or after it took effect."""

    @pytest.fixture(scope="class")
    def undisturbed(self) -> tuple[int, dict[str, Any]]:
        world = World()
        plan = world.plan()
        world.attempt(plan)
        return world.moments, run_files(world.store, plan)

    @pytest.mark.parametrize("lose_it", [False, True])
    def test_the_next_attempt_ends_the_same_and_repeats_no_more_than_the_window(
        self, undisturbed: tuple[int, dict[str, Any]], lose_it: bool
    ) -> None:
        moments, expected = undisturbed
        for kill_at in [*range(1, moments, 13), *range(moments - 12, moments + 1)]:
            world = World(kill_at=kill_at, lose_it=lose_it)
            plan = world.plan()
            assert world.attempt(plan) is None
            world.kill_at = None
            world.pass_by(60)
            assert world.attempt(plan) is not None
            content = run_files(world.store, plan)
            assert content["results"] == expected["results"], kill_at
            assert [job for job, *_ in content["jobs"]] == [job for job, *_ in expected["jobs"]]
            repeated = sum(world.paid.values()) - 250
            assert set(world.paid.values()) <= {1, 2}
            assert repeated <= WINDOW, kill_at

    def test_attempts_killed_again_and_again_come_to_an_end(self) -> None:
        world = World()
        plan = world.plan()
        for _ in range(20):
            world.kill_at = world.moments + 180
            if world.attempt(plan) is not None:
                break
            world.pass_by(60)
        else:
            pytest.fail("No attempt came to an end")
        assert len(run_files(world.store, plan)["results"]) == 250

    def test_a_stop_is_quick_keeps_every_answer_and_lets_the_next_attempt_in_at_once(self) -> None:
        world = World()
        plan = world.plan()
        with pytest.raises(SynchronousAnalysisStoppedError, match="Clear it"):
            world.attempt(plan, before=stop_after_six_seconds)
        assert world.time < 6 + 2.5
        assert 50 < sum(world.paid.values()) < 200
        stopped_at = world.time
        world.attempt(plan)
        assert set(world.paid.values()) == {1}
        assert world.time - stopped_at < 250 / RATE

    def test_calls_that_do_not_end_do_not_hold_up_a_stop(self) -> None:
        world = World(always=lambda _: failed(NoAnswerError, "ReadTimeoutError"))
        with pytest.raises(SynchronousAnalysisStoppedError):
            world.attempt(world.plan(), before=stop_after_six_seconds)
        assert world.time < 6 + 2.6


class TestFailures:
    def test_images_that_are_refused_end_in_the_summary(self) -> None:
        world = World()
        plan = world.plan()
        world.faults = {
            image(3): [refused("InvalidS3ObjectException")],
            image(9): [refused("X", is_final=True)],
        }
        tally = world.attempt(plan)
        assert tally is not None
        assert tally.failures == Counter({"InvalidS3ObjectException": 1, "X": 1})
        content = run_files(world.store, plan)
        assert content["failures"] == {image(3): "InvalidS3ObjectException", image(9): "X"}
        assert len(content["results"]) == 248
        assert world.calls == 250

    def test_the_next_run_asks_again_only_for_what_may_have_been_mended(self) -> None:
        world = World()
        first, second, third = world.plan(), world.plan(run_id="run-2"), world.plan(run_id="run-3")
        world.faults = {
            image(3): [refused("InvalidS3ObjectException"), refused("InvalidS3ObjectException")],
            image(9): [refused("ImageTooLargeException", is_final=True)],
        }
        world.attempt(first)
        world.pass_by(100)
        world.attempt(second)
        assert world.calls == 251
        assert run_files(world.store, first) == run_files(world.store, second)
        world.attempt(third)
        content = run_files(world.store, third)
        assert image(3) in content["results"]
        assert content["failures"] == {image(9): "ImageTooLargeException"}
        assert content["jobs"][0][0].endswith("-g1")
        assert set(world.paid.values()) == {1}

    @pytest.mark.parametrize("error", [ThrottledError, NoAnswerError])
    def test_passing_failures_are_repeated(self, error: type[Any]) -> None:
        world = World()
        plan = world.plan(images=50)
        world.faults = {image(number): [failed(error, "E")] * (number % 4) for number in range(50)}
        world.attempt(plan)
        assert len(run_files(world.store, plan)["results"]) == 50
        assert set(world.paid.values()) == {1}
        assert world.calls == 50 + sum(number % 4 for number in range(50))

    def test_an_image_without_an_answer_is_never_lost_and_asked_for_by_the_next_run(self) -> None:
        world = World()
        plan = world.plan(images=120)
        world.faults = {image(5): [failed(NoAnswerError, "InternalServerError")] * 10}
        world.attempt(plan)
        assert run_files(world.store, plan)["failures"] == {image(5): "NO_ANSWER"}
        world.attempt(plan)
        assert run_files(world.store, plan)["failures"] == {}
        assert len(run_files(world.store, plan)["results"]) == 120

    def test_what_concerns_every_image_stops_the_task_and_keeps_what_was_judged(self) -> None:
        world = World()
        plan = world.plan()
        world.faults = {image(100): [ModlakeTerminalError("AccessDeniedException")]}
        with pytest.raises(ModlakeTerminalError, match="AccessDenied"):
            world.attempt(plan)
        assert sum(world.paid.values()) < 130
        world.attempt(plan)
        assert set(world.paid.values()) == {1}

    def test_images_that_all_fail_alike_are_not_to_blame(self) -> None:
        world = World(always=lambda _: refused("InvalidS3ObjectException"))
        plan = world.plan()
        with pytest.raises(NoImageJudgedError, match="region") as raised:
            world.attempt(plan)
        assert raised.value.code == "InvalidS3ObjectException"
        assert world.calls < 130
        world.always = lambda _: None
        world.attempt(plan)
        assert len(run_files(world.store, plan)["results"]) == 250

    def test_images_that_are_themselves_at_fault_may_all_fail(self) -> None:
        world = World(always=lambda _: refused("InvalidImageFormatException", is_final=True))
        plan = world.plan()
        world.attempt(plan)
        assert len(run_files(world.store, plan)["failures"]) == 250

    def test_an_outage_ends_the_attempt_not_the_images(self) -> None:
        world = World()
        plan = world.plan()
        world.always = lambda _: failed(ThrottledError, "ThrottlingException") if world.calls > 60 else None
        with pytest.raises(RekognitionSilentError, match="throttled"):
            world.attempt(plan)
        assert SILENCE_SECONDS < world.time < SILENCE_SECONDS + 20
        world.always = lambda _: None
        world.attempt(plan)
        assert len(run_files(world.store, plan)["results"]) == 250
        assert set(world.paid.values()) == {1}

    @pytest.mark.parametrize(("images", "goes_on"), [(150, False), (2_000, False), (2_000, True)], ids=str)
    def test_an_outage_from_the_start_ends_the_attempt_for_another_try(
        self, images: int, goes_on: bool
    ) -> None:
        world = World()
        plan = world.plan(images=images, shard_size=images)
        if goes_on:
            with pytest.raises(SynchronousAnalysisStoppedError):
                world.attempt(plan, before=stop_after_six_seconds)
        world.always = lambda _: failed(NoAnswerError, "InternalServerError")
        began = world.time
        with pytest.raises(RekognitionSilentError, match="AWS's health"):
            world.attempt(plan, requests_per_second=50.0)
        assert world.time - began < SILENCE_SECONDS + 10
        world.always = lambda _: None
        world.attempt(plan)
        assert len(run_files(world.store, plan)["results"]) == images
        assert set(world.paid.values()) == {1}

    def test_many_images_that_never_get_an_answer_end_no_later_attempt(self) -> None:
        world = World()
        plan = world.plan(images=600, shard_size=600)
        mute = {image(number) for number in range(300, 420)}
        world.always = lambda ref: failed(NoAnswerError, "InternalServerError") if ref in mute else None
        for _ in range(3):
            world.attempt(plan, requests_per_second=50.0)
            assert run_files(world.store, plan)["failures"] == dict.fromkeys(sorted(mute), "NO_ANSWER")

    def test_what_a_spell_of_trouble_leaves_without_an_answer_makes_the_day_incomplete(self) -> None:
        world = World()
        plan = world.plan(images=2_000, shard_size=2_000)

        def trouble(engine: SynchronousEngine, loop: VirtualTimeLoop) -> None:
            def answer(_: str) -> Exception | None:
                return failed(NoAnswerError, "503") if 30 <= loop.time() < 120 else None

            world.always = answer

        tally = world.attempt(plan, before=trouble)
        assert tally is not None
        assert 0 < tally.failures.total() <= WINDOW
        (landed,) = land_day(world.store, plan)
        assert landed.failed_by_code == {"NO_ANSWER": tally.failures.total()}
        with pytest.raises(IncompleteDayError):
            check_complete(world.store, plan, [landed])
        world.attempt(plan)
        assert len(run_files(world.store, plan)["results"]) == 2_000

    @pytest.mark.parametrize("images", [99, 2_000])
    def test_a_day_whose_images_got_out_of_reach_is_incomplete(self, images: int) -> None:
        world = World()
        plan = world.plan(images=images, shard_size=images)

        def lose_access(engine: SynchronousEngine, loop: VirtualTimeLoop) -> None:
            world.always = lambda _: refused("InvalidS3ObjectException") if loop.time() > 3 else None

        world.attempt(plan, before=lose_access)
        landed = land_day(world.store, plan)
        assert landed[0].judged > 0
        with pytest.raises(IncompleteDayError, match="Rekognition can read them") as raised:
            check_complete(world.store, plan, landed)
        assert raised.value.incomplete == landed[0].failed > 0
        world.always = lambda _: None
        world.attempt(plan)
        assert check_complete(world.store, plan, land_day(world.store, plan)) == 0
        assert set(world.paid.values()) == {1}

    def test_an_image_out_of_reach_leaves_the_day_complete(self) -> None:
        world = World()
        plan = world.plan(images=3)
        world.faults = {image(2): [refused("InvalidS3ObjectException")]}
        world.attempt(plan)
        assert check_complete(world.store, plan, land_day(world.store, plan)) == 0

    def test_images_without_an_answer_among_unfit_ones_end_nothing(self) -> None:
        world = World(
            always=lambda ref: (
                failed(NoAnswerError, "InternalServerError")
                if "0007" in ref
                else refused("InvalidImageFormatException", is_final=True)
            )
        )
        plan = world.plan()
        world.attempt(plan)
        assert len(run_files(world.store, plan)["failures"]) == 250

    def test_a_store_that_fails_once_loses_nothing(self) -> None:
        world = World()
        plan = world.plan()
        write, failures = world.store.write, iter([True])

        def flaky(uri: str, body: bytes, *, if_absent: bool = False) -> None:
            if "parts/" in uri and next(failures, False):
                raise ModlakeTransientError("S3 can't serve it now")
            write(uri, body, if_absent=if_absent)

        world.store.write = flaky  # type: ignore[method-assign]
        with pytest.raises(ModlakeTransientError, match="S3"):
            world.attempt(plan)
        world.attempt(plan)
        assert set(world.paid.values()) == {1}
        assert len(run_files(world.store, plan)["results"]) == 250

    def test_a_part_whose_reply_was_lost_ends_nothing(self) -> None:
        world = World()
        plan = world.plan()
        write = world.store.write

        def repeated(uri: str, body: bytes, *, if_absent: bool = False) -> None:
            write(uri, body, if_absent=if_absent)
            if "parts/" in uri:  # as botocore does, which got no reply
                write(uri, body, if_absent=if_absent)

        world.store.write = repeated  # type: ignore[method-assign]
        world.attempt(plan)
        assert len(run_files(world.store, plan)["results"]) == 250
        assert set(world.paid.values()) == {1}

    def test_parts_that_name_other_images_are_refused(self) -> None:
        world = World()
        plan = world.plan(images=3)
        part = b'{"lines": [7], "failures": {}, "model_versions": []}\n{}\n'
        world.attempt(plan)
        uri = next(uri for uri in world.store.objects if "/completed/" in uri)
        del world.store.objects[uri]
        world.store.write(uri.replace("completed/00.json", "parts/99999-00000.jsonl"), part)
        with pytest.raises(ModlakeTerminalError, match="fresh=true"):
            world.attempt(plan)
