from __future__ import annotations

from unittest import mock

from pyiceberg.catalog import Catalog
from pyiceberg.table.update import update_table_metadata

from modlake.lake.transactions import LakeTransaction


def test_the_metadata_are_worked_out_once_a_change(catalog: Catalog) -> None:
    transaction = LakeTransaction(catalog.load_table("moderation.runs"))
    with mock.patch("pyiceberg.table.update_table_metadata", wraps=update_table_metadata) as work_out:
        assert transaction.table_metadata is transaction.table_metadata
        assert work_out.call_count == 1
        transaction.set_properties({"owner": "trust and safety"})
        assert transaction.table_metadata.properties["owner"] == "trust and safety"
        assert transaction.table_metadata is transaction.table_metadata
        assert work_out.call_count == 2
    assert transaction.commit_transaction().properties["owner"] == "trust and safety"


def test_what_others_commit_meanwhile_is_seen_after_a_refresh(catalog: Catalog) -> None:
    table = catalog.load_table("moderation.runs")
    transaction = LakeTransaction(table)
    assert "owner" not in transaction.table_metadata.properties
    with catalog.load_table("moderation.runs").transaction() as others:
        others.set_properties({"owner": "trust and safety"})
    table.refresh()
    assert transaction.table_metadata.properties["owner"] == "trust and safety"
