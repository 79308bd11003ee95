"""Reuse: what was judged before, and need not be judged, or paid for, again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from modlake.pipeline.model_versions import last_model_version
from modlake.pipeline.object_store import ObjectNotFoundError, ObjectStore
from modlake.pipeline.plan import AnalysisParameters, Plan, read_plan
from modlake.pipeline.run_folder import RunFolder

if TYPE_CHECKING:
    import pyarrow as pa

    Find = Callable[[pa.Table], "Judgements"]


class ReuseMode(StrEnum):
    """Which judgements are carried over.

    ``CONTENT`` trusts equal ETag and size of different objects. An ETag is an MD5 of the content only for
    objects that were uploaded in one part and without a KMS key, and whoever uploads can forge two images
    with the same MD5: a clean one to be judged, and the other to be let through by it.
    """

    OBJECT = "object"
    CONTENT = "content"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which judgements can stand for one of today.

    Same model version and adapter (None: the base model), and a floor of confidence that is not above
    ``min_confidence``; of the same object (bucket, key, ETag and size), or ``by_content`` of equal content.
    """

    model_version: str
    adapter_arn: str | None
    min_confidence: float
    by_content: bool


@dataclass(frozen=True, slots=True)
class Judgements:
    """Judgements for listed images, named by the ``source_ref`` that is listed.

    ``images`` has a row each: source_ref, reused_from, top_label, top_confidence, animated_confidence,
    illustrated_confidence, model_version, adapter_arn, engine, job_id, judged_at. ``labels`` has all of their
    labels: source_ref and the columns of the lake's table but day and run_id.
    """

    images: pa.Table
    labels: pa.Table


class Lookup(Protocol):
    """Finds the judgements of listed images: tables with source_ref, etag and size_bytes in key order."""

    def over(self, batches: Callable[[], Iterable[pa.Table]], images: int) -> AbstractContextManager[Find]:
        """Return what finds the judgements of each of these batches, about so many images together.

        All of them are told beforehand, so that the ledger is read once for all.
        """
        ...


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """The run that is the truth of a day."""

    run_id: str
    reused: int


class JudgementLedger(Protocol):
    """What was judged before."""

    def published_run(self, day: date) -> PublishedRun | None:
        """Return the run that is published for a day."""
        ...

    def judgements(self, wanted: Wanted, span: tuple[str, str]) -> Lookup:
        """Return what finds the judgements for listed images, all of which lie in ``span`` (first, last)."""
        ...

    def carried_over(self, day: date, run_id: str, span: tuple[str, str]) -> Lookup:
        """Return what finds the judgements that a published run has carried over already."""
        ...

    def jobs(self, day: date, job_ids: set[str]) -> list[dict[str, Any]]:
        """Return the rows of ``jobs`` of a day for those ids, times as ISO 8601 texts."""
        ...


@dataclass(frozen=True, slots=True)
class Precedent:
    """What a plan takes over from before: parameters and decisions of an unchanged day, or judgements."""

    parameters: AnalysisParameters
    image_retries: int
    model_version: str | None = None
    lookup: Lookup | None = None
    is_unchanged: bool = False


def find_precedent(
    store: ObjectStore,
    ledger: JudgementLedger,
    *,
    folder: RunFolder,
    listing_sha256: str,
    span: tuple[str, str],
    parameters: AnalysisParameters,
    reuse: ReuseMode,
    image_retries: int,
) -> Precedent:
    """Decide what a plan takes over.

    A rerun changes nothing: when the day is published with this listing and these parameters, its decisions
    are taken over, also when it was analysed afresh. Otherwise what was judged before is looked up, the day's
    own images of an earlier listing included. Failed images are asked for again: that is free of charge (AWS
    bills images that were processed), and their code may have been a passing one that AWS does not document.
    """
    published = ledger.published_run(folder.day)
    if published is not None:
        before = _read_plan_of(store, replace(folder, run_id=published.run_id))
        if before is not None and _is_unchanged(before, listing_sha256, parameters, reuse):
            return Precedent(
                parameters=before.parameters,
                image_retries=max(image_retries, before.image_retries),
                model_version=before.model_version,
                lookup=ledger.carried_over(folder.day, published.run_id, span) if published.reused else None,
                is_unchanged=True,
            )
    model_version = last_model_version(store, folder.work_uri, parameters.adapter_arn)
    if model_version is None:
        return Precedent(parameters, image_retries)
    wanted = Wanted(
        model_version, parameters.adapter_arn, parameters.min_confidence, reuse is ReuseMode.CONTENT
    )
    return Precedent(parameters, image_retries, model_version, ledger.judgements(wanted, span))


def _read_plan_of(store: ObjectStore, folder: RunFolder) -> Plan | None:
    try:
        return read_plan(store, folder.plan_uri)
    except ObjectNotFoundError:
        return None


def _is_unchanged(
    before: Plan, listing_sha256: str, parameters: AnalysisParameters, reuse: ReuseMode
) -> bool:
    return (
        before.listing_sha256 == listing_sha256
        and replace(before.parameters, fresh=None) == parameters
        and (before.reuse == reuse or not before.reused)
    )
