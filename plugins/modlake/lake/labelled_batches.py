"""A published day's images with their labels, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog

from modlake.exceptions import ModlakeTransientError
from modlake.lake.filters import all_of, between, equal_to
from modlake.lake.schemas import IMAGES_TABLE, LABELS_TABLE, RUNS_TABLE, LakeTable
from modlake.lake.storage import storage_errors_explained
from modlake.lake.table_files import TableFiles, gathered

_IMAGES_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class PublishedDay:
    """A day's published run, and how many images and labels it has."""

    day: date
    run_id: str
    images: int
    labels: int
    published_at: datetime


@dataclass(frozen=True, slots=True)
class LabelledBatch:
    """Some images of a day, sorted by source_ref, and all rows of their labels."""

    images: pa.Table
    labels: pa.Table


def published_days(catalog: Catalog, first: date, last: date) -> list[PublishedDay]:
    """Return the days of a range that have a published run, in order."""
    table = catalog.load_table(RUNS_TABLE.identifier)
    columns = ("day", "run_id", "listed", "labels", "published_at")
    with storage_errors_explained(f"Reading which days are published from {first} to {last}"):
        runs = table.scan(
            between("day", first.isoformat(), last.isoformat()), selected_fields=columns
        ).to_arrow()
    rows: list[dict[str, Any]] = runs.sort_by("day").to_pylist()
    return [PublishedDay(*(row[column] for column in columns)) for row in rows]


def read_labelled_batches(
    catalog: Catalog,
    published: PublishedDay,
    *,
    image_columns: tuple[str, ...],
    label_columns: tuple[str, ...],
    images_at_once: int = _IMAGES_AT_ONCE,
) -> Iterator[LabelledBatch]:
    """Yield a published run's images, each once, with their labels.

    The columns asked for include ``source_ref``. Memory holds the asked columns of a few data files: these
    are sorted by image, so only few of ``labels`` overlap one of ``images``.

    Raises ModlakeTransientError when the day was published anew meanwhile, or the tables' storage fails;
    ModlakeTerminalError when a file is gone.
    """
    of_run = all_of(equal_to("day", published.day.isoformat()), equal_to("run_id", published.run_id))
    image_schema, label_schema = _columns(IMAGES_TABLE, image_columns), _columns(LABELS_TABLE, label_columns)
    image_files = TableFiles(catalog.load_table(IMAGES_TABLE.identifier), of_run, image_schema)
    label_files = TableFiles(catalog.load_table(LABELS_TABLE.identifier), of_run, label_schema)
    read_images = read_labels = 0
    with storage_errors_explained(f"Reading the labels of {published.day}"):
        for rows in gathered(image_files.read(), images_at_once):
            in_order = rows.sort_by("source_ref")
            for start in range(0, in_order.num_rows, images_at_once):
                images = in_order.slice(start, images_at_once).combine_chunks()
                labels = pa.concat_tables([label_schema.empty_table(), *_labels_of(images, label_files)])
                read_images += images.num_rows
                read_labels += labels.num_rows
                yield LabelledBatch(images, labels)
    if (read_images, read_labels) != (published.images, published.labels):
        raise ModlakeTransientError(
            f"{published.day} was published anew while it was read: of the run {published.run_id} there are "
            f"{read_images} images and {read_labels} labels, not {published.images} and {published.labels}. "
            "Try again."
        )


def _labels_of(images: pa.Table, label_files: TableFiles) -> Iterator[pa.Table]:
    names: Any = images["source_ref"].combine_chunks()
    for rows in label_files.read((names[0].as_py(), names[-1].as_py())):
        is_of_image: Any = pc.is_in(rows["source_ref"], value_set=names)
        yield rows.filter(is_of_image)


def _columns(table: LakeTable, names: tuple[str, ...]) -> pa.Schema:
    return pa.schema([table.row_schema.field(name) for name in names])
