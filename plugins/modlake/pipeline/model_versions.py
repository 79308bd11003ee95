"""The model version that answered last: ``<work>/models/<adapter>.json``. No operation of AWS tells it."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from modlake.pipeline.object_store import ObjectNotFoundError, ObjectStore
from modlake.pipeline.s3_uri import as_folder_uri


def last_model_version(store: ObjectStore, work_uri: str, adapter_arn: str | None) -> str | None:
    """Return the version that the newest answers of an adapter (None: the base model) were of, if known."""
    version = _read(store, _uri(work_uri, adapter_arn)).get("model_version")
    return None if version is None else str(version)


def remember_model_version(
    store: ObjectStore, work_uri: str, adapter_arn: str | None, model_version: str, answered_at: datetime
) -> None:
    """Note a version that answered, unless a newer answer is known; ``answered_at`` is aware.

    Two that note at once may leave the older one: then a plan carries too little over, or its audit stops
    the day, but nothing false is published.
    """
    uri = _uri(work_uri, adapter_arn)
    known = _read(store, uri)
    if known and datetime.fromisoformat(known["answered_at"]) > answered_at:
        return
    noted = {
        "adapter_arn": adapter_arn,
        "model_version": model_version,
        "answered_at": answered_at.isoformat(),
    }
    store.write(uri, json.dumps(noted, indent=1).encode())


def _uri(work_uri: str, adapter_arn: str | None) -> str:
    name = "base" if adapter_arn is None else hashlib.sha256(adapter_arn.encode()).hexdigest()[:16]
    return f"{as_folder_uri(work_uri)}models/{name}.json"


def _read(store: ObjectStore, uri: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(store.read(uri))
    except ObjectNotFoundError:
        return {}
    return content
