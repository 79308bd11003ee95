from __future__ import annotations

from localcloud.rekognition.manifest import LineError, ManifestLine, parse, summary


def test_lines_are_numbered_as_in_the_file() -> None:
    body = b'\xef\xbb\xbf{"source-ref":"s3://b/k 1%20+.jpg"}\r\n\n  \n{"source-ref":"s3://b/dir/\xc3\xbc.png","x":1}\n'
    assert list(parse(body)) == [
        ManifestLine(1, "s3://b/k 1%20+.jpg", "b", "k 1%20+.jpg"),
        ManifestLine(4, "s3://b/dir/ü.png", "b", "dir/ü.png"),
    ]


def test_what_is_no_image_is_told() -> None:
    lines = [b"{", b"[1]", b"7", b'{"source-ref":null}', b'{"source-ref":5}', b'{"source-ref":"s3://b"}']
    lines += [b'{"source-ref":"s3:///k"}', b'{"source-ref":"S3://b/k"}', b'{"source-ref":"s3://b/"}', b"\xff"]
    lines.append(rb'{"source-ref":"s3://b/\ud800"}')
    errors = list(parse(b"\n".join(lines)))
    assert all(isinstance(error, LineError) for error in errors)
    assert [(error.line_number, error.code) for error in errors] == [
        (1, "ERROR_INVALID_JSON_LINE"),
        (2, "ERROR_MISSING_SOURCE_REF"),
        (3, "ERROR_MISSING_SOURCE_REF"),
        (4, "ERROR_MISSING_SOURCE_REF"),
        (5, "ERROR_INVALID_SOURCE_REF_FORMAT"),
        (6, "ERROR_INVALID_SOURCE_REF_FORMAT"),
        (7, "ERROR_INVALID_SOURCE_REF_FORMAT"),
        (8, "ERROR_INVALID_SOURCE_REF_FORMAT"),
        (9, "ERROR_INVALID_SOURCE_REF_FORMAT"),
        (10, "ERROR_INVALID_JSON_LINE"),
        (11, "ERROR_INVALID_SOURCE_REF_FORMAT"),
    ]


def test_summary_has_the_documented_shape() -> None:
    errors = [LineError(1, None, "A", "a"), LineError(3, "s3://b/k", "B", "b")]
    assert summary(total=3, invalid=1, errors=errors, line_number_key="line-numer") == {
        "version": "1.0",
        "statistics": {"total-json-lines": 3, "valid-json-lines": 2, "invalid-json-lines": 1},
        "errors": [
            {"line-numer": 1, "code": "A", "message": "a"},
            {"line-numer": 3, "source-ref": "s3://b/k", "code": "B", "message": "b"},
        ],
    }
