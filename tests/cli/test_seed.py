from __future__ import annotations

import hashlib
import io
import json
import socket
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cli.seed import SeedResult, s3_client, seed_day
from cli.seed_objects import ODD_NAMES, SeedObject, day_objects
from cli.seed_variants import Sample, load_samples, variant
from localcloud import cloud
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError

DAY = date(2026, 11, 21)
PREFIX = "uploads/2026-11-21/"
MARKER = "complete/2026-11-21"
IMAGE_KINDS = {"ordinary", "odd_key", "duplicate"}


class FakeS3:
    """The three calls that seeding makes, in memory, with a log of the writing ones."""

    def __init__(self, answers_file: Path) -> None:
        self.objects: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self._answers_file = answers_file

    def get_paginator(self, operation: str) -> FakeS3:
        assert operation == "list_objects_v2"
        return self

    def paginate(self, **request: str) -> Iterator[dict[str, Any]]:
        for key in sorted(key for key in self.objects if key.startswith(request["Prefix"])):
            etag = hashlib.md5(self.objects[key], usedforsecurity=False).hexdigest()
            yield {"Contents": [{"Key": key, "ETag": f'"{etag}"'}]}
        yield {}

    def put_object(self, **request: Any) -> None:
        assert request["Bucket"] == "modlake-ugc"
        assert self._answers_file.exists(), "uploaded before the answers were there"
        self.log.append(("put", request["Key"]))
        self.objects[request["Key"]] = request["Body"]

    def delete_object(self, **request: str) -> None:
        self.log.append(("delete", request["Key"]))
        self.objects.pop(request["Key"], None)

    @property
    def uploads(self) -> dict[str, bytes]:
        return {key: body for key, body in self.objects.items() if key.startswith(PREFIX)}


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return load_samples()


@pytest.fixture(scope="module")
def objects(samples: list[Sample]) -> list[SeedObject]:
    return day_objects(DAY, 200, samples)


@pytest.fixture
def s3(tmp_path: Path) -> FakeS3:
    return FakeS3(tmp_path / "cloud" / "answers" / "2026-11-21.json")


def silently(done: int, total: int) -> None:
    """A report that nobody reads."""


@pytest.mark.parametrize("images", [0, 1, 2, 3, 4, 5, 7, 20, 39, 60, 200, 401])
def test_a_day_holds_exactly_the_number_asked_for_and_mostly_images(
    images: int, samples: list[Sample]
) -> None:
    objects = day_objects(DAY, images, samples)
    assert len({one.key for one in objects}) == images
    assert sum(one.kind in IMAGE_KINDS for one in objects) * 2 >= images


def test_no_key_is_a_folder_or_lies_below_another_key(objects: list[SeedObject]) -> None:
    keys = {one.key for one in objects}
    for key in keys:
        assert not key.endswith("/")
        assert not any(other.startswith(f"{key}/") for other in keys)


def test_the_same_day_gives_the_same_objects_and_another_day_others(
    objects: list[SeedObject], samples: list[Sample]
) -> None:
    bodies = {one.key: one.body() for one in objects[:20]}
    assert {one.key: one.body() for one in day_objects(DAY, 200, samples)[:20]} == bodies
    other_day = day_objects(date(2026, 11, 22), 200, samples)
    assert not {one.body() for one in other_day[:20]} & set(bodies.values())


def test_images_differ_from_each_other_except_for_the_duplicates(objects: list[SeedObject]) -> None:
    bodies = [
        one.body()
        for one in objects
        if one.kind != "duplicate" and one.kind not in {"empty", "success_marker"}
    ]
    assert len(set(bodies)) == len(bodies)
    duplicates = [one for one in objects if one.kind == "duplicate"]
    assert len(duplicates) == 10
    assert {one.body() for one in duplicates} <= set(bodies)


def test_two_hundred_images_show_every_sample(objects: list[SeedObject], samples: list[Sample]) -> None:
    shown = {one.sample.name for one in objects if one.sample is not None}
    assert shown == {sample.name for sample in samples}


def test_every_image_is_a_jpeg_or_png_that_rekognition_takes(objects: list[SeedObject]) -> None:
    for one in objects:
        if one.kind in IMAGE_KINDS:
            with Image.open(io.BytesIO(one.body())) as picture:
                picture.load()
                assert picture.format == ("PNG" if one.key.endswith(".png") else "JPEG"), one.key
                assert min(picture.size) >= 80, one.key


def test_odd_names_hold_every_character_that_breaks_things(objects: list[SeedObject]) -> None:
    odd = [one.key for one in objects if one.kind == "odd_key"]
    assert {key.rpartition("/")[2] for key in odd} == set(ODD_NAMES)
    for characters in (" ", "'", '"', "+", "%", "%2F", "#", "?", "&", "é", "漢字", "🌅", ".JPG", "e\u0301"):
        assert any(characters in key for key in odd), characters
    assert any("." not in key for key in odd)


def test_what_cannot_be_judged_is_what_it_claims_to_be(objects: list[SeedObject]) -> None:
    bodies = {one.kind: one.body() for one in objects if one.kind not in IMAGE_KINDS}
    keys = {one.kind: one.key for one in objects}

    def size(kind: str) -> tuple[int, int]:
        with Image.open(io.BytesIO(bodies[kind])) as picture:
            return picture.size

    def is_readable(body: bytes) -> bool:
        try:
            Image.open(io.BytesIO(body)).load()
        except OSError:
            return False
        return True

    for kind, image_format in (("webp", "WEBP"), ("gif", "GIF"), ("mislabelled_webp", "WEBP")):
        assert Image.open(io.BytesIO(bodies[kind])).format == image_format
    assert keys["mislabelled_webp"].endswith(".jpg")
    assert size("small_icon") == (40, 40)
    assert max(size("long_side")) > 10_000
    assert len(bodies["long_side"]) < 50_000
    for kind in ("corrupt_jpeg", "truncated_jpeg"):
        assert bodies[kind].startswith(b"\xff\xd8\xff")
        assert not is_readable(bodies[kind])
    assert bodies["empty"] == b""
    assert keys["success_marker"] == "_SUCCESS"
    assert json.loads(bodies["json"])["day"] == "2026-11-21"


def test_a_variant_looks_like_its_sample_but_has_bytes_of_its_own(samples: list[Sample]) -> None:
    sample = samples[0]
    assert variant(sample, "a", ".png") == variant(sample, "a", ".png")
    assert variant(sample, "a", ".png") != variant(sample, "b", ".png")
    with Image.open(io.BytesIO(variant(sample, "a", ".jpg"))) as picture:
        assert picture.width / sample.picture.width == pytest.approx(0.97, abs=0.04)


def test_seeding_puts_the_day_and_then_its_marker(tmp_path: Path, s3: FakeS3) -> None:
    result = seed_day(s3, tmp_path, DAY, 40, silently)
    assert len(s3.uploads) == 40
    assert (result.uploaded, result.skipped, result.deleted) == (40, 0, 0)
    assert s3.log[-1] == ("put", MARKER)
    assert json.loads(s3.objects[MARKER]) == {"day": "2026-11-21", "images": 40}


def test_seeding_again_uploads_nothing(tmp_path: Path, s3: FakeS3) -> None:
    seed_day(s3, tmp_path, DAY, 40, silently)
    s3.log.clear()
    result = seed_day(s3, tmp_path, DAY, 40, silently)
    assert (result.uploaded, result.skipped, result.deleted) == (0, 40, 0)
    assert s3.log == []


def test_a_changed_object_is_repaired_while_the_day_is_not_complete(tmp_path: Path, s3: FakeS3) -> None:
    seed_day(s3, tmp_path, DAY, 8, silently)
    key = min(s3.uploads)
    right = s3.objects[key]
    s3.objects[key] = b"something else"
    s3.log.clear()
    assert seed_day(s3, tmp_path, DAY, 8, silently).uploaded == 1
    assert s3.objects[key] == right
    assert s3.log == [("delete", MARKER), ("put", key), ("put", MARKER)]


def test_a_smaller_day_deletes_what_is_too_many_and_nothing_else(tmp_path: Path, s3: FakeS3) -> None:
    seed_day(s3, tmp_path, DAY, 40, silently)
    s3.objects["uploads/2026-11-22/other-day.jpg"] = b"x"
    result = seed_day(s3, tmp_path, DAY, 4, silently)
    assert len(s3.uploads) == 4
    assert (result.uploaded, result.skipped, result.deleted) == (0, 4, 36)
    assert "uploads/2026-11-22/other-day.jpg" in s3.objects


def test_an_empty_day_is_a_complete_day(tmp_path: Path, s3: FakeS3) -> None:
    assert seed_day(s3, tmp_path, DAY, 0, silently) == SeedResult(0, 0, 0, 0)
    assert set(s3.objects) == {MARKER}


def test_variants_and_duplicates_have_the_answer_of_their_sample(
    tmp_path: Path, s3: FakeS3, objects: list[SeedObject]
) -> None:
    seed_day(s3, tmp_path, DAY, 200, silently)
    answers_dir = tmp_path / "cloud" / "answers"
    answers = json.loads((answers_dir / "2026-11-21.json").read_bytes())
    expected = {
        hashlib.sha256(s3.objects[PREFIX + one.key]).hexdigest(): one.sample.answer
        for one in objects
        if one.sample is not None and one.sample.answer is not None
    }
    assert answers == expected
    assert len({label["Name"] for a in answers.values() for label in a["ModerationLabels"]}) == 52
    assert [path.name for path in answers_dir.iterdir()] == ["2026-11-21.json"]


def test_progress_runs_up_to_the_total(tmp_path: Path, s3: FakeS3) -> None:
    reported: list[tuple[int, int]] = []
    seed_day(s3, tmp_path, DAY, 12, lambda done, total: reported.append((done, total)))
    assert reported == sorted(reported)
    assert reported[0] == (0, 12)
    assert reported[-1] == (12, 12)


def test_a_negative_number_is_refused(tmp_path: Path, s3: FakeS3) -> None:
    with pytest.raises(ModlakeTerminalError, match="ask for 0 or more"):
        seed_day(s3, tmp_path, DAY, -1, silently)
    assert s3.log == []


def test_a_stopped_cloud_is_named_with_the_way_on(tmp_path: Path) -> None:
    with socket.socket() as bound:  # bound but not listening: nobody answers there
        bound.bind(("127.0.0.1", 0))
        settings = CloudSettings(home=tmp_path, s3_port=bound.getsockname()[1])
        s3 = s3_client(cloud.environment(settings))
        with pytest.raises(ModlakeTransientError, match=r"\./modlake cloud start"):
            seed_day(s3, tmp_path, DAY, 1, silently)
