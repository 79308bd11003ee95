"""Carrying out moderation actions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from modlake.hooks.moderation_actions import ModeratedObjectsHook
from modlake.lake.storage import storage_errors_explained
from modlake.operators.arguments import InvalidValueError, is_known_later
from modlake.retries import never_retry_terminal_errors

if TYPE_CHECKING:
    from airflow.sdk import Context

    from modlake.policy.intents import Intent


class ActOperator(AwsBaseOperator[ModeratedObjectsHook]):
    """
    Carry out a batch of an enforcement's intents, and leave a result for each in the enforcement's folder.

    A try that is killed is gone on with, and no action takes effect twice. One that fails for good gets the
    status ``failed`` with its reason, and the others go on; the task fails only for those that may succeed
    later, and its retry has only these left. Objects that were replaced since they were judged are not
    touched, and what is not ``requested`` in the table ``actions`` any more is not done.

    Returns the batch with ``results``, the count by status.

    :param batch: ``{"enforcement_uri": …, "batch": 0}``, as DecideOperator returns it (templated)
    :param actions_per_second: how many actions may begin in a second, over all kinds (templated)
    :param threads: how many are carried out side by side
    """

    aws_hook_class = ModeratedObjectsHook
    template_fields = aws_template_fields("batch", "actions_per_second")
    template_fields_renderers: ClassVar = {"batch": "json"}
    ui_color = "#fde8e4"

    def __init__(
        self,
        *,
        batch: Mapping[str, Any],
        actions_per_second: float | str = 50.0,
        threads: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.batch = batch
        self.actions_per_second = actions_per_second
        self.threads = threads
        if threads < 1:
            raise InvalidValueError(f"Task {self.task_id!r}, threads: {threads} is too few; write 1 or more.")
        if not is_known_later(actions_per_second):
            self._per_second()

    def execute(self, context: Context) -> dict[str, Any]:
        from modlake.hooks.moderation_actions_kinds import action_kinds
        from modlake.lake.actions import still_requested
        from modlake.lake.catalog import open_catalog
        from modlake.policy.actions.batch import Limits, carry_out, count_by_status
        from modlake.policy.enforcement_folder import EnforcementFolder

        batch = dict(self.batch)
        folder = EnforcementFolder.of_uri(batch["enforcement_uri"])

        def requested(intents: Sequence[Intent]) -> set[str]:
            with storage_errors_explained(f"Reading the actions of {folder.day}"):
                return still_requested(open_catalog(), folder.day, intents)

        results = carry_out(
            self.hook,
            folder,
            batch["batch"],
            action_kinds(self.hook, folder, self._hook_parameters),
            holder=f"{context['ti'].id} {uuid.uuid4()}",
            still_requested=requested,
            report=self.log.info,
            limits=Limits(per_second=self._per_second(), threads=self.threads),
        )
        for result in results:
            if result.status == "failed":
                self.log.warning("%s failed: %s", result.action_id, result.detail.get("message"))
        counts = count_by_status(results)
        self.log.info("Carried out batch %d of %s: %s", batch["batch"], folder.day, counts)
        return {**batch, "results": counts}

    def _per_second(self) -> float:
        try:
            number = float(self.actions_per_second)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise InvalidValueError(
                f"Task {self.task_id!r}, actions_per_second: {self.actions_per_second!r} is no rate; write a "
                "number above 0."
            )
        return number
