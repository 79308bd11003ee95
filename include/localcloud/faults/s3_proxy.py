"""S3 with faults: a proxy in front of SeaweedFS that passes every byte on as it is, or misbehaves.

Requests keep their Host header and their target untouched, so that signatures stay valid.
Run it: python -m localcloud.faults.s3_proxy --home=DIR --port=8333 --upstream-port=9342.
"""

from __future__ import annotations

import argparse
import logging
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

import httpcore
import uvicorn
from starlette.responses import PlainTextResponse, Response

from localcloud.faults.middleware import AbortableProtocol, FaultyCalls, Receive, Scope, Send, abort
from localcloud.faults.plan import CallFault, Service
from localcloud.faults.source import FaultSource
from localcloud.settings import HOST, CloudSettings

PING = "/.ping"  # no bucket can have this name
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"expect", b"proxy-connection"})
_STATUS = {"SlowDown": 503, "ServiceUnavailable": 503, "AccessDenied": 403, "RequestTimeout": 400}
_BUCKET_OPERATIONS = {"GET": "ListObjectsV2", "HEAD": "HeadBucket", "PUT": "CreateBucket"}
_KEY_OPERATIONS = {
    "GET": "GetObject",
    "HEAD": "HeadObject",
    "PUT": "PutObject",
    "DELETE": "DeleteObject",
}


def operation_of(method: str, key: str, query: str) -> str:
    """The S3 operation of a path-style request; the method for what is not told apart here."""
    parameters = parse_qs(query, keep_blank_values=True)
    if not key:
        return "DeleteObjects" if "delete" in parameters else _BUCKET_OPERATIONS.get(method, method)
    if method == "POST":
        return "CreateMultipartUpload" if "uploads" in parameters else "CompleteMultipartUpload"
    if "uploadId" in parameters:
        return {"PUT": "UploadPart", "DELETE": "AbortMultipartUpload"}.get(method, method)
    return _KEY_OPERATIONS.get(method, method)


class S3Dialect:
    """S3 as SeaweedFS speaks it, with the bucket in the path."""

    service: Service = "s3"

    def call_of(self, scope: Scope) -> tuple[str, str] | None:
        path = unquote(scope["raw_path"].decode("latin-1")).lstrip("/")
        if not path or scope["path"] == PING:
            return None
        _, _, key = path.partition("/")
        return operation_of(scope["method"], key, scope["query_string"].decode("latin-1")), path

    def refusal(self, scope: Scope, fault: CallFault) -> Response:
        code = fault.error or ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f"<Error><Code>{escape(code)}</Code><Message>{escape(fault.message)}</Message></Error>"
        )
        return Response(
            "" if scope["method"] == "HEAD" else body,
            status_code=fault.status or _STATUS.get(code, 500),
            media_type="application/xml",
            headers={"x-amz-request-id": uuid.uuid4().hex},
        )


class Forwarder:
    """An ASGI application that does nothing but pass on, with bodies streamed both ways."""

    def __init__(self, upstream_port: int) -> None:
        self._port = upstream_port
        self._pool = httpcore.AsyncConnectionPool(max_connections=None, keepalive_expiry=5.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == PING:
            await PlainTextResponse("healthy")(scope, receive, send)
            return
        started = False
        try:
            async with self._pool.stream(
                scope["method"],
                self._target(scope),
                headers=_passed_on(scope["headers"]),
                content=_body(receive) if _has_body(scope["headers"]) else None,
            ) as answer:
                started = True
                headers = _passed_on(answer.headers)
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                async for chunk in answer.aiter_stream():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            # As without a proxy: who talks to a server that dies sees the connection end.
            log.warning("%s %s: %r%s", scope["method"], scope["path"], error, " midway" if started else "")
            await abort(scope, receive)
        except _ClientGoneError:
            pass

    def _target(self, scope: Scope) -> httpcore.URL:
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        return httpcore.URL(scheme=b"http", host=HOST.encode(), port=self._port, target=target)


class _ClientGoneError(Exception):
    """The client went away before it had sent its whole request."""


log = logging.getLogger(__name__)


def _passed_on(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


def main() -> None:
    parser = argparse.ArgumentParser(prog="localcloud.faults.s3_proxy", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--bind-host", default=HOST)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream-port", type=int, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    source = FaultSource(CloudSettings(home=arguments.home).cloud_dir)
    uvicorn.run(
        FaultyCalls(Forwarder(arguments.upstream_port), source=source, dialect=S3Dialect()),
        host=arguments.bind_host,
        port=arguments.port,
        http=AbortableProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
