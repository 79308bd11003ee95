from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modlake.pipeline.eligibility import (
    MAX_IMAGE_BYTES,
    IneligibleCode,
    find_ineligibilities,
    find_ineligibility,
)

PIECES = [
    "a",
    "B",
    "_",
    ".",
    "/",
    "\n",
    "\x7f",
    "\x85",
    " ",
    "é",
    "😀",
    ".jpg",
    ".JPeG",
    ".png",
    ".webp",
    ".json",
]
KEYS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.lists(st.sampled_from(PIECES), min_size=1).map("".join),
)


def code_of(key: str, size_bytes: int = 1) -> IneligibleCode | None:
    found = find_ineligibility(key, size_bytes)
    return found.code if found else None


@pytest.mark.parametrize(
    "key",
    [
        "a.jpg",
        "a.JPEG",
        "a.png",
        "no-extension",
        "a.unknown",
        "v1.2/photo",
        "a.webp/b",
        ".gif",
        "a b+%#?'\".jpg",
        "é😀.png",
    ],
)
def test_images_and_unknown_names_are_eligible(key: str) -> None:
    assert code_of(key) is None


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("a.webp", IneligibleCode.UNSUPPORTED_FORMAT),
        ("d/A.GIF", IneligibleCode.UNSUPPORTED_FORMAT),
        ("clip.Mp4", IneligibleCode.UNSUPPORTED_FORMAT),
        ("x.jpg.heic", IneligibleCode.UNSUPPORTED_FORMAT),
        ("meta.json", IneligibleCode.NOT_AN_IMAGE),
        ("d/_SUCCESS", IneligibleCode.NOT_AN_IMAGE),
        ("d/_hidden.jpg", IneligibleCode.NOT_AN_IMAGE),
        ("d/", IneligibleCode.FOLDER_MARKER),
        ("a\nb.jpg", IneligibleCode.UNSUPPORTED_KEY),
        ("a\x00.jpg", IneligibleCode.UNSUPPORTED_KEY),
        ("a\x7f.jpg", IneligibleCode.UNSUPPORTED_KEY),
        ("a\x85.jpg", IneligibleCode.UNSUPPORTED_KEY),
    ],
)
def test_names_tell_what_can_not_be_judged(key: str, code: IneligibleCode) -> None:
    assert code_of(key) is code


@pytest.mark.parametrize(
    ("size_bytes", "code"),
    [
        (0, IneligibleCode.EMPTY_OBJECT),
        (1, None),
        (15 * 1024 * 1024, None),
        (15 * 1024 * 1024 + 1, IneligibleCode.TOO_LARGE),
    ],
)
def test_sizes_at_the_limits(size_bytes: int, code: IneligibleCode | None) -> None:
    assert MAX_IMAGE_BYTES == 15_728_640
    assert code_of("a.jpg", size_bytes) is code


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, st.sampled_from([0, 1, MAX_IMAGE_BYTES, MAX_IMAGE_BYTES + 1]))))
def test_columns_are_judged_as_single_objects_are(objects: list[tuple[str, int]]) -> None:
    table = pa.table(
        {
            "key": pa.array([key for key, _ in objects], pa.string()),
            "size_bytes": pa.array([size for _, size in objects], pa.int64()),
        }
    )
    codes, messages = find_ineligibilities(table)
    single = [find_ineligibility(*each) for each in objects]
    assert codes.to_pylist() == [found and found.code for found in single]
    assert messages.to_pylist() == [found and found.message for found in single]
