"""What the doctor makes of versions, variables, pools, buckets and clocks; no cloud is running."""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from rich.console import Console

from cli import airflow_environment
from cli.doctor import buckets, clock, command, examination, policies, pools, variables, versions
from cli.doctor.airflow_records import Pool, Records
from cli.doctor.examination import Check
from cli.doctor.findings import Finding, Status, failed, failure, ok, warning
from cli.doctor.installation import Installation, of_checkout, of_environment
from cli.settings import Settings
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError

VARIABLES = airflow_environment.variables()
NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """On a local cloud that doesn't run."""
    home = tmp_path / "home"
    cloud = CloudSettings(home=home, s3_port=18333, rekognition_port=18334, seaweedfs_port=19000)
    return of_checkout(Settings(home=home, airflow_port=1), cloud, {})


def _by_subject(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def _with_variables(installation: Installation, **changed: str) -> Installation:
    return replace(installation, read_variables=lambda: Records(VARIABLES | changed, "here"))


def test_versions_of_this_checkout_fit(installation: Installation) -> None:
    findings = list(versions.check(installation))

    assert {finding.status for finding in findings} == {Status.ok}
    assert "version of botocore" in {finding.subject for finding in findings}


@pytest.mark.parametrize(
    ("package", "installed", "mend"),
    [
        ("apache-airflow-providers-amazon", "9.33.1", ">=9.34"),
        ("sqlalchemy", "2.1.0", "<2.1"),
        ("botocore", "1.30.0", "let aiobotocore"),
        ("pyiceberg", None, "requirements.txt"),
        ("aiobotocore", None, "apache-airflow-providers-amazon[aiobotocore]"),
    ],
)
def test_version_that_does_not_fit_fails(
    package: str,
    installed: str | None,
    mend: str,
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = versions._installed
    monkeypatch.setattr(versions, "_installed", lambda name: installed if name == package else real(name))

    finding = _by_subject(versions.check(installation))[f"version of {package}"]

    assert finding.status is Status.failed
    assert mend in finding.mend


def test_default_variables_are_well_formed(installation: Installation) -> None:
    assert {finding.status for finding in variables.check(installation)} == {Status.ok}


@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        ("modlake_ugc_uri", "s3://ugc/%H/", "'%H'"),
        ("modlake_ugc_marker_uri", "ugc/complete", "not an S3 URI"),
        ("modlake_work_uri", "", "not set"),
        ("modlake_allowed_ugc_uris", "[]", "names no bucket"),
        ("modlake_price_per_image_usd", "cheap", "'cheap'"),
        ("modlake_inventory_uri", "s3://reports/%H/manifest.json", "'%H'"),
        ("modlake_set_aside_uri", "https://acme/list", "not an S3 URI"),
        (variables.RATE, "-3", "not above 0"),
        (variables.RATE_SHARE, "2", "more than all"),
    ],
)
def test_malformed_variable_fails_with_where_it_is_explained(
    name: str, value: str, seen: str, installation: Installation
) -> None:
    finding = _by_subject(variables.check(_with_variables(installation, **{name: value})))[f"variable {name}"]

    assert finding.status is Status.failed
    assert seen in finding.seen
    assert "docs/aws.md, step 4" in finding.mend


def test_optional_variables_are_looked_at_where_they_are_set(installation: Installation) -> None:
    given = {name: example for name, (_, example) in variables.OPTIONAL.items()}

    findings = _by_subject(variables.check(_with_variables(installation, **given, somebodys_own="?")))

    assert {findings[f"variable {name}"].status for name in given} == {Status.ok}
    assert len(findings) == len(variables.VARIABLES) + len(given) + 1


def test_allow_list_must_cover_the_uploads(installation: Installation) -> None:
    changed = _with_variables(installation, modlake_ugc_uri="s3://modlake-ugc/uploads-2/%Y-%m-%d/")

    finding = _by_subject(variables.check(changed))["allow-list"]

    assert finding.status is Status.failed
    assert "modlake_allowed_ugc_uris" in finding.mend


def test_variables_come_from_the_environment(tmp_path: Path) -> None:
    environment = {"AIRFLOW_VAR_MODLAKE_WORK_URI": "s3://acme/"}

    found = of_environment(Settings(home=tmp_path, airflow_port=1), environment)

    assert found.variable("modlake_work_uri") == "s3://acme/"
    with pytest.raises(ModlakeTerminalError, match="AIRFLOW_VAR_"):
        found.variable("modlake_ugc_uri")


@pytest.mark.parametrize(
    ("pool", "status", "words"),
    [
        (Pool(20, include_deferred=True), Status.ok, "quota 20"),
        (Pool(25, include_deferred=True), Status.warning, "set it to 20"),
        (Pool(10, include_deferred=True), Status.warning, "set it to 20"),
        (Pool(4, include_deferred=True), Status.failed, "at least 5"),
        (Pool(20, include_deferred=False), Status.failed, "include_deferred"),
        (None, Status.failed, "airflow pools import"),
    ],
)
def test_pool_of_jobs_is_held_against_the_quota(
    pool: Pool | None, status: Status, words: str, installation: Installation
) -> None:
    records = Records({pools.JOBS_POOL: pool} if pool else {}, "here")

    finding = _by_subject(pools.check(replace(installation, read_pools=lambda: records)))[
        f"pool {pools.JOBS_POOL}"
    ]

    assert finding.status is status
    assert words in f"{finding.seen} {finding.mend}"
    assert "here" in finding.seen


def test_pool_of_commits_needs_a_slot(installation: Installation) -> None:
    records = Records({pools.PUBLISH_POOL: Pool(0, include_deferred=False)}, "here")

    found = _by_subject(pools.check(replace(installation, read_pools=lambda: records)))

    assert found[f"pool {pools.PUBLISH_POOL}"].status is Status.failed


@pytest.mark.parametrize(("name", "value"), [(variables.RATE, "-3"), (variables.RATE_SHARE, "half")])
def test_malformed_rate_fails_its_pool_alone(name: str, value: str, installation: Installation) -> None:
    records = Records(
        {
            pools.CALLS_POOL: Pool(1, include_deferred=False),
            pools.PUBLISH_POOL: Pool(8, include_deferred=False),
        },
        "here",
    )
    changed = replace(_with_variables(installation, **{name: value}), read_pools=lambda: records)

    found = _by_subject(pools.check(changed))

    assert found[f"pool {pools.CALLS_POOL}"].status is Status.failed
    assert repr(value) in found[f"pool {pools.CALLS_POOL}"].seen
    assert found[f"pool {pools.PUBLISH_POOL}"].status is Status.ok


class _Targets:
    """The places of actions, in place of the installation's hook: none but the given buckets is there."""

    def __init__(self, installation: Installation, *buckets: str) -> None:
        installation.__dict__["store"] = self
        self._buckets = buckets

    def list_page(self, bucket: str, prefix: str, *, limit: int) -> None:
        if bucket not in self._buckets:
            raise ModlakeTerminalError(f"There is no bucket {bucket!r}: create or rename it.")


def test_policies_of_the_checkout_can_be_used(installation: Installation) -> None:
    changed = _with_variables(installation)
    _Targets(changed, "modlake-quarantine", "modlake-work")

    found = _by_subject(policies.check(changed))

    assert {finding.status for finding in found.values()} == {Status.ok}
    assert "1 of them live" in found["policies"].seen
    assert "s3://modlake-quarantine/" in found["target quarantine"].seen


def test_quarantine_that_is_not_there_fails(installation: Installation) -> None:
    changed = _with_variables(installation)
    _Targets(changed, "modlake-work")

    found = _by_subject(policies.check(changed))

    assert found["policies"].status is Status.ok
    assert found["target quarantine"].status is Status.failed
    assert "modlake_action_targets" in found["target quarantine"].mend


@pytest.mark.parametrize(
    ("connection", "status"),
    [
        ({"password": f"whsec_{base64.b64encode(bytes(32)).decode()}"}, Status.ok),
        ({"password": "whsec_?"}, Status.failed),
        (None, Status.skipped),
    ],
)
def test_webhook_needs_a_connection_with_a_secret(
    connection: dict[str, str] | None,
    status: Status,
    installation: Installation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule = {"name": "weapons", "verdict": "block", "when": {"label": "Weapons", "at_least": 90}}
    actions = {"block": ["notify_webhook", "notify_sns"]}
    policy = {"name": "p", "status": "live", "default": "allow", "actions": actions, "rules": [rule]}
    (tmp_path / "p.yaml").write_text(json.dumps(policy))
    environment = dict(installation.environment)
    if connection:
        text = json.dumps({"conn_type": "http", "host": "https://receiver.example.com/", **connection})
        monkeypatch.setenv("AIRFLOW_CONN_MODLAKE_WEBHOOK", text)
        environment["AIRFLOW_CONN_MODLAKE_WEBHOOK"] = text
    changed = _with_variables(
        replace(installation, environment=environment),
        modlake_policies_uri=str(tmp_path),
        modlake_action_targets=json.dumps(
            {"notify_webhook": {"conn_id": "modlake_webhook"}, "notify_sns": {"topic_arn": "arn:topic"}}
        ),
    )
    _Targets(changed)

    found = _by_subject(policies.check(changed))

    assert found["policies"].status is Status.ok, found
    assert found["target notify_webhook"].status is status
    assert found["target notify_sns"].status is Status.skipped  # only a message would tell


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ('{"tag": {"key": "moderation"}}', "'quarantine', which has no target"),
        ("here", "does not say where actions go"),
        ("[]", "does not say where actions go"),
    ],
)
def test_action_without_a_place_to_go_fails(installation: Installation, targets: str, words: str) -> None:
    (found,) = policies.check(_with_variables(installation, modlake_action_targets=targets))

    assert found.status is Status.failed
    assert words in found.seen
    assert found.mend


def test_pools_say_where_they_were_read(installation: Installation) -> None:
    assert "include/airflow/pools.json" in next(pools.check(installation)).seen


def test_pools_that_no_airflow_was_asked_for_are_not_ok(installation: Installation) -> None:
    changed = _with_variables(installation, **{variables.RATE: "20"})

    assert {finding.status for finding in pools.check(changed)} == {Status.skipped}


def test_task_takes_the_slots_that_the_dag_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "dags"))

    assert importlib.import_module("moderate_images").JOBS_AT_ONCE == pools.SLOTS_PER_TASK


class _Answering:
    """An S3 whose bucket answers as told, in place of the installation's hooks."""

    def __init__(self, installation: Installation, **headers: str) -> None:
        self.conn = boto3.client(
            "s3", region_name="eu-west-1", aws_access_key_id="id", aws_secret_access_key="secret"
        )
        self._headers = headers
        installation.__dict__["store"] = self
        installation.__dict__["rekognition"] = SimpleNamespace(
            conn=SimpleNamespace(meta=SimpleNamespace(region_name="eu-west-1"))
        )
        self.stubber = Stubber(self.conn)
        self.stubber.activate()

    def answer(self, status: int) -> None:
        metadata = {"HTTPStatusCode": status, "HTTPHeaders": self._headers}
        if status == 200:
            self.stubber.add_response("head_bucket", {"ResponseMetadata": metadata})
        else:
            self.stubber.add_client_error(
                "head_bucket",
                str(status),
                http_status_code=status,
                response_meta={"HTTPHeaders": self._headers},
            )


@pytest.mark.parametrize(
    ("http_status", "region", "status", "words"),
    [
        (200, "eu-west-1", Status.ok, "in eu-west-1"),
        (200, "us-east-1", Status.failed, "is in us-east-1, Rekognition is called in eu-west-1"),
        (403, "us-east-1", Status.failed, "us-east-1"),
        (403, "eu-west-1", Status.failed, "s3:ListBucket"),
        (404, None, Status.failed, "create it"),
        (500, None, Status.failed, "HTTP 500"),
    ],
)
def test_bucket_must_be_there_and_in_rekognitions_region(
    http_status: int, region: str | None, status: Status, words: str, installation: Installation
) -> None:
    s3 = _Answering(installation, **({"x-amz-bucket-region": region} if region else {}))
    for _ in range(3):
        s3.answer(http_status)

    findings = list(buckets.check(installation))

    assert [finding.subject for finding in findings] == [
        f"bucket modlake-{name}" for name in ("ugc", "work", "lake")
    ]
    assert {finding.status for finding in findings} == {status}
    assert words in f"{findings[0].seen} {findings[0].mend}"


@pytest.mark.parametrize(
    ("off", "http_status", "status"),
    [
        (timedelta(seconds=30), 200, Status.ok),
        (timedelta(seconds=31), 200, Status.warning),
        (timedelta(minutes=-5), 200, Status.warning),
        (timedelta(minutes=5, seconds=1), 403, Status.failed),
        (timedelta(minutes=-6), 403, Status.failed),
    ],
)
def test_clock_is_held_against_that_of_s3(
    off: timedelta, http_status: int, status: Status, installation: Installation
) -> None:
    skewed = replace(installation, now=lambda: NOW + off)
    _Answering(skewed, date="Tue, 24 Nov 2026 08:00:00 GMT").answer(http_status)

    (finding,) = clock.check(skewed)

    assert finding.status is status
    assert f"{abs(off.total_seconds()):.0f} s" in finding.seen


def test_crash_of_one_check_stops_no_other(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_: Installation) -> Iterator[Finding]:
        yield ok("first half", "done")
        raise KeyError("second\nhalf")

    def calm(_: Installation) -> Iterator[Finding]:
        yield ok("calm", "done")

    checks = (Check("crash", crash, "mend it", needs_cloud=False), Check("calm", calm, needs_cloud=False))
    monkeypatch.setattr(examination, "CHECKS", checks)

    findings = list(examination.examine(replace(installation, cloud=None), lambda _: None))

    assert [finding.subject for finding in findings] == ["first half", "crash", "calm"]
    assert findings[1] == failed("crash", r"KeyError: 'second\nhalf'", "mend it")


@pytest.mark.parametrize(
    ("error", "finding"),
    [
        (
            ModlakeTerminalError("List was refused: no. Mend: ask again."),
            failed("it", "List was refused: no.", "ask again."),
        ),
        (ModlakeTerminalError("Nothing is set."), failed("it", "Nothing is set.", "set it")),
        (OSError("disk\nfull"), failed("it", "OSError: disk full", "set it")),
    ],
)
def test_error_becomes_one_line_and_its_mend(error: Exception, finding: Finding) -> None:
    assert failure("it", error, "set it") == finding


FINDINGS = [ok("a [b]", "fine"), warning("c", "so so", "look [at] it"), failed("d", "bad", "mend\tit")]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def write(*, as_json: bool, terminal: bool) -> str:
        stream = StringIO()
        monkeypatch.setattr(
            command, "out", Console(file=stream, force_terminal=terminal, width=100, color_system=None)
        )
        command._write(FINDINGS, as_json=as_json)
        return stream.getvalue()

    return write


@pytest.mark.parametrize("terminal", [True, False])
def test_json_is_an_array_of_findings(terminal: bool, printed: Callable[..., str]) -> None:
    records: list[dict[str, Any]] = json.loads(printed(as_json=True, terminal=terminal))

    assert records[2] == {"subject": "d", "status": "failed", "seen": "bad", "mend": "mend\tit"}
    assert len(records) == 3


def test_pipe_gets_a_line_a_finding(printed: Callable[..., str]) -> None:
    lines = printed(as_json=False, terminal=False).splitlines()

    assert lines[:3] == [
        "subject\tstatus\tseen\tmend",
        "a [b]\tok\tfine\t",
        "c\twarning\tso so\tlook [at] it",
    ]
    assert len(lines) == 4


def test_terminal_gets_a_table_and_a_summary(printed: Callable[..., str]) -> None:
    text = printed(as_json=False, terminal=True)

    assert "→ look [at] it" in text
    assert text.endswith("1 ok, 1 warning, 1 failed\n")
