"""The plan of a run: what a day holds, and the manifests it was cut into."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.cost import check_budget, estimate_cost_usd
from modlake.pipeline.eligibility import find_ineligibility
from modlake.pipeline.listing import check_source_allowed, list_source
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class ManifestLimits:
    """How much one manifest may hold (AWS, "Guidelines and quotas": 10,000 images and 50 MB a job)."""

    images: int = 10_000
    size_bytes: int = 50_000_000


@dataclass(frozen=True, slots=True)
class AnalysisParameters:
    """What an analysis is asked for.

    ``min_confidence`` is 0..100. ``fresh`` is a salt: a new value makes Modlake pay for a new analysis of
    images that it has judged before.
    """

    min_confidence: float
    adapter_arn: str | None
    kms_key_id: str | None = None
    fresh: str | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """One manifest; ``inventory_parts`` index the inventory files of the plan that hold its images."""

    shard: int
    manifest_uri: str
    image_count: int
    size_bytes: int
    sha256: str
    inventory_parts: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """A run's plan, as plan.json holds it. Counts are images of the day: listed = eligible + ineligible."""

    day: date
    run_id: str
    run_uri: str
    source_uri: str
    airflow_run_id: str
    created_at: datetime
    parameters: AnalysisParameters
    listed: int
    eligible: int
    ineligible: int
    reused: int
    ineligible_by_code: dict[str, int]
    shards: list[Shard]
    groups: list[list[int]]
    inventory_uris: list[str]
    estimated_cost_usd: float
    price_per_image_usd: float

    @property
    def folder(self) -> RunFolder:
        """The run's folder, from which the URIs of its other files come."""
        work_uri, _, _ = self.run_uri.rpartition(f"runs/day={self.day.isoformat()}/")
        return RunFolder(work_uri, self.day, self.run_id)

    def to_json(self) -> str:
        fields = asdict(self) | {"day": self.day.isoformat(), "created_at": self.created_at.isoformat()}
        return json.dumps(fields, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        fields: dict[str, Any] = json.loads(text)
        return cls(
            **fields
            | {
                "day": date.fromisoformat(fields["day"]),
                "created_at": datetime.fromisoformat(fields["created_at"]),
                "parameters": AnalysisParameters(**fields["parameters"]),
                "shards": [Shard(**shard) for shard in fields["shards"]],
            }
        )


def read_plan(store: ObjectStore, plan_uri: str) -> Plan:
    """Return the plan stored at that URI.

    Raises ObjectNotFoundError when there is none, ModlakeTerminalError when it can't be read.
    """
    body = store.read(plan_uri)
    try:
        return Plan.from_json(body)
    except (KeyError, TypeError, ValueError) as error:
        raise ModlakeTerminalError(
            f"{plan_uri} is not a plan of this version of Modlake ({error!r}). "
            "Clear the plan task of that day."
        ) from error


def build_plan(
    store: ObjectStore,
    *,
    day: date,
    source_uri: str,
    work_uri: str,
    run_id: str,
    airflow_run_id: str,
    parameters: AnalysisParameters,
    allowed_uris: list[str],
    price_per_image_usd: float,
    max_cost_usd: float | None,
    shards_per_group: int,
    report: Callable[[str], None],
    limits: ManifestLimits = ManifestLimits(),
) -> Plan:
    """List a day and cut it into manifests; write these, the inventory and, last, plan.json.

    Memory is bounded by one manifest and one inventory part. The same listing gives the same manifests.
    ``report`` gets lines of progress. Raises ModlakeTerminalError when ``source_uri`` lies outside
    ``allowed_uris`` or the estimated cost passes ``max_cost_usd``.
    """
    # pyarrow is heavy, and operators and triggers import this module for its shapes.
    from modlake.pipeline.inventory import InventoryWriter
    from modlake.pipeline.manifests import ManifestWriter

    check_source_allowed(source_uri, allowed_uris)
    folder = RunFolder(work_uri, day, run_id)
    manifests = ManifestWriter(store, folder.manifest_uri, limits)
    inventory = InventoryWriter(store, folder.inventory_uri)
    for listed in list_source(store, source_uri, report):
        ineligibility = find_ineligibility(listed)
        shard = manifests.add(listed.source_ref, inventory.part) if ineligibility is None else None
        inventory.add(listed, ineligibility, shard)
    manifests.close()
    inventory.close()
    eligible = sum(shard.image_count for shard in manifests.shards)
    check_budget(eligible, price_per_image_usd, max_cost_usd)
    plan = Plan(
        day=day,
        run_id=run_id,
        run_uri=folder.uri,
        source_uri=source_uri,
        airflow_run_id=airflow_run_id,
        created_at=datetime.now(UTC),
        parameters=parameters,
        listed=inventory.listed,
        eligible=eligible,
        ineligible=inventory.ineligible_by_code.total(),
        reused=0,
        ineligible_by_code=dict(sorted(inventory.ineligible_by_code.items())),
        shards=manifests.shards,
        groups=[
            list(range(first, min(first + shards_per_group, len(manifests.shards))))
            for first in range(0, len(manifests.shards), shards_per_group)
        ],
        inventory_uris=inventory.uris,
        estimated_cost_usd=estimate_cost_usd(eligible, price_per_image_usd),
        price_per_image_usd=price_per_image_usd,
    )
    store.write(folder.plan_uri, plan.to_json().encode())
    return plan
