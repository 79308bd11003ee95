"""The ASGI application: one POST route, as AWS has it, and /ping."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from localcloud.rekognition import protocol, signature, validation
from localcloud.rekognition.operations import Operations
from localcloud.rekognition.protocol import ApiError
from localcloud.rekognition.quotas import CallRates
from localcloud.rekognition.runner import JobRunner

log = logging.getLogger(__name__)
_MAX_BODY_BYTES = 10_000_000  # an image of 5 MB in base64, with room


class Api:
    """Answers one signed request: who asks, may they now, is it valid, what is the answer."""

    def __init__(
        self, operations: Operations, rates: CallRates, secrets: Callable[[], Mapping[str, str]], region: str
    ) -> None:
        self._operations = operations
        self._rates = rates
        self._secrets = secrets
        self._region = region

    def answer(self, request: signature.SignedRequest, target: str | None) -> Response:
        """Never raises: every failure is an answer in the service's shape."""
        try:
            operation = protocol.operation_name(target)
            access_key = signature.verify(request, self._secrets(), self._region, datetime.now(UTC))
            perform = self._operations.named(operation)
            self._rates.take(operation)
            parameters = validation.validated(operation, protocol.parse_body(request.body))
            response = protocol.answer(perform(parameters, access_key))
        except ApiError as error:
            response = protocol.error_answer(error)
            log.info("%s: %s %s", target, error.code, error.message or "")
        except Exception:
            log.exception("%s failed by a fault of the stand-in", target)
            response = protocol.error_answer(ApiError("InternalServerError", "Internal server error", 500))
        return response


def create_app(api: Api, runner: JobRunner, middleware: Sequence[Middleware] = ()) -> Starlette:
    """The service; `middleware` may come between it and its clients (rehearsing faults)."""

    async def call(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                return protocol.error_answer(
                    ApiError("RequestEntityTooLargeException", "Request too large", 413)
                )
        signed = signature.SignedRequest(request.method, str(request.url), request.headers, bytes(body))
        return await run_in_threadpool(api.answer, signed, request.headers.get("x-amz-target"))

    async def ping(_: Request) -> Response:
        return PlainTextResponse("healthy")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(runner.resume)
        yield
        await run_in_threadpool(runner.stop)

    return Starlette(
        routes=[Route("/ping", ping), Route("/", call, methods=["POST"])],
        middleware=list(middleware),
        lifespan=lifespan,
    )
