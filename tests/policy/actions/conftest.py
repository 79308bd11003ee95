"""The local cloud's S3, with a folder of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from modlake.hooks.moderation_actions import ModeratedObjectsHook
from modlake.policy.actions.journal import Journal
from tests.support.actions import Buckets
from tests.support.cloud import running_cloud


@dataclass
class Place:
    hook: ModeratedObjectsHook
    name: str

    @property
    def buckets(self) -> Buckets:
        return Buckets(self.hook)

    @property
    def journal(self) -> Journal:
        return Journal(self.hook, f"{self.work}before/")

    @property
    def ugc(self) -> str:
        return f"s3://modlake-ugc/{self.name}/"

    @property
    def quarantine(self) -> str:
        return f"s3://actions-quarantine/{self.name}/"

    @property
    def work(self) -> str:
        return f"s3://modlake-work/{self.name}/"


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModeratedObjectsHook]:
    with running_cloud(tmp_path_factory.mktemp("actions")) as settings, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", settings.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", settings.secret_key)
        patch.setenv("AWS_ENDPOINT_URL_S3", settings.s3_endpoint)
        hook = ModeratedObjectsHook(aws_conn_id=None, region_name=settings.region)
        hook.conn.create_bucket(Bucket="actions-quarantine")
        hook.conn.create_bucket(Bucket="actions-versions")
        hook.conn.put_bucket_versioning(
            Bucket="actions-versions", VersioningConfiguration={"Status": "Enabled"}
        )
        yield hook


@pytest.fixture
def place(objects: ModeratedObjectsHook) -> Place:
    return Place(objects, f"t {uuid.uuid4().hex[:8]}+%é")
