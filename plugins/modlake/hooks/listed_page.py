"""Pages of ListObjectsV2 read into columns, without botocore's parser, which takes longer than S3 itself."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from modlake.pipeline.object_store import ListedPage

if TYPE_CHECKING:
    import pyarrow as pa
    from mypy_boto3_s3 import S3Client

_BODY = "ModlakeListingBody"
_ROOT = re.compile(rb"<ListBucketResult[\s>]")
_END = b"</ListBucketResult>"
_CONTINUATION = re.compile(rb"<NextContinuationToken>([^<]*)</NextContinuationToken>")
_CONTENTS = re.compile(rb"<Contents>(.*?)</Contents>", re.DOTALL)
_FIELDS = {
    "key": re.compile(rb"<Key>([^<]*)</Key>"),
    "size_bytes": re.compile(rb"<Size>([^<]*)</Size>"),
    # Quoted, and the quotes escaped in one way or another.
    "etag": re.compile(rb"<ETag>(?:&quot;|&#34;|\")?([^<&\"]*)[^<]*</ETag>"),
    "last_modified": re.compile(rb"<LastModified>([^<]*)</LastModified>"),
}


def keep_bodies(client: S3Client) -> None:
    """Let the client's list_objects_v2 hand over whole answers unparsed, for :func:`read_page`.

    Signing, retries, redirects and errors stay botocore's: only a complete listing is set aside.
    """
    # The widest pattern comes first: botocore's own handler would parse the answer to look for an error.
    client.meta.events.register_first("before-parse.*.*", _set_aside)


def _set_aside(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    body: bytes = response_dict["body"]
    if response_dict["status_code"] == 200 and _ROOT.search(body[:500]) and body.rstrip().endswith(_END):
        customized_response_dict[_BODY] = body
        response_dict["body"] = b"<ListBucketResult/>"


def read_page(answer: dict[str, Any], limit: int) -> ListedPage:
    """Return the page in an answer of a client that keeps bodies, which was asked for so many objects."""
    import pyarrow as pa

    body: bytes = answer[_BODY]
    # What tells of the page itself may stand before or after its entries.
    frame = body[: body.find(b"<Contents>")] + body[body.rfind(b"</Contents>") :]
    columns = _columns(body)
    objects = pa.table(
        {
            "key": _keys(columns["key"], is_url_encoded=b"<EncodingType>url<" in frame),
            "size_bytes": _strings(columns["size_bytes"]).cast(pa.int64()),
            "etag": _strings(columns["etag"]),
            "last_modified": _strings(columns["last_modified"]).cast(pa.timestamp("us", tz="UTC")),
        }
    )
    continuation = _CONTINUATION.search(frame)
    return ListedPage(
        objects,
        is_last=b"<IsTruncated>true<" not in frame,
        continuation=_unescaped(continuation[1]) if continuation is not None else "",
        is_full=objects.num_rows >= limit,
    )


def _columns(body: bytes) -> dict[str, list[bytes]]:
    columns = {name: field.findall(body) for name, field in _FIELDS.items()}
    entries = body.count(b"<Contents>")
    if all(len(values) == entries for values in columns.values()):
        return columns
    # An entry lacks a field; every one has a key.
    found = [
        {name: field.search(entry) for name, field in _FIELDS.items()} for entry in _CONTENTS.findall(body)
    ]
    absent = {"key": b"", "size_bytes": b"0", "etag": b"", "last_modified": b"1970-01-01T00:00:00Z"}
    return {
        name: [match[1] if (match := fields[name]) else absent[name] for fields in found] for name in _FIELDS
    }


def _keys(escaped: list[bytes], *, is_url_encoded: bool) -> pa.Array[Any]:
    import pyarrow as pa

    everything = b"".join(escaped)
    has_entities = b"&" in everything
    has_codes = is_url_encoded and (b"%" in everything or b"+" in everything)
    if not has_entities and not has_codes:
        return _strings(escaped)
    keys = [_unescaped(key) for key in escaped]
    return pa.array(map(unquote_plus, keys) if has_codes else keys, pa.string())


def _unescaped(text: bytes) -> str:
    if b"&" not in text:
        return text.decode()
    return ET.fromstring(b"<k>" + text + b"</k>").text or ""  # noqa: S314 a text without tags, of S3


def _strings(values: list[bytes]) -> pa.Array[Any]:
    import pyarrow as pa

    return pa.array(values, pa.binary()).cast(pa.string())
