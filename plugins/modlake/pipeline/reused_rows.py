"""The rows of images that were judged before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline import landed_schemas
from modlake.pipeline.columns import Column
from modlake.pipeline.outcomes import Outcome

if TYPE_CHECKING:
    from datetime import date

    from modlake.pipeline.reuse import Judgements

_JUDGED_COLUMNS = (
    "reused_from",
    "animated_confidence",
    "illustrated_confidence",
    "model_version",
    "adapter_arn",
    "engine",
    "job_id",
    "judged_at",
)


def reused_rows(
    day: date, run_id: str, min_confidence: float, listed: pa.Table, judgements: Judgements
) -> tuple[pa.Table, pa.Table]:
    """Return the rows of ``images`` and ``labels`` of listed images, all of which have a judgement.

    Labels are those that an analysis with ``min_confidence`` would report. Sorted by source_ref; equal
    judgements give equal tables.
    """
    labels = _sorted_labels(judgements.labels, min_confidence)
    listed = listed.sort_by("source_ref")
    source_ref = listed["source_ref"].combine_chunks()
    judged = judgements.images.take(
        pc.index_in(source_ref, value_set=judgements.images["source_ref"])
    ).combine_chunks()
    counts = labels.group_by("source_ref", use_threads=False).aggregate([("label", "count")])
    held: Column = counts["label_count"].take(pc.index_in(source_ref, value_set=counts["source_ref"]))
    label_count = pc.fill_null(held, 0)
    has_top = _is_reported(judged["top_confidence"], min_confidence)
    images = landed_schemas.assemble(
        landed_schemas.IMAGES,
        listed.num_rows,
        {name: listed[name] for name in landed_schemas.LISTED_COLUMNS}
        | {name: judged[name] for name in _JUDGED_COLUMNS}
        | {
            "day": day,
            "outcome": Outcome.REUSED,
            "label_count": label_count,
            "top_label": pc.if_else(has_top, judged["top_label"], pa.scalar(None, pa.string())),
            "top_confidence": pc.if_else(has_top, judged["top_confidence"], pa.scalar(None, pa.float64())),
            "min_confidence": min_confidence,
            "run_id": run_id,
        },
    )
    carried = {name: labels[name] for name in labels.column_names}
    return images, landed_schemas.assemble(
        landed_schemas.LABELS, labels.num_rows, carried | {"day": day, "run_id": run_id}
    )


def _sorted_labels(labels: pa.Table, min_confidence: float) -> pa.Table:
    reported = labels.filter(_is_reported(labels["confidence"], min_confidence))
    order = ("source_ref", "l1", "l2", "l3", "label", "taxonomy_level", "confidence")
    return reported.sort_by([(name, "ascending") for name in order]).combine_chunks()


def _is_reported(confidence: Column, min_confidence: float) -> Column:
    """Tell what an analysis would report; a confidence that was not a number says nothing against it."""
    is_high: Column = pc.greater_equal(confidence, pa.scalar(min_confidence))
    return pc.fill_null(is_high, True)
