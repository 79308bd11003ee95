"""What triggers that call AWS have in common."""

from __future__ import annotations

from typing import Any

from airflow.triggers.base import BaseTrigger

MINIMUM_AGE_SECONDS = 20.0
"""Airflow 3.3.2 fails a task whose trigger fires within some seconds of the deferral: never fire sooner."""


class AwsTrigger(BaseTrigger):
    """
    A trigger with the settings of a hook.

    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    def __init__(
        self,
        *,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and its arguments, among them ``_own_arguments``."""
        settings = ("aws_conn_id", "region_name", "verify", "botocore_config")
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {**self._own_arguments(), **{name: getattr(self, name) for name in settings}},
        )

    def _own_arguments(self) -> dict[str, Any]:
        """Return the arguments but for those of the hook."""
        raise NotImplementedError

    @property
    def hook_settings(self) -> dict[str, Any]:
        """The arguments of a hook."""
        return {
            "aws_conn_id": self.aws_conn_id,
            "region_name": self.region_name,
            "verify": self.verify,
            "config": self.botocore_config,
        }
