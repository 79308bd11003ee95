"""Finding the judgements of listed images in the files of ``images`` and ``labels``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import Table

from modlake.lake.listed_batches import BatchesByContent, BatchesByRef, ListedBatches
from modlake.lake.replaced_runs import last_snapshots
from modlake.lake.table_files import FileStatistics, Span, TableFiles, gathered
from modlake.pipeline import landed_schemas
from modlake.pipeline.columns import Column, Numbers
from modlake.pipeline.outcomes import Outcome
from modlake.pipeline.reuse import Judgements
from modlake.pipeline.row_index import NONE, RowIndex
from modlake.pipeline.scratch import TableScratch
from modlake.pipeline.side_by_side import side_by_side
from modlake.pipeline.text_filter import TextFilter

if TYPE_CHECKING:
    from modlake.pipeline.reuse import Find

SAME_OBJECT = ("source_ref", "etag", "size_bytes")
SAME_CONTENT = ("etag", "size_bytes")

ROWS_KEPT_AT_ONCE = 50_000
"""Few enough that some are written while others are read."""

ROWS_COMPARED_AT_ONCE = 250_000

_NEWEST_FIRST: list[tuple[str, Literal["ascending", "descending"]]] = [
    ("judged_at", "descending"),
    ("day", "descending"),
    ("source_ref", "ascending"),
]

_NOT_CARRIED = {"bucket", "key", "last_modified", "error_code", "error_message", "min_confidence"}
_IMAGES = pa.schema(
    [(field.name, field.type) for field in landed_schemas.IMAGES if field.name not in _NOT_CARRIED]
)
_LABELS = pa.schema([(field.name, field.type) for field in landed_schemas.LABELS])


class JudgementLookup:
    """Finds the newest judgement of each listed image, with its labels.

    Each data file is read once, however many images are listed, and what may be of them is kept on disk.
    Memory is bounded by a batch of listed images with what is found for it, some data files, and a
    :class:`~modlake.pipeline.text_filter.TextFilter`. A judgement whose labels are not all there is none: a
    publication may have been cut short between the tables.

    :param published: the ids of published runs by day; rows of others are not looked at. What another run has
        replaced, in a publish that is going on or was cut short, is read as of before
    :param keys: the columns that tell that an image is the same; an image that is not found by the first is
        sought by the next, whose columns must be among those of the first
    :param span: where all listed images lie, when every key holds their source_ref
    :param originals: regard a judgement only in the day that it was made for, so that a lake in which every
        day carries over the ones before is not read as often as it has days
    """

    def __init__(
        self,
        images: Table,
        labels: Table,
        published: Mapping[date, str],
        *,
        images_filter: BooleanExpression,
        labels_filter: BooleanExpression,
        keys: tuple[tuple[str, ...], ...],
        span: Span | None,
        originals: bool,
    ) -> None:
        self._published = pa.array(published.values(), pa.string())
        self._keys = keys
        # What is found by any key is found by the last one, too.
        self._sought = keys[-1][0]
        self._is_by_ref = span is not None
        self._originals = originals
        self._plan_images: Callable[[], TableFiles] = lambda: TableFiles(
            images,
            images_filter,
            _IMAGES,
            span,
            _may_hold_originals if originals else lambda _: True,
            as_of=last_snapshots(images, published),
        )
        self._plan_labels: Callable[[], TableFiles] = lambda: TableFiles(
            labels, labels_filter, _LABELS, span, as_of=last_snapshots(labels, published)
        )

    @contextmanager
    def over(self, batches: Callable[[], Iterable[pa.Table]], images: int) -> Iterator[Find]:
        """Read the tables once for all batches, and return what finds the judgements of one."""
        sought, labelled = TextFilter(images), TextFilter(images)
        labelled_days: set[Any] = set()
        listing: ListedBatches = BatchesByRef() if self._is_by_ref else BatchesByContent(images)
        with (
            ThreadPoolExecutor(1) as planner,
            closing(_Candidates(_IMAGES, listing.of_images)) as image_rows,
            closing(_Candidates(_LABELS, listing.of_labels)) as label_rows,
        ):
            image_files = planner.submit(self._plan_images)
            for batch in batches():
                sought.add(batch[self._sought])
                if batch.num_rows:
                    listing.add(batch)
            if not sought.is_empty and image_files.result():
                label_files = planner.submit(self._plan_labels)
                found = image_files.result().find(self._sought, sought, rows_at_once=ROWS_KEPT_AT_ONCE)
                for with_labels in side_by_side(partial(self._keep_images, image_rows), enumerate(found)):
                    labelled.add(with_labels["source_ref"])
                    listing.add_labelled(with_labels)
                    labelled_days |= set(with_labels["day"].unique().to_pylist())
            if not labelled.is_empty:
                found = label_files.result().find(
                    "source_ref", labelled, rows_at_once=ROWS_KEPT_AT_ONCE, days=labelled_days
                )
                for _ in side_by_side(label_rows.add, enumerate(found)):
                    pass
            yield lambda listed: self._find(listed, listing.number_of(listed), image_rows, label_rows)

    def _keep_images(self, image_rows: _Candidates, numbered: tuple[int, pa.Table]) -> pa.Table:
        """Keep rows that may be a judgement; return source_ref, day and etag of those with labels."""
        number, rows = numbered
        regarded = self._regarded(rows)
        image_rows.add((number, regarded))
        has_labels: Column = pc.greater(regarded["label_count"], pa.scalar(0))
        return regarded.select(["source_ref", "day", "etag"]).filter(has_labels)

    def _find(
        self, listed: pa.Table, batch: int, image_rows: _Candidates, label_rows: _Candidates
    ) -> Judgements:
        last_key = self._keys[-1]
        index = RowIndex(listed.select(last_key).columns)
        # What is found by any key is among these.
        rows, places = _newest_first(index, last_key, image_rows.of(batch))
        is_left = np.ones(listed.num_rows, np.bool_)
        found: list[Judgements] = []
        for key in self._keys:
            if key != last_key:
                by_key = RowIndex(listed.select(key).columns)
                row = by_key.first_at(by_key.places_of(rows.select(key).columns))
            else:
                row = index.first_at(places)
            if found:
                is_found: Column = pc.is_in(listed["source_ref"], value_set=found[-1].images["source_ref"])
                is_left &= ~np.asarray(is_found)
                row[~is_left] = NONE
            found.append(_with_labels(_match(key, listed, rows, row), label_rows.of(batch)))
        return Judgements(
            images=pa.concat_tables([each.images for each in found]),
            labels=pa.concat_tables([each.labels for each in found]),
        )

    def _regarded(self, rows: pa.Table) -> pa.Table:
        is_published: Column = pc.is_in(rows["run_id"], value_set=self._published)
        published = _kept(rows, is_published)
        return _kept(published, _is_original(published)) if self._originals else published


class _Candidates:
    """Rows that may be of listed images, on disk, by the batches of these."""

    def __init__(
        self, schema: pa.Schema, by_batch: Callable[[pa.Table], Iterable[tuple[int, Column]]]
    ) -> None:
        self._scratch = TableScratch(schema)
        self._by_batch = by_batch

    def close(self) -> None:
        """Give the disk's room back."""
        self._scratch.close()

    def add(self, numbered: tuple[int, pa.Table]) -> None:
        """Keep rows; their number is the place among others of the same batch."""
        number, rows = numbered
        for batch, may_be_of_it in self._by_batch(rows):
            self._scratch.add((batch, number), _kept(rows, may_be_of_it))

    def of(self, batch: int) -> Iterator[pa.Table]:
        """Yield the rows that may be of a batch."""
        return gathered(self._scratch.tables(batch), ROWS_COMPARED_AT_ONCE)


def _newest_first(
    index: RowIndex, key: tuple[str, ...], candidates: Iterable[pa.Table]
) -> tuple[pa.Table, Numbers]:
    """Return the rows that an index may hold, with their places in it; of equal ones the newest first."""
    kept, places_kept = [_IMAGES.empty_table()], [np.zeros(0, np.int64)]
    for rows in candidates:
        places = index.places_of(rows.select(key).columns)
        is_held = places != NONE
        kept.append(_kept(rows, pa.array(is_held)))
        places_kept.append(places[is_held])
    rows, places = pa.concat_tables(kept), np.concatenate(places_kept)
    if not len(places) or np.bincount(places).max() == 1:
        return rows, places
    order = pc.sort_indices(rows, sort_keys=_NEWEST_FIRST)
    return rows.take(order), places[np.asarray(order)]


def _match(key: tuple[str, ...], listed: pa.Table, rows: pa.Table, row: Numbers) -> pa.Table:
    """Return the row of ``images`` that was found for each listed image; ``judged_ref`` is its name there."""
    image = np.flatnonzero(row != NONE)
    image_of = np.full(rows.num_rows, NONE)
    image_of[row[image]] = image
    is_of_any = image_of != NONE
    if np.count_nonzero(is_of_any) == len(image):
        # Each row is of one image, as most often: in the order of the rows there is nothing to copy.
        matches, image = _kept(rows, pa.array(is_of_any)), image_of[is_of_any]
    else:
        matches = rows.take(row[image])
    asked, matches = _equal(listed.select(sorted({*key, "source_ref"})).take(image), matches, key)
    reused_from = pc.coalesce(matches["reused_from"], pc.cast(matches["day"], pa.string()))
    place = matches.column_names.index("reused_from")
    return _with_judged_ref(matches.set_column(place, "reused_from", reused_from)).append_column(
        "source_ref", asked["source_ref"]
    )


def _equal(some: pa.Table, others: pa.Table, key: tuple[str, ...]) -> tuple[pa.Table, pa.Table]:
    """Return the rows of both that are equal, of rows with equal hashes, which can be forged."""
    for name in key:
        equal: Column = pc.equal(some[name], others[name])
        is_equal: Column = pc.fill_null(equal, False)
        some, others = _kept(some, is_equal), _kept(others, is_equal)
    return some, others


def _with_judged_ref(rows: pa.Table) -> pa.Table:
    return rows.rename_columns(["judged_ref" if name == "source_ref" else name for name in rows.column_names])


def _with_labels(matches: pa.Table, label_rows: Iterable[pa.Table]) -> Judgements:
    """Return the judgements that have all of their labels."""
    labels = _labels_of(matches, label_rows)
    counts = labels.group_by("source_ref", use_threads=False).aggregate([("label", "count")])
    held: Column = counts["label_count"].take(
        pc.index_in(matches["source_ref"], value_set=counts["source_ref"])
    )
    is_whole: Column = pc.equal(pc.fill_null(held, 0), matches["label_count"])
    if pc.all(is_whole, min_count=0).as_py():
        return Judgements(matches, labels)
    images = matches.filter(is_whole)
    is_of_images: Column = pc.is_in(labels["source_ref"], value_set=images["source_ref"])
    return Judgements(images, labels.filter(is_of_images))


def _labels_of(matches: pa.Table, candidates: Iterable[pa.Table]) -> pa.Table:
    """Return the labels of matched rows, under the names of the listed images."""
    key = ("day", "run_id", "judged_ref")
    has_labels: Column = pc.greater(matches["label_count"], pa.scalar(0))
    images = matches.select([*key, "source_ref"]).filter(has_labels)
    wanted = RowIndex(images.select(key).columns)
    found = []
    for rows in map(_with_judged_ref, candidates if images.num_rows else ()):
        places = wanted.places_of(rows.select(key).columns)
        is_wanted = places != NONE
        labels = _kept(rows, pa.array(is_wanted))
        if wanted.are_different:
            of_image, labels = _equal(images.take(wanted.one_at(places[is_wanted])), labels, key)
            found.append(labels.append_column("source_ref", of_image["source_ref"]))
        else:
            # Equal content under several names; forged hashes can't multiply what is joined by values.
            found.append(labels.join(images, list(key), join_type="inner"))
    none = _with_judged_ref(_LABELS.empty_table()).append_column("source_ref", pa.array([], pa.string()))
    return pa.concat_tables([none, *found]).drop_columns(list(key))


def _kept(rows: pa.Table, is_kept: Column) -> pa.Table:
    """Filter rows, which costs a copy unless all are kept, as most often they are."""
    return rows if pc.all(is_kept, skip_nulls=False, min_count=0).as_py() else rows.filter(is_kept)


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
