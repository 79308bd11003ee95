"""Whether a port of this machine can be listened on."""

from __future__ import annotations

import socket
import time

import psutil

from localcloud.settings import HOST

_DYING_LISTENER_SECONDS = 5.0


def why_taken(port: int) -> str | None:
    """Say why a server can't listen on the port, and who does; None when it can.

    A process that was killed holds its ports until the last of its threads is gone: a port whose
    holder can't be told is given a few seconds to become free.
    """
    deadline = time.monotonic() + _DYING_LISTENER_SECONDS
    while (error := _listening_error(port)) is not None:
        owner = _owner_of(port)
        if owner is not None:
            return f"{error.strerror}, by {owner.name()} (pid {owner.pid})"
        if time.monotonic() > deadline:
            return str(error.strerror)
        time.sleep(0.05)
    return None


def _listening_error(port: int) -> OSError | None:
    with socket.socket() as probe:
        # A port whose last connections are still closing counts as free, as it does for servers.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error
    return None


def _owner_of(port: int) -> psutil.Process | None:
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens and connection.pid is not None:
                return psutil.Process(connection.pid)
    except psutil.Error:
        pass
    return None
