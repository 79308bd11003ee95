"""No test reads or writes the developer's own Airflow, AWS or Modlake settings."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.fake_rekognition import FakeRekognition

_HOME = tempfile.mkdtemp(prefix="modlake-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "AWS_", "MODLAKE_", "PYICEBERG_"))]:
    del os.environ[name]

# Before any test module imports Airflow, which makes its home at import.
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = f"{_HOME}/no-aws-settings"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("integration") is None)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRekognition]:
    """A fake of Rekognition, to which the connection ``elsewhere`` leads."""
    from tests.support.fake_rekognition import FakeRekognition, connection_to, served

    fake = FakeRekognition()
    with served(fake) as endpoint_url:
        monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", connection_to(endpoint_url))
        yield fake
