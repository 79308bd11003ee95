"""What a seeded day holds: ordinary uploads, odd keys, duplicates, and objects that nobody can judge."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial

from PIL import Image

from cli.seed_variants import Sample, variant

# Names that break careless quoting, URL building, globbing or decoding somewhere on their way.
ODD_NAMES = (
    "IMG 0042 (1).jpg",
    'the "best" shot.jpg',
    "Anna's cat.png",
    "fish+chips.jpg",
    "100% real.jpg",
    "not%2Fa%2Ffolder.jpg",
    "what?.jpg",
    "#1 of #3.png",
    "you & me.jpg",
    "café à la crème.jpg",
    "漢字.png",
    "sunset 🌅.jpg",
    "DSC00042.JPG",
    "photo without extension",
    "cafe\u0301 in two code points.jpg",
    "%E6%BC%A2 looks encoded.jpg",
    "a=b;c,d@[e]{f}~$!^`*.jpg",
    "<b>bold|.jpg",
)


@dataclass(frozen=True, slots=True)
class SeedObject:
    """An object to be: its key below the day's prefix, its kind, its bytes, and the sample it shows."""

    key: str
    kind: str
    body: Callable[[], bytes]
    sample: Sample | None = None


def day_objects(day: date, images: int, samples: list[Sample]) -> list[SeedObject]:
    """Exactly `images` objects with keys of their own.

    At most a quarter is unjudgeable and a quarter oddly named; every 20th, and at least one, is a duplicate.
    """
    shuffled = list(samples)
    random.Random(day.isoformat()).shuffle(shuffled)  # noqa: S311  variety, not secrecy
    unjudgeable = _unjudgeable(day, shuffled[0])[: images // 4]
    odd = [_odd_key(day, index, shuffled) for index in range(min(len(ODD_NAMES), images // 4))]
    duplicates = max(images // 20, min(images // 4, 1))
    ordinary = [
        _ordinary(day, index, shuffled) for index in range(images - len(unjudgeable) - len(odd) - duplicates)
    ]
    return [*ordinary, *(_duplicate(original) for original in ordinary[:duplicates]), *odd, *unjudgeable]


def _ordinary(day: date, index: int, samples: list[Sample]) -> SeedObject:
    identity = f"{day.isoformat()} upload {index}"
    chance = random.Random(identity)  # noqa: S311 variety, not secrecy
    suffix = chance.choice((".jpg", ".jpg", ".png"))
    name = chance.choice((f"IMG_{index:04d}", f"IMG {index:04d} (1)", f"photo-{index:04d}", f"Scan {index}"))
    sample = samples[index % len(samples)]
    return SeedObject(
        f"{_folder(chance)}/{name}{suffix}", "ordinary", partial(variant, sample, identity, suffix), sample
    )


def _odd_key(day: date, index: int, samples: list[Sample]) -> SeedObject:
    identity = f"{day.isoformat()} odd key {index}"
    name = ODD_NAMES[index]
    suffix = ".png" if name.endswith(".png") else ".jpg"
    sample = samples[-1 - index % len(samples)]
    key = f"{_folder(random.Random(identity))}/{name}"  # noqa: S311 variety, not secrecy
    return SeedObject(key, "odd_key", partial(variant, sample, identity, suffix), sample)


def _duplicate(original: SeedObject) -> SeedObject:
    stem, dot, suffix = original.key.rpartition(".")
    return SeedObject(f"{stem} - copy{dot}{suffix}", "duplicate", original.body, original.sample)


def _folder(chance: random.Random) -> str:
    return f"{chance.randrange(24):02d}/user-{chance.randrange(1000):04d}"


def _unjudgeable(day: date, sample: Sample) -> list[SeedObject]:
    """The most instructive first, because a small day holds only some of them."""
    identity = f"{day.isoformat()} unjudgeable"
    chance = random.Random(identity)  # noqa: S311 variety, not secrecy
    jpeg = variant(sample, identity, ".jpg")
    colour = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
    log = json.dumps({"day": day.isoformat(), "uploader": "mobile"}).encode()
    specimens: list[tuple[str, str, Callable[[], bytes]]] = [
        ("webp", "sticker.webp", partial(_encoded, sample.picture, "WEBP", identity)),
        ("corrupt_jpeg", "broken.jpg", partial(_corrupt, jpeg, chance.randbytes(4096))),
        ("small_icon", "icon.png", partial(_plain, (40, 40), colour)),
        ("gif", "wave.gif", partial(_encoded, sample.picture, "GIF", identity)),
        ("empty", "interrupted.jpg", bytes),
        ("long_side", "panorama.png", partial(_plain, (10_240, 96), colour)),
        ("truncated_jpeg", "half.jpg", partial(_truncated, jpeg)),
        ("json", "upload-log.json", lambda: log),
        ("mislabelled_webp", "really-webp.jpg", partial(_encoded, sample.picture, "WEBP", f"{identity}.jpg")),
    ]
    objects = [SeedObject(f"{_folder(chance)}/{name}", kind, body) for kind, name, body in specimens]
    return [*objects, SeedObject("_SUCCESS", "success_marker", bytes)]


def _corrupt(jpeg: bytes, noise: bytes) -> bytes:
    """A JPEG by its first bytes, noise thereafter."""
    return jpeg[:20] + noise


def _truncated(jpeg: bytes) -> bytes:
    """A JPEG whose upload ended half-way."""
    return jpeg[: len(jpeg) // 2]


def _plain(size: tuple[int, int], colour: tuple[int, int, int]) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", size, colour).save(encoded, "PNG")
    return encoded.getvalue()


def _encoded(picture: Image.Image, image_format: str, identity: str) -> bytes:
    """A valid picture in a format that Rekognition does not read, different for each identity."""
    shade = random.Random(identity).randrange(1, 64)  # noqa: S311 variety, not secrecy
    encoded = io.BytesIO()
    picture.point(lambda value: max(0, value - shade)).save(encoded, image_format)
    return encoded.getvalue()
