"""Retry shards: the images of a shard that got no answer, in a manifest and a job of their own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from datetime import datetime

import pyarrow.compute as pc

from modlake.pipeline.answers import read_answers
from modlake.pipeline.columns import Column
from modlake.pipeline.engines import Engine
from modlake.pipeline.inventory import read_shard_inventory
from modlake.pipeline.manifests import digest_images, manifest_body
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.outcomes import FailureCode, unanswered_codes
from modlake.pipeline.plan import Plan, Shard
from modlake.pipeline.second_look import let_second_pass
from modlake.pipeline.side_by_side import side_by_side


def plan_retries(store: ObjectStore, plan: Plan, shards: Iterable[int], retry: int) -> list[Shard]:
    """Write the manifests of one more try for those shards whose jobs so far left images without an answer.

    ``retry`` counts from 1; the jobs of the tries before it must have succeeded. The same answers give the
    same manifests, so that a try, a clear or a rerun of the day finds the same jobs.

    Raises ModlakeTerminalError as :func:`~modlake.pipeline.answers.read_answers` does.
    """
    found = side_by_side(lambda shard: _plan_retry(store, plan, shard, retry), shards)
    return [shard for shard in found if shard is not None]


def _plan_retry(store: ObjectStore, plan: Plan, shard: int, retry: int) -> Shard | None:
    listed = read_shard_inventory(store, plan, shard)
    answers = read_answers(store, plan, shard, listed, retries=retry - 1)
    asks_again_itself = answers.jobs[-1].record.engine == Engine.SYNC
    has_code: Column = pc.is_valid(answers.images["error_code"])
    failed = answers.images.append_column("etag", listed["etag"]).filter(has_code)
    failed_by_code = Counter(map(str, failed["error_code"].to_pylist()))
    codes_without_answer = unanswered_codes(failed_by_code, listed.num_rows)
    unanswered: list[tuple[str, str]] = []
    columns = (failed[name].to_pylist() for name in ("source_ref", "etag", "error_code"))
    for source_ref, etag, code in zip(*columns, strict=True):
        if code == FailureCode.REWRITTEN:
            # The same ETag again: only the time tells this object from the one of an earlier try.
            unanswered.append((source_ref, f"{etag} {answers.rewritten[source_ref]}"))
        elif code in codes_without_answer and not asks_again_itself:
            unanswered.append((source_ref, etag))
    if not unanswered:
        return None
    body = manifest_body(source_ref for source_ref, _ in unanswered)
    uri = plan.folder.manifest_uri(shard, retry)
    store.write(uri, body)
    let_second_pass(max(map(datetime.fromisoformat, answers.rewritten.values()), default=None))
    return Shard(
        shard=shard,
        manifest_uri=uri,
        image_count=len(unanswered),
        size_bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        images_sha256=digest_images(unanswered),
        retry=retry,
    )
