"""The identities of the local cloud: SeaweedFS's `s3.json`, shared by S3 and the Rekognition stand-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from localcloud.errors import LocalCloudError

OWNER = "modlake"
_OWNER_ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]


def write_owner(path: Path, access_key: str, secret_key: str) -> bool:
    """Make the owner's key pair stand in the file, keep other identities; True if the file changed."""
    identities = [identity for identity in _identities(path) if identity.get("name") != OWNER]
    owner = {
        "name": OWNER,
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": _OWNER_ACTIONS,
    }
    text = json.dumps({"identities": [owner, *identities]}, indent=2) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    draft = path.with_suffix(".tmp")
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return True


def read_secrets(path: Path) -> dict[str, str]:
    """Every access key of the file with its secret key."""
    return {
        credential["accessKey"]: credential["secretKey"]
        for identity in _identities(path)
        for credential in identity.get("credentials", [])
    }


def _identities(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        identities = json.loads(path.read_text(encoding="utf-8"))["identities"]
    except (ValueError, KeyError, TypeError) as error:
        raise LocalCloudError(
            f"{path} is not a SeaweedFS identities file ({error}): repair or delete it"
        ) from error
    return list(identities)
