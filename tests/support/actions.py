"""Images in a real S3, and intents about them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from modlake.hooks.moderation_actions import ModeratedObjectsHook
from modlake.pipeline.s3_uri import split_s3_uri
from modlake.policy.intents import ActionResult, Intent

DAY = "2026-11-21"


def intent(source_ref: str, etag: str, kind: str, target: str = "", **changes: Any) -> Intent:
    digest = hashlib.sha256(f"{source_ref} {etag} {kind}".encode()).hexdigest()
    values: dict[str, Any] = {
        "action_id": f"act-{digest[:24]}",
        "day": DAY,
        "source_ref": source_ref,
        "etag": etag,
        "kind": kind,
        "target": target,
        "detail": {"labels": [{"label": "Explicit Nudity", "confidence": 97.5}]},
        "undoes": None,
        "policy": "default",
        "policy_version": "0123456789ab",
        "rule": "nudity",
        "verdict": "block",
        "actor": "modlake",
        "reason": None,
    }
    return Intent(**values | changes)


def all_of(intents: Sequence[Intent]) -> set[str]:
    """Say that all of these are still requested."""
    return {intent.action_id for intent in intents}


def taking_back(done: Intent, result: ActionResult, **changes: Any) -> Intent:
    """Return the intent that undoes a completed one."""
    return replace(
        done,
        action_id=f"{done.action_id}-undo",
        undoes=done.action_id,
        detail={"original": result.detail},
        actor="ada",
        reason="judged wrongly",
        **changes,
    )


@dataclass
class Buckets:
    """What stands in a bucket, for comparing it byte for byte."""

    hook: ModeratedObjectsHook

    def put(self, uri: str, body: bytes, *, tags: str = "", **headers: Any) -> str:
        """Upload, and return the ETag."""
        bucket, key = split_s3_uri(uri)
        answer = self.hook.conn.put_object(Bucket=bucket, Key=key, Body=body, Tagging=tags, **headers)
        return answer["ETag"].strip('"')

    def put_in_parts(self, uri: str, sizes: list[int], **given: Any) -> str:
        bucket, key = split_s3_uri(uri)
        upload: dict[str, Any] = {"Bucket": bucket, "Key": key}
        upload["UploadId"] = self.hook.conn.create_multipart_upload(**upload, **given)["UploadId"]
        parts: Any = []
        for number, size in enumerate(sizes, 1):
            answer = self.hook.conn.upload_part(**upload, PartNumber=number, Body=os.urandom(size))
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        done = self.hook.conn.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        return done["ETag"].strip('"')

    def content(self, uri: str) -> dict[str, tuple[bytes, dict[str, str], dict[str, str], dict[str, str]]]:
        """Return bodies, headers, metadata and tags by key of all below a URI."""
        bucket, prefix = split_s3_uri(uri)
        found = {}
        for page in self.hook.list_objects(bucket, prefix):
            for listed in page:
                described = self.hook.describe(listed.source_ref)
                assert described is not None
                found[listed.key] = (
                    self.hook.read(listed.source_ref),
                    dict(described.headers),
                    dict(described.metadata),
                    self.hook.tags(listed.source_ref),
                )
        return found
