"""Custom moderation adapters, declared in `<home>/cloud/adapters.json` as {"<ARN>": "<status>"}."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from localcloud.errors import LocalCloudError

USABLE = frozenset({"ACTIVE", "TRAINING_COMPLETED", "DEPRECATED"})
EXPIRED = "EXPIRED"
FILE_NAME = "adapters.json"


class UnknownAdapterError(Exception):
    """No adapter has this ARN."""


class AdapterNotReadyError(Exception):
    """The adapter is there, but can't be used (now)."""


_ARN = re.compile(r"(arn:[^:]+:rekognition:[^:]+:\d+:project/([^/]+))/version/([^/]+)/(\d+)")


@dataclass(frozen=True, slots=True)
class AdapterVersion:
    """An adapter as DescribeProjectVersions shows it."""

    arn: str
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class Project:
    """A project and its adapters. The number in its ARN is its own, and follows from no adapter's."""

    arn: str
    name: str
    versions: tuple[AdapterVersion, ...]


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

    def projects(self) -> list[Project]:
        """The projects of all adapters; ACTIVE is what the API calls TRAINING_COMPLETED."""
        versions: dict[tuple[str, str], dict[AdapterVersion, int]] = {}
        for arn, status in self._statuses().items():
            if match := _ARN.fullmatch(arn):
                project, name, version, number = match.groups()
                told = "TRAINING_COMPLETED" if status == "ACTIVE" else status
                versions.setdefault((project, name), {})[AdapterVersion(arn, version, told)] = int(number)
        return [
            Project(f"{project}/{max(0, min(numbers.values()) - 1)}", name, tuple(numbers))
            for (project, name), numbers in versions.items()
        ]

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
