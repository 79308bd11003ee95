"""Transactions on the lake's tables."""

from __future__ import annotations

from pyiceberg.table import Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import TableUpdate


class LakeTransaction(Transaction):
    """A transaction that works out the metadata it leads to once a change.

    pyiceberg 0.12 does so whenever it looks at them, some thirty times a transaction, and copies all
    snapshots of the table each time (apache/iceberg-python, pull request 3784).
    """

    _worked_out: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The table's metadata with what was changed so far; not to be changed itself."""
        before, updates = self._table.metadata, self._updates
        known = self._worked_out
        if known is None or known[0] is not before or known[1] is not updates:
            known = before, updates, super().table_metadata
            self._worked_out = known
        return known[2]
