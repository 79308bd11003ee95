"""The operators of a day, on a store in memory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from uuid import UUID

import pyarrow as pa
import pytest
from airflow.sdk import DAG, Asset, RetryAction
from airflow.sdk.execution_time.context import OutletEventAccessors
from pyiceberg.catalog.sql import SqlCatalog

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.lake.publish import Publication
from modlake.lake.quarantine import DayQuarantine
from modlake.operators.moderation_day import (
    AuditDayOperator,
    BuildManifestsOperator,
    LandResultsOperator,
    PublishDayOperator,
)
from modlake.pipeline.adapter import AdapterUnusableError
from modlake.pipeline.audit import Audit
from modlake.pipeline.landing import LandedShard
from modlake.pipeline.manifests import read_manifest
from modlake.pipeline.parquet import encode_parquet
from modlake.pipeline.plan import ManifestLimits, Plan, build_plan, read_plan
from tests.support.days import PROJECT_VERSION
from tests.support.fake_rekognition import FakeRekognition, connection_to, served
from tests.support.memory_store import MemoryObjectStore

PLAN_ARGUMENTS: dict[str, Any] = {
    "day": "2026-11-21",
    "source_uri": "s3://ugc/uploads/%Y-%m-%d/",
    "work_uri": "s3://work/",
    "allowed_uris": ["s3://ugc/uploads/"],
}
MAKERS: list[Callable[..., Any]] = [
    lambda **kwargs: BuildManifestsOperator(task_id="t", **PLAN_ARGUMENTS, **kwargs),
    lambda **kwargs: LandResultsOperator(task_id="t", manifest_group={}, **kwargs),
    lambda **kwargs: AuditDayOperator(task_id="t", plan_uri="s3://work/p", landed=[], **kwargs),
    lambda **kwargs: PublishDayOperator(
        task_id="t", plan_uri="s3://work/p", audit_uri="s3://work/a", **kwargs
    ),
]


@pytest.fixture
def store() -> MemoryObjectStore:
    store = MemoryObjectStore()
    for name in ("a.jpg", "b.png", "c.gif"):
        store.write(f"s3://ugc/uploads/2026-11-21/{name}", name.encode())
    return store


@pytest.fixture
def context() -> dict[str, Any]:
    ti = mock.Mock(id=UUID("01a20c51-9e51-7b5e-b396-858828cb0658"), try_number=2)
    return {"ti": ti, "run_id": "manual__1", "outlet_events": OutletEventAccessors()}


def on(store: MemoryObjectStore, operator: Any) -> Any:
    operator.__dict__["hook"] = store
    return operator


def pushed(context: dict[str, Any]) -> dict[str, Any]:
    return {call.kwargs["key"]: call.kwargs["value"] for call in context["ti"].xcom_push.call_args_list}


def planned(store: MemoryObjectStore, images: int = 4) -> Plan:
    """A plan of four shards of one image in two groups."""
    for number in range(images):
        store.write(f"s3://ugc/uploads/2026-11-22/{number}.jpg", b"x")
    operator = BuildManifestsOperator(
        task_id="t", **{**PLAN_ARGUMENTS, "day": "2026-11-22"}, shards_per_group=2
    )
    ti = mock.Mock(id="1")

    def small(*args: Any, **kwargs: Any) -> Plan:
        return build_plan(*args, **kwargs, limits=ManifestLimits(images=1))

    with mock.patch("modlake.pipeline.plan.build_plan", small):
        on(store, operator).execute({"ti": ti, "run_id": "manual__1"})
    return read_plan(store, pushed({"ti": ti})["plan_uri"])


def landed_shard(number: int, **counts: int) -> LandedShard:
    return LandedShard(
        **{
            "shard": number,
            "images_uri": f"s3://work/images-{number}",
            "labels_uri": None,
            "image_count": 1,
            "judged": 1,
            "failed": 0,
            "labels": 2,
            "models": [{"model_version": "7.0", "adapter_arn": None, "images": 1}],
            "failed_by_code": {},
            "jobs": [{"retry": 0, "image_count": 1, "judged": 1}],
            "bad_lines": 0,
            "content_sha256": "0",
            **counts,
        }
    )


class TestEveryOperator:
    @pytest.mark.parametrize("make", MAKERS)
    def test_template_fields_are_attributes(self, make: Callable[..., Any]) -> None:
        operator = make()
        assert {"aws_conn_id", "region_name", "verify"} < set(operator.template_fields)
        assert all(hasattr(operator, field) for field in operator.template_fields)

    @pytest.mark.parametrize("make", MAKERS)
    def test_only_terminal_errors_are_not_retried(self, make: Callable[..., Any]) -> None:
        policy = make(retry_policy=None).retry_policy
        assert policy.evaluate(ModlakeTerminalError(), 1, 3).action is RetryAction.FAIL
        assert policy.evaluate(ModlakeTransientError(), 1, 3).action is RetryAction.DEFAULT

    @pytest.mark.parametrize("make", MAKERS)
    def test_the_hook_gets_all_settings(self, make: Callable[..., Any]) -> None:
        operator = make(
            aws_conn_id="o", region_name="eu-west-1", verify=False, botocore_config={"read_timeout": 5}
        )
        hook = operator.hook
        assert (hook.aws_conn_id, hook._region_name, hook._verify) == ("o", "eu-west-1", False)
        assert hook._config.read_timeout == 5


class TestBuildManifests:
    @pytest.mark.parametrize(
        ("argument", "value", "advice"),
        [
            ("day", "21.11.2026", "write YYYY-MM-DD"),
            ("source_uri", "uploads/%Y", "s3://bucket/key"),
            ("source_uri", "s3://ugc/%H/", "write %Y, %m, %d or %j"),
            ("inventory_uri", "report/manifest.json", "s3://bucket/key"),
            ("work_uri", "work", "s3://bucket/key"),
            ("allowed_uris", [], "write a list such as"),
            ("allowed_uris", "s3://ugc/", "write a list such as"),
            ("allowed_uris", ["ugc"], "s3://bucket/key"),
            ("min_confidence", 101, "from 0 to 100"),
            ("min_confidence", "high", "such as 50"),
            ("adapter_arn", "my-adapter", "arn:aws:rekognition"),
            ("price_per_image_usd", -1, "0 or more"),
            ("max_cost_usd", "cheap", "such as 50"),
            ("fresh", "maybe", "true or false"),
            ("reuse", "always", "object, content, off"),
            ("image_retries", -1, "0 to 9"),
            ("image_retries", "1.5", "0 to 9"),
            ("allow_incomplete", 1.1, "0 .none. to 1"),
            ("allow_incomplete", float("nan"), "0 .none. to 1"),
            ("shards_per_group", 0, "1 or more"),
        ],
    )
    def test_values_are_checked_where_they_are_written(self, argument: str, value: Any, advice: str) -> None:
        with pytest.raises(ValueError, match=f"(?s)'plan', {argument}: .*{advice}"):
            BuildManifestsOperator(task_id="plan", **{**PLAN_ARGUMENTS, argument: value})

    def test_templates_and_outputs_are_checked_when_they_are_known(self, store: MemoryObjectStore) -> None:
        with DAG("d", schedule=None):
            earlier = BuildManifestsOperator(task_id="earlier", **PLAN_ARGUMENTS)
            operator = BuildManifestsOperator(
                task_id="plan",
                day="{{ ds }}",
                source_uri="{{ var.value.uri }}",
                work_uri="{{ var.value.work }}",
                allowed_uris=["{{ var.value.allowed }}"],
                min_confidence=earlier.output,
                fresh="{{ params.fresh }}",
            )
        operator.day = "yesterday"
        with pytest.raises(ModlakeTerminalError, match="'plan', day: 'yesterday' is not a day"):
            on(store, operator).execute({})

    def test_it_returns_pointers_and_pushes_the_summary(
        self, store: MemoryObjectStore, context: dict[str, Any]
    ) -> None:
        operator = on(store, BuildManifestsOperator(task_id="plan", **PLAN_ARGUMENTS))

        groups = operator.execute(context)

        plan_uri = pushed(context)["plan_uri"]
        assert groups == [{"plan_uri": plan_uri, "group": 0, "shards": [0]}]
        assert plan_uri.startswith("s3://work/runs/day=2026-11-21/")
        assert plan_uri.endswith("/plan.json")
        summary = pushed(context)["summary"]
        assert (summary["listed"], summary["eligible"], summary["ineligible"]) == (3, 2, 1)
        assert json.loads(json.dumps(summary)) == summary

    def test_rendered_texts_become_values(self, store: MemoryObjectStore, context: dict[str, Any]) -> None:
        operator = on(store, BuildManifestsOperator(task_id="plan", **PLAN_ARGUMENTS))
        operator.allowed_uris = '["s3://ugc/uploads/"]'
        operator.min_confidence = "72.5"
        operator.price_per_image_usd = "0.5"
        operator.max_cost_usd = ""
        operator.adapter_arn = ""
        operator.fresh = "True"

        operator.execute(context)

        plan = read_plan(store, pushed(context)["plan_uri"])
        assert (plan.parameters.min_confidence, plan.parameters.adapter_arn) == (72.5, None)
        assert plan.parameters.fresh == "manual__1"
        assert plan.estimated_cost_usd == 1.0

    @pytest.mark.parametrize(
        ("status", "error"),
        [("TRAINING_COMPLETED", None), ("DEPRECATED", None), ("EXPIRED", AdapterUnusableError)],
    )
    def test_the_adapter_is_looked_at_first(
        self,
        store: MemoryObjectStore,
        context: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        status: str,
        error: type[Exception] | None,
    ) -> None:
        aws = FakeRekognition(adapters={PROJECT_VERSION: {"Status": status}})
        arguments = {**PLAN_ARGUMENTS, "adapter_arn": PROJECT_VERSION, "aws_conn_id": "elsewhere"}
        operator = on(store, BuildManifestsOperator(task_id="plan", **arguments))
        before = set(store.objects)
        with served(aws) as endpoint_url:
            monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", connection_to(endpoint_url))
            if error is None:
                assert len(operator.execute(context)) == 1
            else:
                with pytest.raises(error, match=PROJECT_VERSION):
                    operator.execute(context)
                assert set(store.objects) == before
        assert ("expires 60 to 90 days" in capfd.readouterr().out) == (status == "DEPRECATED")

    def test_reuse_looks_into_the_lake(
        self,
        store: MemoryObjectStore,
        context: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        catalog = SqlCatalog("modlake", uri=f"sqlite:///{tmp_path}/c.db", warehouse=f"file://{tmp_path}")
        monkeypatch.setattr("modlake.lake.catalog.open_catalog", lambda: catalog)
        operator = on(store, BuildManifestsOperator(task_id="plan", **PLAN_ARGUMENTS, reuse="content"))
        operator.execute(context)
        assert catalog.table_exists("moderation.images")
        assert read_plan(store, pushed(context)["plan_uri"]).reuse == "content"

    @pytest.mark.parametrize("given", [{"reuse": "off"}, {"reuse": "object", "fresh": True}])
    def test_without_reuse_no_lake_is_needed(
        self, store: MemoryObjectStore, context: dict[str, Any], given: dict[str, Any]
    ) -> None:
        with mock.patch("modlake.lake.catalog.open_catalog", side_effect=AssertionError):
            on(store, BuildManifestsOperator(task_id="plan", **PLAN_ARGUMENTS, **given)).execute(context)

    def test_what_was_set_aside_is_in_no_manifest(
        self, store: MemoryObjectStore, context: dict[str, Any]
    ) -> None:
        store.write("s3://known/2026-11-21.jsonl", b'{"source_ref": "s3://ugc/uploads/2026-11-21/a.jpg"}')
        operator = BuildManifestsOperator(
            task_id="plan", **PLAN_ARGUMENTS, set_aside_uri="s3://known/%Y-%m-%d.jsonl"
        )
        on(store, operator).execute(context)
        plan = read_plan(store, pushed(context)["plan_uri"])
        assert plan.ineligible_by_code["SET_ASIDE"] == 1
        manifests = b"".join(store.read(shard.manifest_uri) for shard in plan.shards)
        assert b"a.jpg" not in manifests
        assert b"b.png" in manifests

    def test_before_the_known_hash_stage_has_run_nothing_is_planned(
        self, store: MemoryObjectStore, context: dict[str, Any]
    ) -> None:
        operator = BuildManifestsOperator(
            task_id="plan", **PLAN_ARGUMENTS, set_aside_uri="s3://known/%Y-%m-%d.jsonl"
        )
        with pytest.raises(ModlakeTerminalError, match=r"2026-11-21\.jsonl does not exist"):
            on(store, operator).execute(context)

    def test_single_calls_with_a_kms_key_are_refused_before_anything_is_listed(
        self, context: dict[str, Any]
    ) -> None:
        operator = BuildManifestsOperator(
            task_id="plan", **PLAN_ARGUMENTS, engine="sync", kms_key_id="alias/modlake"
        )
        operator.__dict__["hook"] = untouched = mock.Mock()
        with pytest.raises(ModlakeTerminalError, match=r"kms_key_id.*engine=bulk"):
            operator.execute(context)
        assert untouched.mock_calls == []

    def test_a_fresh_run_keeps_what_lies_in_quarantine(
        self, store: MemoryObjectStore, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away = {"bucket": ["ugc"], "key": ["uploads/2026-11-21/away.jpg"], "size_bytes": [3], "etag": ["e"]}
        rows = pa.table(away | {"last_modified": [datetime(2026, 11, 21, tzinfo=UTC)]})
        rows = rows.set_column(4, "last_modified", rows["last_modified"].cast(pa.timestamp("us", tz="UTC")))
        monkeypatch.setattr(BuildManifestsOperator, "_engine_chooser", lambda *_: None)
        operator = BuildManifestsOperator(task_id="plan", **PLAN_ARGUMENTS, fresh=True, engine="sync")
        with (
            mock.patch("modlake.lake.catalog.open_catalog"),
            mock.patch("modlake.lake.catalog.ensure_tables"),
            mock.patch.object(
                DayQuarantine, "candidates", return_value=pa.array(["s3://ugc/uploads/2026-11-21/away.jpg"])
            ),
            mock.patch.object(DayQuarantine, "objects", return_value=rows),
        ):
            on(store, operator).execute(context)
        plan = read_plan(store, pushed(context)["plan_uri"])
        assert plan.ineligible_by_code["QUARANTINED"] == 1

    def test_it_is_not_fresh_by_default(self, store: MemoryObjectStore, context: dict[str, Any]) -> None:
        on(store, BuildManifestsOperator(task_id="plan", **PLAN_ARGUMENTS)).execute(context)
        assert read_plan(store, pushed(context)["plan_uri"]).parameters.fresh is None

    def test_a_day_can_be_told_instead_of_listed(
        self, store: MemoryObjectStore, context: dict[str, Any]
    ) -> None:
        told = {"bucket": ["ugc"], "key": ["uploads/2026-11-21/told.jpg"], "size": [3], "etag": ["e"]}
        rows = pa.table(told | {"last_modified": [datetime(2026, 11, 21, tzinfo=UTC)]})
        store.write("s3://up/2026-11-21/1.parquet", encode_parquet(rows))
        uri = "s3://up/%Y-%m-%d/"
        operator = BuildManifestsOperator(task_id="plan", **PLAN_ARGUMENTS, inventory_uri=uri)
        on(store, operator).execute(context)
        plan = read_plan(store, pushed(context)["plan_uri"])
        assert read_manifest(store, plan.shards[0]) == ["s3://ugc/uploads/2026-11-21/told.jpg"]

    def test_a_report_that_cannot_know_the_whole_day_is_refused(
        self, store: MemoryObjectStore, context: dict[str, Any]
    ) -> None:
        began = datetime(2026, 11, 21, 1, tzinfo=UTC)
        report = {"sourceBucket": "ugc", "creationTimestamp": f"{began.timestamp():.0f}000"}
        body = json.dumps(report | {"destinationBucket": "arn:aws:s3:::r", "fileFormat": "CSV", "files": []})
        store.write("s3://r/2026-11-21T01-00Z/manifest.json", body.encode())
        checksum = hashlib.md5(body.encode()).hexdigest()
        store.write("s3://r/2026-11-21T01-00Z/manifest.checksum", checksum.encode())
        uri = "s3://r/%Y-%m-%dT01-00Z/manifest.json"
        operator = BuildManifestsOperator(task_id="plan", **PLAN_ARGUMENTS, inventory_uri=uri)
        with pytest.raises(ModlakeTerminalError, match=r"began at 2026-11-21 01:00 UTC, before the end"):
            on(store, operator).execute(context)

    def test_a_day_without_images_has_no_groups(self, context: dict[str, Any]) -> None:
        operator = on(MemoryObjectStore(), BuildManifestsOperator(task_id="plan", **PLAN_ARGUMENTS))
        assert operator.execute(context) == []
        assert pushed(context)["summary"]["listed"] == 0

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"source_uri": "s3://other/uploads/"}, "outside the allowed"),
            ({"max_cost_usd": 0}, "over the budget"),
        ],
    )
    def test_what_may_not_be_analysed(
        self, store: MemoryObjectStore, context: dict[str, Any], change: dict[str, Any], reason: str
    ) -> None:
        operator = on(store, BuildManifestsOperator(task_id="plan", **{**PLAN_ARGUMENTS, **change}))
        with pytest.raises(ModlakeTerminalError, match=reason):
            operator.execute(context)

    def test_two_attempts_have_two_folders(self, store: MemoryObjectStore, context: dict[str, Any]) -> None:
        operator = on(store, BuildManifestsOperator(task_id="plan", **PLAN_ARGUMENTS))
        first = operator.execute(context)
        context["ti"].id = UUID("01a20c51-9e51-7b5e-b396-858828cb0659")
        assert operator.execute(context)[0]["plan_uri"] != first[0]["plan_uri"]


class TestLandResults:
    def test_it_lands_its_group_and_tells_how_far_it_is(
        self, store: MemoryObjectStore, context: dict[str, Any], capfd: pytest.CaptureFixture[str]
    ) -> None:
        plan = planned(store)
        group = {"plan_uri": plan.folder.plan_uri, "group": 1, "shards": [2, 3]}
        operator = on(store, LandResultsOperator(task_id="land", manifest_group=group))

        with (
            mock.patch(
                "modlake.pipeline.landing.land_shard",
                side_effect=lambda _, __, number, ___: landed_shard(number),
            ) as land,
        ):
            result = operator.execute(context)

        assert [call.args[1:] for call in land.call_args_list] == [
            (plan, 2, "0228cb0658"),
            (plan, 3, "0228cb0658"),
        ]
        assert {**result, "shards": [shard["shard"] for shard in result["shards"]]} == group
        assert json.loads(json.dumps(result)) == result
        log = capfd.readouterr().out
        assert re.search(r"Landed shard 2 \(1 of 2\): 1 of 2 images, \S+ images/s, \S+ min left", log)
        assert "Landed group 1 of 2026-11-22: judged 2, failed 0, labels 4" in log


class TestAuditDay:
    @pytest.mark.parametrize("groups", [2, 0])
    def test_it_audits_all_that_landed(
        self, store: MemoryObjectStore, context: dict[str, Any], groups: int
    ) -> None:
        plan = planned(store)
        landed = [landed_shard(number) for number in range(groups)]
        operator = AuditDayOperator(
            task_id="audit",
            plan_uri=plan.folder.plan_uri,
            landed=[{"shards": [json.loads(json.dumps(vars_of(shard)))]} for shard in landed],
        )
        with mock.patch("modlake.pipeline.audit.audit_day", return_value=audit_of(plan)) as audit_day:
            result = on(store, operator).execute(context)
        audit_day.assert_called_once_with(store, plan, landed, "0228cb0658")
        assert result == {
            "audit_uri": plan.folder.audit_uri,
            "listed": 4,
            "judged": 3,
            "reused": 0,
            "ineligible": 0,
            "failed": 1,
            "incomplete": 1,
            "labels": 5,
        }


class TestPublishDay:
    @pytest.mark.parametrize(("changed", "said"), [(True, "Published 2026"), (False, "Unchanged")])
    def test_its_outlets_tell_of_the_day(
        self,
        store: MemoryObjectStore,
        context: dict[str, Any],
        capfd: pytest.CaptureFixture[str],
        changed: bool,
        said: str,
    ) -> None:
        plan = planned(store)
        labels = Asset("moderation_labels")
        operator = PublishDayOperator(
            task_id="publish",
            plan_uri=plan.folder.plan_uri,
            audit_uri=plan.folder.audit_uri,
            outlets=[labels],
        )
        publication = Publication(
            day=plan.day,
            run_id=plan.run_id,
            listed=4,
            judged=3,
            reused=0,
            ineligible=0,
            failed=1,
            incomplete=0,
            labels=5,
            model_versions=["7.0"],
            snapshot_ids={"images": 11},
            changed=changed,
        )
        catalog = SimpleNamespace()
        with (
            mock.patch("modlake.pipeline.audit.read_audit", return_value=audit_of(plan)),
            mock.patch("modlake.lake.catalog.open_catalog", return_value=catalog),
            mock.patch("modlake.lake.catalog.ensure_tables") as ensure_tables,
            mock.patch("modlake.lake.publish.publish_day", return_value=publication) as publish_day,
        ):
            result = on(store, operator).execute(context)

        ensure_tables.assert_called_once_with(catalog)
        publish_day.assert_called_once_with(catalog, plan, audit_of(plan))
        event = context["outlet_events"][labels]
        assert event.partition_keys == {"2026-11-22"}
        assert event.extra == result
        assert (result["day"], result["failed"], result["snapshot_ids"]) == ("2026-11-22", 1, {"images": 11})
        assert json.loads(json.dumps(result)) == result
        assert said in capfd.readouterr().out


def vars_of(shard: LandedShard) -> dict[str, Any]:
    return {field: getattr(shard, field) for field in LandedShard.__dataclass_fields__}


def audit_of(plan: Plan) -> Audit:
    facts: dict[str, Any] = dict.fromkeys(Audit.__dataclass_fields__)
    facts |= {"day": date(2026, 11, 22), "run_id": plan.run_id, "audit_uri": plan.folder.audit_uri}
    facts |= {
        "listed": 4,
        "judged": 3,
        "reused": 0,
        "ineligible": 0,
        "failed": 1,
        "incomplete": 1,
        "labels": 5,
    }
    return Audit(**facts)
