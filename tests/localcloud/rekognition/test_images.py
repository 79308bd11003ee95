from __future__ import annotations

import hashlib
import io
import tracemalloc

import pytest
from PIL import Image

from localcloud.rekognition.images import ImageError, open_image
from tests.localcloud.support import picture, png_header


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "MPO"])
@pytest.mark.parametrize(("width", "height"), [(80, 80), (640, 480), (10_000, 80)])
def test_what_is_supported(image_format: str, width: int, height: int) -> None:
    data = picture(image_format, width, height)
    opened = open_image(data)
    assert opened.sha256 == hashlib.sha256(data).hexdigest()
    assert opened.pixels.mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("side", [100, 1000, 4600])
def test_every_mode_becomes_rgb(mode: str, side: int) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert open_image(buffer.getvalue()).pixels.mode == "RGB"


def test_transparency_is_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (100, 100), (0, 0, 0, 0)).save(buffer, "PNG")
    assert open_image(buffer.getvalue()).pixels.getpixel((50, 50)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("data", "code", "api_code"),
    [
        (b"", "ERROR_INVALID_IMAGE", "InvalidImageFormatException"),
        (b"\xff\xd8\xff", "ERROR_INVALID_IMAGE", "InvalidImageFormatException"),
        (picture("WEBP"), "ERROR_INVALID_IMAGE", "InvalidImageFormatException"),
        (picture("GIF"), "ERROR_INVALID_IMAGE", "InvalidImageFormatException"),
        (picture("BMP"), "ERROR_INVALID_IMAGE", "InvalidImageFormatException"),
        (picture()[:-200], "ERROR_INVALID_IMAGE", "InvalidImageFormatException"),
        (picture("PNG")[:-200], "ERROR_INVALID_IMAGE", "InvalidImageFormatException"),
        (png_header(100, 100), "ERROR_INVALID_IMAGE", "InvalidImageFormatException"),
        (picture(width=79, height=800), "ERROR_INVALID_IMAGE_DIMENSIONS", "InvalidParameterException"),
        (picture(width=10_001, height=80), "ERROR_INVALID_IMAGE_DIMENSIONS", "ImageTooLargeException"),
    ],
)
def test_what_is_not(data: bytes, code: str, api_code: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(data)
    assert (caught.value.code, caught.value.api_code) == (code, api_code)


@pytest.mark.parametrize("side", [20_000, 60_000, 2**31 - 1])
def test_a_bomb_is_told_by_its_header(side: int) -> None:
    tracemalloc.start()
    with pytest.raises(ImageError, match=f"{side} x {side} exceed"):
        open_image(png_header(side, side))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
