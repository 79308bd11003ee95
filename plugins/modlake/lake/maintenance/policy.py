"""What maintenance may remove, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from modlake.exceptions import ModlakeTerminalError

# Longer than anything holds a file that it has not committed yet: retries of a commit last half an hour.
MIN_GRACE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class MaintenancePolicy:
    """The bounds of a maintenance run.

    :param snapshot_retention: how long snapshots are kept for time travel
    :param min_snapshots: how many of a table's newest snapshots are kept, whatever their age
    :param grace: what is younger may belong to somebody who has not committed it yet
    :param run_retention: how long the folder of a run that isn't published is kept
    :param analysis_retention: how long a submission, with the manifest and the results it points at, is kept
    :param max_removed_percent: more than this share of one kind of files is not removed, but refused
    :param max_deletes: how many objects one step removes; the rest is left to the next run

    Raises ModlakeTerminalError when values contradict each other.
    """

    dry_run: bool
    snapshot_retention: timedelta
    min_snapshots: int
    grace: timedelta
    run_retention: timedelta
    analysis_retention: timedelta
    target_file_size_bytes: int
    max_removed_percent: float
    max_deletes: int

    def __post_init__(self) -> None:
        if self.grace < MIN_GRACE:
            raise ModlakeTerminalError(
                f"A grace time of {self.grace} could remove files that are being published: "
                f"give {MIN_GRACE} or more."
            )
        for name in ("run_retention", "analysis_retention"):
            if getattr(self, name) < self.grace:
                raise ModlakeTerminalError(
                    f"{name} of {getattr(self, name)} is shorter than the grace time of {self.grace}: "
                    "give as much or more."
                )
        for name in ("min_snapshots", "target_file_size_bytes", "max_deletes"):
            if getattr(self, name) < 1:
                raise ModlakeTerminalError(f"{name} of {getattr(self, name)} is too few: give 1 or more.")

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> MaintenancePolicy:
        """Read the params of the DAG: days, hours, megabytes (10**6 bytes) and percent."""
        return cls(
            dry_run=_switch(params["dry_run"]),
            snapshot_retention=timedelta(days=float(params["snapshot_retention_days"])),
            min_snapshots=int(params["min_snapshots"]),
            grace=timedelta(hours=float(params["orphan_grace_hours"])),
            run_retention=timedelta(days=float(params["run_retention_days"])),
            analysis_retention=timedelta(days=float(params["analysis_retention_days"])),
            target_file_size_bytes=int(float(params["target_file_size_mb"]) * 1_000_000),
            max_removed_percent=float(params["max_removed_percent"]),
            max_deletes=int(params["max_deletes"]),
        )


def _switch(value: object) -> bool:
    # Never by truth: the text "false" would delete.
    if str(value).lower() not in {"true", "false"}:
        raise ModlakeTerminalError(f"dry_run is {value!r}, neither yes nor no: write true or false.")
    return str(value).lower() == "true"
