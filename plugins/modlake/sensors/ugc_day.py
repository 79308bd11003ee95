"""Waiting for a day of uploads to be complete."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.utils import validate_execute_complete_event
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.sdk import conf

from modlake.exceptions import ModlakeTerminalError
from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.pipeline.day import fill_day, parse_day
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri
from modlake.retries import never_retry_terminal_errors
from modlake.triggers.ugc_day import UgcDayCompleteTrigger, seconds_to_settle

if TYPE_CHECKING:
    from airflow.sdk import Context

# A day that is nearly complete is awaited in the worker: Airflow 3.3.2 loses deferrals that end at once.
WORKER_WAIT_SECONDS = 15.0
WORKER_LOOK_SECONDS = 5.0


class UgcDaySensor(AwsBaseSensor[S3ObjectStoreHook]):
    """
    Wait until a day of uploads is complete.

    Give ``marker_uri`` when uploaders write a marker object after their last upload. Otherwise give
    ``source_uri`` and ``settle_time``: the day is complete when it is over (UTC) and nothing arrived under
    its prefix for that long. strftime directives in URIs (%Y, %m, %d, %j) are filled in with the day.

    :param day: the day, YYYY-MM-DD (templated)
    :param marker_uri: the marker object (templated)
    :param source_uri: the prefix of the day's uploads (templated)
    :param settle_time: how long no upload may have arrived
    :param deferrable: wait in the triggerer
    """

    aws_hook_class = S3ObjectStoreHook
    template_fields = aws_template_fields("day", "marker_uri", "source_uri")

    def __init__(
        self,
        *,
        day: str,
        marker_uri: str | None = None,
        source_uri: str | None = None,
        settle_time: timedelta | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        if (marker_uri is None) == (settle_time is None):
            raise ValueError(
                f"Task {self.task_id!r} needs one sign that a day is complete: write either "
                "marker_uri='s3://bucket/complete/%Y-%m-%d', or source_uri='s3://bucket/uploads/%Y-%m-%d/' "
                "with settle_time=timedelta(minutes=30)."
            )
        if (source_uri is None) != (settle_time is None):
            raise ValueError(
                f"Task {self.task_id!r}: write source_uri and settle_time together, or only marker_uri."
            )
        if settle_time is not None and settle_time <= timedelta(0):
            raise ValueError(
                f"Task {self.task_id!r}: settle_time is {settle_time}; write a positive one, "
                "for example timedelta(minutes=30)."
            )
        self.day = day
        self.marker_uri = marker_uri
        self.source_uri = source_uri
        self.settle_time = settle_time
        self.deferrable = deferrable

    def poke(self, context: Context) -> bool:  # noqa: ARG002 - Airflow's signature
        day = parse_day(self.day)
        if self.marker_uri is not None:
            uri = fill_day(self.marker_uri, day)
            complete: bool = self.hook.exists(uri)
            self.log.info("Day %s: marker %s %s", day, uri, "exists" if complete else "is not there yet")
            return complete
        return self._settled()

    def _settled(self) -> bool:
        day = parse_day(self.day)
        uri = as_folder_uri(fill_day(str(self.source_uri), day))
        pages = self.hook.list_objects(*split_s3_uri(uri))
        newest = max((listed.last_modified for page in pages for listed in page), default=None)
        seconds = seconds_to_settle(day, newest, self.settle_time or timedelta())
        self.log.info(
            "Day %s: last upload under %s at %s; %s",
            day,
            uri,
            newest or "no time, there is none",
            f"complete in {seconds:.0f} s unless more arrive" if seconds > 0 else "complete",
        )
        return seconds <= 0

    def execute(self, context: Context) -> None:
        if not self.deferrable:
            super().execute(context)
        elif not self._complete_soon(context):
            self.defer(
                timeout=timedelta(seconds=self.timeout),
                trigger=self._trigger(),
                method_name="execute_complete",
            )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:  # noqa: ARG002
        """
        Resume after the trigger fired.

        :raises ModlakeTerminalError: S3 refused to answer it
        """
        validated = validate_execute_complete_event(event)
        if validated["status"] != "success":
            raise ModlakeTerminalError(validated["message"])
        self.log.info("Day %s is complete", validated["day"])

    def _complete_soon(self, context: Context) -> bool:
        deadline = time.monotonic() + WORKER_WAIT_SECONDS
        while not self.poke(context):
            if time.monotonic() >= deadline:
                return False
            time.sleep(WORKER_LOOK_SECONDS)
        return True

    def _trigger(self) -> UgcDayCompleteTrigger:
        day = parse_day(self.day)
        return UgcDayCompleteTrigger(
            day=day.isoformat(),
            marker_uri=None if self.marker_uri is None else fill_day(self.marker_uri, day),
            source_uri=None if self.source_uri is None else as_folder_uri(fill_day(self.source_uri, day)),
            settle_seconds=None if self.settle_time is None else self.settle_time.total_seconds(),
            poke_interval=self.poke_interval,
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            botocore_config=self.botocore_config,
        )
