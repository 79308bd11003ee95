"""Tagging on a real S3."""

from __future__ import annotations

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.policy.actions.tag import TagKind
from tests.policy.actions.conftest import Place
from tests.support.actions import intent, taking_back

pytestmark = pytest.mark.integration

TARGET = "moderation=block"


def kind_at(place: Place) -> TagKind:
    return TagKind(place.hook, place.journal)


@pytest.mark.parametrize("tags", ["", "a=1&b=2%203", "moderation=old&a=1"])
def test_there_and_back(place: Place, tags: str) -> None:
    source = f"{place.ugc}a b.jpg"
    etag = place.buckets.put(source, b"x", tags=tags, ContentType="image/jpeg")
    before = place.buckets.content(place.ugc)
    todo = intent(source, etag, "tag", TARGET)
    others = {key: value for key, value in place.hook.tags(source).items() if key != "moderation"}
    for _ in range(2):
        done = kind_at(place).do(todo)
        assert done.status == "completed"
        assert place.hook.tags(source) == others | {"moderation": "block"}
    undo = taking_back(todo, done)
    for _ in range(2):
        assert kind_at(place).undo(undo).status == "completed"
        assert place.buckets.content(place.ugc) == before


def test_the_tags_before_survive_a_killed_attempt(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"{place.ugc}a.jpg"
    etag = place.buckets.put(source, b"x", tags="moderation=block&a=1")  # by somebody else
    todo = intent(source, etag, "tag", TARGET)
    kind_at(place).do(todo)
    done = kind_at(place).do(todo)
    kind_at(place).undo(taking_back(todo, done))
    assert place.hook.tags(source) == {"moderation": "block", "a": "1"}


def test_an_undo_without_the_original_result_finds_the_record(place: Place) -> None:
    source = f"{place.ugc}a.jpg"
    etag = place.buckets.put(source, b"x", tags="a=1")
    todo = intent(source, etag, "tag", TARGET)
    done = kind_at(place).do(todo)
    unknown = taking_back(todo, done.__class__(done.action_id, "completed", {"labels": []}, "", None))
    assert kind_at(place).undo(unknown).status == "completed"
    assert place.hook.tags(source) == {"a": "1"}


def test_what_was_never_done_needs_no_undo(place: Place) -> None:
    source = f"{place.ugc}a.jpg"
    etag = place.buckets.put(source, b"x", tags="a=1")
    undo = intent(source, etag, "tag", TARGET, undoes="act-never", detail={"original": {"labels": []}})
    assert kind_at(place).undo(undo).detail == {"message": "It was never carried out."}
    assert place.hook.tags(source) == {"a": "1"}


def test_a_tag_that_was_changed_since_is_left(place: Place) -> None:
    source = f"{place.ugc}a.jpg"
    etag = place.buckets.put(source, b"x")
    todo = intent(source, etag, "tag", TARGET)
    done = kind_at(place).do(todo)
    place.hook.set_tags(source, {"moderation": "cleared", "new": "1"})
    undone = kind_at(place).undo(taking_back(todo, done))
    assert "cleared" in undone.detail["message"]
    assert place.hook.tags(source) == {"moderation": "cleared", "new": "1"}


@pytest.mark.parametrize("tags", ["", "moderation=old&a=1"])
@pytest.mark.parametrize("newest_first", [True, False])
def test_a_tag_over_one_whose_undo_failed(place: Place, tags: str, newest_first: bool) -> None:
    source = f"{place.ugc}a.jpg"
    etag = place.buckets.put(source, b"x", tags=tags)
    before = place.hook.tags(source)
    block = intent(source, etag, "tag", TARGET)
    review = intent(
        source,
        etag,
        "tag",
        "moderation=review",
        action_id="act-review",
        detail={"labels": [], "supersedes": {block.action_id: TARGET}},
    )
    undos = [taking_back(todo, kind_at(place).do(todo)) for todo in (block, review)]
    assert place.hook.tags(source)["moderation"] == "review"
    for undo in reversed(undos) if newest_first else undos:
        assert kind_at(place).undo(undo).status == "completed"
    assert place.hook.tags(source) == before


def test_ten_tags_are_too_many(place: Place) -> None:
    source = f"{place.ugc}a.jpg"
    tags = "&".join(f"t{number}=1" for number in range(10))
    etag = place.buckets.put(source, b"x", tags=tags)
    with pytest.raises(ModlakeTerminalError, match="has 10 tags, as many as S3 allows: remove one"):
        kind_at(place).do(intent(source, etag, "tag", TARGET))


def test_a_replaced_object_is_left_alone(place: Place) -> None:
    source = f"{place.ugc}a.jpg"
    etag = place.buckets.put(source, b"x")
    todo = intent(source, etag, "tag", TARGET)
    done = kind_at(place).do(todo)
    place.buckets.put(source, b"another")
    assert kind_at(place).do(todo).detail == done.detail  # it was tagged when it was there
    assert kind_at(place).undo(taking_back(todo, done)).status == "replaced"
    assert kind_at(place).do(intent(source, "0" * 32, "tag", TARGET)).status == "replaced"
    assert place.hook.tags(source) == {}


def test_a_deleted_object_is_gone(place: Place) -> None:
    assert kind_at(place).do(intent(f"{place.ugc}a.jpg", "0" * 32, "tag", TARGET)).status == "gone"
