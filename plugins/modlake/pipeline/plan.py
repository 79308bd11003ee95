"""The plan of a run: what a day holds, and the manifests it was cut into."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.cost import check_budget, estimate_cost_usd
from modlake.pipeline.eligibility import find_ineligibility
from modlake.pipeline.listing import check_source_allowed, list_source
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.run_folder import RunFolder

if TYPE_CHECKING:
    from modlake.pipeline.reuse import JudgementLedger, ReuseMode


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
    """One manifest; ``inventory_parts`` index the inventory files of the plan that hold its images.

    A ``retry`` above 0 asks again for those of the shard's images that got no answer. ``images_sha256``
    digests the images with their ETags: the manifest stays the same when an image is replaced.
    """

    shard: int
    manifest_uri: str
    image_count: int
    size_bytes: int
    sha256: str
    images_sha256: str
    inventory_parts: list[int] = field(default_factory=list)
    retry: int = 0


@dataclass(frozen=True, slots=True)
class ReusedBatch:
    """Landed rows of images that were judged before; ``inventory_parts`` index the parts that list them."""

    images_uri: str
    labels_uri: str | None
    image_count: int
    labels: int
    inventory_parts: list[int]
    content_sha256: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A run's plan, as plan.json holds it. Counts are images of the day: listed = eligible + reused +
    ineligible, where the eligible ones are to be judged.

    ``image_retries`` is how often images that got no answer are asked for again, in jobs of their own;
    ``allow_incomplete`` the share of eligible and reused images (0..1) that may be left without one.
    ``model_version`` judged the reused images; ``own_jobs`` are the rows of ``jobs`` of those of them that
    were judged for this very day. ``listing_sha256`` digests keys, ETags and sizes.
    """

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
    image_retries: int = 0
    allow_incomplete: float = 0.0
    listing_sha256: str = ""
    reuse: str = "off"
    model_version: str | None = None
    reused_batches: list[ReusedBatch] = field(default_factory=list)
    own_jobs: list[dict[str, Any]] = field(default_factory=list)

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
                "reused_batches": [ReusedBatch(**batch) for batch in fields.get("reused_batches", [])],
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
    image_retries: int = 0,
    allow_incomplete: float = 0.0,
    ledger: JudgementLedger | None = None,
    reuse: ReuseMode | None = None,
) -> Plan:
    """List a day and cut it into manifests; write these, the inventory and, last, plan.json.

    With a ledger, images that were judged before are carried over (``reuse``, by default of the same object)
    instead of being judged, and an unchanged day is planned as it was published.

    Memory is bounded by one manifest and a batch of the inventory with its judgements. The same listing and
    ledger give the same manifests. ``report`` gets lines of progress. Raises ModlakeTerminalError when
    ``source_uri`` lies outside ``allowed_uris`` or the estimated cost passes ``max_cost_usd``.
    """
    # pyarrow is heavy, and operators and triggers import this module for its shapes.
    from modlake.pipeline.fates import write_fates
    from modlake.pipeline.inventory import InventoryWriter
    from modlake.pipeline.manifests import ManifestWriter
    from modlake.pipeline.reuse import Precedent, ReuseMode, find_precedent

    check_source_allowed(source_uri, allowed_uris)
    folder = RunFolder(work_uri, day, run_id)
    inventory = InventoryWriter(store, folder.inventory_uri)
    for listed in list_source(store, source_uri, report):
        inventory.add(listed, find_ineligibility(listed))
    inventory.close()
    mode = reuse or (ReuseMode.OBJECT if ledger is not None else ReuseMode.OFF)
    precedent = Precedent(parameters, image_retries)
    if ledger is not None and inventory.span is not None:
        precedent = find_precedent(
            store,
            ledger,
            folder=folder,
            listing_sha256=inventory.listing_sha256,
            span=inventory.span,
            parameters=parameters,
            reuse=mode,
            image_retries=image_retries,
        )
    manifests = ManifestWriter(store, folder.manifest_uri, limits)
    fates = write_fates(
        store,
        folder,
        inventory.uris,
        manifests,
        lookup=precedent.lookup,
        min_confidence=parameters.min_confidence,
    )
    reused = sum(batch.image_count for batch in fates.batches)
    if precedent.is_unchanged:
        report("The day is published with this listing and these parameters: it is planned as it was then")
    if precedent.lookup is not None:
        report(f"{reused:,} of {inventory.listed:,} objects were judged before and are carried over")
    own_jobs = ledger.jobs(day, fates.own_job_ids) if ledger is not None and fates.own_job_ids else []
    eligible = sum(shard.image_count for shard in manifests.shards)
    check_budget(eligible, price_per_image_usd, max_cost_usd)
    plan = Plan(
        day=day,
        run_id=run_id,
        run_uri=folder.uri,
        source_uri=source_uri,
        airflow_run_id=airflow_run_id,
        created_at=datetime.now(UTC),
        parameters=precedent.parameters,
        listed=inventory.listed,
        eligible=eligible,
        ineligible=inventory.ineligible_by_code.total(),
        reused=reused,
        ineligible_by_code=dict(sorted(inventory.ineligible_by_code.items())),
        shards=manifests.shards,
        groups=[
            list(range(first, min(first + shards_per_group, len(manifests.shards))))
            for first in range(0, len(manifests.shards), shards_per_group)
        ],
        inventory_uris=inventory.uris,
        estimated_cost_usd=estimate_cost_usd(eligible, price_per_image_usd),
        price_per_image_usd=price_per_image_usd,
        image_retries=precedent.image_retries,
        allow_incomplete=allow_incomplete,
        listing_sha256=inventory.listing_sha256,
        reuse=mode,
        model_version=precedent.model_version,
        reused_batches=fates.batches,
        own_jobs=own_jobs,
    )
    store.write(folder.plan_uri, plan.to_json().encode())
    return plan
