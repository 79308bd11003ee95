"""The plan of a run: what a day holds, and the manifests it was cut into."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.cost import check_budget, estimate_cost_usd
from modlake.pipeline.engines import Engine, EngineChoice, EnginePlan
from modlake.pipeline.groups import cut_groups
from modlake.pipeline.listing import check_source_allowed, list_source
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.run_folder import RunFolder
from modlake.pipeline.s3_uri import split_s3_uri

if TYPE_CHECKING:
    from modlake.pipeline.quarantined import Quarantine
    from modlake.pipeline.reuse import JudgementLedger, ReuseMode
    from modlake.pipeline.set_aside import SetAside

    ChooseEngines = Callable[
        [list["Shard"], "AnalysisParameters", RunFolder], tuple[EnginePlan, dict[int, Engine]]
    ]


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
    digests the images with their ETags: the manifest stays the same when an image is replaced. ``engine`` is
    who was planned to judge it; the job's record tells who did.
    """

    shard: int
    manifest_uri: str
    image_count: int
    size_bytes: int
    sha256: str
    images_sha256: str
    inventory_parts: list[int] = field(default_factory=list)
    retry: int = 0
    engine: str = Engine.BULK.value

    @property
    def name(self) -> str:
        """What logs and errors call it."""
        return f"shard {self.shard:05d}" + (f", retry {self.retry}" if self.retry else "")


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

    ``image_retries`` is how often images that got no answer are asked for again; ``allow_incomplete`` the
    share of eligible and reused images (0..1) that may be left without one. ``model_version`` judged the
    reused images; ``own_jobs`` are the rows of ``jobs`` of those of them that were judged for this very day.
    ``listing_sha256`` digests keys, ETags, sizes, and what can't be judged. ``engines`` says why who judges;
    None when nobody was to choose, or nothing is to be judged. A group has shards of one engine.
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
    engines: EnginePlan | None = None

    @property
    def asked_engine(self) -> EngineChoice:
        """The engine that the run was asked to judge by."""
        return EngineChoice.BULK if self.engines is None else EngineChoice(self.engines.asked)

    def groups_of(self, engine: Engine) -> list[dict[str, Any]]:
        """Return the groups of an engine to map over, ``{"plan_uri": …, "group": 0, "shards": [0, 1]}``."""
        return [
            {"plan_uri": self.folder.plan_uri, "group": number, "shards": shards}
            for number, shards in enumerate(self.groups)
            if self.shards[shards[0]].engine == engine
        ]

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
                "engines": EnginePlan.from_fields(fields["engines"]) if fields.get("engines") else None,
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
    choose_engines: ChooseEngines | None = None,
    jobs_at_once: int | None = None,
    groups_at_once: int = 1,
    inventory_uri: str | None = None,
    set_aside: SetAside | None = None,
    quarantine: Quarantine | None = None,
) -> Plan:
    """List a day and cut it into manifests; write these, the inventory and, last, plan.json.

    With a ledger, images that were judged before are carried over (``reuse``, by default of the same object)
    instead of being judged, and an unchanged day is planned as it was published. ``choose_engines`` decides
    who judges; without it bulk analysis does. ``inventory_uri`` names what tells of the day's objects instead
    of a listing (:func:`~modlake.pipeline.listing.list_source`). What is ``set_aside`` is never judged.
    What lies in ``quarantine`` stays an image of the day: its judgement is carried over, or it is ineligible.

    Memory is bounded by one manifest and a batch of the inventory with its judgements; the listing waits on
    the worker's disk, some 60 bytes an object, until it is whole. The same listing and ledger give the same
    manifests. ``report`` gets lines of progress. Raises ModlakeTerminalError when
    ``source_uri`` lies outside ``allowed_uris`` or the estimated cost passes ``max_cost_usd``.
    """
    # pyarrow is heavy, and operators and triggers import this module for its shapes.
    from modlake.pipeline.fates import write_fates
    from modlake.pipeline.inventory import InventoryDraft
    from modlake.pipeline.quarantined import QUARANTINED
    from modlake.pipeline.reuse import Precedent, ReuseMode, find_precedent
    from modlake.pipeline.second_look import let_second_pass
    from modlake.pipeline.set_aside import NOTHING

    check_source_allowed(source_uri, allowed_uris)
    folder = RunFolder(work_uri, day, run_id)
    inventory = InventoryDraft(split_s3_uri(source_uri)[0], set_aside=set_aside or NOTHING)
    for stretch in list_source(store, source_uri, report, inventory_uri):
        inventory.add(stretch)
    if quarantine is not None:
        inventory.add_quarantined(quarantine)
    listing = inventory.sum_up()
    mode = reuse or (ReuseMode.OBJECT if ledger is not None else ReuseMode.OFF)
    precedent = Precedent(parameters, image_retries)
    if ledger is not None and listing.span is not None:
        precedent = find_precedent(
            store,
            ledger,
            folder=folder,
            listing_sha256=listing.sha256,
            span=listing.span,
            parameters=parameters,
            reuse=mode,
            image_retries=image_retries,
        )
    fates = write_fates(
        store,
        folder,
        inventory,
        limits,
        lookup=precedent.lookup,
        min_confidence=parameters.min_confidence,
    )
    inventory.close()
    ineligible_by_code = inventory.ineligible_by_code - Counter({QUARANTINED: fates.reused_in_quarantine})
    reused = sum(batch.image_count for batch in fates.batches)
    if precedent.is_unchanged:
        report("The day is published with this listing and these parameters: it is planned as it was then")
    if precedent.lookup is not None:
        report(f"{reused:,} of {inventory.listed:,} objects were judged before and are carried over")
    own_jobs = ledger.jobs(day, fates.own_job_ids) if ledger is not None and fates.own_job_ids else []
    eligible = sum(shard.image_count for shard in fates.shards)
    # Whose jobs have all succeeded once, and are found again.
    to_pay = 0 if precedent.is_unchanged else eligible
    check_budget(to_pay, price_per_image_usd, max_cost_usd)
    shards, engines = fates.shards, None
    if choose_engines is not None and shards:
        engines, by_shard = choose_engines(shards, precedent.parameters, folder)
        shards = [replace(shard, engine=by_shard[shard.shard].value) for shard in shards]
        for line in engines.table():
            report(line)
    if shards:
        let_second_pass(listing.last_modified)
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
        ineligible=ineligible_by_code.total(),
        reused=reused,
        ineligible_by_code=dict(sorted(ineligible_by_code.items())),
        shards=shards,
        groups=[
            group
            for engine in Engine
            for group in cut_groups(
                [shard.shard for shard in shards if shard.engine == engine],
                shards_per_group=shards_per_group,
                jobs_at_once=jobs_at_once,
                groups_at_once=groups_at_once,
            )
        ],
        inventory_uris=fates.inventory_uris,
        estimated_cost_usd=estimate_cost_usd(to_pay, price_per_image_usd),
        price_per_image_usd=price_per_image_usd,
        image_retries=precedent.image_retries,
        allow_incomplete=allow_incomplete,
        listing_sha256=listing.sha256,
        reuse=mode,
        model_version=precedent.model_version,
        reused_batches=fates.batches,
        own_jobs=own_jobs,
        engines=engines,
    )
    store.write(folder.plan_uri, plan.to_json().encode())
    return plan
