"""Where the conditions of rules hold, in columns over a table of images and one of their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.columns import Column, in_one_chunk, row_numbers
from modlake.pipeline.taxonomy import known_labels
from modlake.policy.patterns import surface_regex, text_regex
from modlake.policy.policy import (
    BASE_MODEL,
    CONTENT_TYPES,
    All,
    Always,
    AnyOf,
    Condition,
    HasContentType,
    HasLabel,
    JudgedByAdapter,
    JudgedByModel,
    Not,
    OnSurface,
)

_INT32: pa.DataType = pa.int32()
_TEXT: pa.DataType = pa.string()
_DOUBLE: pa.DataType = pa.float64()
EVIDENCE = pa.schema([("image", _INT32), ("label", _TEXT), ("confidence", _DOUBLE)])

_NO_ROWS = pa.array([], pa.uint64())
_PATH = ("label", "l1", "l2", "l3")


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a condition holds, a boolean per image, and by what.

    ``label_rows`` are numbers of rows of labels, ``content_types`` has a boolean per image by content type.
    """

    holds: Column
    label_rows: Column | None = None
    content_types: dict[str, Column] = field(default_factory=dict)


class LabelledImages:
    """A table of images with their labels, of which conditions can be asked.

    Rows of labels are found by their path in the taxonomy, of which a day has few.
    """

    def __init__(self, images: pa.Table, labels: pa.Table) -> None:
        self._images = images
        self._source_ref = in_one_chunk(images["source_ref"])
        image = in_one_chunk(pc.index_in(in_one_chunk(labels["source_ref"]), value_set=self._source_ref))
        if image.null_count:
            is_of_image: Column = pc.is_valid(image)
            labels = labels.filter(is_of_image)
            image = image.drop_null()
        self._image = image
        self._label = in_one_chunk(labels["label"])
        self._confidence = in_one_chunk(labels["confidence"])
        self._paths, self._rows_by_path = _rows_by_path(labels)
        self._findings: dict[Condition, Finding] = {}

    def find(self, condition: Condition) -> Finding:
        """Return where a condition holds; equal conditions are looked up once."""
        if condition not in self._findings:
            self._findings[condition] = self._find(condition)
        return self._findings[condition]

    def evidence(self, finding: Finding, is_hit: Column) -> pa.Table:
        """Return what made a condition hold in the images where ``is_hit``.

        Columns: image (its row number), label (or content type), confidence.
        """
        tables = [_evidence(self._numbers, name, self._content_type(name), pc.and_(mask, is_hit))
                  for name, mask in finding.content_types.items()]  # fmt: skip
        if finding.label_rows is not None:
            rows = finding.label_rows.filter(is_hit.take(self._image.take(finding.label_rows)))
            columns = [self._image.take(rows), self._label.take(rows), self._confidence.take(rows)]
            tables.append(pa.table(columns, schema=EVIDENCE))
        return pa.concat_tables([EVIDENCE.empty_table(), *tables])

    def _find(self, condition: Condition) -> Finding:
        match condition:
            case All(conditions):
                return self._all([self.find(each) for each in conditions])
            case AnyOf(conditions):
                return _any([self.find(each) for each in conditions])
            case Not(inner):
                return Finding(pc.invert(self.find(inner).holds))
            case HasLabel():
                return self._has_label(condition)
            case HasContentType():
                return self._has_content_type(condition)
            case OnSurface(patterns):
                return Finding(_matches(self._source_ref, surface_regex(patterns)))
            case JudgedByAdapter(patterns):
                adapter = pc.fill_null(in_one_chunk(self._images["adapter_arn"]), BASE_MODEL)
                return Finding(_matches(adapter, text_regex(patterns)))
            case JudgedByModel(patterns):
                return Finding(_matches(in_one_chunk(self._images["model_version"]), text_regex(patterns)))
            case Always():
                return Finding(pa.repeat(pa.scalar(True), self._images.num_rows))

    def _all(self, findings: list[Finding]) -> Finding:
        holds = reduce(pc.and_, (each.holds for each in findings))
        joined = _joined(holds, findings)
        rows = joined.label_rows
        return Finding(
            holds,
            None if rows is None else rows.filter(holds.take(self._image.take(rows))),
            {name: pc.and_(mask, holds) for name, mask in joined.content_types.items()},
        )

    def _has_label(self, wanted: HasLabel) -> Finding:
        counts: Column = pc.and_not(self._is_under(wanted.labels), self._is_under(wanted.excepted))
        rows = self._in_range(self._rows(counts), wanted.at_least, wanted.below)
        for excepted in sorted(wanted.excepted):
            rows = self._without_parents(rows, excepted, wanted.at_least)
        holds: Column = pc.is_in(self._numbers, value_set=self._image.take(rows))
        return Finding(holds, rows)

    def _without_parents(self, rows: Column, excepted: str, at_least: float | None) -> Column:
        """Leave out rows of parents that may be there for the sake of an excepted label alone."""
        label = known_labels().get(excepted)
        parents = pa.array(label.path[:-1] if label else [], pa.string())
        reaching = self._in_range(self._rows(self._is_under([excepted])), at_least, None)
        if not len(reaching):
            return rows
        is_parent: Column = pc.is_in(self._label.take(rows), value_set=parents)
        is_beside: Column = pc.is_in(self._image.take(rows), value_set=self._image.take(reaching))
        return rows.filter(pc.invert(pc.and_(is_parent, is_beside)))

    def _is_under(self, labels: Iterable[str]) -> Column:
        """Tell which paths are those of the labels, or of labels below them."""
        wanted = pa.array(sorted(labels), pa.string())
        return reduce(pc.or_, (pc.is_in(self._paths[name], value_set=wanted) for name in _PATH))

    def _rows(self, paths: Column) -> Column:
        """Return the rows that have one of the paths."""
        wanted: Column = pc.indices_nonzero(paths)
        return pa.concat_arrays([_NO_ROWS, *(self._rows_by_path[path] for path in wanted.to_pylist())])

    def _in_range(self, rows: Column, at_least: float | None, below: float | None) -> Column:
        return rows.filter(_is_in_range(self._confidence.take(rows), at_least, below))

    def _has_content_type(self, wanted: HasContentType) -> Finding:
        masks = {
            name: pc.and_(
                pc.is_valid(self._content_type(name)),
                _is_in_range(self._content_type(name), wanted.at_least, wanted.below),
            )
            for name in CONTENT_TYPES
            if name in wanted.content_types
        }
        return Finding(reduce(pc.or_, masks.values()), None, masks)

    def _content_type(self, name: str) -> Column:
        return in_one_chunk(self._images[f"{name.lower()}_confidence"])

    @cached_property
    def _numbers(self) -> Column:
        return row_numbers(self._images.num_rows).cast(_INT32)


def _evidence(numbers: Column, name: str, confidence: Column, mask: Column) -> pa.Table:
    image = numbers.filter(mask)
    return pa.table([image, pa.repeat(pa.scalar(name), len(image)), confidence.filter(mask)], schema=EVIDENCE)


def _any(findings: list[Finding]) -> Finding:
    return _joined(reduce(pc.or_, (each.holds for each in findings)), findings)


def _joined(holds: Column, findings: list[Finding]) -> Finding:
    """Put the evidence of several findings together."""
    rows = [each.label_rows for each in findings if each.label_rows is not None]
    content_types: dict[str, Column] = {}
    for finding in findings:
        for name, mask in finding.content_types.items():
            content_types[name] = pc.or_(content_types[name], mask) if name in content_types else mask
    joined: Column = pc.unique(pa.concat_arrays(rows)) if rows else None
    return Finding(holds, joined, content_types)


def _is_in_range(confidence: Column, at_least: float | None, below: float | None) -> Column:
    """Tell where a confidence lies in a range; an unknown one lies in that without bounds only."""
    bounds: list[tuple[Callable[..., Column], float | None]] = [
        (pc.greater_equal, at_least),
        (pc.less, below),
    ]
    inside: Column = pa.repeat(pa.scalar(True), len(confidence))
    for compare, bound in bounds:
        if bound is not None:
            is_inside: Column = compare(confidence, pa.scalar(float(bound)))
            inside = pc.and_(inside, pc.fill_null(is_inside, False))
    return inside


def _matches(texts: Column, regex: str) -> Column:
    is_match: Column = pc.match_substring_regex(texts, regex)
    return pc.fill_null(is_match, False)


def _rows_by_path(labels: pa.Table) -> tuple[dict[str, Column], list[Column]]:
    """Return the distinct paths - label, l1, l2, l3 - and the numbers of the rows that have each."""
    path: Column = pa.repeat(pa.scalar(0, pa.int64()), labels.num_rows)
    paths: dict[str, Column] = {}
    for name in _PATH:
        encoded: Column = in_one_chunk(labels[name].cast(pa.string())).dictionary_encode()
        values: Column = pa.concat_arrays([encoded.dictionary, pa.nulls(1, pa.string())])
        code: Column = pc.fill_null(encoded.indices, len(values) - 1)
        combined: Column = pc.add(pc.multiply(path, len(values)), code.cast(pa.int64()))
        distinct = combined.dictionary_encode()
        path = distinct.indices.cast(pa.int64())
        shorter: Column = pc.divide(distinct.dictionary, len(values))
        last = pc.subtract(distinct.dictionary, pc.multiply(shorter, len(values)))
        paths = {known: column.take(shorter) for known, column in paths.items()}
        paths[name] = values.take(last)
    order: Column = pc.array_sort_indices(path)
    counts: Column = pc.value_counts(path.take(order))
    # Every path has a row, so they come in the order of their numbers.
    lengths: list[int] = pc.struct_field(counts, "counts").to_pylist()
    ends = list(accumulate(lengths))
    return paths, [order.slice(end - length, length) for end, length in zip(ends, lengths, strict=True)]
