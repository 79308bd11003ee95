"""Quarantine on a real S3: nothing is lost on the way there and back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from unittest import mock
from unittest.mock import ANY

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.hooks.moderation_actions import ModeratedObjectsHook
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.policy.actions.kinds import result_of
from modlake.policy.actions.quarantine import QuarantineKind, quarantine_uri
from tests.policy.actions.conftest import Place
from tests.support.actions import intent, taking_back

pytestmark = pytest.mark.integration

EVERYTHING: dict[str, Any] = {
    "ContentType": "image/jpeg",
    "CacheControl": "max-age=60",
    "ContentDisposition": 'inline; filename="a.jpg"',
    "ContentLanguage": "de",
    "ContentEncoding": "identity",
    "Expires": datetime(2030, 1, 1, tzinfo=UTC),
    "Metadata": {"uploader": "42", "note": "a b"},
}
KEYS = ["a.jpg", "sp ace+plus%41&=é😀'\"#?.jpg", "deep/er//x.jpg", "/".join(["k" * 190] * 5)]


def kind_at(place: Place) -> QuarantineKind:
    return QuarantineKind(place.hook, place.journal)


@pytest.mark.parametrize("key", KEYS, ids=["plain", "special", "slashes", "long"])
def test_there_and_back_byte_for_byte(place: Place, key: str) -> None:
    source = place.ugc + key
    etag = place.buckets.put(source, b"x" * 1000, tags="a=1&b=2%203", **EVERYTHING)
    before = place.buckets.content(place.ugc)
    todo = intent(source, etag, "quarantine", place.quarantine)

    done = kind_at(place).do(todo)

    assert done.status == "completed"
    assert place.buckets.content(place.ugc) == {}
    (kept,) = place.buckets.content(place.quarantine).values()
    (original,) = before.values()
    assert kept[0] == original[0]
    assert kept[3] == original[3]
    assert kept[2].items() >= original[2].items()
    assert kept[2]["modlake-action-id"] == todo.action_id
    assert kind_at(place).do(todo) == replace(done, completed_at=ANY)

    undo = taking_back(todo, done)
    undone = kind_at(place).undo(undo)

    assert undone.status == "completed"
    assert undone.detail["restored_etag"] == etag
    assert place.buckets.content(place.ugc) == before
    assert place.buckets.content(place.quarantine) == {}
    assert kind_at(place).undo(undo).status == "completed"


def test_the_key_in_quarantine_tells_the_origin(place: Place) -> None:
    source = f"{place.ugc}a b.jpg"
    etag = place.buckets.put(source, b"x")
    todo = intent(source, etag, "quarantine", place.quarantine)
    done = kind_at(place).do(todo)
    bucket, key = split_s3_uri(source)
    assert done.detail["quarantined_as"] == f"{place.quarantine}{bucket}/{key}/{etag}/{todo.action_id}"
    kept = place.hook.describe(done.detail["quarantined_as"])
    assert kept is not None
    assert kept.metadata["modlake-origin"].startswith("s3://modlake-ugc/t%20")


def test_a_full_metadata_is_kept_and_nothing_added(place: Place) -> None:
    source = f"{place.ugc}a.jpg"
    etag = place.buckets.put(source, b"x", Metadata={"m": "v" * 2040})
    done = kind_at(place).do(intent(source, etag, "quarantine", place.quarantine))
    kept = place.hook.describe(done.detail["quarantined_as"])
    assert kept is not None
    assert kept.metadata == {"m": "v" * 2040}
    assert done.detail["origin"]["uri"] == source


def test_an_object_in_parts(place: Place) -> None:
    source = f"{place.ugc}big.jpg"
    etag = place.buckets.put_in_parts(
        source, [6 << 20, 5 << 20, 3], ContentType="image/jpeg", Metadata={"a": "b"}, Tagging="t=1"
    )
    before = place.buckets.content(place.ugc)
    todo = intent(source, etag, "quarantine", place.quarantine)
    done = kind_at(place).do(todo)
    assert done.status == "completed"
    assert place.buckets.content(place.ugc) == {}
    assert kind_at(place).undo(taking_back(todo, done)).status == "completed"
    assert place.buckets.content(place.ugc) == before


def test_a_replaced_object_is_left_alone(place: Place) -> None:
    source = f"{place.ugc}a.jpg"
    etag = place.buckets.put(source, b"judged")
    place.buckets.put(source, b"another")
    before = place.buckets.content(place.ugc)
    done = kind_at(place).do(intent(source, etag, "quarantine", place.quarantine))
    assert done.status == "replaced"
    assert "next run of moderate_images" in done.detail["message"]
    assert place.buckets.content(place.ugc) == before
    assert place.buckets.content(place.quarantine) == {}


def test_a_deleted_object_is_gone(place: Place) -> None:
    done = kind_at(place).do(intent(f"{place.ugc}a.jpg", "0" * 32, "quarantine", place.quarantine))
    assert done.status == "gone"


def test_an_object_replaced_before_the_deletion_survives(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"{place.ugc}a.jpg"
    etag = place.buckets.put(source, b"judged")
    copy = ModeratedObjectsHook.copy

    def copy_and_replace(*args: Any, **kwargs: Any) -> None:
        copy(*args, **kwargs)
        place.buckets.put(source, b"another")

    monkeypatch.setattr(ModeratedObjectsHook, "copy", copy_and_replace)
    done = kind_at(place).do(intent(source, etag, "quarantine", place.quarantine))
    assert done.status == "completed"  # the judged one is in quarantine
    assert [kept[0] for kept in place.buckets.content(place.ugc).values()] == [b"another"]
    assert [kept[0] for kept in place.buckets.content(place.quarantine).values()] == [b"judged"]


@pytest.mark.parametrize("killed_at", ["copy", "remove"])
def test_undo_of_a_move_that_did_not_get_far_leaves_the_object(
    place: Place, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    source = f"{place.ugc}a.jpg"
    todo = intent(source, place.buckets.put(source, b"judged", tags="a=1"), "quarantine", place.quarantine)
    before = place.buckets.content(place.ugc)
    with monkeypatch.context() as patch:
        patch.setattr(ModeratedObjectsHook, killed_at, mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            kind_at(place).do(todo)
    undo = replace(todo, action_id="undo-1", undoes=todo.action_id, detail={"original": {}})
    assert kind_at(place).undo(undo).status == "completed"
    assert kind_at(place).undo(undo).status == "completed"
    assert place.buckets.content(place.ugc) == before
    assert place.buckets.content(place.quarantine) == {}


@pytest.mark.parametrize("body", [b"another", b"judged"], ids=["another", "the same bytes, other tags"])
def test_undo_never_overwrites_a_new_upload(place: Place, body: bytes) -> None:
    source = f"{place.ugc}a.jpg"
    etag = place.buckets.put(source, b"judged", tags="a=1")
    todo = intent(source, etag, "quarantine", place.quarantine)
    done = kind_at(place).do(todo)
    place.buckets.put(source, body)
    before = place.buckets.content(place.ugc), place.buckets.content(place.quarantine)
    undone = kind_at(place).undo(taking_back(todo, done))
    assert undone.status == "replaced"
    assert "uploaded anew" in undone.detail["message"]
    assert (place.buckets.content(place.ugc), place.buckets.content(place.quarantine)) == before


def test_a_versioned_bucket_keeps_no_version_of_it(place: Place) -> None:
    source = f"s3://actions-versions/{place.name}/a.jpg"
    place.buckets.put(source, b"an older one")
    etag = place.buckets.put(source, b"judged", tags="a=1")
    before = place.buckets.content(source)
    todo = intent(source, etag, "quarantine", place.quarantine)
    done = kind_at(place).do(todo)
    bucket, key = split_s3_uri(source)
    versions = place.hook.conn.list_object_versions(Bucket=bucket, Prefix=key)
    assert [version["ETag"].strip('"') == etag for version in versions["Versions"]] == [False]
    assert place.hook.describe(source) is None  # nor does the older one come to light
    assert kind_at(place).undo(taking_back(todo, done)).status == "completed"
    assert place.buckets.content(source) == before


def test_a_move_that_failed_half_way_is_taken_back_and_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"s3://actions-versions/{place.name}/a.jpg"
    etag = place.buckets.put(source, b"judged", tags="a=1")
    before = place.buckets.content(source)
    todo = intent(source, etag, "quarantine", place.quarantine)
    denied = mock.Mock(side_effect=ModlakeTerminalError("Allow s3:DeleteObjectVersion."))
    with monkeypatch.context() as patch:
        patch.setattr(place.hook, "purge", denied)
        with pytest.raises(ModlakeTerminalError):
            kind_at(place).do(todo)
    assert place.hook.describe(source) is None
    failed = result_of(todo, "failed", message="Allow s3:DeleteObjectVersion.")
    assert kind_at(place).undo(taking_back(todo, failed)).status == "completed"
    assert place.buckets.content(source) == before
    assert kind_at(place).do(replace(todo, action_id="act-again")).status == "completed"


@pytest.mark.parametrize("where", ["modlake-ugc", "actions-versions"])
@pytest.mark.parametrize("denied", ["remove", "tags"])
def test_an_undo_that_failed_once_the_image_was_back(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str, denied: str
) -> None:
    source = f"s3://{where}/{place.name}/a.jpg"
    etag = place.buckets.put(source, b"judged", tags="moderation=block")
    todo = intent(source, etag, "quarantine", place.quarantine)
    done = kind_at(place).do(todo)
    with monkeypatch.context() as patch:
        patch.setattr(place.hook, denied, mock.Mock(side_effect=ModlakeTerminalError("Allow it.")))
        undone = kind_at(place).undo(taking_back(todo, done))
    assert (undone.status, undone.detail["message"]) == ("failed", "Allow it.")
    assert undone.detail["restored_etag"] == etag
    assert place.hook.tags(source) == {"moderation": "block"}
    place.hook.set_tags(source, {"moderation": "again"})
    for killed_at in ("copy", "remove", "purge"):  # the policy asks for it again
        with monkeypatch.context() as patch:
            patch.setattr(place.hook, killed_at, mock.Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                kind_at(place).do(todo)
    again = kind_at(place).do(todo)
    assert again.status == "completed"
    assert place.hook.describe(source) is None
    if where == "actions-versions":
        bucket, key = split_s3_uri(source)
        assert "Versions" not in place.hook.conn.list_object_versions(Bucket=bucket, Prefix=key)
    assert list(place.buckets.content(place.quarantine)) == [split_s3_uri(done.detail["quarantined_as"])[1]]
    for _ in range(2):
        assert kind_at(place).undo(taking_back(todo, again)).status == "completed"
    assert place.hook.tags(source) == {"moderation": "again"}
    assert place.buckets.content(place.quarantine) == {}


@pytest.mark.parametrize("where", ["modlake-ugc", "actions-versions"])
def test_an_image_that_was_uploaded_again_is_moved_to_where_it_was(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    source = f"s3://{where}/{place.name}/a.jpg"
    etag = place.buckets.put(source, b"judged", tags="a=1")
    todo = intent(source, etag, "quarantine", place.quarantine)
    first = kind_at(place).do(todo)
    assert place.buckets.put(source, b"judged", tags="a=2", Metadata={"uploader": "43"}) == etag
    before = place.buckets.content(source)
    assert kind_at(place).undo(taking_back(todo, first)).status == "replaced"
    for killed_at in ("copy", "remove", "purge"):
        with monkeypatch.context() as patch:
            patch.setattr(place.hook, killed_at, mock.Mock(side_effect=KeyboardInterrupt))
            try:
                kind_at(place).do(todo)
            except KeyboardInterrupt:
                continue
    again = kind_at(place).do(todo)
    assert again.status == "completed"
    assert again.detail["quarantined_as"] == first.detail["quarantined_as"]
    assert place.hook.describe(source) is None
    assert len(place.buckets.content(place.quarantine)) == 1
    assert kind_at(place).do(todo).status == "completed"
    assert kind_at(place).undo(taking_back(todo, again)).status == "completed"
    assert place.buckets.content(source) == before
    assert place.buckets.content(place.quarantine) == {}


def test_an_undo_that_failed_knows_the_image_again_whose_tag_was_taken_off(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"{place.ugc}a.jpg"
    etag = place.buckets.put(source, b"judged", tags="moderation=block")
    todo = intent(source, etag, "quarantine", place.quarantine)
    undo = taking_back(todo, kind_at(place).do(todo))
    with monkeypatch.context() as patch:
        patch.setattr(place.hook, "remove", mock.Mock(side_effect=ModlakeTerminalError("Allow it.")))
        assert kind_at(place).undo(undo).status == "failed"
    place.hook.set_tags(source, {})
    assert kind_at(place).undo(undo).status == "completed"
    assert place.hook.tags(source) == {}
    assert place.buckets.content(place.quarantine) == {}


def test_a_long_key_becomes_a_digest(place: Place) -> None:
    source = f"{place.ugc}{'ü' * 100}/{'ü' * 100}/{'ü' * 100}/{'ü' * 100}"
    etag = place.buckets.put(source, b"x")
    found = place.hook.describe(source)
    assert found is not None
    folder = "s3://q/" + "p" * 150
    uri = quarantine_uri(intent(source, etag, "quarantine", folder), found)
    assert uri.startswith(f"{folder}/modlake-ugc/sha256=")
    assert len(split_s3_uri(uri)[1].encode()) <= 1024
