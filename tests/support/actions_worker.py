"""One attempt at a batch of actions, in a process of its own that ends by SIGKILL at a given step."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import re
import signal
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
import httpx
from botocore.httpsession import URLLib3Session
from botocore.loaders import JSONFileLoader

from modlake.hooks.moderation_actions import ModeratedObjectsHook
from modlake.hooks.moderation_actions_kinds import action_kinds
from modlake.policy.actions.batch import Limits, carry_out
from modlake.policy.enforcement_folder import EnforcementFolder
from tests.support.actions import all_of


@dataclass(frozen=True)
class Death:
    """Where an attempt is killed: the nth request whose ``METHOD url`` matches, unsent or answered."""

    pattern: str
    after: bool = False
    nth: int = 1


CHANGES = "^(PUT|POST|DELETE) "


@dataclass(frozen=True)
class Attempt:
    environment: dict[str, str]
    folder: EnforcementFolder
    batch: int = 0
    threads: int = 1
    death: Death | None = None


def perform(attempt: Attempt) -> None:
    os.environ.update(attempt.environment)
    if attempt.death is not None:
        count = itertools.count(1)
        for client, method in ((URLLib3Session, "send"), (httpx.Client, "send")):
            setattr(client, method, _deadly(getattr(client, method), attempt.death, count))
    hook = ModeratedObjectsHook(aws_conn_id=None)
    carry_out(
        hook,
        attempt.folder,
        attempt.batch,
        action_kinds(hook, attempt.folder, {"aws_conn_id": None}),
        holder=str(uuid.uuid4()),
        still_requested=all_of,
        report=lambda _: None,
        limits=Limits(per_second=1_000, threads=attempt.threads, backoff_seconds=0.01),
    )


def _deadly(send: Callable[..., Any], death: Death, count: itertools.count[int]) -> Callable[..., Any]:
    @functools.wraps(send)
    def step(client: Any, request: Any, **kwargs: Any) -> Any:
        is_last = re.search(death.pattern, f"{request.method} {request.url}") and next(count) == death.nth
        if is_last and not death.after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = send(client, request, **kwargs)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return step


def _warm_up() -> None:
    """Do once, before attempts are forked, what each of them would do again."""
    load = functools.cache(functools.partial(JSONFileLoader.load_file, JSONFileLoader()))
    JSONFileLoader.load_file = lambda _, path: load(path)  # type: ignore[method-assign]
    for service in ("s3", "sts"):
        boto3.session.Session().client(
            service, region_name="us-east-1", aws_access_key_id="", aws_secret_access_key=""
        )
    inspect.stack()


_warm_up()
