"""What Arrow reports of S3 becomes an error that says whether to try again."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from modlake.exceptions import ModlakeError, ModlakeTerminalError, ModlakeTransientError
from modlake.lake.storage import storage_errors_explained


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (OSError("AWS Error SLOW_DOWN during GetObject operation"), ModlakeTransientError),
        (ConnectionResetError("reset by peer"), ModlakeTransientError),
        (FileNotFoundError("snap-1.avro"), ModlakeTerminalError),
    ],
)
def test_trouble_of_the_storage_has_a_type(error: OSError, wanted: type[ModlakeError]) -> None:
    with pytest.raises(wanted, match=rf"^Publishing 2026-11-21 .*{error}") as raised, _publishing():
        raise error
    assert raised.value.__cause__ is error


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), _publishing():
        raise KeyError("bug")


def _publishing() -> AbstractContextManager[None]:
    return storage_errors_explained("Publishing 2026-11-21")
