from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from pyiceberg.catalog import Catalog

from modlake.exceptions import ModlakeTransientError
from modlake.lake.labelled_batches import published_days, read_labelled_batches
from modlake.lake.publish import publish_day
from tests.lake.conftest import Lake
from tests.support.days import DAY

KEYS = [f"{number:02d} ü.jpg" for number in range(10)]
COLUMNS = {"image_columns": ("source_ref", "outcome"), "label_columns": ("source_ref", "label")}


@pytest.mark.parametrize("images_at_once", [1, 4, 100])
def test_every_image_comes_once_and_with_its_labels(
    lake: Lake, catalog: Catalog, images_at_once: int
) -> None:
    publish_day(catalog, *lake.audited(KEYS, images_per_manifest=3))
    publish_day(catalog, *lake.audited(KEYS, day=DAY + timedelta(days=1)))

    (published,) = published_days(catalog, DAY, DAY)
    batches = list(read_labelled_batches(catalog, published, images_at_once=images_at_once, **COLUMNS))

    refs = [ref for batch in batches for ref in batch.images["source_ref"].to_pylist()]
    assert refs == [f"s3://ugc/uploads/{DAY}/{key}" for key in KEYS]
    assert sum(batch.labels.num_rows for batch in batches) == published.labels > 0
    for batch in batches:
        assert set(batch.labels["source_ref"].to_pylist()) <= set(batch.images["source_ref"].to_pylist())
    assert max(batch.images.num_rows for batch in batches) <= images_at_once


def test_days_come_in_order_and_only_published_ones(lake: Lake, catalog: Catalog) -> None:
    for offset in (2, 0):
        publish_day(catalog, *lake.audited(KEYS[:2], day=DAY + timedelta(days=offset)))
    found = published_days(catalog, DAY, DAY + timedelta(days=2))
    assert [each.day for each in found] == [DAY, DAY + timedelta(days=2)]


def test_a_day_published_anew_meanwhile_is_never_taken_for_whole(lake: Lake, catalog: Catalog) -> None:
    publish_day(catalog, *lake.audited(KEYS))
    (published,) = published_days(catalog, DAY, DAY)
    with pytest.raises(ModlakeTransientError, match="was published anew"):
        list(read_labelled_batches(catalog, replace(published, run_id="run-0"), **COLUMNS))
