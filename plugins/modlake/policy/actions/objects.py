"""What the kinds of action ask of the place where images lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from modlake.exceptions import ModlakeTransientError


class ObjectChangedError(ModlakeTransientError):
    """A condition of a copy or a removal no longer held: look at the object again."""


@dataclass(frozen=True, slots=True)
class Properties:
    """What an object has besides its bytes.

    ``headers`` are named as the parameters of CopyObject: ContentType, CacheControl, StorageClass and so on.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One version of an object as HeadObject tells it.

    ``etag`` is without quotes; ``version_id`` is None in a bucket that keeps no versions; ``checksums`` are
    those of the whole object. ``last_modified`` is ISO 8601.
    """

    uri: str
    etag: str
    size_bytes: int
    version_id: str | None
    headers: Mapping[str, str]
    metadata: Mapping[str, str]
    checksums: Mapping[str, str] = field(default_factory=dict)
    last_modified: str | None = None

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> StoredObject:
        return cls(**told)


class ModeratedObjects(Protocol):
    """Single objects with all that belongs to them, by ``s3://bucket/key`` URI."""

    def describe(self, uri: str) -> StoredObject | None:
        """Return the current version; None when there is none."""
        ...

    def tags(self, uri: str, version_id: str | None = None) -> dict[str, str]:
        """Return an object's tags; raise ObjectNotFoundError when it is absent."""
        ...

    def set_tags(self, uri: str, tags: Mapping[str, str], version_id: str | None = None) -> None:
        """Replace all tags of an object; raise ObjectNotFoundError when it is absent."""
        ...

    def copy(self, source: StoredObject, uri: str, properties: Properties, *, if_absent: bool) -> None:
        """Copy an object whole or not at all, as long as it is what ``source`` says.

        Raises ObjectNotFoundError or ObjectChangedError: the source is gone or another, or ``if_absent`` and
        there is an object already.
        """
        ...

    def same_content(self, one: StoredObject, other: StoredObject) -> bool:
        """Tell whether two objects hold the same bytes."""
        ...

    def remove(self, stored: StoredObject) -> None:
        """Delete an object that is still what ``stored`` says, and its version for good.

        Raises ObjectChangedError otherwise; one that is gone already is no error.
        """
        ...

    def purge(self, stored: StoredObject) -> None:
        """Delete for good the version of an object that is not the current one any more."""
        ...
