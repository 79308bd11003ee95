"""Opening an image as the service does: by content, within its limits, without trusting a byte of it."""

from __future__ import annotations

import hashlib
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, UnidentifiedImageError

# Limits: developer guide, "Guidelines and quotas in Amazon Rekognition".
MAX_OBJECT_BYTES = 15 * 1024 * 1024
MIN_SIDE = 80
MAX_SIDE = 10_000

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_FORMATS = ("JPEG", "PNG")
_JUDGED_SIDE = 448  # twice what the model looks at
_LARGE_PIXELS = 20_000_000
_one_large_image = threading.Lock()

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked between the header and the decoding


class ImageError(Exception):
    """The service can't use the image.

    `code` names it in a manifest summary (AWS documents no codes for these; they follow Custom Labels'
    ERROR_INVALID_IMAGE), `api_code` is the exception of DetectModerationLabels.
    """

    def __init__(self, code: str, api_code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.api_code = api_code
        self.message = message


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """An image that decodes: the digest of its bytes, and its pixels shrunk to what a model looks at."""

    sha256: str
    pixels: Image.Image


def open_image(data: bytes) -> OpenedImage:
    """Decode a JPEG or PNG; raises ImageError for anything the service would not judge.

    Sides are checked in the header, so a decompression bomb costs nothing; one large image is decoded at
    a time, so that many of them don't add up.
    """
    width, height = _size(data)
    with _one_large_image if width * height > _LARGE_PIXELS else nullcontext():
        pixels = _decoded(data)
    return OpenedImage(sha256=hashlib.sha256(data).hexdigest(), pixels=pixels)


def _size(data: bytes) -> tuple[int, int]:
    if not data.startswith(_SIGNATURES):
        raise _invalid("Request has invalid image format: only JPEG and PNG are supported")
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
    except UnidentifiedImageError as error:  # its message names an object in our memory
        raise _invalid("Request has invalid image format: no image can be recognised") from error
    except Exception as error:  # a decoder raises anything, and the file is at fault
        raise _invalid(f"Request has invalid image format: {error}") from error
    if max(width, height) > MAX_SIDE:
        raise _wrong_size(
            "ImageTooLargeException",
            f"{width} x {height} exceed maximum dimension size of {MAX_SIDE} pixels",
        )
    if min(width, height) < MIN_SIDE:
        raise _wrong_size(
            "InvalidParameterException", f"{width} x {height} are below the minimum of {MIN_SIDE} pixels"
        )
    return width, height


def _decoded(data: bytes) -> Image.Image:
    """Keeps nothing of the full size when it returns."""
    try:
        image = Image.open(BytesIO(data), formats=_FORMATS)
        image.draft("RGB", (_JUDGED_SIDE, _JUDGED_SIDE))  # a JPEG is scaled while it is decoded
        image.load()
        return _opaque(_shrunk(image))
    except Exception as error:  # a decoder raises anything, and the file is at fault
        raise _invalid(f"Request has invalid image encoding: {error}") from error


def _shrunk(image: Image.Image) -> Image.Image:
    factor = min(image.size) // _JUDGED_SIDE
    if factor < 2:
        return image
    large = image.width * image.height > _LARGE_PIXELS
    # BOX is better, but copies the whole image into another mode first.
    resample = Image.Resampling.NEAREST if large else Image.Resampling.BOX
    return image.resize((image.width // factor, image.height // factor), resample)


def _opaque(image: Image.Image) -> Image.Image:
    """On white, as a browser shows it."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    coloured = image.convert("RGBA")
    canvas = Image.new("RGBA", coloured.size, "white")
    canvas.alpha_composite(coloured)
    return canvas.convert("RGB")


def _invalid(message: str) -> ImageError:
    return ImageError("ERROR_INVALID_IMAGE", "InvalidImageFormatException", message)


def _wrong_size(api_code: str, told: str) -> ImageError:
    return ImageError("ERROR_INVALID_IMAGE_DIMENSIONS", api_code, f"Input image dimensions {told}")
