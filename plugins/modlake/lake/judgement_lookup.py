"""Finding the judgements of listed images in the files of ``images`` and ``labels``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import Table

from modlake.lake.table_files import FileStatistics, Span, TableFiles, gathered
from modlake.pipeline import landed_schemas
from modlake.pipeline.columns import Column
from modlake.pipeline.outcomes import Outcome
from modlake.pipeline.reuse import Judgements

SAME_OBJECT = ("source_ref", "etag", "size_bytes")
SAME_CONTENT = ("etag", "size_bytes")

ROWS_AT_ONCE = 250_000
"""Rows that are compared at once: each comparison costs the hashing of the listed images anew."""

_NOT_CARRIED = {"bucket", "key", "last_modified", "error_code", "error_message", "min_confidence"}
_IMAGES = pa.schema(
    [(field.name, field.type) for field in landed_schemas.IMAGES if field.name not in _NOT_CARRIED]
)
_LABELS = pa.schema([(field.name, field.type) for field in landed_schemas.LABELS])


class JudgementLookup:
    """Finds the newest judgement of each listed image, with its labels.

    Memory is bounded by the listed images with what is found for them, and a data file. A judgement whose
    labels are not all there is none: a publication may have been cut short between the tables.

    :param published: the ids of published runs; rows of others are not looked at
    :param key: the columns that tell that an image is the same
    :param span: where all listed images lie, when the key holds their source_ref
    :param originals: regard a judgement only in the day that it was made for, so that a lake in which every
        day carries over the ones before is not read as often as it has days
    """

    def __init__(
        self,
        images: Table,
        labels: Table,
        published: Iterable[str],
        *,
        images_filter: BooleanExpression,
        labels_filter: BooleanExpression,
        key: tuple[str, ...],
        span: Span | None,
        originals: bool,
    ) -> None:
        self._published = pa.array(published, pa.string())
        self._key = key
        self._has_span = span is not None
        self._originals = originals
        self._images = TableFiles(
            images, images_filter, _IMAGES, span, _may_hold_originals if originals else lambda _: True
        )
        self._plan_labels: Callable[[], TableFiles] = lambda: TableFiles(labels, labels_filter, _LABELS, span)
        self._labels: TableFiles | None = None

    def __call__(self, listed: pa.Table) -> Judgements:
        """Return the judgements of listed images: source_ref, etag and size_bytes, in key order."""
        matches = self._match(listed)
        labels = self._find_labels(matches)
        counts = labels.group_by("source_ref", use_threads=False).aggregate([("label", "count")])
        held: Column = counts["label_count"].take(
            pc.index_in(matches["source_ref"], value_set=counts["source_ref"])
        )
        is_whole: Column = pc.equal(pc.fill_null(held, 0), matches["label_count"])
        images = matches.filter(is_whole)
        return Judgements(images, _only(labels, labels["source_ref"], images["source_ref"]))

    def _match(self, listed: pa.Table) -> pa.Table:
        """Return a row of ``images`` for each listed image that has one; ``judged_ref`` is its name there."""
        asked = _joined(listed, self._key)
        found = [_IMAGES.empty_table()]
        span = _span(listed["source_ref"]) if self._has_span else None
        first, sought = self._key[0], listed[self._key[0]].combine_chunks()
        regarded = map(self._regarded, self._images.find(first, sought, span))
        found += [_only(rows, _joined(rows, self._key), asked) for rows in gathered(regarded, ROWS_AT_ONCE)]
        newest = pa.concat_tables(found).sort_by(
            [("judged_at", "descending"), ("day", "descending"), ("source_ref", "ascending")]
        )
        row: Column = pc.index_in(asked, value_set=_joined(newest, self._key))
        matches = newest.take(row.drop_null())
        is_matched: Column = pc.is_valid(row)
        reused_from = pc.coalesce(matches["reused_from"], pc.cast(matches["day"], pa.string()))
        names = ["judged_ref" if name == "source_ref" else name for name in matches.column_names]
        return (
            matches.set_column(matches.column_names.index("reused_from"), "reused_from", reused_from)
            .rename_columns(names)
            .append_column("source_ref", listed["source_ref"].filter(is_matched))
        )

    def _regarded(self, rows: pa.Table) -> pa.Table:
        published = _only(rows, rows["run_id"], self._published)
        return published.filter(_is_original(published)) if self._originals else published

    def _find_labels(self, matches: pa.Table) -> pa.Table:
        """Return the labels of matched rows, under the names of the listed images."""
        has_labels: Column = pc.greater(matches["label_count"], pa.scalar(0))
        labelled = matches.filter(has_labels)
        names = labelled.select(["day", "run_id", "judged_ref", "source_ref"])
        wanted = _joined(names, ("day", "run_id", "judged_ref"))
        found = [_LABELS.empty_table()]
        if names.num_rows:
            self._labels = self._labels or self._plan_labels()
            refs = names["judged_ref"].combine_chunks()
            files = gathered(self._labels.find("source_ref", refs, _span(refs)), ROWS_AT_ONCE)
            found += [_only(rows, _joined(rows, ("day", "run_id", "source_ref")), wanted) for rows in files]
        labels = pa.concat_tables(found)
        labels = labels.rename_columns(
            ["judged_ref" if name == "source_ref" else name for name in labels.column_names]
        )
        key = ["day", "run_id", "judged_ref"]
        return labels.join(names, key, join_type="inner").drop_columns(key)


def _only(rows: pa.Table, values: Column, wanted: Column) -> pa.Table:
    """Return the rows whose values are among the wanted ones."""
    is_wanted: Column = pc.is_in(values, value_set=wanted)
    return rows.filter(is_wanted)


def _may_hold_originals(file: FileStatistics) -> bool:
    if file.may_overlap("outcome", (Outcome.JUDGED, Outcome.JUDGED)):
        return True
    day = file.day.isoformat()
    return file.may_overlap("reused_from", (day, day))


def _is_original(rows: pa.Table) -> Column:
    """Tell which rows are judgements of their own day, if for an earlier listing of it."""
    is_judged: Column = pc.equal(rows["outcome"], pa.scalar(Outcome.JUDGED))
    is_of_the_day: Column = pc.equal(rows["reused_from"], pc.cast(rows["day"], pa.string()))
    return pc.or_(is_judged, pc.fill_null(is_of_the_day, False))


def _joined(rows: pa.Table, columns: tuple[str, ...]) -> Column:
    """Return one text a row that is equal where the columns are; eligible keys hold no newline."""
    texts: list[Column] = [pc.cast(rows[name], pa.string()) for name in columns]
    return pc.binary_join_element_wise(*texts, pa.scalar("\n"))


def _span(source_refs: Column) -> Span:
    bounds: Column = pc.min_max(source_refs).as_py()
    return bounds["min"], bounds["max"]
