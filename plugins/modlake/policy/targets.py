"""Where actions go, by kind, as the settings say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modlake.exceptions import ModlakeTerminalError
from modlake.policy.policy import Policy

# What a target is called in the settings, by kind of action.
TARGET_NAMES = {
    "tag": "key",
    "quarantine": "uri",
    "review_queue": "uri",
    "notify_sns": "topic_arn",
    "notify_sqs": "queue_url",
    "notify_webhook": "conn_id",
}


class Targets:
    """Where actions go, by kind; as in the Airflow variable ``modlake_action_targets``."""

    def __init__(self, settings: Mapping[str, Mapping[str, str]]) -> None:
        self._settings = settings

    def check(self, policies: Iterable[Policy]) -> None:
        """Raise ModlakeTerminalError when a live policy names a kind that has no target."""
        for policy in policies:
            if policy.status == "live":
                named = {kind for kinds in policy.actions.values() for kind in kinds}
                for kind in sorted(named | {kind for rule in policy.rules for kind in rule.actions or ()}):
                    self._check(policy, kind)

    def _check(self, policy: Policy, kind: str) -> None:
        name = TARGET_NAMES.get(kind)
        if name is None:
            raise ModlakeTerminalError(
                f"The policy {policy.name} names the action {kind!r}, which there is not: "
                f"choose among {', '.join(TARGET_NAMES)}."
            )
        if not self._settings.get(kind, {}).get(name):
            raise ModlakeTerminalError(
                f"The policy {policy.name} names the action {kind!r}, which has no target: set "
                f'{{"{kind}": {{"{name}": …}}}} in the Airflow variable modlake_action_targets.'
            )

    def of(self, kind: str, verdict: str) -> str:
        target = self._settings[kind][TARGET_NAMES[kind]]
        # A tag tells the verdict: another verdict is another action.
        return f"{target}={verdict}" if kind == "tag" else target
