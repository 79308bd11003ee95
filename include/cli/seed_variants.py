"""The sample images, decoded once, and the small variations that make new uploads of them."""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image, ImageEnhance, ImageOps, PngImagePlugin

SAMPLE_IMAGES = Path(__file__).resolve().parents[1] / "sample_images"


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample image; `answer` is what the answer book says of it, None when the book is silent."""

    name: str
    picture: Image.Image
    answer: dict[str, Any] | None


def load_samples() -> list[Sample]:
    """All sample images in the order of their names, as RGB pictures."""
    answers: dict[str, dict[str, Any]] = json.loads((SAMPLE_IMAGES / "labels.json").read_bytes())["answers"]
    samples = []
    for path in sorted(SAMPLE_IMAGES.rglob("*")):
        if path.suffix in {".jpg", ".png"}:
            body = path.read_bytes()
            picture = Image.open(io.BytesIO(body)).convert("RGB")
            name = path.relative_to(SAMPLE_IMAGES).as_posix()
            samples.append(Sample(name, picture, answers.get(sha256(body).hexdigest())))
    return samples


def variant(sample: Sample, identity: str, suffix: str) -> bytes:
    """The picture slightly cropped, perhaps mirrored, lighter or darker, as ".jpg" or ".png".

    Equal arguments give equal bytes. The identity is written into the file, so that two identities never do.
    """
    chance = random.Random(identity)  # noqa: S311  variety, not secrecy
    width, height = sample.picture.size
    left, top, right, bottom = (chance.uniform(0.0, 0.03) for _ in range(4))
    picture = sample.picture.crop(
        (round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom)))
    )
    if chance.random() < 0.5:
        picture = ImageOps.mirror(picture)
    picture = ImageEnhance.Brightness(picture).enhance(chance.uniform(0.9, 1.1))
    encoded = io.BytesIO()
    if suffix == ".png":
        comment = PngImagePlugin.PngInfo()
        comment.add_text("Comment", identity)
        picture.save(encoded, "PNG", pnginfo=comment, compress_level=4)
    else:
        picture.save(encoded, "JPEG", quality=chance.randint(78, 92), comment=identity)
    return encoded.getvalue()
