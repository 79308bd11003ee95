"""The sensor of a day's uploads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from airflow.sdk.exceptions import TaskDeferred

from modlake.exceptions import ModlakeTerminalError
from modlake.retries import TERMINAL_ERRORS_FAIL
from modlake.sensors import ugc_day
from modlake.sensors.ugc_day import UgcDaySensor
from modlake.triggers.ugc_day import UgcDayCompleteTrigger
from tests.support.memory_store import MemoryObjectStore

DAY = "2026-11-21"
MARKER = {"marker_uri": "s3://ugc/complete/%Y-%m-%d"}
SETTLE = {"source_uri": "s3://ugc/uploads/%Y-%m-%d", "settle_time": timedelta(minutes=30)}


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore()


@pytest.fixture(autouse=True)
def clock() -> Iterator[list[float]]:
    """A clock that only sleeping moves; the list holds what was slept."""
    slept: list[float] = []
    with (
        mock.patch.object(ugc_day.time, "sleep", side_effect=slept.append),
        mock.patch.object(ugc_day.time, "monotonic", side_effect=lambda: sum(slept)),
    ):
        yield slept


def sensor(store: MemoryObjectStore, **kwargs: Any) -> UgcDaySensor:
    made = UgcDaySensor(task_id="wait", day=DAY, **kwargs)
    made.__dict__["hook"] = store
    return made


def at(moment: datetime) -> Any:
    """Freeze the moment that a settle time is measured at."""
    patched = mock.patch("modlake.triggers.ugc_day.datetime", wraps=datetime)
    frozen = patched.start()
    frozen.now.return_value = moment
    return patched


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({}, "write either marker_uri=.*or source_uri=.*settle_time="),
        ({**MARKER, **SETTLE}, "write either marker_uri="),
        ({"source_uri": "s3://ugc/"}, "write either marker_uri="),
        ({"settle_time": timedelta(1)}, "source_uri and settle_time together"),
        ({**MARKER, "source_uri": "s3://ugc/"}, "or only marker_uri"),
        (
            {**SETTLE, "settle_time": timedelta(0)},
            r"write a positive one, for example timedelta\(minutes=30\)",
        ),
    ],
)
def test_exactly_one_sign_of_completeness(arguments: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=f"(?s)'wait'.*{advice}"):
        UgcDaySensor(task_id="wait", day=DAY, **arguments)


def test_template_fields_are_attributes() -> None:
    made = UgcDaySensor(task_id="wait", day=DAY, **MARKER)
    assert set(made.template_fields) == {
        "aws_conn_id", "day", "marker_uri", "region_name", "source_uri", "verify",
    }  # fmt: skip
    assert all(hasattr(made, field) for field in made.template_fields)


def test_terminal_errors_are_not_retried() -> None:
    assert UgcDaySensor(task_id="wait", day=DAY, **MARKER).retry_policy is TERMINAL_ERRORS_FAIL


def test_the_marker_of_the_day_completes_it(store: MemoryObjectStore) -> None:
    made = sensor(store, **MARKER)
    store.write("s3://ugc/complete/2026-11-20", b"")
    assert made.poke({}) is False
    store.write("s3://ugc/complete/2026-11-21", b"")
    assert made.poke({}) is True


@pytest.mark.parametrize(
    ("now", "complete"),
    [
        (datetime(2026, 11, 22, 0, 29, tzinfo=UTC), False),
        (datetime(2026, 11, 22, 0, 31, tzinfo=UTC), True),
    ],
)
def test_a_quiet_day_settles_after_its_end(store: MemoryObjectStore, now: datetime, complete: bool) -> None:
    # The store's objects were modified at noon of the day.
    store.write("s3://ugc/uploads/2026-11-21/a.jpg", b"a")
    frozen = at(now)
    try:
        assert sensor(store, **SETTLE).poke({}) is complete
    finally:
        frozen.stop()


def test_a_late_upload_restarts_the_settle_time(
    store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.memory_store.LAST_MODIFIED", datetime(2026, 11, 22, 3, tzinfo=UTC))
    store.write("s3://ugc/uploads/2026-11-21/late.jpg", b"a")
    store.write("s3://ugc/uploads/2026-11-211/other.jpg", b"a")
    frozen = at(datetime(2026, 11, 22, 3, 29, tzinfo=UTC))
    try:
        assert sensor(store, **SETTLE).poke({}) is False
    finally:
        frozen.stop()


def test_a_complete_day_is_not_deferred(store: MemoryObjectStore, clock: list[float]) -> None:
    store.write("s3://ugc/complete/2026-11-21", b"")
    sensor(store, deferrable=True, **MARKER).execute({})
    assert clock == []


def test_a_day_that_completes_soon_is_awaited_in_the_worker(
    store: MemoryObjectStore, clock: list[float]
) -> None:
    made = sensor(store, deferrable=True, **MARKER)
    looks = iter([False, False, True])
    with mock.patch.object(made, "poke", side_effect=lambda _: next(looks)):
        made.execute({})
    assert clock == [5, 5]


def test_it_defers_after_fifteen_seconds_with_all_settings(
    store: MemoryObjectStore, clock: list[float]
) -> None:
    made = sensor(
        store,
        deferrable=True,
        aws_conn_id="other",
        region_name="eu-west-1",
        verify=False,
        botocore_config={"read_timeout": 5},
        poke_interval=7,
        timeout=3600,
        **SETTLE,
    )
    frozen = at(datetime(2026, 11, 21, 23, tzinfo=UTC))
    try:
        with pytest.raises(TaskDeferred) as deferred:
            made.execute({})
    finally:
        frozen.stop()
    assert sum(clock) == 15
    assert deferred.value.timeout == timedelta(hours=1)
    assert deferred.value.method_name == "execute_complete"
    trigger = deferred.value.trigger
    assert isinstance(trigger, UgcDayCompleteTrigger)
    assert trigger.serialize()[1] == {
        "day": DAY,
        "marker_uri": None,
        "source_uri": "s3://ugc/uploads/2026-11-21/",
        "settle_seconds": 1800.0,
        "poke_interval": 7,
        "aws_conn_id": "other",
        "region_name": "eu-west-1",
        "verify": False,
        "botocore_config": {"read_timeout": 5},
    }


def test_not_deferrable_it_pokes_as_every_sensor(store: MemoryObjectStore) -> None:
    store.write("s3://ugc/complete/2026-11-21", b"")
    made = sensor(store, deferrable=False, **MARKER)
    with mock.patch.object(made, "defer") as defer:
        made.execute({})
    defer.assert_not_called()


def test_it_resumes_from_the_event_of_the_trigger(store: MemoryObjectStore) -> None:
    made = sensor(store, **MARKER)
    made.execute_complete({}, {"status": "success", "day": DAY})
    with pytest.raises(ModlakeTerminalError, match="no bucket 'ugc'"):
        made.execute_complete({}, {"status": "error", "message": "There is no bucket 'ugc'"})
