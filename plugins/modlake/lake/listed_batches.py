"""The batches of a listing that rows of the lake may be of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from modlake.lake.table_files import Span
from modlake.pipeline.columns import Column
from modlake.pipeline.text_groups import GROUPS, TextGroups


class ListedBatches(Protocol):
    """Tells rows of ``images`` and ``labels`` by the batches of listed images that they may be of."""

    def add(self, listed: pa.Table) -> None:
        """Add a batch, with at least one row."""
        ...

    def add_labelled(self, images: pa.Table) -> None:
        """Add images of the lake that have labels: source_ref and etag."""
        ...

    def number_of(self, listed: pa.Table) -> int:
        """Return the number that a batch has in the following, which others may share."""
        ...

    def of_images(self, rows: pa.Table) -> Iterator[tuple[int, Column]]:
        """Yield each batch that may have any of these rows, with those that it may have."""
        ...

    def of_labels(self, rows: pa.Table) -> Iterator[tuple[int, Column]]:
        """Yield the same for rows of ``labels``."""
        ...


class BatchesByRef:
    """Batches of which each row is of an image of the same name: where that lies tells them.

    They may overlap: what lies in quarantine is listed after all others.
    """

    def __init__(self) -> None:
        self._spans: list[Span] = []

    def add(self, listed: pa.Table) -> None:
        self._spans.append(span_of(listed))

    def add_labelled(self, images: pa.Table) -> None:
        """Labels lie where their images do."""

    def number_of(self, listed: pa.Table) -> int:
        return self._spans.index(span_of(listed))

    def of_images(self, rows: pa.Table) -> Iterator[tuple[int, Column]]:
        for batch, (first, last) in enumerate(self._spans):
            is_within: Column = pc.and_(
                pc.greater_equal(rows["source_ref"], pa.scalar(first)),
                pc.less_equal(rows["source_ref"], pa.scalar(last)),
            )
            if pc.any(is_within).as_py():
                yield batch, is_within

    of_labels = of_images


class BatchesByContent:
    """Batches of which a row may be of an image of another name: their ETags are remembered.

    :param images: about how many are listed
    """

    def __init__(self, images: int) -> None:
        self._numbers: dict[Span, int] = {}
        self._etags, self._labelled_refs = TextGroups(images), TextGroups(images)

    def add(self, listed: pa.Table) -> None:
        group = len(self._numbers) % GROUPS
        self._numbers[span_of(listed)] = group
        self._etags.add(listed["etag"], group)

    def add_labelled(self, images: pa.Table) -> None:
        for group, may_be_of_it in self._etags.groups_of(images["etag"]):
            self._labelled_refs.add(images["source_ref"].filter(may_be_of_it), group)

    def number_of(self, listed: pa.Table) -> int:
        return self._numbers[span_of(listed)]

    def of_images(self, rows: pa.Table) -> Iterator[tuple[int, Column]]:
        return self._etags.groups_of(rows["etag"])

    def of_labels(self, rows: pa.Table) -> Iterator[tuple[int, Column]]:
        return self._labelled_refs.groups_of(rows["source_ref"])


def span_of(listed: pa.Table) -> Span:
    """Return the first and the last source_ref."""
    bounds: Column = pc.min_max(listed["source_ref"]).as_py()
    return bounds["min"], bounds["max"]
