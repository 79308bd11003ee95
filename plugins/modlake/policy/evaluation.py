"""Deciding in columns: the verdicts of a policy over a table of images and one of their labels."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.columns import Column, row_numbers
from modlake.pipeline.outcomes import ANSWERED
from modlake.policy.conditions import LabelledImages
from modlake.policy.policy import Policy

IMAGE_COLUMNS = (
    "source_ref",
    "outcome",
    "animated_confidence",
    "illustrated_confidence",
    "adapter_arn",
    "model_version",
    "min_confidence",
)
LABEL_COLUMNS = ("source_ref", "label", "l1", "l2", "l3", "taxonomy_level", "confidence")

_TEXT: pa.DataType = pa.string()
_DOUBLE: pa.DataType = pa.float64()
REASON = pa.struct([("label", _TEXT), ("confidence", _DOUBLE)])
VERDICTS = pa.schema(
    [
        ("source_ref", pa.string()),
        ("verdict", pa.string()),
        ("policy", pa.string()),
        ("policy_version", pa.string()),
        ("rule", pa.string()),
        ("reasons", pa.list_(REASON)),
        ("mode", pa.string()),
    ]
)


def evaluate(policy: Policy, images: pa.Table, labels: pa.Table) -> pa.Table:
    """Return what a policy says of each image, in the order of ``images``, with the columns VERDICTS.

    ``images`` needs IMAGE_COLUMNS and each source_ref once; ``labels`` needs LABEL_COLUMNS, rows of other
    images are left out. ``rule`` is null where none hit. ``reasons`` are the labels and content types by
    which the rule hit, the most confident first.
    """
    asked = LabelledImages(images, labels)
    rows = images.num_rows
    is_judged = pc.is_in(images["outcome"].combine_chunks(), value_set=pa.array(ANSWERED))
    rules = policy.by_precedence
    is_open = is_judged
    decided_by: Column = pa.repeat(pa.scalar(len(rules), pa.int32()), rows)
    evidence: list[pa.Table] = []
    for number, rule in enumerate(rules):
        finding = asked.find(rule.when)
        is_hit = pc.and_(finding.holds, is_open)
        is_open = pc.and_not(is_open, is_hit)
        decided_by = pc.if_else(is_hit, pa.scalar(number, pa.int32()), decided_by)
        evidence.append(asked.evidence(finding, is_hit))
    verdicts = pa.array([*(rule.verdict.value for rule in rules), policy.default.value])
    names = pa.array([*(rule.name for rule in rules), None], pa.string())
    return pa.table(
        [
            images["source_ref"].cast(pa.string()),
            pc.if_else(is_judged, verdicts.take(decided_by), pa.scalar(policy.unjudged.value)),
            pa.repeat(pa.scalar(policy.name), rows),
            pa.repeat(pa.scalar(policy.version), rows),
            names.take(decided_by),
            _as_lists(pa.concat_tables(evidence), rows) if evidence else _no_lists(rows),
            pa.repeat(pa.scalar(policy.status), rows),
        ],
        schema=VERDICTS,
    )


def _as_lists(evidence: pa.Table, rows: int) -> Column:
    """Return each image's evidence as a list, the most confident first."""
    ranked = evidence.sort_by(
        [("image", "ascending"), ("confidence", "descending"), ("label", "ascending")]
    ).combine_chunks()
    counted = ranked.group_by("image", use_threads=False).aggregate([("image", "count")])
    place: Column = pc.index_in(row_numbers(rows), value_set=counted["image"].cast(pa.int64()))
    counts: Column = counted["image_count"].take(place)
    counts = pc.fill_null(counts, 0)
    ends: Column = pc.cumulative_sum(counts)
    ends = ends.combine_chunks().cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    label, confidence = (ranked[name].combine_chunks() for name in ("label", "confidence"))
    return pa.ListArray.from_arrays(
        offsets, pa.StructArray.from_arrays([label, confidence], fields=list(REASON))
    )


def _no_lists(rows: int) -> Column:
    return pa.ListArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows + 1), pa.array([], REASON))
