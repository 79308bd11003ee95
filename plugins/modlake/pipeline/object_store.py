"""What the pipeline asks of an object store, so that it needs no AWS client of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from modlake.exceptions import ModlakeTerminalError

if TYPE_CHECKING:
    import pyarrow as pa


class ObjectNotFoundError(ModlakeTerminalError):
    """Nothing is stored under that URI."""


class ObjectExistsError(ModlakeTerminalError):
    """A write that must be the first one found an object already there."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One entry of a ListObjectsV2 answer.

    ``etag`` is without its quotes; ``last_modified`` is aware, in UTC.
    """

    bucket: str
    key: str
    size_bytes: int
    etag: str
    last_modified: datetime

    @property
    def source_ref(self) -> str:
        """The image as manifests and tables name it, never URL-encoded."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class ListedPage:
    """A stretch of a listing in columns: key, size_bytes, etag (without quotes), last_modified (UTC).

    ``continuation`` is what the store wants to be told when the listing goes on, as far as it wants that. A
    page ``is_full`` when it has as many objects as were asked for: SeaweedFS calls it the last one, too, when
    all that is left lies in a folder of its last object's name.
    """

    objects: pa.Table
    is_last: bool
    continuation: str = ""
    is_full: bool = False

    @property
    def last_key(self) -> str:
        return str(self.objects["key"][-1])


@runtime_checkable
class PagedListing(Protocol):
    """A store whose listings can be begun anywhere, by several at once."""

    def list_page(
        self, bucket: str, prefix: str, *, after: str = "", continuation: str = "", limit: int = 1_000
    ) -> ListedPage:
        """Return the objects under a prefix that come after a key, which need not exist, in its order.

        Give the ``continuation`` of the page that ended there, too: SeaweedFS begins after an object of that
        name with all that lies in a folder of that name, which is lost.

        The order may be any that compares keys character by character: S3's is by their UTF-8, SeaweedFS
        puts ``/`` before all other characters.
        """
        ...


class ObjectStore(Protocol):
    """Whole objects by ``s3://bucket/key`` URI, and listings by page."""

    def list_objects(self, bucket: str, prefix: str) -> Iterator[list[ListedObject]]:
        """Yield the pages of a listing, each object once, in the store's key order (S3: UTF-8 binary)."""
        ...

    def read(self, uri: str) -> bytes:
        """Return an object's bytes; raise ObjectNotFoundError when it is absent."""
        ...

    def write(self, uri: str, body: bytes, *, if_absent: bool = False) -> None:
        """Store an object; with ``if_absent``, raise ObjectExistsError instead of replacing one."""
        ...

    def exists(self, uri: str) -> bool:
        """Tell whether an object is stored under that URI."""
        ...
