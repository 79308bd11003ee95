"""Whether the moderation policies can be used, and each action that they name has a place to go.

No message is sent: whether a receiver takes one shows when it is notified.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from cli.doctor.findings import Finding, attempt, skipped
from cli.doctor.installation import CONNECTIONS, Installation
from modlake.hooks.moderation_actions import WebhookHook
from modlake.operators.arguments import action_targets
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.policy.policy import Policy
from modlake.policy.policy_files import load_policies
from modlake.policy.targets import TARGET_NAMES, Targets

_ACTIONS_POLICY = "compare the identity's policy with include/iam/modlake-actions-policy.json"
_CREATE = "create the bucket, or correct modlake_action_targets"


def check(installation: Installation) -> Iterator[Finding]:
    """Reads policies and targets as the DAG enforce_policy does, then looks at the targets of live ones."""
    targets: dict[str, str] = {}

    def read() -> str:
        uri = installation.variable("modlake_policies_uri")
        policies = load_policies(installation.store, uri)
        settings = action_targets(installation.variable("modlake_action_targets"))
        Targets(settings).check(policies)
        targets.update({kind: settings[kind][TARGET_NAMES[kind]] for kind in _live_kinds(policies)})
        live = sum(policy.status == "live" for policy in policies)
        return f"{len(policies)} in {uri}, {live} of them live, all actions have a target"

    yield attempt("policies", read, "mend what it names (docs/enforcement.md, Settings)")
    for kind, target in sorted(targets.items()):
        yield from _target(installation, kind, target)


def _live_kinds(policies: Iterable[Policy]) -> set[str]:
    live = [policy for policy in policies if policy.status == "live"]
    of_verdicts = {kind for policy in live for kinds in policy.actions.values() for kind in kinds}
    return of_verdicts | {kind for policy in live for rule in policy.rules for kind in rule.actions or ()}


def _target(installation: Installation, kind: str, target: str) -> Iterator[Finding]:
    subject = f"target {kind}"
    match TARGET_NAMES[kind]:
        case "uri":
            yield attempt(subject, partial(_listed, installation, target), f"{_CREATE}; {_ACTIONS_POLICY}")
        case "conn_id" if f"{CONNECTIONS}{target.upper()}" in installation.environment:
            yield attempt(
                subject, partial(_opened, target), "correct the connection (docs/actions.md, Targets)"
            )
        case "conn_id":
            seen = f"{CONNECTIONS}{target.upper()} is not set; Airflow may know the connection from elsewhere"
            yield skipped(subject, seen)
        case "topic_arn" | "queue_url":
            yield skipped(subject, f"{target}: only a message would tell")


def _listed(installation: Installation, uri: str) -> str:
    installation.store.list_page(*split_s3_uri(uri), limit=1)
    return f"{uri} can be listed"


def _opened(conn_id: str) -> str:
    WebhookHook.opened(conn_id)
    return f"the connection {conn_id} has a secret to sign with; nothing was posted"
