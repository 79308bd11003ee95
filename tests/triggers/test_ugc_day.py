"""The trigger of a day's uploads."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from airflow.sdk.module_loading import import_string
from botocore.exceptions import ClientError

from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.triggers import ugc_day
from modlake.triggers.ugc_day import UgcDayCompleteTrigger, seconds_to_settle

DAY = "2026-11-21"
SETTINGS = {
    "day": DAY,
    "marker_uri": "s3://ugc/complete/2026-11-21",
    "source_uri": None,
    "settle_seconds": None,
    "poke_interval": 7.0,
    "aws_conn_id": "other",
    "region_name": "eu-west-1",
    "verify": False,
    "botocore_config": {"read_timeout": 5},
}
FOUND = {"Contents": [{"Key": "complete/2026-11-21"}]}


@pytest.fixture(autouse=True)
def clock() -> Iterator[list[float]]:
    """A clock that only sleeping moves; the list holds what was slept."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with (
        mock.patch.object(ugc_day.asyncio, "sleep", sleep),
        mock.patch.object(ugc_day.time, "monotonic", side_effect=lambda: sum(slept)),
    ):
        yield slept


def fire(trigger: UgcDayCompleteTrigger, client: Any) -> Any:
    @asynccontextmanager
    async def connected() -> AsyncIterator[Any]:
        yield client

    async def get_async_conn(_: S3ObjectStoreHook) -> Any:
        return connected()

    async def first_event() -> Any:
        return await anext(aiter(trigger.run()))

    with mock.patch.object(S3ObjectStoreHook, "get_async_conn", get_async_conn):
        return asyncio.run(first_event()).payload


def client_of_marker(*answers: Any) -> Any:
    return mock.Mock(list_objects_v2=mock.AsyncMock(side_effect=answers))


def client_error(code: str, status: int) -> ClientError:
    return ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "ListObjectsV2",
    )


def test_it_is_rebuilt_from_what_it_serialises() -> None:
    path, kwargs = UgcDayCompleteTrigger(**SETTINGS).serialize()
    assert kwargs == SETTINGS
    assert import_string(path)(**kwargs).serialize() == (path, kwargs)


def test_its_hook_keeps_the_settings() -> None:
    with mock.patch.object(ugc_day, "S3ObjectStoreHook") as made:
        UgcDayCompleteTrigger(**SETTINGS).hook()
    made.assert_called_once_with(
        aws_conn_id="other", region_name="eu-west-1", verify=False, config={"read_timeout": 5}
    )


def test_it_looks_until_the_marker_is_there(clock: list[float]) -> None:
    longer = {"Contents": [{"Key": "complete/2026-11-21-x"}]}
    client = client_of_marker({}, longer, {}, {}, FOUND)
    assert fire(UgcDayCompleteTrigger(**SETTINGS), client) == {"status": "success", "day": DAY}
    assert clock == [7, 7, 7, 7, 0]
    client.list_objects_v2.assert_awaited_with(Bucket="ugc", Prefix="complete/2026-11-21", MaxKeys=1)


def test_it_never_fires_young(clock: list[float]) -> None:
    fire(UgcDayCompleteTrigger(**SETTINGS), client_of_marker({}, FOUND))
    assert sum(clock) == 20


def test_it_outlives_a_throttled_look(clock: list[float]) -> None:
    client = client_of_marker(client_error("SlowDown", 503), FOUND)
    assert fire(UgcDayCompleteTrigger(**SETTINGS), client)["status"] == "success"


def test_a_refusal_ends_it_with_an_error_that_is_not_young_either(clock: list[float]) -> None:
    payload = fire(UgcDayCompleteTrigger(**SETTINGS), client_of_marker(client_error("NoSuchBucket", 404)))
    assert payload["status"] == "error"
    assert "no bucket 'ugc' for s3://ugc/complete/2026-11-21" in payload["message"]
    assert sum(clock) == 20


@pytest.mark.parametrize(
    ("newest", "now", "seconds"),
    [
        (None, datetime(2026, 11, 21, 23, tzinfo=UTC), 3600 + 600),
        (datetime(2026, 11, 21, 12, tzinfo=UTC), datetime(2026, 11, 22, 0, 10, tzinfo=UTC), 0),
        (datetime(2026, 11, 22, 5, tzinfo=UTC), datetime(2026, 11, 22, 5, 4, tzinfo=UTC), 360),
    ],
)
def test_a_day_settles_after_its_end_and_its_last_upload(
    newest: datetime | None, now: datetime, seconds: float
) -> None:
    with mock.patch.object(ugc_day, "datetime", wraps=datetime) as frozen:
        frozen.now.return_value = now
        assert seconds_to_settle(date(2026, 11, 21), newest, timedelta(minutes=10)) == seconds


def test_it_looks_again_only_when_the_day_can_have_settled(clock: list[float]) -> None:
    arrivals = iter(
        [
            [[datetime(2026, 11, 21, 20, tzinfo=UTC)], []],
            [[datetime(2026, 11, 21, 20, tzinfo=UTC)], [datetime(2026, 11, 22, 0, 5, tzinfo=UTC)]],
            [[datetime(2026, 11, 22, 0, 5, tzinfo=UTC)], [datetime(2026, 11, 21, 20, tzinfo=UTC)]],
        ]
    )

    async def pages(**request: str) -> AsyncIterator[dict[str, Any]]:
        assert request == {"Bucket": "ugc", "Prefix": "uploads/2026-11-21/"}
        for page in next(arrivals):
            yield {"Contents": [{"LastModified": moment} for moment in page]} if page else {}

    client = mock.Mock()
    client.get_paginator.return_value.paginate = pages
    trigger = UgcDayCompleteTrigger(day=DAY, source_uri="s3://ugc/uploads/2026-11-21/", settle_seconds=600)
    start = datetime(2026, 11, 21, 23, 50, tzinfo=UTC)
    with mock.patch.object(ugc_day, "datetime", wraps=datetime) as frozen:
        frozen.now.side_effect = lambda _: start + timedelta(seconds=sum(clock))
        payload = fire(trigger, client)
    assert payload["status"] == "success"
    assert clock == [20 * 60, 5 * 60, 0]


def test_the_triggerer_needs_nothing_but_plugins(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    code = "import sys; sys.path.insert(0, sys.argv[1]); import modlake.triggers.ugc_day"
    environment = {"AIRFLOW_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, str(root / "plugins")], cwd="/", env=environment, check=True)
