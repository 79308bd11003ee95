"""Processes that may be killed, forked from one that has imported everything, as imports take long."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from typing import Any
from unittest import mock

# A test process has one fork server, which imports at its start alone: so it imports for all tests.
_IMPORTED = ["tests.support.faults_worker", "tests.support.actions_worker"]
_PROCESSES = multiprocessing.get_context("forkserver")


def start(function: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start a function in a process of its own."""
    _PROCESSES.set_forkserver_preload(_IMPORTED)
    # Python 3.11 does not hand sys.path on, and then silently preloads nothing.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        forkserver.ensure_running()
    process = _PROCESSES.Process(target=function, args=arguments)
    process.start()
    return process
