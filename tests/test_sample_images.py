from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sample_images.make_labels import answer_book

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = CHECKOUT / "include" / "sample_images"
TAXONOMY = CHECKOUT / "plugins" / "modlake" / "data" / "moderation_taxonomy_v7.json"


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    return {
        path.relative_to(FOLDER).as_posix(): path
        for path in FOLDER.rglob("*")
        if path.suffix.lower() in {".jpg", ".jpeg", ".png"}
    }


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, Any]]:
    book = json.loads((FOLDER / "labels.json").read_bytes())
    return book["answers"]


@pytest.fixture(scope="module")
def taxonomy() -> dict[str, tuple[str, int]]:
    return {node["name"]: (node["parent"], node["level"]) for node in json.loads(TAXONOMY.read_bytes())}


def test_every_file_has_a_source_and_a_free_licence_and_every_source_a_file(files: dict[str, Path]) -> None:
    with (FOLDER / "SOURCES.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["file"] for row in rows] == sorted(files)
    for row in rows:
        assert all(row[column] for column in ("title", "author", "source", "licence", "changes")), row
        assert row["licence"].startswith(("Public domain (", "CC0 (")), row


def test_there_are_enough_pictures_and_they_stay_small(files: dict[str, Path]) -> None:
    assert 60 <= len(files) <= 120
    assert sum(path.stat().st_size for path in files.values()) < 8_000_000


def test_every_picture_is_a_judgeable_one_of_its_own(files: dict[str, Path]) -> None:
    for name, path in files.items():
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == {".png": "PNG", ".jpg": "JPEG"}[path.suffix], name
            assert min(picture.size) >= 100, name  # a seeded variant loses up to 6 % and must keep 80 px
    assert len({path.read_bytes() for path in files.values()}) == len(files)


def test_labels_json_says_what_answers_csv_says() -> None:
    assert json.loads((FOLDER / "labels.json").read_bytes()) == answer_book()


def test_every_answer_belongs_to_a_file(files: dict[str, Path], answers: dict[str, dict[str, Any]]) -> None:
    for sha256, answer in answers.items():
        assert hashlib.sha256(files[answer["file"]].read_bytes()).hexdigest() == sha256


def test_some_files_are_clean_and_some_are_not_in_the_book(
    files: dict[str, Path], answers: dict[str, dict[str, Any]]
) -> None:
    clean = [a for a in answers.values() if not a["ModerationLabels"] and not a["ContentTypes"]]
    assert len(clean) >= 5
    assert len(files) - len(answers) >= 20


def test_labels_stand_in_the_taxonomy_below_their_ancestors(
    answers: dict[str, dict[str, Any]], taxonomy: dict[str, tuple[str, int]]
) -> None:
    for answer in answers.values():
        confidences = {label["Name"]: label["Confidence"] for label in answer["ModerationLabels"]}
        assert len(confidences) == len(answer["ModerationLabels"])
        for label in answer["ModerationLabels"]:
            assert (label["ParentName"], label["TaxonomyLevel"]) == taxonomy[label["Name"]]
            if label["ParentName"]:
                assert confidences[label["ParentName"]] >= label["Confidence"]


def test_all_labels_and_content_types_occur(
    answers: dict[str, dict[str, Any]], taxonomy: dict[str, tuple[str, int]]
) -> None:
    names = {label["Name"] for answer in answers.values() for label in answer["ModerationLabels"]}
    assert len(taxonomy) == 52
    assert names == set(taxonomy)
    content_types = {kind["Name"] for answer in answers.values() for kind in answer["ContentTypes"]}
    assert content_types == {"Animated", "Illustrated"}


def test_confidences_lie_on_both_sides_of_every_usual_threshold(answers: dict[str, dict[str, Any]]) -> None:
    confidences = [label["Confidence"] for a in answers.values() for label in a["ModerationLabels"]]
    assert min(confidences) < 30
    assert max(confidences) > 99
    assert any(30 < confidence < 50 for confidence in confidences)
    assert all(0 < confidence <= 100 and not confidence.is_integer() for confidence in confidences)
