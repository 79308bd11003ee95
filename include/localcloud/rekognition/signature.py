"""Signature Version 4 of incoming requests, recomputed with botocore's own signer."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPMessage

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from localcloud.rekognition.protocol import ApiError

SERVICE = "rekognition"
MAX_SKEW = timedelta(minutes=5)
_ALGORITHM = "AWS4-HMAC-SHA256"
_TIME_FORMAT = "%Y%m%dT%H%M%SZ"
_FIELD = re.compile(r"(Credential|SignedHeaders|Signature)=([^,\s]+)")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What of an HTTP request enters its signature."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


def verify(request: SignedRequest, secrets: Mapping[str, str], region: str, now: datetime) -> str:
    """The access key that signed the request.

    Raises ApiError: MissingAuthenticationTokenException, IncompleteSignatureException,
    UnrecognizedClientException or InvalidSignatureException.
    """
    headers = {name.lower(): value for name, value in request.headers.items()}
    authorization = headers.get("authorization")
    if authorization is None:
        raise ApiError("MissingAuthenticationTokenException", "Request is missing Authentication Token")
    fields = dict(_FIELD.findall(authorization))
    signed_names = fields.get("SignedHeaders", "").split(";")
    _require_complete(authorization, fields, signed_names, headers)
    access_key, date, scope_region, scope_service = _scope(fields["Credential"])
    _require_scope(scope_region, scope_service, region)
    secret = secrets.get(access_key)
    if secret is None:
        raise ApiError(
            "UnrecognizedClientException", "The security token included in the request is invalid."
        )
    _require_current(headers["x-amz-date"], date, now)
    signed = {name: headers[name] for name in signed_names if name in headers}
    if not _matches(request, signed, Credentials(access_key, secret), region, fields["Signature"]):
        raise ApiError(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS "
            "Secret Access Key and signing method. Consult the service documentation for details.",
        )
    return access_key


class _Verifier(SigV4Auth):
    """Signs exactly the headers that the client signed, whatever their names."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPMessage:
        signed = HTTPMessage()
        for name, value in request.headers.items():
            signed[name.lower()] = value
        return signed


def _matches(
    request: SignedRequest, signed: dict[str, str], credentials: Credentials, region: str, signature: str
) -> bool:
    body_hash = hashlib.sha256(request.body).hexdigest()
    if signed.get("x-amz-content-sha256", body_hash) != body_hash:
        return False
    candidate = AWSRequest(method=request.method, url=request.url, data=request.body, headers=signed)
    candidate.context["timestamp"] = signed["x-amz-date"]
    verifier = _Verifier(credentials, SERVICE, region)
    string_to_sign = verifier.string_to_sign(candidate, verifier.canonical_request(candidate))
    return hmac.compare_digest(verifier.signature(string_to_sign, candidate), signature)


def _require_complete(
    authorization: str, fields: dict[str, str], signed_names: list[str], headers: dict[str, str]
) -> None:
    if not authorization.startswith(_ALGORITHM):
        raise ApiError(
            "IncompleteSignatureException", f"Unsupported AWS 'algorithm': only {_ALGORITHM} is known."
        )
    for name in ("Credential", "Signature", "SignedHeaders"):
        if name not in fields:
            raise ApiError(
                "IncompleteSignatureException", f"Authorization header requires '{name}' parameter."
            )
    if "x-amz-date" not in headers:
        raise ApiError(
            "IncompleteSignatureException", "Authorization header requires existence of 'X-Amz-Date'."
        )
    for name in ("host", "x-amz-date"):
        if name not in signed_names:
            raise ApiError(
                "InvalidSignatureException", f"'{name}' must be a 'SignedHeader' in the Authorization."
            )


def _scope(credential: str) -> tuple[str, str, str, str]:
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or parts[4] != "aws4_request":
        raise ApiError(
            "IncompleteSignatureException",
            "Credential must have exactly 5 slash-delimited elements: key/date/region/service/aws4_request.",
        )
    return parts[0], parts[1], parts[2], parts[3]


def _require_scope(region: str, service: str, expected_region: str) -> None:
    if region != expected_region:
        raise ApiError(
            "InvalidSignatureException",
            f"Credential should be scoped to a valid region, not '{region}': use {expected_region}.",
        )
    if service != SERVICE:
        raise ApiError(
            "InvalidSignatureException", f"Credential should be scoped to correct service: '{SERVICE}'."
        )


def _require_current(amz_date: str, scope_date: str, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(amz_date, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise ApiError(
            "IncompleteSignatureException", f"Date must be in ISO-8601 'basic format': {amz_date}"
        ) from None
    if scope_date != amz_date[:8]:
        raise ApiError(
            "InvalidSignatureException", "Date in Credential scope does not match YYYYMMDD of the request."
        )
    at = now.strftime(_TIME_FORMAT)
    if signed_at < now - MAX_SKEW:
        raise ApiError(
            "InvalidSignatureException", f"Signature expired: {amz_date} is now earlier than {at} - 5 min."
        )
    if signed_at > now + MAX_SKEW:
        raise ApiError(
            "InvalidSignatureException",
            f"Signature not yet current: {amz_date} is still later than {at} + 5 min.",
        )
