"""Waiting, in the triggerer, for a day of uploads to be complete."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.triggers.base import TriggerEvent

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.hooks.object_store import S3ObjectStoreHook, exact_listing, explained, names_object
from modlake.pipeline.day import end_of_day, parse_day
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.triggers.aws import MINIMUM_AGE_SECONDS, AwsTrigger


def seconds_to_settle(day: date, newest: datetime | None, settle_time: timedelta) -> float:
    """
    Return how long a day has yet to stay quiet to count as complete; 0 or less when it is complete.

    :param newest: when the last of its objects arrived, None when there is none
    """
    quiet_since = max(end_of_day(day), newest or end_of_day(day))
    return (quiet_since + settle_time - datetime.now(UTC)).total_seconds()


class UgcDayCompleteTrigger(AwsTrigger):
    """
    Fire when a day of uploads is complete: its marker object exists, or nothing arrived for a settle time.

    :param day: the day, YYYY-MM-DD
    :param marker_uri: the marker object; leave out to wait for a settle time
    :param source_uri: the prefix of the day's uploads, with ``settle_seconds``
    :param settle_seconds: how long no object may have arrived under ``source_uri``
    :param poke_interval: seconds between two looks
    :param aws_conn_id: the Airflow connection used for AWS credentials
    :param region_name: AWS region, by default the connection's
    :param verify: whether to verify TLS certificates, or the path of a CA bundle
    :param botocore_config: botocore client configuration
    """

    # Triggers of deferred tasks are rebuilt from these names: add with a default, never rename.
    def __init__(
        self,
        *,
        day: str,
        marker_uri: str | None = None,
        source_uri: str | None = None,
        settle_seconds: float | None = None,
        poke_interval: float = 60.0,
        **aws_settings: Any,
    ) -> None:
        super().__init__(**aws_settings)
        self.day = day
        self.marker_uri = marker_uri
        self.source_uri = source_uri
        self.settle_seconds = settle_seconds
        self.poke_interval = poke_interval

    def _own_arguments(self) -> dict[str, Any]:
        return {
            "day": self.day,
            "marker_uri": self.marker_uri,
            "source_uri": self.source_uri,
            "settle_seconds": self.settle_seconds,
            "poke_interval": self.poke_interval,
        }

    def hook(self) -> S3ObjectStoreHook:
        return S3ObjectStoreHook(**self.hook_settings)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        started = time.monotonic()
        try:
            await self._await_completion()
            payload = {"status": "success", "day": self.day}
        except ModlakeTerminalError as error:
            payload = {"status": "error", "message": str(error)}
        await asyncio.sleep(max(0.0, MINIMUM_AGE_SECONDS - (time.monotonic() - started)))
        yield TriggerEvent(payload)

    async def _await_completion(self) -> None:
        async with await self.hook().get_async_conn() as client:
            while True:
                try:
                    wait = await self._seconds_to_next_look(client)
                except ModlakeTransientError as error:
                    self.log.warning("%s Looking again in %.0f s.", error, self.poke_interval)
                    wait = self.poke_interval
                if wait <= 0:
                    return
                await asyncio.sleep(wait)

    async def _seconds_to_next_look(self, client: Any) -> float:
        """Return 0 or less when the day is complete."""
        if self.marker_uri:
            bucket, key = split_s3_uri(self.marker_uri)
            with explained("s3:ListBucket", self.marker_uri):
                page = await client.list_objects_v2(**exact_listing(bucket, key))
            return 0.0 if names_object(page, key) else self.poke_interval
        newest = await self._newest_arrival(client)
        # A day can't be complete before this moment, so looking more often would only list in vain.
        return seconds_to_settle(parse_day(self.day), newest, timedelta(seconds=self.settle_seconds or 0))

    async def _newest_arrival(self, client: Any) -> datetime | None:
        uri = str(self.source_uri)
        bucket, prefix = split_s3_uri(uri)
        newest: datetime | None = None
        with explained("s3:ListBucket", uri):
            async for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                arrivals = [entry["LastModified"] for entry in page.get("Contents", ())]
                newest = max([*arrivals, newest] if newest else arrivals, default=None)
        return newest
