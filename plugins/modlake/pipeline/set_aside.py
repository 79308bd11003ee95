"""Objects that a stage before ``plan`` has set aside: they are never judged, decided on, shown or named.

The stage compares a day's uploads with hashes of known illegal material, which Rekognition doesn't detect,
and leaves a list of its matches. From then on the pipeline counts them and says nothing else of them.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.columns import Column
from modlake.pipeline.object_store import ObjectNotFoundError, ObjectStore

SET_ASIDE = "SET_ASIDE"
"""``images.error_code`` of such objects, whose outcome is ``ineligible``."""
_MESSAGE = "Set aside before planning."


class SetAside:
    """The objects that were set aside, by their ``s3://`` name."""

    def __init__(self, source_refs: Column) -> None:
        self._source_refs = source_refs

    def __len__(self) -> int:
        return len(self._source_refs)

    def among(self, source_refs: Column) -> Column:
        """Tell which of these objects are set aside."""
        is_among: Column = pc.is_in(source_refs, value_set=self._source_refs)
        return is_among

    def mark(self, source_refs: Column, codes: Column, messages: Column) -> tuple[Column, Column]:
        """Return error codes and messages of listed objects with those of objects that are set aside."""
        is_aside = self.among(source_refs)
        marked: tuple[Column, Column] = (
            pc.if_else(is_aside, pa.scalar(SET_ASIDE), codes),
            pc.if_else(is_aside, pa.scalar(_MESSAGE), messages),
        )
        return marked


NOTHING = SetAside(pa.array([], pa.string()))


def read_set_aside(store: ObjectStore, uri: str | None) -> SetAside:
    """Return what the stage has set aside of a day: the column ``source_ref`` of Parquet or JSON Lines.

    Without a URI there is no such stage. Its list must exist, for a day without a match too: a list that is
    missing means that the stage has not run, and nothing may be judged before it has.

    Raises ModlakeTerminalError when the list is missing or can't be read; the text names no object.
    """
    if uri is None:
        return NOTHING
    try:
        body = store.read(uri)
    except ObjectNotFoundError as error:
        raise ModlakeTerminalError(
            f"{uri} does not exist, so the known-hash stage has not run for this day, and nothing is judged. "
            "Run that stage, which writes an empty list when it finds nothing, then clear this task."
        ) from error
    try:
        refs = _read_parquet(body) if uri.endswith(".parquet") else _read_json_lines(body)
    except (ValueError, KeyError, TypeError, pa.ArrowException):
        # Not chained: the cause may quote a line, and with it an object's name.
        raise ModlakeTerminalError(
            f"{uri} is not the list of a known-hash stage: write Parquet with the column source_ref, or "
            'lines such as {"source_ref": "s3://bucket/key"}.'
        ) from None
    return SetAside(refs)


def _read_parquet(body: bytes) -> Column:
    column = pq.read_table(pa.BufferReader(body), columns=["source_ref"])["source_ref"]
    return _checked(column.combine_chunks().cast(pa.string()))


def _read_json_lines(body: bytes) -> Column:
    return _checked(
        pa.array([json.loads(line)["source_ref"] for line in body.splitlines() if line.strip()], pa.string())
    )


def _checked(source_refs: Column) -> Column:
    is_named: Column = pc.starts_with(source_refs, "s3://")
    if source_refs.null_count or not pc.all(is_named, min_count=0).as_py():
        raise ValueError("an object without a name")
    return source_refs
