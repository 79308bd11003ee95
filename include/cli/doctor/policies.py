"""Whether the moderation policies can be used, and each action that they name has a place to go."""

from __future__ import annotations

import json
from collections.abc import Iterator

from cli.doctor.findings import Finding, attempt
from cli.doctor.installation import Installation
from modlake.exceptions import ModlakeTerminalError
from modlake.policy.intent_planning import Targets
from modlake.policy.policy_files import load_policies


def check(installation: Installation) -> Iterator[Finding]:
    """Reads the policies and the targets as the DAG enforce_policy does; nothing is acted on."""

    def read() -> str:
        uri = installation.variable("modlake_policies_uri")
        policies = load_policies(installation.store, uri)
        Targets(_targets(installation)).check(policies)
        live = sum(policy.status == "live" for policy in policies)
        return f"{len(policies)} in {uri}, {live} of them live, all actions have a target"

    yield attempt("policies", read, "mend what it names (docs/enforcement.md, Settings)")


def _targets(installation: Installation) -> dict[str, dict[str, str]]:
    value = installation.variable("modlake_action_targets")
    try:
        targets = json.loads(value)
    except ValueError:
        targets = None
    if not isinstance(targets, dict) or not all(isinstance(target, dict) for target in targets.values()):
        raise ModlakeTerminalError(
            f"The variable modlake_action_targets does not say where actions go: {value!r}. Mend: write JSON "
            'such as {"quarantine": {"uri": "s3://bucket/"}} into it (docs/actions.md, Targets).'
        )
    return targets
