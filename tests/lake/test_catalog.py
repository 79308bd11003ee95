from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ConnectTimeoutError, CredentialRetrievalError
from pyiceberg.catalog import Catalog
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import StringType
from pyiceberg.utils.config import Config

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.lake.catalog import ensure_tables, open_catalog
from modlake.lake.schemas import DECISIONS_TABLE, TABLES
from tests.lake.conftest import Lake

COLUMNS = {
    "images": (
        "day source_ref bucket key size_bytes etag last_modified outcome error_code error_message reused_from"
        " label_count top_label top_confidence animated_confidence illustrated_confidence model_version"
        " adapter_arn min_confidence engine job_id run_id judged_at"
    ),
    "labels": (
        "day source_ref label parent_label taxonomy_level l1 l2 l3 confidence model_version adapter_arn"
        " job_id run_id"
    ),
    "jobs": (
        "day run_id shard job_id job_name engine status failure_code failure_message manifest_uri results_uri"
        " summary_uri image_count judged_count failed_count model_version adapter_arn min_confidence"
        " started_at completed_at estimated_cost_usd retry"
    ),
    "runs": (
        "day run_id listed judged reused ineligible failed labels images_snapshot_id labels_snapshot_id"
        " jobs_snapshot_id model_versions published_at content_digest incomplete"
    ),
    "decisions": "day source_ref verdict policy policy_version rule reasons mode decided_at run_id",
    "actions": (
        "action_id day source_ref kind status target detail requested_at completed_at undone_by actor etag"
        " policy policy_version rule verdict undoes reason enforcement_id"
    ),
    "enforcements": (
        "day enforcement_id run_id policy policy_version mode rule verdict images share decided_at newly_hit"
        " released unchanged"
    ),
}


def test_tables_are_as_the_interface_says(catalog: Catalog) -> None:
    assert [table.name for table in TABLES] == list(COLUMNS)
    for lake_table in TABLES:
        table = catalog.load_table(("moderation", lake_table.name))
        schema = table.schema()
        assert [field.name for field in schema.fields] == COLUMNS[lake_table.name].split()
        # Landed files carry the ids, so the catalog must not have numbered the columns anew.
        assert schema == lake_table.schema
        (partition,) = table.spec().fields
        assert (partition.name, partition.transform) == ("day", IdentityTransform())
        assert schema.find_column_name(partition.source_id) == "day"
        assert table.properties["commit.retry.num-retries"] == "20"
        assert table.properties["commit.manifest-merge.enabled"] == "true"
        assert table.properties["write.parquet.compression-codec"] == "zstd"


def test_tables_of_an_older_version_get_their_new_columns(lake: Lake) -> None:
    catalog = lake.open()
    ensure_tables(catalog)
    runs = catalog.load_table("moderation.runs")
    with runs.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("incomplete")
        update.add_column("somebodys_own", StringType())
    ensure_tables(catalog)
    fields = catalog.load_table("moderation.runs").schema().fields
    assert [field.name for field in fields][-2:] == ["somebodys_own", "incomplete"]
    assert fields[-1].optional
    before = catalog.load_table("moderation.runs").metadata_location
    ensure_tables(catalog)
    assert catalog.load_table("moderation.runs").metadata_location == before


def test_columns_of_an_older_version_that_may_be_null_today_become_optional(lake: Lake) -> None:
    catalog = lake.open()
    ensure_tables(catalog)
    with catalog.load_table("moderation.decisions").update_schema(allow_incompatible_changes=True) as update:
        update.update_column("reasons.element.confidence", required=True)
    ensure_tables(catalog)
    assert catalog.load_table("moderation.decisions").schema() == DECISIONS_TABLE.schema
    before = catalog.load_table("moderation.decisions").metadata_location
    ensure_tables(catalog)
    assert catalog.load_table("moderation.decisions").metadata_location == before


def test_tables_of_an_older_version_get_properties_that_nobody_has_set(lake: Lake) -> None:
    catalog = lake.open()
    ensure_tables(catalog)
    with catalog.load_table("moderation.runs").transaction() as change:
        change.remove_properties("commit.manifest-merge.enabled")
        change.set_properties({"commit.retry.num-retries": "7"})
    ensure_tables(catalog)
    properties = catalog.load_table("moderation.runs").properties
    assert properties["commit.manifest-merge.enabled"] == "true"
    assert properties["commit.retry.num-retries"] == "7"


def test_types_are_as_the_interface_says() -> None:
    types = {
        table.name: {field.name: str(field.field_type) for field in table.schema.fields} for table in TABLES
    }
    assert (
        types["images"] | {"day": "date", "last_modified": "timestamptz", "judged_at": "timestamptz"}
        == types["images"]
    )
    assert (
        types["images"] | {"size_bytes": "long", "top_confidence": "double", "label_count": "long"}
        == types["images"]
    )
    assert types["runs"] | {"model_versions": "list<string>", "listed": "long"} == types["runs"]
    reasons = "list<struct<12: label: required string, 13: confidence: optional double>>"
    assert types["decisions"] | {"reasons": reasons, "decided_at": "timestamptz"} == types["decisions"]
    assert types["actions"] | {"detail": "string", "completed_at": "timestamptz"} == types["actions"]
    assert types["enforcements"] | {"share": "double", "images": "long"} == types["enforcements"]
    assert types["jobs"] | {"estimated_cost_usd": "double", "started_at": "timestamptz"} == types["jobs"]


def test_ensuring_tables_again_changes_nothing(catalog: Catalog) -> None:
    before = [catalog.load_table(table.identifier).metadata_location for table in TABLES]
    ensure_tables(catalog)
    assert [catalog.load_table(table.identifier).metadata_location for table in TABLES] == before


def test_first_runs_at_once_all_succeed(lake: Lake) -> None:
    def first_run(_: int) -> None:
        ensure_tables(lake.open())

    lake.open()  # the SQL catalog's own tables
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(first_run, range(8)))
    assert len(lake.open().list_tables("moderation")) == len(COLUMNS)


def test_the_catalog_is_configured_as_pyiceberg_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__MODLAKE__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__MODLAKE__URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__MODLAKE__WAREHOUSE", f"file://{tmp_path}/warehouse")
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # read once, at import
    catalog = open_catalog()
    ensure_tables(catalog)
    assert (catalog.name, len(catalog.list_tables("moderation"))) == ("modlake", len(COLUMNS))


def test_no_configuration_names_the_variables_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("TYPE", "URI", "WAREHOUSE"):
        monkeypatch.delenv(f"PYICEBERG_CATALOG__MODLAKE__{name}", raising=False)
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
    with pytest.raises(ModlakeTerminalError, match="PYICEBERG_CATALOG__MODLAKE__URI"):
        open_catalog()


@pytest.mark.parametrize("region", ["", "eu west"])
def test_glue_without_a_region_names_the_variable_to_set(
    region: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("PYICEBERG_CATALOG__MODLAKE__TYPE", "glue")
    monkeypatch.setenv("PYICEBERG_CATALOG__MODLAKE__WAREHOUSE", "s3://acme-lake/warehouse")
    monkeypatch.setenv("PYICEBERG_CATALOG__MODLAKE__GLUE__REGION", region)
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
    with pytest.raises(ModlakeTerminalError, match="PYICEBERG_CATALOG__MODLAKE__GLUE__REGION"):
        open_catalog()
    monkeypatch.setenv("PYICEBERG_CATALOG__MODLAKE__GLUE__REGION", "eu-west-1")
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
    assert open_catalog().name == "modlake"


@pytest.mark.parametrize(
    "error",
    [
        ConnectTimeoutError(endpoint_url="https://glue"),
        CredentialRetrievalError(provider="container-role", error_msg="no answer"),
    ],
)
def test_aws_that_does_not_answer_may_do_so_later(
    error: BotoCoreError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> Catalog:
        raise error

    monkeypatch.setattr("modlake.lake.catalog.load_catalog", fail)
    with pytest.raises(ModlakeTransientError, match="try again"):
        open_catalog()
