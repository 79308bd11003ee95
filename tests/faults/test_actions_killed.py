"""SIGKILL of workers in the middle of actions: buckets and receivers end as after undisturbed ones."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from modlake.hooks.moderation_actions import ModeratedObjectsHook
from modlake.policy.enforcement_folder import EnforcementFolder, read_results, write_intents
from modlake.policy.intents import ActionResult, Intent
from tests.support import fork_server
from tests.support.actions import Buckets, intent, taking_back
from tests.support.actions_worker import CHANGES, Attempt, Death, perform
from tests.support.cloud import running_cloud
from tests.support.webhook_receiver import Receiver, connection_json, receiver

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

DAY = date(2026, 11, 21)
VERSIONED = "actions-versions"
BUCKETS = ("s3://modlake-ugc/", f"s3://{VERSIONED}/", "s3://actions-quarantine/", "s3://modlake-work/review/")
TARGETS = {
    "tag": "moderation=block",
    "quarantine": "s3://actions-quarantine/",
    "review_queue": "s3://modlake-work/review/",
    "notify_webhook": "modlake_webhook",
}


@dataclass
class Scene:
    hook: ModeratedObjectsHook
    received: Receiver
    environment: dict[str, str]

    def upload(self) -> list[Intent]:
        """Put images into their places, as new ones, and return what is to be done about them."""
        buckets = Buckets(self.hook)
        actions = {
            f"s3://modlake-ugc/{DAY}/a +%é.jpg": ["quarantine", "notify_webhook", "tag", "review_queue"],
            f"s3://{VERSIONED}/{DAY}/c.jpg": ["tag", "quarantine"],
        }
        intents = []
        for source_ref, kinds in actions.items():
            etag = buckets.put(
                source_ref,
                source_ref.encode() * 50,
                tags="owner=42&moderation=new",
                ContentType="image/jpeg",
                CacheControl="max-age=60",
                Metadata={"uploader": "42"},
            )
            intents += [intent(source_ref, etag, kind, TARGETS[kind]) for kind in kinds]
        return intents

    def content(self) -> dict[str, Any]:
        buckets = Buckets(self.hook)
        return {uri: buckets.content(uri) for uri in BUCKETS}

    def clean(self) -> None:
        for uri in BUCKETS:
            for page in self.hook.list_objects(uri.split("/")[2], "/".join(uri.split("/")[3:])):
                self.hook.delete(listed.source_ref for listed in page)
        for page in self.hook.list_objects("modlake-work", "enforcements/"):
            self.hook.delete(listed.source_ref for listed in page)
        self.received.accepted.clear()

    def folder(self, name: str, intents: list[Intent]) -> EnforcementFolder:
        folder = EnforcementFolder("s3://modlake-work/", DAY, name)
        assert write_intents(self.hook, folder, intents, 1_000) == 1
        return folder

    def attempt(self, folder: EnforcementFolder, **more: Any) -> bool:
        """Return whether the attempt came to its end; otherwise it was killed, and its lease runs out."""
        attempt = Attempt(self.environment, folder, **more)
        process = fork_server.start(perform, attempt)
        process.join()
        exit_code = process.exitcode
        assert exit_code in (0, -signal.SIGKILL)
        for page in self.hook.list_objects("modlake-work", folder.lease_uri(0).split("/", 3)[3]):
            lease = json.loads(self.hook.read(page[-1].source_ref))
            lease["expires_at"] = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
            self.hook.write(page[-1].source_ref, json.dumps(lease).encode())
        return exit_code == 0

    def results(self, folder: EnforcementFolder) -> dict[str, ActionResult]:
        return {result.action_id: result for result in read_results(self.hook, folder)}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with (
        receiver() as received,
        running_cloud(tmp_path_factory.mktemp("killed")) as settings,
        pytest.MonkeyPatch.context() as patch,
    ):
        environment = {
            "AWS_ACCESS_KEY_ID": settings.access_key,
            "AWS_SECRET_ACCESS_KEY": settings.secret_key,
            "AWS_DEFAULT_REGION": settings.region,
            "AWS_ENDPOINT_URL_S3": settings.s3_endpoint,
            "AIRFLOW_HOME": os.environ["AIRFLOW_HOME"],
            "AIRFLOW_CONN_MODLAKE_WEBHOOK": connection_json(received),
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        hook = ModeratedObjectsHook(aws_conn_id=None)
        hook.conn.create_bucket(Bucket="actions-quarantine")
        hook.conn.create_bucket(Bucket=VERSIONED)
        hook.conn.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})
        yield Scene(hook, received, environment)


@pytest.fixture
def scene(stage: Scene) -> Scene:
    stage.clean()
    return stage


@pytest.fixture
def undisturbed(scene: Scene) -> dict[str, Any]:
    """What the buckets hold after actions that nothing disturbed."""
    folder = scene.folder("calm", scene.upload())
    assert scene.attempt(folder)
    content = scene.content()
    scene.clean()
    return content


def assert_completed(scene: Scene, folder: EnforcementFolder, intents: list[Intent]) -> None:
    results = scene.results(folder)
    assert {action_id: result.status for action_id, result in results.items()} == {
        each.action_id: "completed" for each in intents
    }
    for each in intents:
        if each.kind == "notify_webhook":
            told = scene.received.accepted[each.action_id]
            assert all(message == told[0] for message in told)
    assert scene.received.refused == 0


# The requests that change something, in their order; the images' actions go by kind, and back backwards.
LEASE, PART = r"^PUT .*/leases/", r"^PUT .*/results/"
ACTING = [
    LEASE,
    r"^PUT .*/before/{tag}",
    r"^PUT .*modlake-ugc/.*\?tagging",
    r"^PUT .*/review/",
    r"^PUT .*/before/{quarantine}",
    r"^PUT .*actions-quarantine/modlake-ugc/",
    r"^DELETE .*modlake-ugc/",
    r"^POST .*/hooks",
    r"^PUT .*c\.jpg\?tagging",
    r"^PUT .*actions-quarantine/.*/c\.jpg/",
    r"^DELETE .*c\.jpg$",
    r"^DELETE .*c\.jpg\?versionId",
    PART,
]
TAKING_BACK = [
    LEASE,
    r"^POST .*/hooks",
    r"^PUT .*modlake-ugc/[^?]*$",
    r"^DELETE .*actions-quarantine/modlake-ugc/",
    r"^POST .*modlake-work\?delete",
    r"^PUT .*modlake-ugc/.*\?tagging",
    r"^PUT .*actions-versions/[^?]*$",
    r"^DELETE .*actions-quarantine/actions-versions/",
    r"^PUT .*c\.jpg\?tagging",
    PART,
]


def kill_at_every_step(scene: Scene, folder: EnforcementFolder, patterns: list[str], **names: str) -> None:
    # Between two changes are only looks: dead after one is as dead before the next.
    deaths = [Death(patterns[0]), *(Death(pattern.format(**names), after=True) for pattern in patterns)]
    for death in deaths:
        assert not scene.attempt(folder, death=death), death
    assert scene.attempt(folder)


def kill_at_random(scene: Scene, folder: EnforcementFolder, dice: random.Random) -> None:
    for _ in range(6):
        if scene.attempt(folder, threads=4, death=Death(CHANGES, dice.random() < 0.5, dice.randint(2, 20))):
            return
    assert scene.attempt(folder, threads=4)


@pytest.mark.parametrize("seed", [None, 1], ids=lambda seed: f"at random {seed}" if seed else "at every step")
def test_killed_while_acting_and_while_taking_back(
    scene: Scene, undisturbed: dict[str, Any], seed: int | None
) -> None:
    intents = scene.upload()
    before = scene.content()
    names = {each.kind: each.action_id for each in reversed(intents)}
    dice = random.Random(seed)

    acting = scene.folder("acting", intents)
    if seed is None:
        kill_at_every_step(scene, acting, ACTING, **names)
    else:
        kill_at_random(scene, acting, dice)
    assert_completed(scene, acting, intents)
    assert _anonymous(scene.content()) == _anonymous(undisturbed)

    results = scene.results(acting)
    undos = [taking_back(each, results[each.action_id]) for each in intents]
    taken_back = scene.folder("taking-back", undos)
    if seed is None:
        kill_at_every_step(scene, taken_back, TAKING_BACK)
    else:
        kill_at_random(scene, taken_back, dice)
    assert_completed(scene, taken_back, undos)
    assert scene.content() == before
    notified = {each.action_id for each in [*intents, *undos] if each.kind == "notify_webhook"}
    assert set(scene.received.accepted) == notified


def test_attempts_one_after_the_other_do_nothing_twice(scene: Scene) -> None:
    intents = scene.upload()
    folder = scene.folder("twice", intents)
    assert scene.attempt(folder)
    after, told = scene.content(), {key: len(value) for key, value in scene.received.accepted.items()}
    assert scene.attempt(folder)
    assert scene.content() == after
    assert {key: len(value) for key, value in scene.received.accepted.items()} == told


def _anonymous(content: dict[str, Any]) -> Any:
    """Leave out the versions of the versioned bucket: each upload is another one."""
    told = json.dumps(content, default=str, sort_keys=True)
    for objects in content.values():
        for _, _, metadata, _ in objects.values():
            version = metadata.get("modlake-origin-version", "null")
            if version != "null":
                told = told.replace(version, "VERSION")
    return told
