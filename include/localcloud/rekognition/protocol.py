"""AWS JSON 1.1 as Rekognition speaks it: targets, answers and errors."""

from __future__ import annotations

import json
import uuid
from typing import Any

from botocore.session import get_session
from starlette.responses import Response

TARGET_PREFIX = "RekognitionService."
CONTENT_TYPE = "application/x-amz-json-1.1"
SERVICE_MODEL = get_session().get_service_model("rekognition")


class ApiError(Exception):
    """An error as the API answers it: name, text for a person, HTTP code."""

    def __init__(self, code: str, message: str | None, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def operation_name(target: str | None) -> str:
    """The operation that X-Amz-Target names; raises ApiError for one the service does not know."""
    prefix, _, name = (target or "").partition(".")
    if f"{prefix}." != TARGET_PREFIX or name not in SERVICE_MODEL.operation_names:
        raise ApiError("UnknownOperationException", None)
    return name


def parse_body(body: bytes) -> dict[str, Any]:
    """The request's JSON object; raises ApiError SerializationException for anything else."""
    try:
        parsed = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise ApiError("SerializationException", None) from None
    if not isinstance(parsed, dict):
        raise ApiError("SerializationException", "Start of structure or map found where not expected.")
    return parsed


def answer(output: dict[str, Any]) -> Response:
    """A successful answer; timestamps in it are epoch seconds."""
    return _response(200, output)


def error_answer(error: ApiError) -> Response:
    """An error answer in the shape of the service's exceptions."""
    body = {"__type": error.code}
    if error.message is not None:
        body |= {"Code": error.code, "Logref": str(uuid.uuid4()), "Message": error.message}
    return _response(error.status, body, {"x-amzn-ErrorType": error.code})


def _response(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(
        json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
        status_code=status,
        headers={"x-amzn-RequestId": str(uuid.uuid4()), **(headers or {})},
        media_type=CONTENT_TYPE,
    )
