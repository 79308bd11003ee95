"""Results that are not as they should be: nothing passes as clean, nothing that was said is lost."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.faults.conftest import Scene
from tests.support.faults import CONTENTS, JUDGEABLE, PICTURES, DagRun, wait_for
from tests.support.faults_oracle import Bill, expected

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def test_files_in_odd_dress_say_the_same(scene: Scene) -> None:
    dress = [{"results": kind, "lines": 3} for kind in ("doubled", "unknown-keys", "crlf", "bom")]
    scene.world.misbehave(jobs=[*dress, {"summary": "line-number"}])
    run = scene.new_run()
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


def test_errors_that_name_a_line_alone(scene: Scene) -> None:
    scene.world.misbehave(jobs=[{"summary": "without-source-ref"}])
    run = scene.new_run()
    assert run.proceed().ending == "success"
    scene.assert_as_undisturbed(run.day)


@pytest.mark.parametrize("results", ["missing", "truncated", "unanswered"])
def test_images_without_an_answer_are_asked_for_again(scene: Scene, results: str) -> None:
    scene.world.misbehave(jobs=[{"results": results, "lines": 2, "nth": [1]}])
    run = scene.new_run()
    assert run.proceed().ending == "success"
    assert scene.lake.outcomes(run.day) == expected(run.day, CONTENTS)
    # What had no answer was asked for, and paid for, once more; nothing else was.
    paid = Counter(Bill.read(scene.world.settings).of_day(run.day).values())
    assert paid == {1: len(JUDGEABLE) - paid[2], 2: 1 if results == "truncated" else 2}


@pytest.mark.parametrize("results", ["missing", "unanswered"])
def test_images_that_never_get_an_answer_fail_and_the_day_says_so(scene: Scene, results: str) -> None:
    scene.world.misbehave(jobs=[{"results": results, "lines": 1}])
    day = scene.new_day()
    strict = scene.new_run(day)
    ended = strict.proceed()
    assert ended.ending == "terminal"
    assert scene.lake.rows("runs", day) == []
    tolerant = scene.new_run(day, arguments={"allow_incomplete": 0.5})
    assert tolerant.proceed().ending == "success"
    outcomes = Counter(each.outcome for each in scene.lake.outcomes(day).values())
    (told,) = scene.lake.rows("runs", day)
    assert told["incomplete"] == outcomes["failed"] - 1 == 2  # besides the corrupt one; one a shard
    assert told["listed"] == len(CONTENTS)


@pytest.mark.parametrize(
    ("results", "told"), [("foreign", "somebody-elses"), ("contradicting", "different answers")]
)
def test_results_that_nobody_can_believe_stop_the_day(scene: Scene, results: str, told: str) -> None:
    scene.world.misbehave(jobs=[{"results": results, "nth": [1]}])
    day = scene.new_day()
    ended = scene.new_run(day).proceed()
    assert ended.ending == "terminal"
    assert told in ended.error
    assert "fresh=true" in ended.error
    assert scene.lake.rows("runs", day) == []
    assert scene.new_run(day, fresh=True).proceed().ending == "success"
    assert scene.lake.outcomes(day) == expected(day, CONTENTS)


def test_unknown_labels_are_kept(scene: Scene) -> None:
    scene.world.misbehave(jobs=[{"results": "unknown-labels", "lines": 2}])
    run = scene.new_run()
    assert run.proceed().ending == "success"
    unknown = [row for row in scene.lake.rows("labels", run.day) if row["label"] == "Rehearsed Label"]
    assert len(unknown) == 4  # two of each shard


def test_labels_whose_confidence_is_no_number_are_kept(scene: Scene) -> None:
    scene.world.misbehave(jobs=[{"results": "nan", "lines": 1, "nth": [1]}])
    run = scene.new_run()
    assert run.proceed().ending == "success"
    names = {ref: {name for name, _ in each.labels} for ref, each in scene.lake.outcomes(run.day).items()}
    assert names == {
        ref: {name for name, _ in each.labels} for ref, each in expected(run.day, CONTENTS).items()
    }
    confidences = [row["confidence"] for row in scene.lake.rows("labels", run.day)]
    assert 0 < confidences.count(None) < len(confidences)


ADAPTER = "arn:aws:rekognition:us-east-1:111122223333:project/ugc/version/v1/1690000000000"


@pytest.fixture
def adapter(scene: Scene) -> Iterator[Callable[[str], None]]:
    """Sets the status of the adapter; it is TRAINING_COMPLETED at first."""
    path = scene.world.settings.cloud_dir / "adapters.json"

    def become(status: str) -> None:
        path.write_text(json.dumps({ADAPTER: status}))

    become("TRAINING_COMPLETED")
    yield become
    path.unlink()


@pytest.mark.parametrize("when", ["before the jobs", "within a job"])
def test_an_adapter_that_expires_in_the_middle_of_a_run_stops_the_day(
    scene: Scene, adapter: Callable[[str], None], when: str
) -> None:
    """AWS ignores an adapter that has expired, and lets the base model answer."""
    run = scene.new_run(arguments={"adapter_arn": ADAPTER})
    assert run.proceed(until="analyse[0]").ending == "success"
    if when == "before the jobs":
        adapter("EXPIRED")
    else:
        scene.world.misbehave(jobs=[{"results": "adapter-expired", "lines": 2, "nth": [1]}])
    ended = run.proceed()
    assert ended.ending == "terminal"
    assert "ModelDriftError" in ended.error
    told = "10 images by 7.0-localcloud with no adapter" if when == "before the jobs" else "2 images by"
    assert told in ended.error, ended.error
    assert scene.lake.rows("runs", run.day) == []
    # The day waits for somebody to choose: the adapter's successor, or the base model.
    adapter("EXPIRED")
    again = scene.new_run(run.day, arguments={"adapter_arn": ADAPTER}).proceed()
    assert again.ending == "terminal"
    assert "EXPIRED" in again.error
    without = scene.new_run(run.day)
    assert without.proceed().ending == "success"
    assert scene.lake.outcomes(run.day) == expected(run.day, CONTENTS)
    assert Counter(Bill.read(scene.world.settings).of_day(run.day).values()) == {2: len(JUDGEABLE)}


def delete(scene: Scene, key: str) -> None:
    scene.world.s3.delete_object(Bucket="modlake-ugc", Key=key)


def replace(scene: Scene, key: str) -> None:
    scene.world.put(key, PICTURES[20][0])


@pytest.mark.parametrize("change", [delete, replace])
def test_an_image_changed_between_listing_and_judging(
    scene: Scene, change: Callable[[Scene, str], None]
) -> None:
    run = scene.new_run()
    assert run.proceed(until="analyse[0]").ending == "success"
    name = next(iter(JUDGEABLE))
    change(scene, f"uploads/{run.day}/{name}")
    ended = run.proceed()
    assert ended.ending == "success", ended.error
    outcomes = scene.lake.outcomes(run.day)
    assert len(outcomes) == len(CONTENTS)
    (row,) = [row for row in scene.lake.rows("images", run.day) if row["key"].endswith(name)]
    if change is delete:
        assert (row["outcome"], row["error_code"]) == ("failed", "ERROR_INVALID_S3_OBJECT")
    else:
        assert (row["outcome"], row["error_code"]) == ("failed", "REPLACED")
    # The next run sees the day as it is now.
    again = scene.new_run(run.day)
    assert again.proceed().ending == "success"
    contents = dict(CONTENTS)
    if change is delete:
        del contents[name]
    else:
        contents[name] = PICTURES[20][0]
    assert scene.lake.outcomes(run.day) == expected(run.day, contents)


@pytest.mark.parametrize("published", [True, False])
def test_a_replaced_image_never_gets_the_answer_of_the_one_before(scene: Scene, published: bool) -> None:
    """The manifest is the same, word for word: only the ETags tell that the job judged other images."""
    day, name = scene.new_day(), next(iter(JUDGEABLE))
    contents = dict(CONTENTS)
    for body in (PICTURES[20][0], PICTURES[21][0]):
        run = scene.new_run(day)
        assert run.proceed(until=None if published else "publish").ending == "success"
        contents[name] = body
        scene.world.put(f"uploads/{day}/{name}", body)
    assert scene.new_run(day).proceed().ending == "success"
    assert scene.lake.outcomes(day) == expected(day, contents)


def swap(scene: Scene, run: DagRun, *, back_before: str) -> str:
    """Have one image listed, another one judged, and the first one back in its place; return its key."""
    name = next(iter(JUDGEABLE))
    key = f"uploads/{run.day}/{name}"
    assert run.proceed(until="analyse[0]").ending == "success"
    scene.world.put(key, PICTURES[20][0])
    if back_before == "the retry":
        scene.world.misbehave(jobs=[{"seconds": 3, "nth": [1, 2]}])
        attempt = run.start()
        wait_for(lambda: Bill.read(scene.world.settings).of_day(run.day)[f"s3://modlake-ugc/{key}"])
        time.sleep(1.1)  # SeaweedFS, as S3, tells when an object was written in whole seconds
        scene.world.put(key, CONTENTS[name])
        assert run.finish(attempt).ending == "success"
    else:
        assert run.proceed(until="land[0]").ending == "success"
        scene.world.put(key, CONTENTS[name])
    return key


def test_an_image_swapped_while_it_is_judged_is_asked_for_again(scene: Scene) -> None:
    run = scene.new_run()
    key = swap(scene, run, back_before="the retry")
    assert run.proceed().ending == "success"
    assert scene.lake.outcomes(run.day) == expected(run.day, CONTENTS)
    # The swapped one was paid for twice, since two images were judged under its name; nothing else was.
    paid = Bill.read(scene.world.settings).of_day(run.day)
    assert {ref: count for ref, count in paid.items() if count > 1} == {f"s3://modlake-ugc/{key}": 2}
    again = scene.new_run(run.day)
    assert again.proceed().ending == "success"
    assert scene.lake.outcomes(run.day) == expected(run.day, CONTENTS)
    assert Bill.read(scene.world.settings).of_day(run.day) == paid


def test_an_image_swapped_while_it_is_judged_is_never_judged_under_its_own_etag(scene: Scene) -> None:
    run = scene.new_run()
    key = swap(scene, run, back_before="landing")
    assert run.proceed().ending == "success"
    (row,) = [row for row in scene.lake.rows("images", run.day) if row["key"] == key]
    assert (row["outcome"], row["error_code"]) == ("failed", "REPLACED")
    assert scene.new_run(run.day).proceed().ending == "success"
    assert scene.lake.outcomes(run.day) == expected(run.day, CONTENTS)
