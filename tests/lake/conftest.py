from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog

from modlake.lake.catalog import ensure_tables
from modlake.pipeline.audit import Audit
from modlake.pipeline.plan import Plan
from tests.support.days import DAY, audited_day
from tests.support.memory_store import MemoryObjectStore


@dataclass(frozen=True)
class Lake:
    """A catalog in a directory, and days whose landed files lie beside it."""

    home: Path

    def open(self) -> Catalog:
        return SqlCatalog(
            "modlake", uri=f"sqlite:///{self.home}/catalog.db", warehouse=f"file://{self.home}/warehouse"
        )

    def audited(
        self, keys: Iterable[str], *, day: date = DAY, run_id: str = "run-1", **changes: Any
    ) -> tuple[Plan, Audit]:
        """Audit a day and put its landed files where readers without S3 find them."""
        store = MemoryObjectStore()
        plan, audit = audited_day(store, keys, day=day, run_id=run_id, **changes)
        return plan, replace(
            audit,
            images_uris=[self._copy(store, uri) for uri in audit.images_uris],
            labels_uris=[self._copy(store, uri) for uri in audit.labels_uris],
        )

    def _copy(self, store: MemoryObjectStore, uri: str) -> str:
        path = self.home / uri.removeprefix("s3://")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.read(uri))
        return f"file://{path}"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


@pytest.fixture
def catalog(lake: Lake) -> Catalog:
    catalog = lake.open()
    ensure_tables(catalog)
    return catalog


@pytest.fixture
def rows(catalog: Catalog) -> Callable[[str], list[dict[str, Any]]]:
    """Read a table anew."""
    return lambda name: catalog.load_table(f"moderation.{name}").scan().to_arrow().to_pylist()
