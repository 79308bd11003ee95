from __future__ import annotations

from collections.abc import Iterator

import pytest

from localcloud.settings import CloudSettings
from tests.localcloud.support import Client
from tests.support.cloud import running_cloud


@pytest.fixture(scope="session")
def local_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudSettings]:
    """A cloud whose call rates don't get into the way of a test."""
    rates = {f"{operation}_per_second": 10_000 for operation in ("start", "get", "list", "detect")}
    with running_cloud(tmp_path_factory.mktemp("cloud"), **rates) as settings:
        yield settings


@pytest.fixture(scope="session")
def client(local_cloud: CloudSettings) -> Client:
    return Client(local_cloud)
