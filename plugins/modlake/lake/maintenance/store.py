"""What maintenance asks of an object store beyond what the pipeline does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from modlake.pipeline.object_store import ObjectStore


class DeletableStore(ObjectStore, Protocol):
    """An object store that can also remove objects."""

    def delete(self, uris: Iterable[str]) -> None:
        """Remove objects; one that isn't there is no error."""
        ...
