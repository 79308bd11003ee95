"""Where the files of a run lie. One run of ``plan`` has one folder, which no other run writes into."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

from modlake.pipeline.s3_uri import as_folder_uri


def new_run_id(now: datetime, entropy: str) -> str:
    """Name a run, for example ``20261124T062610Z-3fa9c1``: sorts by time, unique by its entropy.

    ``now`` is aware; ``entropy`` is any text that no other run of that second shares.
    """
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{hashlib.sha256(entropy.encode()).hexdigest()[:6]}"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The URIs of one run's files below the work bucket or prefix ``work_uri``."""

    work_uri: str
    day: date
    run_id: str

    @property
    def uri(self) -> str:
        return f"{as_folder_uri(self.work_uri)}runs/day={self.day.isoformat()}/{self.run_id}/"

    @property
    def plan_uri(self) -> str:
        return f"{self.uri}plan.json"

    def inventory_uri(self, part: int) -> str:
        return f"{self.uri}inventory/part-{part:05d}.parquet"

    def manifest_uri(self, shard: int, retry: int = 0) -> str:
        return f"{self.uri}manifests/{_shard_name(shard, retry)}.jsonl"

    def job_uri(self, shard: int, retry: int = 0) -> str:
        return f"{self.uri}jobs/{_shard_name(shard, retry)}.json"

    def second_look_uri(self, shard: int, retry: int = 0) -> str:
        """What had become of the images when their job had ended."""
        return f"{self.uri}second-looks/{_shard_name(shard, retry)}.json"

    def results_uri(self, shard: int, retry: int = 0) -> str:
        """The prefix to ask for in OutputConfig; where results really lie, only the job tells."""
        return f"{self.uri}results/{_shard_name(shard, retry)}/"

    @property
    def landed_prefix(self) -> str:
        """What the URIs of all landed files begin with."""
        return f"{self.uri}landed/"

    def landed_uri(self, table: Literal["images", "labels"], part: int | str, attempt: str) -> str:
        """A data file of the lake. ``attempt`` keeps names unique: Iceberg must never see one reused."""
        name = f"{part:05d}" if isinstance(part, int) else part
        return f"{self.landed_prefix}{table}-{name}-{attempt}.parquet"

    def incomplete_uri(self, shard: int | None = None) -> str:
        """The list of a shard's images that have no answer, or the prefix of all such lists."""
        return f"{self.uri}incomplete/" + ("" if shard is None else f"{shard:05d}.jsonl")

    @property
    def audit_uri(self) -> str:
        return f"{self.uri}audit.json"


def _shard_name(shard: int, retry: int) -> str:
    return f"{shard:05d}-r{retry}" if retry else f"{shard:05d}"
