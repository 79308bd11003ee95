"""Moderation labels in columns: a row a label, with its path in the taxonomy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.columns import (
    Column,
    Numbers,
    are_all_in_order,
    field_of,
    in_one_chunk,
    places_of,
    row_numbers,
)
from modlake.pipeline.taxonomy import known_labels


def flatten_labels(answers: Column) -> pa.Table:
    """Return the labels of answers (structs as DetectModerationLabels answers, or null), in their order.

    Columns: answer (its row number), label, parent_label, taxonomy_level, l1, l2, l3, confidence.
    A label that stands in the taxonomy as the answer says gets its path from there. Any other is kept, with
    the path that the answer itself tells.
    """
    lists = field_of(answers, "ModerationLabels")
    flat = lists.flatten()
    answer: Column = pc.list_parent_indices(lists)
    # Arrays rather than tables: a table of chunks per step takes longer than the steps.
    told = _Told(
        answer=answer.cast(pa.int64()),
        label=pc.fill_null(field_of(flat, "Name"), ""),
        # At level 1 AWS answers "" for the parent.
        parent_label=_null_if(field_of(flat, "ParentName"), ""),
        taxonomy_level=field_of(flat, "TaxonomyLevel"),
    )
    taxonomy = _taxonomy()
    row = pc.index_in(told.label, value_set=taxonomy["label"])
    known = {name: values.take(row) for name, values in taxonomy.items() if name != "label"}
    is_known = pc.and_(
        pc.is_valid(row),
        pc.and_(
            _agrees(told.parent_label, known["parent_label"]),
            _agrees(told.taxonomy_level, known["taxonomy_level"]),
        ),
    )
    columns = known
    if not pc.all(is_known).as_py():
        as_told = _path_as_told(told)
        columns = {name: pc.if_else(is_known, known[name], as_told[name]) for name in known}
    return pa.table(
        {"answer": told.answer, "label": told.label}
        | columns
        | {"confidence": _nan_to_null(field_of(flat, "Confidence"))}
    )


def spread_labels(labels: pa.Table, answers: Column, answer: Column) -> pa.Table:
    """Return the ``labels`` of ``answers``, as often as images have the answer, in the order of the images.

    ``answer`` is each image's row in ``answers``, null when it has none. The column answer becomes image: the
    row number of the image.
    """
    if len(answer) == len(answers) and are_all_in_order(answer):
        return labels.rename_columns(["image", *labels.column_names[1:]])
    lengths: Column = pc.list_value_length(field_of(answers, "ModerationLabels"))
    ends: Column = pc.cumulative_sum(pc.fill_null(lengths, 0))
    starts: Column = pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])
    rows = pa.ListArray.from_arrays(starts, row_numbers(labels.num_rows)).take(answer)
    image: Column = pc.cast(pc.list_parent_indices(rows), pa.int64())
    spread = labels.drop_columns(["answer"]).take(pc.list_flatten(rows))
    return spread.add_column(0, "image", image)


def top_labels(labels: pa.Table) -> pa.Table:
    """Return each answer's most confident label; of equals the deepest, then the first by name.

    Columns: answer, label, confidence. The labels of an answer stand together.
    """
    answer = labels["answer"].to_numpy()
    row = np.arange(len(answer))
    for name, lowest in (("confidence", -np.inf), ("taxonomy_level", np.iinfo(np.int64).min)):
        values = pc.fill_null(in_one_chunk(labels[name]), lowest).to_numpy()
        row = row[_are_highest(values[row], answer[row])]
    best = labels.select(["answer", "label", "confidence"]).take(row)
    is_first = _are_first(answer[row])
    if is_first.all():
        return best
    return best.sort_by([("answer", "ascending"), ("label", "ascending")]).filter(is_first)


def _are_first(answer: Numbers) -> npt.NDArray[np.bool_]:
    """Tell where the rows of each answer begin."""
    are_first = np.ones(len(answer), np.bool_)
    are_first[1:] = answer[1:] != answer[:-1]
    return are_first


def _are_highest(values: npt.NDArray[Any], answer: Numbers) -> npt.NDArray[np.bool_]:
    """Tell which values are the highest of their answers."""
    if not len(values):
        return np.ones(0, np.bool_)
    are_first = _are_first(answer)
    highest = np.maximum.reduceat(values, np.flatnonzero(are_first))
    are_highest: npt.NDArray[np.bool_] = values == highest[np.cumsum(are_first) - 1]
    return are_highest


def content_type_confidence(answers: Column, content_type: str) -> Column:
    """Return each answer's confidence of a content type (Animated, Illustrated), null where it has none."""
    lists = field_of(answers, "ContentTypes")
    flat = lists.flatten()
    is_asked = pc.equal(field_of(flat, "Name"), pa.scalar(content_type))
    rows: Column = pc.list_parent_indices(lists)
    confidence = _nan_to_null(field_of(flat, "Confidence")).filter(is_asked)
    return confidence.take(places_of(rows.cast(pa.int64()).filter(is_asked), len(answers)))


@dataclass(frozen=True, slots=True)
class _Told:
    """What answers tell of their labels, in columns."""

    answer: Column
    label: Column
    parent_label: Column
    taxonomy_level: Column


@cache
def _taxonomy() -> dict[str, Column]:
    labels = known_labels().values()
    paths = [label.path + (None,) * (3 - label.level) for label in labels]
    return {
        "label": pa.array([label.name for label in labels], pa.string()),
        "parent_label": pa.array([label.parent for label in labels], pa.string()),
        "taxonomy_level": pa.array([label.level for label in labels], pa.int64()),
        "l1": pa.array([path[0] for path in paths], pa.string()),
        "l2": pa.array([path[1] for path in paths], pa.string()),
        "l3": pa.array([path[2] for path in paths], pa.string()),
    }


def _path_as_told(told: _Told) -> dict[str, Column]:
    """Return the columns by level and parent; above the parent stands what answer or taxonomy tell."""
    taxonomy = _taxonomy()
    label, parent, level = told.label, told.parent_label, told.taxonomy_level
    row = pc.index_in(parent, value_set=taxonomy["label"])
    of_parent = {name: taxonomy[name].take(row) for name in ("l1", "l2", "l3")}
    names = _within_answer(told.answer, label)
    parent_row: Column = pc.index_in(_within_answer(told.answer, parent), value_set=names)
    grandparent = parent.take(parent_row)
    l1_by_parent = pc.coalesce(grandparent, of_parent["l1"])
    at_level = pc.make_struct(*(pc.equal(level, pa.scalar(depth)) for depth in (1, 2, 3)))
    nothing = pa.scalar(None, pa.string())
    return {
        "parent_label": parent,
        "taxonomy_level": level,
        "l1": pc.case_when(at_level, label, parent, l1_by_parent, of_parent["l1"]),
        "l2": pc.case_when(at_level, nothing, label, parent, of_parent["l2"]),
        "l3": pc.case_when(at_level, nothing, nothing, label, of_parent["l3"]),
    }


def _within_answer(answer: Column, name: Column) -> Column:
    return pc.binary_join_element_wise(pc.cast(answer, pa.string()), name, pa.scalar("\n"))


def _agrees(told: Column, known: Column) -> Column:
    """Tell where an answer says the same as the taxonomy, or nothing."""
    agrees: Column = pc.or_kleene(pc.is_null(told), pc.equal(told, known))
    return pc.fill_null(agrees, False)


def _null_if(values: Column, unwanted: str) -> Column:
    return pc.if_else(pc.equal(values, pa.scalar(unwanted)), pa.scalar(None, pa.string()), values)


def _nan_to_null(values: Column) -> Column:
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
