"""The review queue on a real S3."""

from __future__ import annotations

import json

import pytest

from modlake.policy.actions.review_queue import ReviewQueueKind
from tests.policy.actions.conftest import Place
from tests.support.actions import intent, taking_back

pytestmark = pytest.mark.integration


def test_one_item_an_image_and_its_withdrawal(place: Place) -> None:
    source = f"{place.ugc}a.jpg"
    etag = place.buckets.put(source, b"x")
    kind = ReviewQueueKind(place.hook, place.hook)
    todo = intent(source, etag, "review_queue", f"{place.work}review/", verdict="review")
    done = kind.do(todo)
    place.hook.delete([source])  # once it is in the queue, it stays there
    assert kind.do(todo).detail == done.detail
    (item,) = place.buckets.content(f"{place.work}review/").values()
    assert json.loads(item[0]) == {
        "action_id": todo.action_id,
        "day": "2026-11-21",
        "source_ref": source,
        "etag": etag,
        "verdict": "review",
        "policy": "default",
        "policy_version": "0123456789ab",
        "rule": "nudity",
        "labels": [{"label": "Explicit Nudity", "confidence": 97.5}],
    }
    for _ in range(2):
        assert kind.undo(taking_back(todo, done)).status == "completed"
    assert place.buckets.content(f"{place.work}review/") == {}


def test_a_replaced_image_is_not_queued(place: Place) -> None:
    source = f"{place.ugc}a.jpg"
    place.buckets.put(source, b"x")
    kind = ReviewQueueKind(place.hook, place.hook)
    target = f"{place.work}review/"
    assert kind.do(intent(source, "0" * 32, "review_queue", target)).status == "replaced"
    assert kind.do(intent(f"{source}x", "0" * 32, "review_queue", target)).status == "gone"
    assert place.buckets.content(target) == {}
