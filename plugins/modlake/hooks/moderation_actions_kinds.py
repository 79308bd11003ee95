"""The kinds of action, on AWS and HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from airflow.providers.amazon.aws.hooks.sns import SnsHook
from airflow.providers.amazon.aws.hooks.sqs import SqsHook

from modlake.hooks.moderation_actions import ModeratedObjectsHook, SnsChannel, SqsChannel, WebhookHook
from modlake.policy.actions.journal import Journal
from modlake.policy.actions.kinds import ActionKind
from modlake.policy.actions.notify import NotifyKind
from modlake.policy.actions.quarantine import QuarantineKind
from modlake.policy.actions.review_queue import ReviewQueueKind
from modlake.policy.actions.tag import TagKind
from modlake.policy.enforcement_folder import EnforcementFolder


def action_kinds(
    objects: ModeratedObjectsHook, folder: EnforcementFolder, aws: Mapping[str, Any]
) -> dict[str, ActionKind]:
    """Return every kind of action by its name.

    :param aws: the arguments of AWS hooks, such as ``aws_conn_id``
    """
    journal = Journal.of_day(objects, folder)
    dead_letters_uri = f"{folder.uri}dead-letters/"
    sns = partial(SnsHook, **{name: value for name, value in aws.items() if name != "region_name"})
    return {
        "tag": TagKind(objects, journal),
        "quarantine": QuarantineKind(objects, journal),
        "review_queue": ReviewQueueKind(objects, objects),
        "notify_sns": NotifyKind(partial(SnsChannel, sns), objects, dead_letters_uri),
        "notify_sqs": NotifyKind(partial(SqsChannel, partial(SqsHook, **aws)), objects, dead_letters_uri),
        "notify_webhook": NotifyKind(WebhookHook.opened, objects, dead_letters_uri),
    }
