"""Pages of a listing as S3 and SeaweedFS send them, over botocore but for its parser."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from botocore.awsrequest import AWSResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.hooks.object_store import S3ObjectStoreHook

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
# XML 1.0 has no place for control characters; S3 sends those URL-encoded.
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1)


def of_s3(key: str, *, is_encoded: bool = True) -> str:
    text = quote_plus(key, safe="/") if is_encoded else escape(key)
    return (
        f"<Contents><Key>{text}</Key><LastModified>2026-11-21T06:30:00.000Z</LastModified>"
        "<ETag>&quot;0cc1-2&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>"
        "<Size>3</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def of_seaweedfs(key: str) -> str:
    return (
        f"<Contents><Key>{escape(key)}</Key><ETag>&#34;0cc1-2&#34;</ETag><Size>3</Size>"
        "<StorageClass>STANDARD</StorageClass><LastModified>2026-11-21T06:30:00Z</LastModified></Contents>"
    )


def page(entries: str, *, is_truncated: bool = False, encoding: str = "", token: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="{NAMESPACE}"><Name>ugc</Name>'
        f"<Prefix>d/</Prefix><IsTruncated>{str(is_truncated).lower()}</IsTruncated>{encoding}{entries}"
        f"{token and f'<NextContinuationToken>{escape(token)}</NextContinuationToken>'}"
        "</ListBucketResult>"
    ).encode()


URL_ENCODED = "<EncodingType>url</EncodingType>"


class Answering:
    """A hook whose requests get these answers, one after another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, bytes]) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "key")
        self.answers = list(answers)
        self.urls: list[str] = []
        self.hook = S3ObjectStoreHook(aws_conn_id=None, region_name="us-east-1")
        self.hook._lister.meta.events.register("before-send.s3.ListObjectsV2", self._answer)

    def _answer(self, request: Any, **_: object) -> AWSResponse:
        self.urls.append(request.url)
        status, body = self.answers.pop(0)
        return _Response(request.url, status, {}, body)


class _Response(AWSResponse):
    def __init__(self, url: str, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(url, status, headers, None)
        self._content = body


@pytest.mark.parametrize(
    ("entry", "encoding"),
    [(of_s3, URL_ENCODED), (of_seaweedfs, ""), (lambda key: of_s3(key, is_encoded=False), "")],
    ids=["s3", "seaweedfs", "unencoded"],
)
def test_a_page_in_columns(
    monkeypatch: pytest.MonkeyPatch, entry: Callable[[str], str], encoding: str
) -> None:
    keys = ["d/a.jpg", "d/a b+c&<é>%41.jpg", "d/日/'\"x.png"]
    answering = Answering(
        monkeypatch, (200, page("".join(map(entry, keys)), is_truncated=True, encoding=encoding))
    )

    listed = answering.hook.list_page("ugc", "d/", after="d/A", limit=3)

    assert listed.objects.to_pylist() == [
        {
            "key": key,
            "size_bytes": 3,
            "etag": "0cc1-2",
            "last_modified": datetime(2026, 11, 21, 6, 30, tzinfo=UTC),
        }
        for key in keys
    ]
    assert not listed.is_last
    (url,) = answering.urls
    assert "start-after=d%2FA" in url
    assert "max-keys=3" in url


def test_any_key_arrives_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    answering = Answering(monkeypatch)

    @given(st.lists(KEYS))
    @settings(deadline=None)
    def lists(keys: list[str]) -> None:
        answering.answers = [
            (200, page("".join(map(of_s3, keys)), encoding=URL_ENCODED)),
            (200, page("".join(map(of_seaweedfs, keys)))),
        ]
        for _ in range(2):
            assert answering.hook.list_page("ugc", "d/").objects["key"].to_pylist() == keys

    lists()


def test_control_characters_arrive_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    answering = Answering(monkeypatch, (200, page(of_s3("d/\x01\n\x7f.jpg"), encoding=URL_ENCODED)))
    assert answering.hook.list_page("ugc", "d/").objects["key"].to_pylist() == ["d/\x01\n\x7f.jpg"]


def test_a_listing_goes_on_with_what_the_store_told(monkeypatch: pytest.MonkeyPatch) -> None:
    token = "1ueGcxLPRx1Tr/XYE+&<="
    first = page(of_s3("d/a") + of_s3("d/b"), is_truncated=True, token=token)
    answering = Answering(monkeypatch, (200, first), (200, page(of_s3("d/c"))))
    listed = answering.hook.list_page("ugc", "d/", limit=2)
    assert (listed.is_last, listed.is_full, listed.last_key, listed.continuation) == (
        False,
        True,
        "d/b",
        token,
    )
    listed = answering.hook.list_page("ugc", "d/", after="d/b", continuation=token, limit=2)
    assert (listed.is_last, listed.is_full, listed.continuation) == (True, False, "")
    assert f"continuation-token={quote_plus(token)}" in answering.urls[1]
    assert "start-after" not in answering.urls[1]


def test_a_page_of_nothing_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    answering = Answering(monkeypatch, (200, page("")))
    listed = answering.hook.list_page("ugc", "d/")
    assert (listed.objects.num_rows, listed.is_last) == (0, True)
    assert "start-after" not in answering.urls[0]


def test_an_entry_that_lacks_a_field_does_not_shift_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = "<Contents><Key>d/bare</Key><Size>1</Size></Contents>"
    answering = Answering(monkeypatch, (200, page(bare + of_s3("d/whole"))))
    bare_row, whole = answering.hook.list_page("ugc", "d/").objects.to_pylist()
    assert (bare_row["key"], bare_row["size_bytes"], bare_row["etag"]) == ("d/bare", 1, "")
    assert (whole["key"], whole["size_bytes"], whole["etag"]) == ("d/whole", 3, "0cc1-2")


def test_errors_and_cut_answers_stay_botocores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    error = b"<Error><Code>%s</Code><Message>m</Message></Error>"
    cut = page(of_s3("d/a"))[:-30]
    whole = page(of_s3("d/a"))
    retried = Answering(
        monkeypatch, (503, error % b"SlowDown"), (200, error % b"InternalError"), (200, whole)
    )
    assert retried.hook.list_page("ugc", "d/").objects["key"].to_pylist() == ["d/a"]
    with pytest.raises(ModlakeTerminalError, match="no bucket 'ugc'"):
        Answering(monkeypatch, (404, error % b"NoSuchBucket")).hook.list_page("ugc", "d/")
    with pytest.raises(ModlakeTransientError, match="s3://ugc/d/"):
        Answering(monkeypatch, *[(200, cut)] * 6).hook.list_page("ugc", "d/")
