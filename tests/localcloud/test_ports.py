"""Ports of killed processes, and of strangers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from localcloud import ports
from localcloud.settings import HOST


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        yield server


def test_the_holder_of_a_port_is_named_at_once(listener: socket.socket) -> None:
    assert f"(pid {os.getpid()})" in (ports.why_taken(listener.getsockname()[1]) or "")


def test_a_port_without_a_living_holder_is_waited_for(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_owner_of", lambda _port: None)
    death = threading.Timer(0.2, listener.close)
    death.start()

    assert ports.why_taken(listener.getsockname()[1]) is None
    death.join()


def test_a_port_that_stays_taken_is_given_up(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_owner_of", lambda _port: None)
    monkeypatch.setattr(ports, "_DYING_LISTENER_SECONDS", 0.1)

    assert ports.why_taken(listener.getsockname()[1]) == "Address already in use"
