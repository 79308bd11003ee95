"""Custom moderation adapters, declared in `<home>/cloud/adapters.json` as {"<ARN>": "<status>"}."""

from __future__ import annotations

import json
from pathlib import Path

from localcloud.errors import LocalCloudError

USABLE = frozenset({"ACTIVE", "TRAINING_COMPLETED", "DEPRECATED"})
EXPIRED = "EXPIRED"
FILE_NAME = "adapters.json"


class UnknownAdapterError(Exception):
    """No adapter has this ARN."""


class AdapterNotReadyError(Exception):
    """The adapter is there, but can't be used (now)."""


class Adapters:
    """Reads the file at every question, so that an adapter can expire while the service runs."""

    def __init__(self, cloud_dir: Path) -> None:
        self._path = cloud_dir / FILE_NAME

    def effective(self, arn: str | None) -> str | None:
        """The adapter that judges: the one asked for, or None for the base model.

        An EXPIRED adapter is silently ignored (developer guide, "Managing adapters"). Raises
        UnknownAdapterError or AdapterNotReadyError.
        """
        if arn is None:
            return None
        status = self._statuses().get(arn)
        if status is None:
            raise UnknownAdapterError(f"The adapter {arn} does not exist.")
        if status == EXPIRED:
            return None
        if status not in USABLE:
            raise AdapterNotReadyError(f"The adapter {arn} is not ready: its status is {status}.")
        return arn

    def _statuses(self) -> dict[str, str]:
        if not self._path.exists():
            return {}
        try:
            statuses = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(arn): str(status) for arn, status in statuses.items()}
        except (ValueError, AttributeError) as error:
            raise LocalCloudError(
                f'{self._path} must be {{"<adapter ARN>": "ACTIVE|DEPRECATED|EXPIRED"}} ({error}): repair it'
            ) from error
