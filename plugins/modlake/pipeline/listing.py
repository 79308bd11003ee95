"""Listing the objects of a day, from allowed places only."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.key_blocks import Block, split_block
from modlake.pipeline.object_store import ListedPage, ObjectStore, PagedListing
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri

if TYPE_CHECKING:
    import pyarrow as pa

Report = Callable[[str], None]

LISTERS = 10
"""Requests in flight: as many as botocore keeps connections."""

_PAGES_PER_STRETCH = 4
# What is left of a block is likely to be as much as was listed of it: too little, and cutting costs more.
_STRETCHES_BEFORE_A_CUT = 4
_SECONDS_BETWEEN_REPORTS = 10.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some objects of a listing, in columns; ``position`` sorts stretches as the store lists them."""

    position: tuple[int, ...]
    objects: pa.Table


def check_source_allowed(source_uri: str, allowed_uris: list[str]) -> None:
    """Raise ModlakeTerminalError unless the source is one of the allowed prefixes, or lies below one.

    The job reads S3 with our rights: a source from outside would copy foreign images into the service.
    """
    if not any(as_folder_uri(source_uri).startswith(as_folder_uri(allowed)) for allowed in allowed_uris):
        raise ModlakeTerminalError(
            f"{source_uri} lies outside the allowed sources {allowed_uris}. "
            "Correct modlake_ugc_uri, or add the prefix to modlake_allowed_ugc_uris."
        )


def check_inventory_covers(store: ObjectStore, inventory_uri: str, day: date) -> None:
    """Raise ModlakeTerminalError when an S3 Inventory report began before the day's end: it lacks uploads.

    Whether files of somebody upstream tell of the whole day, only whoever writes them knows.
    """
    from modlake.pipeline.inventory_reports import check_report_covers, is_report

    if is_report(inventory_uri):
        check_report_covers(store, inventory_uri, day)


def list_source(
    store: ObjectStore, source_uri: str, report: Report, inventory_uri: str | None = None
) -> Iterator[Stretch]:
    """Yield the objects below ``source_uri``, telling the pace every few seconds.

    Where the store allows it, blocks of keys are listed side by side, so that stretches come in any order.
    With ``inventory_uri`` nothing is listed: it names what tells of the objects, the ``manifest.json`` of an
    S3 Inventory report, or a Parquet file, or a prefix of them (ending in a slash).
    """
    stretches = (
        _list(store, *split_s3_uri(as_folder_uri(source_uri)))
        if inventory_uri is None
        else _read_inventory(store, source_uri, inventory_uri)
    )
    started = reported = time.monotonic()
    listed = 0
    for stretch in stretches:
        yield stretch
        listed += stretch.objects.num_rows
        now = time.monotonic()
        if now - reported >= _SECONDS_BETWEEN_REPORTS:
            report(f"{listed:,} objects listed, {listed / (now - started):,.0f} images/s")
            reported = now


def _list(store: ObjectStore, bucket: str, prefix: str) -> Iterator[Stretch]:
    if isinstance(store, PagedListing):
        return _list_blocks(store, bucket, prefix)
    return _list_pages(store, bucket, prefix)


def _read_inventory(store: ObjectStore, source_uri: str, inventory_uri: str) -> Iterator[Stretch]:
    from modlake.pipeline.inventory_reports import is_report, read_inventory_report
    from modlake.pipeline.object_tables import list_tables, read_object_files

    if is_report(inventory_uri):
        tables = read_inventory_report(store, inventory_uri, split_s3_uri(source_uri)[0])
    else:
        tables = read_object_files(store, inventory_uri)
    return list_tables(tables, source_uri, inventory_uri)


def _list_pages(store: ObjectStore, bucket: str, prefix: str) -> Iterator[Stretch]:
    import pyarrow as pa

    for number, page in enumerate(store.list_objects(bucket, prefix)):
        columns = {
            "key": pa.array([listed.key for listed in page], pa.string()),
            "size_bytes": pa.array([listed.size_bytes for listed in page], pa.int64()),
            "etag": pa.array([listed.etag for listed in page], pa.string()),
            "last_modified": pa.array(
                [listed.last_modified for listed in page], pa.timestamp("us", tz="UTC")
            ),
        }
        yield Stretch((number,), pa.table(columns))


@dataclass(frozen=True, slots=True)
class _Listed:
    """What listing a block has brought so far, and what is left of it."""

    stretch: Stretch
    rest: Block | None
    last_keys: tuple[str, str]


def _list_blocks(store: PagedListing, bucket: str, prefix: str) -> Iterator[Stretch]:
    """List block by block; whenever requests could be made that nobody makes, a block is cut into more."""

    def probe(block_prefix: str, after: str) -> str | None:
        keys = store.list_page(bucket, block_prefix, after=after, limit=1).objects["key"]
        return str(keys[0]) if len(keys) else None

    blocks = deque([Block(prefix, position=(0,))])
    running: set[Future[_Listed | list[Block]]] = set()
    with ThreadPoolExecutor(LISTERS) as executor:
        try:
            while blocks or running:
                # No more than can run: what they bring is in memory until it is asked for.
                while blocks and len(running) < LISTERS:
                    running.add(executor.submit(_list_stretch, store, bucket, blocks.popleft()))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    ended = future.result()
                    if isinstance(ended, list):
                        blocks.extend(ended)
                        continue
                    rest = ended.rest
                    if rest is not None:
                        is_idle = not blocks and len(running) < LISTERS // 2
                        if is_idle and _is_worth_a_cut(rest):
                            last_keys = ended.last_keys
                            running.add(executor.submit(split_block, probe, rest, last_keys, LISTERS))
                        else:
                            blocks.appendleft(rest)
                    yield ended.stretch
        finally:
            executor.shutdown(cancel_futures=True)


def _is_worth_a_cut(rest: Block) -> bool:
    is_whole_listing = len(rest.position) == 1
    return is_whole_listing or rest.position[-1] >= _STRETCHES_BEFORE_A_CUT


def _list_stretch(store: PagedListing, bucket: str, block: Block) -> _Listed:
    import pyarrow as pa

    pages: list[ListedPage] = []
    rest: Block | None = block
    while rest is not None and len(pages) < _PAGES_PER_STRETCH:
        page = store.list_page(bucket, rest.prefix, after=rest.after, continuation=rest.continuation)
        pages.append(page)
        rest = _rest_of(store, bucket, rest, page)
    if rest is not None:
        rest = replace(rest, position=(*block.position[:-1], block.position[-1] + 1))
    last_page = pages[-1].objects["key"]
    last_keys = (str(last_page[0]), str(last_page[-1])) if rest is not None else ("", "")
    objects = pa.concat_tables([page.objects for page in pages])
    return _Listed(Stretch(block.position, objects), rest, last_keys)


def _rest_of(store: PagedListing, bucket: str, block: Block, page: ListedPage) -> Block | None:
    """Return what is left of a block after a page of it."""
    if not page.is_last:
        return replace(block, after=page.last_key, continuation=page.continuation)
    if page.is_full:
        below = f"{page.last_key}/"
        if store.list_page(bucket, below, limit=1).objects.num_rows:
            return replace(block, prefix=below, after="", continuation="")
    return None
