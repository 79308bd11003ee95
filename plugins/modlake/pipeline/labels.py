"""Moderation labels in columns: a row a label, with its path in the taxonomy."""

from __future__ import annotations

from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.taxonomy import known_labels

# A column of rows: pyarrow's stubs can't tell what most kernels make of one.
Column: TypeAlias = Any


def flatten_labels(answers: Column) -> pa.Table:
    """Return the labels of answers (structs as DetectModerationLabels answers, or null), in their order.

    Columns: image (row number in ``answers``), label, parent_label, taxonomy_level, l1, l2, l3, confidence.
    A label that stands in the taxonomy as the answer says gets its path from there. Any other is kept, with
    the path that the answer itself tells.
    """
    lists = pc.struct_field(answers, "ModerationLabels")
    flat = pc.list_flatten(lists)
    told = pa.table(
        {
            "image": pc.cast(pc.list_parent_indices(lists), pa.int64()),
            "label": pc.fill_null(pc.struct_field(flat, "Name"), ""),
            # At level 1 AWS answers "" for the parent.
            "parent_label": _null_if(pc.struct_field(flat, "ParentName"), ""),
            "taxonomy_level": pc.struct_field(flat, "TaxonomyLevel"),
            "confidence": _nan_to_null(pc.struct_field(flat, "Confidence")),
        }
    )
    taxonomy = _taxonomy_table()
    known = taxonomy.take(pc.index_in(told["label"], value_set=taxonomy["label"]))
    is_known = pc.and_(
        pc.is_valid(known["label"]),
        pc.and_(
            _agrees(told["parent_label"], known["parent_label"]),
            _agrees(told["taxonomy_level"], known["taxonomy_level"]),
        ),
    )
    path = _path_as_told(told, taxonomy)
    return pa.table(
        {
            "image": told["image"],
            "label": told["label"],
            "parent_label": pc.if_else(is_known, known["parent_label"], told["parent_label"]),
            "taxonomy_level": pc.if_else(is_known, known["taxonomy_level"], told["taxonomy_level"]),
            "l1": pc.if_else(is_known, known["l1"], path["l1"]),
            "l2": pc.if_else(is_known, known["l2"], path["l2"]),
            "l3": pc.if_else(is_known, known["l3"], path["l3"]),
            "confidence": told["confidence"],
        }
    )


def top_labels(labels: pa.Table) -> pa.Table:
    """Return each image's most confident label; of equals the deepest, then the first by name."""
    ranked = labels.take(
        pc.sort_indices(
            labels,
            sort_keys=[
                ("image", "ascending"),
                ("confidence", "descending"),
                ("taxonomy_level", "descending"),
                ("label", "ascending"),
            ],
        )
    )
    if not ranked.num_rows:
        return ranked
    image = ranked["image"].combine_chunks()
    is_first = pa.concat_arrays([pa.array([True]), pc.not_equal(image[1:], image[:-1])])
    return ranked.filter(is_first)


def content_type_confidence(answers: Column, content_type: str) -> Column:
    """Return each answer's confidence of a content type (Animated, Illustrated), null where it has none."""
    lists = pc.struct_field(answers, "ContentTypes")
    flat = pc.list_flatten(lists)
    is_asked = pc.equal(pc.struct_field(flat, "Name"), pa.scalar(content_type))
    images = pc.cast(pc.list_parent_indices(lists), pa.int64()).filter(is_asked)
    confidence = _nan_to_null(pc.struct_field(flat, "Confidence")).filter(is_asked)
    return confidence.take(pc.index_in(pa.array(range(len(answers)), pa.int64()), value_set=images))


def _taxonomy_table() -> pa.Table:
    labels = known_labels().values()
    paths = [label.path + (None,) * (3 - label.level) for label in labels]
    return pa.table(
        {
            "label": pa.array([label.name for label in labels], pa.string()),
            "parent_label": pa.array([label.parent for label in labels], pa.string()),
            "taxonomy_level": pa.array([label.level for label in labels], pa.int64()),
            "l1": pa.array([path[0] for path in paths], pa.string()),
            "l2": pa.array([path[1] for path in paths], pa.string()),
            "l3": pa.array([path[2] for path in paths], pa.string()),
        }
    )


def _path_as_told(told: pa.Table, taxonomy: pa.Table) -> dict[str, Column]:
    """Return l1, l2, l3 by level and parent; above the parent stands what image or taxonomy tell."""
    label, parent, level = told["label"], told["parent_label"], told["taxonomy_level"]
    known_parent = taxonomy.take(pc.index_in(parent, value_set=taxonomy["label"]))
    names_in_image = _within_image(told["image"], label)
    parent_row: Column = pc.index_in(_within_image(told["image"], parent), value_set=names_in_image)
    grandparent = parent.take(parent_row)
    l1_by_parent = pc.coalesce(grandparent, known_parent["l1"])
    at_level = pc.make_struct(*(pc.equal(level, pa.scalar(depth)) for depth in (1, 2, 3)))
    nothing = pa.scalar(None, pa.string())
    return {
        "l1": pc.case_when(at_level, label, parent, l1_by_parent, known_parent["l1"]),
        "l2": pc.case_when(at_level, nothing, label, parent, known_parent["l2"]),
        "l3": pc.case_when(at_level, nothing, nothing, label, known_parent["l3"]),
    }


def _within_image(image: Column, name: Column) -> Column:
    return pc.binary_join_element_wise(pc.cast(image, pa.string()), name, pa.scalar("\n"))


def _agrees(told: Column, known: Column) -> Column:
    """Tell where an answer says the same as the taxonomy, or nothing."""
    agrees: Column = pc.or_kleene(pc.is_null(told), pc.equal(told, known))
    return pc.fill_null(agrees, False)


def _null_if(values: Column, unwanted: str) -> Column:
    return pc.if_else(pc.equal(values, pa.scalar(unwanted)), pa.scalar(None, pa.string()), values)


def _nan_to_null(values: Column) -> Column:
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
