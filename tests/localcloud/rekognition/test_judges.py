from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from localcloud.rekognition.analysis import analyse
from localcloud.rekognition.images import OpenedImage
from localcloud.rekognition.judges import AnswerBookJudge, FirstOf, Judgement
from tests.localcloud.support import picture

IMAGE = OpenedImage(sha256="aa", pixels=Image.new("RGB", (100, 100)))
LABELS = [
    {"Name": name, "Confidence": confidence} for name, confidence in (("A", 90.0), ("B", 50.0), ("C", 49.9))
]


def write(path: Path, label: str, wrapped: bool = False) -> None:
    book = {"aa": {"ModerationLabels": [{"Name": label, "Confidence": 1.0}], "ContentTypes": []}}
    path.write_text(json.dumps({"answers": book, "model_version": "x"} if wrapped else book))


def label_of(judge: AnswerBookJudge) -> str | None:
    judgement = judge.judge(IMAGE)
    return None if judgement is None else str(judgement.labels[0]["Name"])


def test_books_come_and_change_and_go(tmp_path: Path) -> None:
    path = tmp_path / "book.json"
    judge = AnswerBookJudge(lambda: [path])
    assert label_of(judge) is None
    write(path, "A")
    assert label_of(judge) == "A"
    write(path, "Other", wrapped=True)
    assert label_of(judge) == "Other"
    path.write_text('{"aa": ')
    assert label_of(judge) == "Other"
    path.unlink()
    assert label_of(judge) is None


def test_the_first_book_and_the_first_judge_win(tmp_path: Path) -> None:
    paths = [tmp_path / "1.json", tmp_path / "2.json"]
    for path, label in zip(paths, ("first", "second"), strict=True):
        write(path, label)
    book = AnswerBookJudge(lambda: paths)
    assert label_of(book) == "first"
    assert FirstOf(AnswerBookJudge(list), book).judge(IMAGE).labels[0]["Name"] == "first"
    assert FirstOf(AnswerBookJudge(list)).judge(IMAGE) == Judgement([], [])


def test_min_confidence_filters_labels_and_not_content_types() -> None:
    class Known:
        def judge(self, _: OpenedImage) -> Judgement:
            return Judgement(LABELS, [{"Name": "Animated", "Confidence": 3.0}])

    judges = FirstOf(Known())
    assert analyse(picture(), judges, {"MinConfidence": 60}, None) == {
        "ModerationLabels": LABELS[:1],
        "ModerationModelVersion": "7.0-localcloud",
        "ContentTypes": [{"Name": "Animated", "Confidence": 3.0}],
    }
    assert analyse(picture(), judges, {}, None)["ModerationLabels"] == LABELS[:2]
    assert analyse(picture(), judges, {"MinConfidence": 0}, "arn")["ModerationLabels"] == LABELS
    assert analyse(picture(), judges, {}, "arn")["ProjectVersion"] == "arn"
