"""Custom moderation adapters before a run: one that has expired is ignored, and the base model answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError


class AdapterUnusableError(ModlakeTerminalError):
    """No image would be judged by the adapter. Attribute: ``status``."""

    def __init__(self, message: str, *, status: str = "") -> None:
        super().__init__(message)
        self.status = status


class AdapterNotReadyError(ModlakeTransientError):
    """The adapter is being trained."""


def check_adapter(adapter_arn: str, described: Mapping[str, Any], report: Callable[[str], None]) -> None:
    """Tell whether an adapter judges images, by its description in DescribeProjectVersions.

    Statuses are those of AWS's page "Managing adapters". ``report`` gets a warning of an adapter that will
    expire; AWS tells no date but, at best, in the status message.

    Raises AdapterUnusableError when it can't be used, AdapterNotReadyError while it is trained.
    """
    status, said = described.get("Status", ""), described.get("StatusMessage", "")
    told = f"The adapter {adapter_arn} is {status or 'without a status'}{f' ({said})' if said else ''}"
    match status:
        case "TRAINING_COMPLETED":
            return
        case "DEPRECATED":
            report(
                f"{told}: it is of an older base model, and expires 60 to 90 days after the newer one came. "
                "Train its successor now; once expired it is ignored, and days that ask for it stop."
            )
        case "TRAINING_IN_PROGRESS":
            raise AdapterNotReadyError(f"{told}. Wait until it is TRAINING_COMPLETED.")
        case "EXPIRED":
            raise AdapterUnusableError(
                f"{told}: Rekognition would ignore it, and the base model would judge. Train a new version "
                "of the adapter and give its ARN as adapter_arn, or leave that empty for the base model.",
                status=status,
            )
        case _:
            raise AdapterUnusableError(
                f"{told}, so it judges no images. Give the ARN of a version that is TRAINING_COMPLETED as "
                "adapter_arn, or leave it empty for the base model.",
                status=status,
            )
