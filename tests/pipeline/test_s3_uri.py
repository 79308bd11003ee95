from __future__ import annotations

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri


@pytest.mark.parametrize(
    "key", ["a b.jpg", "50%.png", "a#b?c=d&e+f.jpg", "x/é😀\n.png", "/leading", "s3://x", ""]
)
def test_split_keeps_every_character_of_the_key(key: str) -> None:
    assert split_s3_uri(f"s3://ugc/{key}") == ("ugc", key)


@pytest.mark.parametrize("uri", ["", "ugc/a.jpg", "https://ugc/a.jpg", "s3://", "s3:///a.jpg", "S3://ugc/a"])
def test_split_refuses_what_is_no_s3_uri(uri: str) -> None:
    with pytest.raises(ModlakeTerminalError, match="s3://bucket/key"):
        split_s3_uri(uri)


@pytest.mark.parametrize("uri", ["s3://work", "s3://work/"])
def test_folder_uri_ends_in_one_slash(uri: str) -> None:
    assert as_folder_uri(uri) == "s3://work/"
