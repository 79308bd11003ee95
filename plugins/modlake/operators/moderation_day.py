"""What happens to a day of images, step by step: plan, land, audit, publish."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.sdk import Asset

from modlake.exceptions import ModlakeTerminalError
from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.hooks.rekognition import RekognitionHook
from modlake.lake.storage import storage_errors_explained
from modlake.operators.arguments import (
    PLAN_ARGUMENTS,
    InvalidValueError,
    check_key_of_engine,
    is_known_later,
)
from modlake.pipeline.adapter import check_adapter
from modlake.pipeline.day import fill_day
from modlake.pipeline.engines import Engine
from modlake.retries import never_retry_terminal_errors

if TYPE_CHECKING:
    from airflow.sdk import Context
    from pyiceberg.catalog import Catalog

    from modlake.lake.quarantine import DayQuarantine
    from modlake.pipeline.object_store import ObjectStore
    from modlake.pipeline.plan import ChooseEngines
    from modlake.pipeline.reuse import JudgementLedger

    Landed = Sequence["Landed"] | Mapping[str, Any] | None


class BuildManifestsOperator(AwsBaseOperator[S3ObjectStoreHook]):
    """
    List a day of uploads and cut it into manifests.

    Writes manifests, inventory and plan into a run folder of its own under ``work_uri``. Returns the groups
    of shards for bulk analysis to map over, ``[{"plan_uri": …, "group": 0, "shards": [0, 1]}]``, none for an
    empty day; pushes the XComs ``plan_uri`` and ``summary`` (counts of images, and of shards by engine).
    SynchronousGroupsOperator returns the groups for single calls. strftime directives in ``source_uri``
    (%Y, %m, %d, %j) are filled in with the day.

    :param day: the day, YYYY-MM-DD (templated)
    :param source_uri: the prefix of the day's uploads, ``s3://bucket/uploads/%Y-%m-%d/`` (templated)
    :param work_uri: the bucket or prefix for Modlake's own files (templated)
    :param allowed_uris: the buckets and prefixes that images may come from, a list or its JSON (templated)
    :param min_confidence: labels below it are not asked for, 0..100 (templated)
    :param adapter_arn: the custom moderation adapter to judge with; one that has expired is refused
        (templated)
    :param kms_key_id: the KMS key that encrypts the results of media analysis jobs (templated)
    :param price_per_image_usd: what judging an image costs, for the estimate (templated)
    :param max_cost_usd: refuse a day that is estimated to cost more (templated)
    :param fresh: analyse, and pay for, images anew that were judged before (templated)
    :param image_retries: how often images that got no answer are asked for again (templated)
    :param allow_incomplete: the share of images, 0..1, that may be left without an answer all the same; more
        of them, and the day is not published (templated)
    :param reuse: carry over what the lake holds of images that were judged before, with the same model,
        adapter and a confidence floor that is not above: ``object``, of the same bucket, key and ETag;
        ``content``, of the same ETag and size under any key, which a forger of MD5 can abuse; ``off``. An
        unchanged day is planned as it was published. Needs the Iceberg catalog (templated)
    :param engine: who judges: ``bulk``, media analysis jobs (by default too, without a look at quotas and
        time); ``sync``, a DetectModerationLabels call for each image; ``auto``, bulk where the account has
        it, by what it answers, else sync, and both side by side when that meets the deadline and bulk alone
        does not; estimates then stand on what the lake's table ``jobs`` has recorded, so that it needs the
        Iceberg catalog (templated)
    :param deadline_minutes: within how many minutes the images should be judged; none by default (templated)
    :param detect_requests_per_second: the account's rate of DetectModerationLabels, instead of what Service
        Quotas or AWS's defaults say (templated)
    :param set_aside_uri: the list of a known-hash stage, Parquet or JSON Lines with source_ref: what it names
        is never judged. strftime directives are filled in with the day (templated)
    :param inventory_uri: what tells of the day's objects instead of a listing: the ``manifest.json`` of an S3
        Inventory report, or a Parquet file or prefix (ending in a slash) with the columns bucket, key, size,
        etag and last_modified; strftime directives are filled in, ``%+1d`` with the day after, which is
        when a report that knows the whole day begins (templated)
    :param shards_per_group: how many manifests one mapped task carries at most
    :param jobs_at_once: for how many of them it has jobs at a time, see AnalyseManifestsOperator
    :param groups_at_once: how many such tasks the account's quota of jobs has room for; the manifests are
        spread over as many
    """

    aws_hook_class = S3ObjectStoreHook
    template_fields = aws_template_fields(
        "day",
        "source_uri",
        "work_uri",
        "allowed_uris",
        "min_confidence",
        "adapter_arn",
        "kms_key_id",
        "price_per_image_usd",
        "max_cost_usd",
        "fresh",
        "image_retries",
        "allow_incomplete",
        "reuse",
        "engine",
        "deadline_minutes",
        "detect_requests_per_second",
        "inventory_uri",
        "set_aside_uri",
    )

    def __init__(
        self,
        *,
        day: str,
        source_uri: str,
        work_uri: str,
        allowed_uris: Sequence[str] | str,
        min_confidence: float | str = 50.0,
        adapter_arn: str | None = None,
        kms_key_id: str | None = None,
        price_per_image_usd: float | str = 0.001,
        max_cost_usd: float | str | None = None,
        fresh: bool | str = False,
        image_retries: int | str = 1,
        allow_incomplete: float | str = 0.0,
        reuse: str = "off",
        engine: str | None = None,
        deadline_minutes: float | str | None = None,
        detect_requests_per_second: float | str | None = None,
        inventory_uri: str | None = None,
        set_aside_uri: str | None = None,
        shards_per_group: int = 5,
        jobs_at_once: int | None = None,
        groups_at_once: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.day = day
        self.source_uri = source_uri
        self.work_uri = work_uri
        self.allowed_uris = allowed_uris
        self.min_confidence = min_confidence
        self.adapter_arn = adapter_arn
        self.kms_key_id = kms_key_id
        self.price_per_image_usd = price_per_image_usd
        self.max_cost_usd = max_cost_usd
        self.fresh = fresh
        self.image_retries = image_retries
        self.allow_incomplete = allow_incomplete
        self.reuse = reuse
        self.engine = engine
        self.deadline_minutes = deadline_minutes
        self.detect_requests_per_second = detect_requests_per_second
        self.inventory_uri = inventory_uri
        self.set_aside_uri = set_aside_uri
        self.shards_per_group = shards_per_group
        self.jobs_at_once = jobs_at_once
        self.groups_at_once = groups_at_once
        for name in ("shards_per_group", "jobs_at_once", "groups_at_once"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InvalidValueError(
                    f"Task {self.task_id!r}, {name}: {value} is too few; write 1 or more."
                )
        for field in PLAN_ARGUMENTS:
            if not is_known_later(getattr(self, field)):
                self._read(field)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        from modlake.pipeline.listing import check_inventory_covers
        from modlake.pipeline.plan import AnalysisParameters, build_plan
        from modlake.pipeline.run_folder import new_run_id
        from modlake.pipeline.set_aside import read_set_aside

        values = {field: self._read(field) for field in PLAN_ARGUMENTS}
        check_key_of_engine(values["engine"], values["kms_key_id"])
        day = values["day"]
        if values["adapter_arn"] is not None:
            adapters = RekognitionHook(**self._hook_parameters)
            described = adapters.describe_adapter(values["adapter_arn"])
            check_adapter(values["adapter_arn"], described, self.log.warning)
        inventory_uri = values["inventory_uri"] and fill_day(values["inventory_uri"], day)
        if inventory_uri:
            check_inventory_covers(self.hook, inventory_uri, day)
        with storage_errors_explained(f"Planning {day}"):
            catalog = _catalog() if _needs_catalog(values) else None
            plan = build_plan(
                self.hook,
                day=day,
                source_uri=fill_day(values["source_uri"], day),
                work_uri=values["work_uri"],
                run_id=new_run_id(datetime.now(UTC), entropy=str(context["ti"].id)),
                airflow_run_id=context["run_id"],
                parameters=AnalysisParameters(
                    min_confidence=values["min_confidence"],
                    adapter_arn=values["adapter_arn"],
                    kms_key_id=values["kms_key_id"],
                    fresh=context["run_id"] if values["fresh"] else None,
                ),
                allowed_uris=values["allowed_uris"],
                price_per_image_usd=values["price_per_image_usd"],
                max_cost_usd=values["max_cost_usd"],
                shards_per_group=self.shards_per_group,
                jobs_at_once=self.jobs_at_once,
                groups_at_once=self.groups_at_once,
                report=self.log.info,
                image_retries=values["image_retries"],
                allow_incomplete=values["allow_incomplete"],
                ledger=_ledger(values, catalog),
                reuse=values["reuse"],
                choose_engines=self._engine_chooser(values, catalog),
                inventory_uri=inventory_uri,
                set_aside=read_set_aside(
                    self.hook, values["set_aside_uri"] and fill_day(values["set_aside_uri"], day)
                ),
                quarantine=_quarantine(catalog, self.hook, values),
            )
        plan_uri = plan.folder.plan_uri
        summary = {
            "day": day.isoformat(),
            "run_id": plan.run_id,
            "listed": plan.listed,
            "eligible": plan.eligible,
            "ineligible": plan.ineligible,
            "reused": plan.reused,
            "ineligible_by_code": plan.ineligible_by_code,
            "shards": len(plan.shards),
            "shards_by_engine": dict(Counter(shard.engine for shard in plan.shards)),
            "estimated_cost_usd": plan.estimated_cost_usd,
        }
        context["ti"].xcom_push(key="plan_uri", value=plan_uri)
        context["ti"].xcom_push(key="summary", value=summary)
        self.log.info("Planned %s as %s: %s", day, plan_uri, _spelled_out(summary))
        return plan.groups_of(Engine.BULK)

    def _engine_chooser(self, values: dict[str, Any], catalog: Catalog | None) -> ChooseEngines | None:
        if values["engine"] is None:
            return None
        from modlake.operators.engine_choice import EngineChooser

        return EngineChooser(
            rekognition=RekognitionHook(**self._hook_parameters),
            store=self.hook,
            hook_parameters=self._hook_parameters,
            asked=values["engine"],
            deadline_minutes=values["deadline_minutes"],
            requests_per_second=values["detect_requests_per_second"],
            price_per_image_usd=values["price_per_image_usd"],
            catalog=catalog,
        )

    def _read(self, field: str) -> Any:
        try:
            return PLAN_ARGUMENTS[field](getattr(self, field))
        except ModlakeTerminalError as error:
            raise InvalidValueError(f"Task {self.task_id!r}, {field}: {error}") from error


def _needs_catalog(values: Mapping[str, Any]) -> bool:
    # Also what is analysed afresh has history: durations of jobs, and images that lie in quarantine.
    return _reuses(values) or values["engine"] is not None


def _reuses(values: Mapping[str, Any]) -> bool:
    return not values["fresh"] and values["reuse"] != "off"


def _catalog() -> Catalog:
    from modlake.lake.catalog import ensure_tables, open_catalog

    catalog = open_catalog()
    ensure_tables(catalog)
    return catalog


def _quarantine(
    catalog: Catalog | None, store: ObjectStore, values: Mapping[str, Any]
) -> DayQuarantine | None:
    if catalog is None:
        return None
    from modlake.lake.quarantine import DayQuarantine

    return DayQuarantine(catalog, store, day=values["day"], work_uri=values["work_uri"])


def _ledger(values: Mapping[str, Any], catalog: Catalog | None) -> JudgementLedger | None:
    if catalog is None or not _reuses(values):
        return None
    from modlake.lake.ledger import LakeLedger

    return LakeLedger(catalog)


class SynchronousGroupsOperator(AwsBaseOperator[S3ObjectStoreHook]):
    """
    Return the groups of a plan that single calls are to judge, to map DetectModerationLabelsOperator over.

    :param plan_uri: the plan of the run (templated)
    """

    aws_hook_class = S3ObjectStoreHook
    template_fields = aws_template_fields("plan_uri")

    def __init__(self, *, plan_uri: str, **kwargs: Any) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.plan_uri = plan_uri

    def execute(self, context: Context) -> list[dict[str, Any]]:  # noqa: ARG002 Airflow's signature
        from modlake.pipeline.plan import read_plan

        return read_plan(self.hook, self.plan_uri).groups_of(Engine.SYNC)


class LandResultsOperator(AwsBaseOperator[S3ObjectStoreHook]):
    """
    Turn the results of a group's jobs into data files of the lake, and count how its images came out.

    Returns the group with what landed: ``{"plan_uri": …, "group": 0, "shards": [landed shard, …]}``.

    :param manifest_group: a group of shards whose jobs have ended, as BuildManifestsOperator returns it
        (templated)
    """

    aws_hook_class = S3ObjectStoreHook
    template_fields = aws_template_fields("manifest_group")
    template_fields_renderers: ClassVar = {"manifest_group": "json"}

    def __init__(self, *, manifest_group: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.manifest_group = manifest_group

    def execute(self, context: Context) -> dict[str, Any]:
        from modlake.pipeline.landing import land_shards
        from modlake.pipeline.plan import read_plan

        group = self.manifest_group
        plan = read_plan(self.hook, group["plan_uri"])
        numbers: list[int] = group["shards"]
        total = sum(plan.shards[number].image_count for number in numbers)
        started = time.monotonic()
        landed = []
        done = 0
        for shard in land_shards(self.hook, plan, numbers, _attempt(context)):
            landed.append(shard)
            done += shard.image_count
            self.log.info(
                "Landed shard %d (%d of %d): %s",
                shard.shard,
                len(landed),
                len(numbers),
                _progress(done, total, time.monotonic() - started),
            )
        summary = {
            "judged": sum(shard.judged for shard in landed),
            "failed": sum(shard.failed for shard in landed),
            "labels": sum(shard.labels for shard in landed),
        }
        self.log.info("Landed group %d of %s: %s", group["group"], plan.day, _spelled_out(summary))
        return {**group, "shards": [asdict(shard) for shard in landed]}


class AuditDayOperator(AwsBaseOperator[S3ObjectStoreHook]):
    """
    Prove that every listed image of a day has exactly one outcome, and write the proof into the run folder.

    Returns ``audit_uri`` and the counts of outcomes.

    :param plan_uri: the plan of the run (templated)
    :param landed: what LandResultsOperator returned, for each group or for the only one, or a list of such
        for each engine; nothing for an empty day (templated)
    """

    aws_hook_class = S3ObjectStoreHook
    template_fields = aws_template_fields("plan_uri", "landed")

    def __init__(
        self,
        *,
        plan_uri: str,
        landed: Landed,
        **kwargs: Any,
    ) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.plan_uri = plan_uri
        self.landed = landed

    def execute(self, context: Context) -> dict[str, Any]:
        from modlake.pipeline.audit import audit_day
        from modlake.pipeline.landing import LandedShard
        from modlake.pipeline.plan import read_plan

        landed = [LandedShard(**shard) for group in _landed_groups(self.landed) for shard in group["shards"]]
        audit = audit_day(self.hook, read_plan(self.hook, self.plan_uri), landed, _attempt(context))
        self.log.info("Audited %s as %s: %s", audit.day, audit.audit_uri, _spelled_out(audit.counts))
        return {"audit_uri": audit.audit_uri, **audit.counts}


class PublishDayOperator(AwsBaseOperator[S3ObjectStoreHook]):
    """
    Make an audited run the truth of its day, in the Iceberg catalog that pyiceberg's configuration names.

    Every outlet asset gets an event for the partition of the day, in a run without a partition key too,
    with the counts and snapshot ids as its extra. Returns the publication.

    :param plan_uri: the plan of the run (templated)
    :param audit_uri: its audit (templated)
    """

    aws_hook_class = S3ObjectStoreHook
    template_fields = aws_template_fields("plan_uri", "audit_uri")

    def __init__(self, *, plan_uri: str, audit_uri: str, **kwargs: Any) -> None:
        super().__init__(**never_retry_terminal_errors(kwargs))
        self.plan_uri = plan_uri
        self.audit_uri = audit_uri

    def execute(self, context: Context) -> dict[str, Any]:
        from modlake.lake.catalog import ensure_tables, open_catalog
        from modlake.lake.publish import publish_day
        from modlake.pipeline.audit import COUNTS, read_audit
        from modlake.pipeline.plan import read_plan

        plan = read_plan(self.hook, self.plan_uri)
        audit = read_audit(self.hook, self.audit_uri)
        with storage_errors_explained(f"Publishing {plan.day}"):
            catalog = open_catalog()
            ensure_tables(catalog)
            publication = publish_day(catalog, plan, audit)
        facts = {**asdict(publication), "day": publication.day.isoformat()}
        for asset in self.outlets:
            if isinstance(asset, Asset):
                event = context["outlet_events"][asset]
                event.add_partitions(facts["day"])
                event.extra.update(facts)
        self.log.info(
            "%s %s: %s",
            "Published" if publication.changed else "Unchanged, published before:",
            publication.day,
            _spelled_out({name: facts[name] for name in COUNTS}),
        )
        return facts


def _landed_groups(landed: Landed) -> Iterator[Mapping[str, Any]]:
    """Yield the groups: Airflow hands over a list of a mapped task group, of one instance its value, of none
    None."""
    if isinstance(landed, Mapping):
        yield landed
    else:
        for each in landed or []:
            yield from _landed_groups(each)


def _attempt(context: Context) -> str:
    """Name this attempt of the task as no other: a data file's name must never come twice."""
    ti = context["ti"]
    return f"{ti.try_number:02d}{str(ti.id)[-8:]}"


def _progress(done: int, total: int, seconds: float) -> str:
    rate = done / max(seconds, 0.001)
    minutes_left = (total - done) / max(rate, 0.001) / 60
    return f"{done:,} of {total:,} images, {rate:,.0f} images/s, {minutes_left:.1f} min left"


def _spelled_out(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
