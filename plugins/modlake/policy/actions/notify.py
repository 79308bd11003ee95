"""Telling other systems what was decided."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.s3_uri import as_folder_uri
from modlake.policy.actions.kinds import facts_of, result_of
from modlake.policy.intents import ActionResult, Intent

DECISION = "moderation.decision"
RETRACTION = "moderation.retraction"


class ReceiverBusyError(ModlakeTransientError):
    """A receiver asks to wait; ``after_seconds`` is what it said."""

    def __init__(self, message: str, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


@dataclass(frozen=True, slots=True)
class Message:
    """``message_id`` is the idempotency key: the same for every try of one action."""

    message_id: str
    group: str
    body: str


class Channel(Protocol):
    def send(self, message: Message) -> dict[str, Any]:
        """Deliver a message, once or more often; return what the receiver's side said of it.

        Raises ModlakeTransientError or, when no repetition helps, ModlakeTerminalError.
        """
        ...


class NotifyKind:
    """Sends a decision; taking it back sends a retraction. What is refused lies in ``dead_letters_uri``."""

    def __init__(
        self, channel_to: Callable[[str], Channel], store: ObjectStore, dead_letters_uri: str
    ) -> None:
        self._channel_to = channel_to
        self._channels: dict[str, Channel] = {}
        self._lock = threading.Lock()
        self._store = store
        self._dead_letters_uri = as_folder_uri(dead_letters_uri)

    def do(self, intent: Intent) -> ActionResult:
        return self._send(intent, DECISION)

    def undo(self, intent: Intent) -> ActionResult:
        return self._send(intent, RETRACTION)

    def _channel(self, target: str) -> Channel:
        with self._lock:  # connections and clients are not made by several threads at once
            if target not in self._channels:
                self._channels[target] = self._channel_to(target)
            return self._channels[target]

    def _send(self, intent: Intent, event: str) -> ActionResult:
        message = Message(intent.action_id, intent.source_ref, notification(intent, event))
        try:
            receipt = self._channel(intent.target).send(message)
        except ModlakeTerminalError as error:
            uri = f"{self._dead_letters_uri}{intent.action_id}.json"
            letter = {"error": str(error), "target": intent.target, "message": json.loads(message.body)}
            self._store.write(uri, json.dumps(letter, ensure_ascii=False).encode())
            return result_of(intent, "failed", message=str(error), dead_letter=uri)
        return result_of(intent, "completed", **receipt)


def notification(intent: Intent, event: str) -> str:
    """Return the JSON of a notification, as Standard Webhooks lays it out, for every receiver the same.

    It holds names and labels, never an image or a link to one.
    """
    data = facts_of(intent)
    if intent.undoes is not None:
        data |= {"retracts": intent.undoes, "reason": intent.reason}
    payload = {"type": event, "timestamp": intent.decided_at, "data": data}
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
