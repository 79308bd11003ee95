"""Misbehaviour on the wire: errors, delays and lost connections, in front of an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from localcloud.faults.plan import CallFault, Service
from localcloud.faults.source import FaultSource

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_ABORT = "localcloud.abort"
_FRAMING = (b"content-length", b"transfer-encoding")


class AbortableProtocol(HttpToolsProtocol):
    """For `uvicorn.run(http=...)`: lets an application reset its client's connection, which ASGI can't."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_ABORT: {"abort": self.transport.abort}}


async def abort(scope: Scope, receive: Receive) -> None:
    """Reset the client's connection, and wait until that has happened."""
    scope["extensions"][_ABORT]["abort"]()
    while (await receive())["type"] != "http.disconnect":
        pass


class Dialect(Protocol):
    """How a service names calls and refuses them."""

    service: Service

    def call_of(self, scope: Scope) -> tuple[str, str] | None:
        """Operation and subject of a request; None for what no fault may befall."""
        ...

    def refusal(self, scope: Scope, fault: CallFault) -> Response:
        """The answer with which the service refuses."""
        ...


class FaultyCalls:
    """Passes calls on to the application, but for those that a fault befalls."""

    def __init__(self, app: Application, *, source: FaultSource, dialect: Dialect) -> None:
        self._app = app
        self._source = source
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self._dialect.call_of(scope) if scope["type"] == "http" else None
        if call is None or not self._source.befalls_calls_of(self._dialect.service):
            await self._app(scope, receive, send)
            return
        operation, subject = call
        fault = await run_in_threadpool(self._source.call_fault, self._dialect.service, operation, subject)
        if fault is None:
            await self._app(scope, receive, send)
            return
        told = f"{operation} {subject}".rstrip()
        if fault.error is not None:
            await self._refuse(fault, told, scope, receive, send)
        elif fault.cut is not None:
            await self._cut(fault, told, scope, receive, send)
        else:
            await self._delay(fault, told, scope, receive, send)

    async def _refuse(self, fault: CallFault, told: str, scope: Scope, receive: Receive, send: Send) -> None:
        await _body_of(receive)
        self._source.record(fault.kind, told)
        await self._dialect.refusal(scope, fault)(scope, receive, send)

    async def _cut(self, fault: CallFault, told: str, scope: Scope, receive: Receive, send: Send) -> None:
        answer: list[Message] = []
        if fault.cut != "request":
            answer = await self._answer(scope, receive)
        self._source.record(fault.kind, told)
        if fault.cut == "body" and answer:
            await _send_half(answer, send)
        else:
            await abort(scope, receive)

    async def _delay(self, fault: CallFault, told: str, scope: Scope, receive: Receive, send: Send) -> None:
        assert fault.delay_seconds is not None
        if fault.after_effect:
            answer = await self._answer(scope, receive)
            self._source.record(fault.kind, told)
            if await _client_waits(receive, fault.delay_seconds):
                for message in answer:
                    await send(message)
            return
        body = await _body_of(receive)
        self._source.record(fault.kind, told)
        if fault.detached:
            await asyncio.sleep(fault.delay_seconds)
        elif not await _client_waits(receive, fault.delay_seconds):
            return
        await self._app(scope, _replayed(body, receive), send)

    async def _answer(self, scope: Scope, receive: Receive) -> list[Message]:
        """Let the call take effect, and keep the answer back."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        return messages


async def _body_of(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _client_waits(receive: Receive, seconds: float) -> bool:
    """Hold the call; False as soon as the client has gone away."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        await asyncio.wait_for(gone(), seconds)
    except TimeoutError:
        return True
    return False


async def _send_half(answer: list[Message], send: Send) -> None:
    """Announce the whole body and end within it: the server then closes the connection."""
    body = b"".join(message.get("body", b"") for message in answer[1:])
    start = dict(answer[0])
    headers = [(name, value) for name, value in start["headers"] if name.lower() not in _FRAMING]
    start["headers"] = [*headers, (b"content-length", str(max(len(body), 2)).encode())]
    await send(start)
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
