"""A receiver of webhooks that takes nothing unsigned, and answers as it is told."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    """``answers`` are the statuses and headers of the next requests; then all is well.

    ``accepted`` are the messages by webhook-id, once or more often; ``refused`` counts what had no valid
    signature. Every answer but 204 has the ``body``, as it stands.
    """

    url: str
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    accepted: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    connections: int = 0
    body: bytes = b""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def receive(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        with self.lock:
            try:
                message = Webhook(SECRET).verify(body, headers)
            except WebhookVerificationError:
                self.refused += 1
                return 401, {}
            status, more = self.answers.pop(0) if self.answers else (204, {})
            self.statuses[status] += 1
            if status < 300:
                self.accepted[headers["webhook-id"]].append(message)
            return status, more


@contextmanager
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            with received.lock:
                received.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, headers = received.receive(
                {name.lower(): value for name, value in self.headers.items()}, body
            )
            self.send_response(status)
            answer = b"" if status == 204 else received.body
            for name, value in (headers | {"content-length": str(len(answer))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received = Receiver(f"http://127.0.0.1:{server.server_address[1]}/hooks")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def connection_json(received: Receiver, password: str = SECRET) -> str:
    """Return the Airflow connection to a receiver."""
    return json.dumps({"conn_type": "http", "host": received.url, "password": password})
