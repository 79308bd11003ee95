"""Retry shards: the images of a shard that got no answer, in a manifest and a job of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from modlake.pipeline.answers import read_answers
from modlake.pipeline.inventory import etags, read_shard_inventory, source_refs
from modlake.pipeline.manifests import digest_images, manifest_body
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.outcomes import is_worth_a_retry
from modlake.pipeline.plan import Plan, Shard


def plan_retries(store: ObjectStore, plan: Plan, shards: Iterable[int], retry: int) -> list[Shard]:
    """Write the manifests of one more try for those shards whose jobs so far left images without an answer.

    ``retry`` counts from 1; the jobs of the tries before it must have succeeded. The same answers give the
    same manifests, so that a try, a clear or a rerun of the day finds the same jobs.

    Raises ModlakeTerminalError as :func:`~modlake.pipeline.answers.read_answers` does.
    """
    found = (_plan_retry(store, plan, shard, retry) for shard in shards)
    return [shard for shard in found if shard is not None]


def _plan_retry(store: ObjectStore, plan: Plan, shard: int, retry: int) -> Shard | None:
    listed = read_shard_inventory(store, plan, shard)
    manifest = source_refs(listed)
    images = read_answers(store, plan, shard, manifest, retries=retry - 1).images
    codes = images["error_code"].to_pylist()
    unanswered = [
        (source_ref, etag)
        for source_ref, etag, code in zip(manifest, etags(listed), codes, strict=True)
        if code is not None and is_worth_a_retry(code)
    ]
    if not unanswered:
        return None
    body = manifest_body(source_ref for source_ref, _ in unanswered)
    uri = plan.folder.manifest_uri(shard, retry)
    store.write(uri, body)
    return Shard(
        shard=shard,
        manifest_uri=uri,
        image_count=len(unanswered),
        size_bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        images_sha256=digest_images(unanswered),
        retry=retry,
    )
