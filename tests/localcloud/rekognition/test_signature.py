from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from localcloud.rekognition.protocol import ApiError
from localcloud.rekognition.signature import SignedRequest, verify

REGION = "us-east-1"
SECRETS = {"key": "secret"}


def signed(
    service: str = "rekognition", region: str = REGION, secret: str = "secret", **headers: str
) -> SignedRequest:
    request = AWSRequest(
        "POST",
        "http://127.0.0.1:8334/",
        data=b'{"MaxResults":1}',
        headers={"X-Amz-Target": "RekognitionService.ListFaces", "Host": "127.0.0.1:8334", **headers},
    )
    SigV4Auth(Credentials("key", secret), service, region).add_auth(request)
    return SignedRequest("POST", request.url, dict(request.headers), b'{"MaxResults":1}')


def refusal(request: SignedRequest, now: datetime | None = None) -> tuple[str, str]:
    with pytest.raises(ApiError) as caught:
        verify(request, SECRETS, REGION, now or datetime.now(UTC))
    assert caught.value.status == 400
    return caught.value.code, str(caught.value)


def with_header(request: SignedRequest, name: str, value: str | None) -> SignedRequest:
    headers = {key: old for key, old in request.headers.items() if key.lower() != name.lower()}
    return replace(request, headers=headers if value is None else headers | {name: value})


def test_the_signer_is_known_by_its_key() -> None:
    assert verify(signed(), SECRETS, REGION, datetime.now(UTC)) == "key"


def test_headers_that_were_not_signed_do_not_matter() -> None:
    assert verify(with_header(signed(), "Via", "1.1 proxy"), SECRETS, REGION, datetime.now(UTC)) == "key"


@pytest.mark.parametrize(
    "tampered",
    [
        lambda: replace(signed(), body=b'{"MaxResults":2}'),
        lambda: replace(signed(), url="http://127.0.0.1:8334/?a=1"),
        lambda: replace(signed(), method="PUT"),
        lambda: with_header(signed(), "X-Amz-Target", "RekognitionService.DeleteCollection"),
        lambda: signed(**{"X-Amz-Content-SHA256": "0" * 64}),
        lambda: signed(secret="wrong"),
    ],
)
def test_what_was_changed_after_signing(tampered: Callable[[], SignedRequest]) -> None:
    code, message = refusal(tampered())
    assert code == "InvalidSignatureException"
    assert "does not match the signature you provided" in message


@pytest.mark.parametrize(("minutes", "told"), [(6, "Signature expired"), (-6, "Signature not yet current")])
def test_clock_skew(minutes: int, told: str) -> None:
    code, message = refusal(signed(), datetime.now(UTC) + timedelta(minutes=minutes))
    assert code == "InvalidSignatureException"
    assert told in message
    assert verify(signed(), SECRETS, REGION, datetime.now(UTC) + timedelta(minutes=minutes * 2 / 3)) == "key"


@pytest.mark.parametrize(
    ("scope", "told"),
    [({"region": "eu-west-1"}, "not 'eu-west-1'"), ({"service": "s3"}, "correct service: 'rekognition'")],
)
def test_credential_scope(scope: dict[str, str], told: str) -> None:
    code, message = refusal(signed(**scope))
    assert code == "InvalidSignatureException"
    assert told in message


def test_an_unknown_key() -> None:
    with pytest.raises(ApiError) as caught:
        verify(signed(), {}, REGION, datetime.now(UTC))
    assert caught.value.code == "UnrecognizedClientException"


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("Authorization", None, "MissingAuthenticationTokenException"),
        ("Authorization", "Basic abc", "IncompleteSignatureException"),
        ("Authorization", "AWS4-HMAC-SHA256 Credential=key/x/us-east-1", "IncompleteSignatureException"),
        (
            "Authorization",
            "AWS4-HMAC-SHA256 Credential=key/us, SignedHeaders=host;x-amz-date, Signature=a",
            "IncompleteSignatureException",
        ),
        ("X-Amz-Date", None, "IncompleteSignatureException"),
        ("X-Amz-Date", "yesterday", "IncompleteSignatureException"),
        ("X-Amz-Date", "20200101T000000Z", "InvalidSignatureException"),
    ],
)
def test_headers_that_are_not_right(header: str, value: str | None, code: str) -> None:
    assert refusal(with_header(signed(), header, value))[0] == code
