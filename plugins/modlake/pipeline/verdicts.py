"""What stops an audited day before it is published: the wrong model, or too many images without an answer."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.outcomes import is_out_of_reach, unanswered_codes
from modlake.pipeline.parquet import decode_parquet

if TYPE_CHECKING:
    from modlake.pipeline.landing import LandedShard
    from modlake.pipeline.object_store import ObjectStore
    from modlake.pipeline.plan import Plan

_EXAMPLES = 3
_LOST_ACCESS = (
    "Too many are out of reach to have been deleted: first see to it that Rekognition can read them (the "
    "identity's rights, the bucket's region and key). "
)


class ModelDriftError(ModlakeTerminalError):
    """Not the one model that was asked for has judged the day. Attribute: ``models``, the counts."""

    def __init__(self, message: str, models: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.models = models


class IncompleteDayError(ModlakeTerminalError):
    """More images of a day than allowed have no answer. Attribute: ``incomplete``, how many."""

    def __init__(self, message: str, incomplete: int) -> None:
        super().__init__(message)
        self.incomplete = incomplete


def check_models(plan: Plan, landed: Iterable[LandedShard]) -> None:
    """Compare model version and adapter of every answer with what was asked for.

    AWS ignores an adapter that has expired, and lets the base model answer ("Managing adapters"): its
    answers carry no ProjectVersion. Labels of two model versions can't be compared with each other.

    Raises ModelDriftError with the counts.
    """
    models = _add_up(landed)
    told = "; ".join(map(_spell_out, models))
    asked = plan.parameters.adapter_arn
    if any(model["adapter_arn"] != asked for model in models):
        cause, mend = (
            (
                f"the adapter {asked} was asked for, but did not judge every image",
                "Look at the adapter's status (DescribeProjectVersions): an EXPIRED one is ignored. Trigger "
                "the day with the adapter_arn of its successor, or with none.",
            )
            if asked is not None
            else ("no adapter was asked for, but one judged", "Trigger the day with fresh=true.")
        )
        raise ModelDriftError(f"{plan.day} is not published: {cause}: {told}. {mend}", models)
    judged = {model["model_version"] for model in models}
    if len(judged) > 1:
        raise ModelDriftError(
            f"{plan.day} is not published: a mix of model versions judged it: {told}. When the service "
            "answers with one version everywhere, trigger the day with fresh=true.",
            models,
        )
    if plan.reused and judged - {plan.model_version}:
        raise ModelDriftError(
            f"{plan.day} is not published: the service answers with a new model version: {told}; but "
            f"{plan.reused:,} images carry over what {plan.model_version} judged. Clear the plan task of the "
            "day: it knows the new version now, and has those judged anew.",
            models,
        )


def check_complete(store: ObjectStore, plan: Plan, landed: list[LandedShard]) -> int:
    """Return how many images of a day have no answer although asking again could help.

    They are listed in ``incomplete/`` of the run folder. Images with a lasting error of their own, corrupt
    ones for instance, have got their answer; so have those that are out of reach, as long as they are few of
    their manifest and of those that were asked for now.

    Raises IncompleteDayError when they are a larger share of the eligible and reused images than
    ``plan.allow_incomplete``.
    """
    asked = plan.listed - plan.ineligible
    failed_by_code = Counter[str]()
    for shard in landed:
        failed_by_code.update(shard.failed_by_code)
    judged_now = sum(shard.image_count for shard in landed)
    unanswered = unanswered_codes(failed_by_code, judged_now, others=plan.reused)
    for shard in landed:
        others = asked - shard.image_count
        unanswered |= unanswered_codes(shard.failed_by_code, shard.image_count, others=others)
    by_code = {code: failed_by_code[code] for code in unanswered}
    incomplete = sum(by_code.values())
    if not incomplete:
        return 0
    examples: list[str] = []
    for shard in landed:
        if by_code.keys() & shard.failed_by_code.keys():
            examples += _list_incomplete(store, plan, shard, by_code.keys())[: _EXAMPLES - len(examples)]
    if incomplete > plan.allow_incomplete * asked:
        codes = ", ".join(f"{count:,} {code}" for code, count in sorted(by_code.items()))
        enough = math.ceil(incomplete / asked * 1_000_000) / 1_000_000
        raise IncompleteDayError(
            f"{plan.day} is not published: {incomplete:,} of {asked:,} images have no answer after "
            f"{plan.image_retries} retries ({codes}), and allow_incomplete is {plan.allow_incomplete}. For "
            f"example {', '.join(map(repr, examples))}; all are listed in {plan.folder.incomplete_uri()}. "
            f"{_LOST_ACCESS if any(map(is_out_of_reach, by_code)) else ''}"
            f"Trigger the day with image_retries={plan.image_retries + 1} to ask for them once more, which "
            f"pays for nothing else, or with allow_incomplete={enough:g} to publish it without them.",
            incomplete,
        )
    return incomplete


def _add_up(landed: Iterable[LandedShard]) -> list[dict[str, Any]]:
    counts = Counter[tuple[str | None, str | None]]()
    for shard in landed:
        for model in shard.models:
            counts[model["model_version"], model["adapter_arn"]] += model["images"]
    return [
        {"model_version": version, "adapter_arn": adapter, "images": images}
        for (version, adapter), images in sorted(counts.items(), key=lambda each: tuple(map(str, each[0])))
    ]


def _spell_out(model: dict[str, Any]) -> str:
    adapter = f"the adapter {model['adapter_arn']}" if model["adapter_arn"] else "no adapter"
    version = model["model_version"] or "a model that gave no version"
    return f"{model['images']:,} images by {version} with {adapter}"


def _list_incomplete(
    store: ObjectStore, plan: Plan, shard: LandedShard, unanswered: Container[str]
) -> list[str]:
    columns = ["source_ref", "error_code", "error_message", "job_id"]
    rows = decode_parquet(store.read(shard.images_uri), columns).to_pylist()
    missing = [row for row in rows if row["error_code"] in unanswered]
    body = "\n".join(json.dumps(row, ensure_ascii=False) for row in missing)
    store.write(plan.folder.incomplete_uri(shard.shard), body.encode())
    return [row["source_ref"] for row in missing]
