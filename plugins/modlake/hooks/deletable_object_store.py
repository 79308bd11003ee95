"""Amazon S3 as an object store that can also delete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.hooks.object_store import ACCESS_DENIED, S3ObjectStoreHook, explained
from modlake.pipeline.s3_uri import split_s3_uri

# Of Amazon S3's "DeleteObjects".
KEYS_PER_REQUEST = 1_000


class DeletableS3ObjectStoreHook(S3ObjectStoreHook):
    """
    Fulfils :class:`modlake.lake.maintenance.store.DeletableStore`.

    .. seealso::
        - :class:`modlake.hooks.object_store.S3ObjectStoreHook` for the arguments
    """

    def delete(self, uris: Iterable[str]) -> None:
        """
        Remove objects, up to 1,000 a request; one that isn't there is no error.

        :raises ModlakeTerminalError: S3 denies it
        :raises ModlakeTransientError: S3 could not remove all of them
        """
        by_bucket: dict[str, list[str]] = {}
        for uri in uris:
            bucket, key = split_s3_uri(uri)
            by_bucket.setdefault(bucket, []).append(key)
        for bucket, keys in by_bucket.items():
            for chunk in _chunks(keys):
                self._delete_chunk(bucket, chunk)

    def _delete_chunk(self, bucket: str, keys: list[str]) -> None:
        with explained("s3:DeleteObject", f"s3://{bucket}/{keys[0]}"):
            answer = self.conn.delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        errors = answer.get("Errors", [])
        if not errors:
            return
        first = errors[0]
        said = (
            f"S3 did not delete {len(errors)} of {len(keys)} objects, first s3://{bucket}/{first['Key']}: "
            f"{first.get('Code')} {first.get('Message', '')}."
        )
        if first.get("Code") in ACCESS_DENIED:
            raise ModlakeTerminalError(f"{said} Allow s3:DeleteObject on it for the connection's identity.")
        raise ModlakeTransientError(f"{said} Try again later.")


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    rest = iter(keys)
    while chunk := list(islice(rest, KEYS_PER_REQUEST)):
        yield chunk
