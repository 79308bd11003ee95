"""The lake's tables: columns, partitions and properties. Columns are an interface: only ever add to them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.io.pyarrow import pyarrow_to_schema, schema_to_pyarrow
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform

from modlake.pipeline import landed_schemas
from modlake.pipeline.landed_schemas import TIMESTAMP, optional, required

NAMESPACE = "moderation"

JOBS = pa.schema(
    [
        required(1, "day", pa.date32()),
        required(2, "run_id", pa.string()),
        required(3, "shard", pa.int64()),
        required(4, "job_id", pa.string()),
        optional(5, "job_name", pa.string()),
        required(6, "engine", pa.string()),
        required(7, "status", pa.string()),
        optional(8, "failure_code", pa.string()),
        optional(9, "failure_message", pa.string()),
        optional(10, "manifest_uri", pa.string()),
        optional(11, "results_uri", pa.string()),
        optional(12, "summary_uri", pa.string()),
        required(13, "image_count", pa.int64()),
        required(14, "judged_count", pa.int64()),
        required(15, "failed_count", pa.int64()),
        optional(16, "model_version", pa.string()),
        optional(17, "adapter_arn", pa.string()),
        optional(18, "min_confidence", pa.float64()),
        optional(19, "started_at", TIMESTAMP),
        optional(20, "completed_at", TIMESTAMP),
        optional(21, "estimated_cost_usd", pa.float64()),
        optional(22, "retry", pa.int64()),
    ]
)

RUNS = pa.schema(
    [
        required(1, "day", pa.date32()),
        required(2, "run_id", pa.string()),
        required(3, "listed", pa.int64()),
        required(4, "judged", pa.int64()),
        required(5, "reused", pa.int64()),
        required(6, "ineligible", pa.int64()),
        required(7, "failed", pa.int64()),
        required(8, "labels", pa.int64()),
        optional(9, "images_snapshot_id", pa.int64()),
        optional(10, "labels_snapshot_id", pa.int64()),
        optional(11, "jobs_snapshot_id", pa.int64()),
        required(12, "model_versions", pa.list_(required(16, "element", pa.string()))),
        required(13, "published_at", TIMESTAMP),
        required(14, "content_digest", pa.string()),
        optional(15, "incomplete", pa.int64()),
    ]
)

REASON = pa.struct([required(12, "label", pa.string()), optional(13, "confidence", pa.float64())])

DECISIONS = pa.schema(
    [
        required(1, "day", pa.date32()),
        required(2, "source_ref", pa.string()),
        required(3, "verdict", pa.string()),
        required(4, "policy", pa.string()),
        required(5, "policy_version", pa.string()),
        optional(6, "rule", pa.string()),
        required(7, "reasons", pa.list_(required(11, "element", REASON))),
        required(8, "mode", pa.string()),
        required(9, "decided_at", TIMESTAMP),
        required(10, "run_id", pa.string()),
    ]
)

ACTIONS = pa.schema(
    [
        required(1, "action_id", pa.string()),
        required(2, "day", pa.date32()),
        required(3, "source_ref", pa.string()),
        required(4, "kind", pa.string()),
        required(5, "status", pa.string()),
        required(6, "target", pa.string()),
        required(7, "detail", pa.string()),
        required(8, "requested_at", TIMESTAMP),
        optional(9, "completed_at", TIMESTAMP),
        optional(10, "undone_by", pa.string()),
        required(11, "actor", pa.string()),
        required(12, "etag", pa.string()),
        optional(13, "policy", pa.string()),
        optional(14, "policy_version", pa.string()),
        optional(15, "rule", pa.string()),
        optional(16, "verdict", pa.string()),
        optional(17, "undoes", pa.string()),
        optional(18, "reason", pa.string()),
        required(19, "enforcement_id", pa.string()),
    ]
)

ENFORCEMENTS = pa.schema(
    [
        required(1, "day", pa.date32()),
        required(2, "enforcement_id", pa.string()),
        required(3, "run_id", pa.string()),
        required(4, "policy", pa.string()),
        required(5, "policy_version", pa.string()),
        required(6, "mode", pa.string()),
        optional(7, "rule", pa.string()),
        required(8, "verdict", pa.string()),
        required(9, "images", pa.int64()),
        required(10, "share", pa.float64()),
        required(11, "decided_at", TIMESTAMP),
        required(12, "newly_hit", pa.int64()),
        required(13, "released", pa.int64()),
        required(14, "unchanged", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class LakeTable:
    """A table of the lake: its name, and its columns in Arrow with their Iceberg field ids."""

    name: str
    arrow_schema: pa.Schema

    @property
    def identifier(self) -> tuple[str, str]:
        return NAMESPACE, self.name

    @property
    def schema(self) -> Schema:
        return pyarrow_to_schema(self.arrow_schema)

    @property
    def row_schema(self) -> pa.Schema:
        """The columns without ids: in a table that got columns later, catalogs number them otherwise."""
        return schema_to_pyarrow(self.schema, include_field_ids=False)

    @property
    def partition(self) -> PartitionSpec:
        """Identity of the column ``day``, wherever it stands."""
        day = self.schema.find_field("day").field_id
        return PartitionSpec(
            PartitionField(source_id=day, field_id=1000, transform=IdentityTransform(), name="day")
        )


IMAGES_TABLE = LakeTable("images", landed_schemas.IMAGES)
LABELS_TABLE = LakeTable("labels", landed_schemas.LABELS)
JOBS_TABLE = LakeTable("jobs", JOBS)
RUNS_TABLE = LakeTable("runs", RUNS)
DECISIONS_TABLE = LakeTable("decisions", DECISIONS)
ACTIONS_TABLE = LakeTable("actions", ACTIONS)
ENFORCEMENTS_TABLE = LakeTable("enforcements", ENFORCEMENTS)

# What publishing a day replaces, in the order of its commits.
PUBLISHED_TABLES = (IMAGES_TABLE, LABELS_TABLE, JOBS_TABLE, RUNS_TABLE)
TABLES = (*PUBLISHED_TABLES, DECISIONS_TABLE, ACTIONS_TABLE, ENFORCEMENTS_TABLE)

PROPERTIES = {
    "write.parquet.compression-codec": "zstd",
    # By default bounds keep 16 characters, which all images of a day, and all runs of a night, share.
    "write.metadata.metrics.column.source_ref": "full",
    "write.metadata.metrics.column.run_id": "full",
    # Days that are published at once share the table's pointer: four tries, the default, lose.
    "commit.retry.num-retries": "20",
    "commit.retry.max-wait-ms": "5000",
    # Each commit adds a manifest, and who reads a whole table reads all of them: of a hundred one is made.
    "commit.manifest-merge.enabled": "true",
}
