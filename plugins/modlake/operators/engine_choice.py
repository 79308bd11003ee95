"""Asking the account, the lake and the records of submissions which engine can judge a day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from modlake.exceptions import ModlakeTransientError
from modlake.hooks.rekognition import BulkAnalysisDeniedError, RekognitionHook
from modlake.hooks.service_quotas import ServiceQuotasHook
from modlake.pipeline.bulk_access import noted_denial
from modlake.pipeline.engine_claims import engine_of, latest_submissions
from modlake.pipeline.engines import (
    BulkAccess,
    Engine,
    EngineChoice,
    EnginePlan,
    RecordedPaces,
    plan_engines,
)
from modlake.pipeline.quotas import Quotas

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from modlake.pipeline.object_store import ObjectStore
    from modlake.pipeline.plan import AnalysisParameters, Shard
    from modlake.pipeline.run_folder import RunFolder


@dataclass(frozen=True)
class EngineChooser:
    """Decides who judges the shards of a day; called with them, returns the plan and an engine for each."""

    rekognition: RekognitionHook
    store: ObjectStore
    hook_parameters: Mapping[str, Any]
    asked: EngineChoice
    deadline_minutes: float | None
    requests_per_second: float | None
    price_per_image_usd: float
    catalog: Catalog | None

    def __call__(
        self, shards: list[Shard], parameters: AnalysisParameters, folder: RunFolder
    ) -> tuple[EnginePlan, dict[int, Engine]]:
        needs_bulk = None
        if parameters.kms_key_id is not None:
            needs_bulk = "single calls take no KMS key"
        is_auto = self.asked is EngineChoice.AUTO
        return plan_engines(
            self.asked,
            shards,
            # Who asks for one engine has its tasks see to what the other one was given before.
            claims=self._claims(shards, parameters, folder) if is_auto else {},
            access=self._access(folder.work_uri) if is_auto else BulkAccess(True, "not asked"),
            quotas=self._quotas(),
            recorded=self._recorded(),
            deadline_minutes=self.deadline_minutes,
            price_per_image_usd=self.price_per_image_usd,
            needs_bulk=needs_bulk,
        )

    def _claims(
        self, shards: list[Shard], parameters: AnalysisParameters, folder: RunFolder
    ) -> dict[int, Engine]:
        found = latest_submissions(self.store, folder.work_uri, shards, parameters)
        return {
            shard.shard: engine_of(submission)
            for shard, submission in zip(shards, found, strict=True)
            if submission is not None
        }

    def _access(self, work_uri: str) -> BulkAccess:
        denied = noted_denial(self.store, work_uri, datetime.now(UTC))
        if denied is not None:
            return denied
        try:
            next(self.rekognition.iter_media_analysis_jobs(max_pages=1), None)
        except BulkAnalysisDeniedError as error:
            return BulkAccess(is_open=False, seen=f"ListMediaAnalysisJobs was denied: {error.code}")
        except ModlakeTransientError as error:
            return BulkAccess(is_open=True, seen=f"not known, ListMediaAnalysisJobs gave no answer: {error}")
        return BulkAccess(is_open=True, seen="ListMediaAnalysisJobs answers; the first Start will decide")

    def _quotas(self) -> Quotas:
        quotas = ServiceQuotasHook(**self.hook_parameters).rekognition_quotas(self.rekognition)
        if self.requests_per_second is None:
            return quotas
        return replace(
            quotas, requests_per_second=self.requests_per_second, requests_per_second_source="given"
        )

    def _recorded(self) -> RecordedPaces:
        if self.catalog is None:
            return RecordedPaces()
        from modlake.lake.engine_history import read_recorded_paces

        return read_recorded_paces(self.catalog)
