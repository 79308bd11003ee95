"""The kinds of action, and what all of them need."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

from modlake.policy.actions.objects import StoredObject
from modlake.policy.intents import ActionResult, Intent, Status

# The order in which the actions of one image are carried out; they are taken back in the opposite one.
ORDER = ("tag", "review_queue", "quarantine", "notify_sns", "notify_sqs", "notify_webhook")

ACTION_ID_METADATA = "modlake-action-id"


class ActionKind(Protocol):
    """One kind of action. Doing the same intent again changes nothing and returns the same status.

    Raises ModlakeTransientError for what may go better later, ModlakeTerminalError for what won't.
    """

    def do(self, intent: Intent) -> ActionResult: ...

    def undo(self, intent: Intent) -> ActionResult:
        """Take back the action ``intent.undoes``, whose detail is ``intent.detail["original"]``."""
        ...


def result_of(intent: Intent, status: Status, **detail: Any) -> ActionResult:
    """Return the result of an intent that has come to its end now."""
    return ActionResult(
        action_id=intent.action_id,
        status=status,
        detail=detail,
        completed_at=datetime.now(UTC).isoformat(),
        undoes=intent.undoes,
    )


def not_the_judged_one(intent: Intent, found: StoredObject | None) -> ActionResult:
    """Return the result for an object that was deleted or replaced after it was judged."""
    if found is None:
        return result_of(intent, "gone", message=f"{intent.source_ref} is not there any more.")
    return result_of(
        intent,
        "replaced",
        found_etag=found.etag,
        message=(
            f"{intent.source_ref} was replaced after it was judged, and is left alone: "
            "the next run of moderate_images for its day lists and judges the new object."
        ),
    )


def never_done(intent: Intent) -> ActionResult:
    """Return the result of taking back what was never carried out."""
    return result_of(intent, "completed", message="It was never carried out.")


def withdrawn(intent: Intent) -> ActionResult:
    """Return the result of what is not to be carried out any more."""
    said = "It is not asked for any more: another enforcement of the day has ended it, or takes it back."
    return result_of(intent, "withdrawn", message=said)


def facts_of(intent: Intent) -> dict[str, Any]:
    """Return what people and receivers are told of a decision: names and labels, never an image."""
    return {
        "action_id": intent.action_id,
        "day": intent.day,
        "source_ref": intent.source_ref,
        "etag": intent.etag,
        "verdict": intent.verdict,
        "policy": intent.policy,
        "policy_version": intent.policy_version,
        "rule": intent.rule,
        "labels": intent.detail.get("labels", []),
    }
