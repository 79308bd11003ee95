"""The doctor at a real local cloud, as its owner and as identities that lack something."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from pyiceberg.utils.config import Config

from cli import airflow_environment
from cli.doctor import catalog, clock, identity, keys, objects, pools, rekognition
from cli.doctor.airflow_records import Pool, Records
from cli.doctor.examination import examine
from cli.doctor.findings import Finding, Status
from cli.doctor.installation import CONNECTION, Installation, of_environment
from cli.lake_environment import PREFIX, lake_environment
from cli.settings import Settings
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.quotas import CONCURRENT_JOBS_CODE
from tests.support.cloud import running_cloud

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).parents[2]
RATES = {f"{operation}_per_second": 10_000 for operation in ("start", "get", "list", "detect")}
ADAPTER = "arn:aws:rekognition:us-east-1:111122223333:project/uploads/version/{}/1"
ADAPTERS = {"fit": "ACTIVE", "old": "DEPRECATED", "gone": "EXPIRED", "young": "TRAINING_IN_PROGRESS"}
READER = "reader"
READER_ACTIONS = ["Read:modlake-ugc", "List:modlake-ugc", "Read:modlake-work", "List:modlake-work"]
POOL = Pool(20, include_deferred=True)
ARN = "arn:aws:sts::111122223333:assumed-role/modlake/worker"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudSettings]:
    home = tmp_path_factory.mktemp("cloud")
    directory = home / "cloud"
    directory.mkdir()
    reader = {
        "name": READER,
        "credentials": [{"accessKey": READER, "secretKey": "reader-secret"}],
        "actions": READER_ACTIONS,
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [reader]}))
    adapters = {ADAPTER.format(name): status for name, status in ADAPTERS.items()}
    (directory / "adapters.json").write_text(json.dumps(adapters))
    with running_cloud(home, **RATES) as settings:
        yield settings


class _Aws(ThreadingHTTPServer):
    """Answers the services that the local cloud lacks, by the operation's name; 400 is a refusal."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Aws

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        operation = self.headers.get("X-Amz-Target", ".GetCallerIdentity").rpartition(".")[2]
        refusal: tuple[int, dict[str, Any]] = (400, {"__type": "AccessDeniedException", "Message": "no"})
        status, answer = self.server.answers.get(operation, refusal)
        body = json.dumps(answer).encode()
        if operation == "GetCallerIdentity" and status == 200:
            result = f"<GetCallerIdentityResult><Arn>{answer['Arn']}</Arn></GetCallerIdentityResult>"
            body = f"<R>{result}</R>".encode()
        elif operation == "GetCallerIdentity":
            body = b"<R><Error><Code>ExpiredToken</Code><Message>expired</Message></Error></R>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def aws() -> Iterator[_Aws]:
    with _Aws() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _environment(
    cloud: CloudSettings, aws: _Aws, *, fake: tuple[str, ...] = (), **changed: str
) -> dict[str, str]:
    """As somebody exports it for --aws; the services in ``fake`` are the fake's."""
    connection = airflow_environment.connections(cloud)["aws_default"]
    extra = json.loads(connection["extra"])
    for service in ("sts", "service-quotas", "kms", *fake):
        extra["service_config"][service] = {"endpoint_url": aws.url}
    extra["region_name"] = changed.pop("region", extra["region_name"])
    variables = {
        f"AIRFLOW_VAR_{name.upper()}": value for name, value in airflow_environment.variables().items()
    }
    return {
        CONNECTION: json.dumps({**connection, "extra": json.dumps(extra)}),
        **variables,
        **lake_environment(cloud, {}),
        **changed,
    }


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes an environment that of this process, and the installation that it describes."""

    def make(environment: dict[str, str]) -> Installation:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        # pyiceberg has read the environment when it was imported.
        monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
        found = of_environment(Settings(home=tmp_path, airflow_port=1), environment)
        given = {
            pools.JOBS_POOL: POOL,
            pools.CALLS_POOL: replace(POOL, slots=1),
            pools.PUBLISH_POOL: POOL,
            pools.ACTIONS_POOL: POOL,
        }
        records = Records(given, "here")
        return replace(found, read_pools=lambda: records)

    return make


def _by_subject(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def _examined(installation: Installation) -> dict[str, Finding]:
    return _by_subject(examine(installation, lambda _: None))


def _failed(found: dict[str, Finding]) -> set[str]:
    return {subject for subject, finding in found.items() if finding.status is Status.failed}


def _keys(cloud: CloudSettings) -> list[str]:
    client = boto3.client(
        "s3",
        endpoint_url=cloud.s3_endpoint,
        region_name=cloud.region,
        aws_access_key_id=cloud.access_key,
        aws_secret_access_key=cloud.secret_key,
    )
    pages = [
        client.list_objects_v2(Bucket=bucket) for bucket in ("modlake-ugc", "modlake-work", "modlake-lake")
    ]
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def _doctor(cloud: CloudSettings, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(CHECKOUT / name) for name in ("plugins", "include"))
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli", "doctor", *arguments],
        env={**os.environ, **cloud.to_environment(), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


def test_fit_installation_gets_exit_code_0_and_is_left_as_it_was(cloud: CloudSettings) -> None:
    before = _keys(cloud)

    ended = _doctor(cloud, "--json", "--adapter-arn", ADAPTER.format("fit"), "--kms-key-id", "alias/modlake")

    findings = {finding["subject"]: finding for finding in json.loads(ended.stdout)}
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {finding["status"] for finding in findings.values()} == {"ok", "skipped"}
    assert "no STS" in findings["identity"]["seen"]
    assert findings["adapter"]["status"] == findings["scratch table"]["status"] == "ok"
    assert _keys(cloud) == before
    with sqlite3.connect(cloud.home / "catalog.db") as tables:
        assert tables.execute("SELECT count(*) FROM iceberg_tables").fetchone() == (0,)
        assert tables.execute("SELECT count(*) FROM iceberg_namespace_properties").fetchone() == (0,)
    with sqlite3.connect(cloud.cloud_dir / "rekognition.sqlite") as rekognition:
        assert rekognition.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
        assert rekognition.execute("SELECT count(*) FROM bill").fetchone() == (0,)


def test_stopped_cloud_is_one_failure_that_says_what_to_run(tmp_path: Path) -> None:
    stopped = CloudSettings(home=tmp_path, s3_port=18333, rekognition_port=18334, seaweedfs_port=19000)

    ended = _doctor(stopped)

    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    assert ended.returncode == 1
    assert [line[0] for line in lines if line[1] == "failed"] == ["local cloud"]
    assert "./modlake cloud start" in lines[1][3]
    assert ["catalog", "skipped", "the local cloud is not running", ""] in lines
    assert any(line[0] == "version of Python" and line[1] == "ok" for line in lines)


def test_missing_permission_shows_up(cloud: CloudSettings, aws: _Aws, installed: Any) -> None:
    reader = replace(cloud, access_key=READER, secret_key="reader-secret")

    found = _examined(installed(_environment(reader, aws)))

    assert {"work: s3:PutObject", "lake: s3:PutObject", "lake: s3:ListBucket"} <= _failed(found)
    assert "allow s3:PutObject" in found["work: s3:PutObject"].mend
    assert found["work: s3:DeleteObject"].status is Status.skipped
    assert found["work: s3:ListBucket"].status is found["uploads: s3:ListBucket"].status is Status.ok
    # Even so the other checks were made.
    assert found["rekognition:StartMediaAnalysisJob"].status is Status.ok
    assert "catalog" in _failed(found)


def test_upload_is_read_with_one_byte(cloud: CloudSettings, aws: _Aws, installed: Any) -> None:
    installation = installed(_environment(cloud, aws))
    uri = "s3://modlake-ugc/uploads/2026-11-21/100%\nodd.jpg"
    installation.store.write(uri, b"\xff\xd8")
    try:
        found = _examined(installation)
    finally:
        installation.store.delete([uri])

    assert found["uploads: s3:GetObject"].seen == f"{uri!r} can be read"
    assert _failed(found) == {"identity"}  # by the fake, which nobody has told an answer


def test_missing_bucket_is_named(cloud: CloudSettings, aws: _Aws, installed: Any) -> None:
    environment = _environment(cloud, aws, AIRFLOW_VAR_MODLAKE_WORK_URI="s3://modlake-nowhere/")

    found = _examined(installed(environment))

    assert {"bucket modlake-nowhere", "work: s3:PutObject", "work: s3:ListBucket"} <= _failed(found)
    assert "create it" in found["bucket modlake-nowhere"].mend
    assert found["bucket modlake-ugc"].status is Status.ok


def test_wrong_region_is_refused(cloud: CloudSettings, aws: _Aws, installed: Any) -> None:
    found = _examined(installed(_environment(cloud, aws, region="eu-north-1")))

    assert "rekognition:DetectModerationLabels" in _failed(found)
    assert "region" in found["rekognition:DetectModerationLabels"].seen
    assert found["bulk analysis"].status is Status.skipped
    assert "AWS lists no bulk analysis in eu-north-1" in found[f"pool {pools.JOBS_POOL}"].seen


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("fit", Status.ok, "TRAINING_COMPLETED"),
        ("old", Status.warning, "DEPRECATED"),
        ("gone", Status.failed, "EXPIRED"),
        ("young", Status.failed, "TRAINING_IN_PROGRESS"),
        ("unknown", Status.failed, "no adapter"),
        ("n a m e", Status.failed, "Rekognition refuses"),
    ],
)
def test_adapter_must_judge(
    name: str, status: Status, words: str, cloud: CloudSettings, aws: _Aws, installed: Any
) -> None:
    installation = replace(installed(_environment(cloud, aws)), adapter_arn=ADAPTER.format(name))

    (finding,) = rekognition.check_adapter_status(installation)

    assert finding.status is status
    assert words in finding.seen
    assert bool(finding.mend) == (status is not Status.ok)


def test_broken_catalog_fails_alone(cloud: CloudSettings, aws: _Aws, installed: Any) -> None:
    environment = _environment(cloud, aws, **{f"{PREFIX}URI": "sqlite:////nowhere/at/all/catalog.db"})

    found = _examined(installed(environment))

    assert _failed(found) - {"identity"} == {"catalog"}
    assert f"{PREFIX}*" in found["catalog"].mend
    assert "\n" not in found["catalog"].seen


def test_warehouse_that_is_not_there_leaves_nothing_in_the_catalog(
    cloud: CloudSettings, aws: _Aws, installed: Any, tmp_path: Path
) -> None:
    changed = {f"{PREFIX}WAREHOUSE": "s3://modlake-nowhere/w", f"{PREFIX}URI": f"sqlite:///{tmp_path}/c.db"}

    found = _examined(installed(_environment(cloud, aws, **changed)))

    assert {"catalog", "lake: s3:PutObject", "bucket modlake-nowhere"} <= _failed(found)
    with sqlite3.connect(tmp_path / "c.db") as tables:
        assert tables.execute("SELECT count(*) FROM iceberg_namespace_properties").fetchone() == (0,)


def test_skewed_clock_is_told(cloud: CloudSettings, aws: _Aws, installed: Any) -> None:
    ahead = replace(
        installed(_environment(cloud, aws)), now=lambda: datetime.now(UTC) + timedelta(minutes=10)
    )

    (finding,) = clock.check(ahead)

    assert finding.status is Status.failed
    assert "ahead of" in finding.seen
    assert "chrony" in finding.mend


def test_account_without_bulk_analysis_is_told_of_the_closure_and_the_other_engine(
    cloud: CloudSettings, aws: _Aws, installed: Any
) -> None:
    aws.answers["DetectModerationLabels"] = (400, {"__type": "InvalidS3ObjectException"})

    found = _by_subject(rekognition.check(installed(_environment(cloud, aws, fake=("rekognition",)))))

    assert not _failed(found)
    assert found["rekognition:StartMediaAnalysisJob"].status is Status.warning
    assert found["rekognition:DetectModerationLabels"].status is Status.ok
    assert found["bulk analysis"].status is Status.warning
    assert "the nights run on DetectModerationLabels" in found["bulk analysis"].seen
    assert "2026-04-30" in found["bulk analysis"].mend


def test_jobs_that_can_be_started_but_not_looked_at_fail(
    cloud: CloudSettings, aws: _Aws, installed: Any
) -> None:
    aws.answers["DetectModerationLabels"] = (400, {"__type": "InvalidS3ObjectException"})
    aws.answers["StartMediaAnalysisJob"] = (400, {"__type": "InvalidS3ObjectException"})
    aws.answers["ListMediaAnalysisJobs"] = (200, {"MediaAnalysisJobs": []})

    found = _by_subject(rekognition.check(installed(_environment(cloud, aws, fake=("rekognition",)))))

    assert {"rekognition:GetMediaAnalysisJob", "bulk analysis"} == _failed(found)


def test_account_without_any_engine_fails(cloud: CloudSettings, aws: _Aws, installed: Any) -> None:
    found = _by_subject(rekognition.check(installed(_environment(cloud, aws, fake=("rekognition",)))))

    assert {"rekognition:DetectModerationLabels", "bulk analysis"} <= _failed(found)
    assert "grant rekognition:DetectModerationLabels" in found["rekognition:DetectModerationLabels"].mend


def test_identity_is_what_sts_says(cloud: CloudSettings, aws: _Aws, installed: Any) -> None:
    installation = installed(_environment(cloud, aws))

    refused = list(identity.check(installation))
    aws.answers["GetCallerIdentity"] = (200, {"Arn": ARN})
    known = list(identity.check(installation))

    assert refused[1].status is Status.failed
    assert "ExpiredToken" in refused[1].seen
    assert known[1] == Finding("identity", Status.ok, ARN)


def test_unreachable_sts_is_no_failure(cloud: CloudSettings, aws: _Aws, installed: Any) -> None:
    installation = installed(_environment(cloud, aws))
    aws.shutdown()
    aws.server_close()

    _, caller = identity.check(installation)

    assert caller.status is Status.skipped
    assert "STS can't be reached" in caller.seen


def test_quota_comes_from_service_quotas_when_readable(
    cloud: CloudSettings, aws: _Aws, installed: Any
) -> None:
    installation = installed(_environment(cloud, aws))

    default = next(pools.check(installation))
    jobs = {"QuotaCode": CONCURRENT_JOBS_CODE, "QuotaName": "Concurrent Media Analysis jobs", "Value": 7.0}
    aws.answers["ListServiceQuotas"] = (200, {"Quotas": [jobs]})
    told = next(pools.check(replace(installation)))  # another one, that has not asked yet

    assert "quota 20 (AWS's default" in default.seen
    assert default.status is Status.ok
    assert "quota 7 (Service Quotas)" in told.seen
    assert told.status is Status.warning


@pytest.mark.parametrize(
    ("state", "status"), [("Enabled", Status.ok), ("PendingDeletion", Status.failed), (None, Status.failed)]
)
def test_kms_key_must_be_enabled(
    state: str | None, status: Status, cloud: CloudSettings, aws: _Aws, installed: Any
) -> None:
    if state:
        aws.answers["DescribeKey"] = (200, {"KeyMetadata": {"Arn": "arn:key", "KeyState": state}})

    (finding,) = keys.check(replace(installed(_environment(cloud, aws)), kms_key_id="alias/modlake"))

    assert finding.status is status
    assert (state or "AccessDenied") in finding.seen


def test_what_cannot_be_deleted_is_a_warning(cloud: CloudSettings, aws: _Aws, installed: Any) -> None:
    """Only the maintenance of the lake deletes: a night gets by without that permission."""
    installation = installed(_environment(cloud, aws))
    uris: list[str] = []

    def denied(given: Iterable[str]) -> None:
        uris.extend(given)
        raise ModlakeTerminalError("S3 denies it.")

    delete, installation.store.delete = installation.store.delete, denied
    try:
        found = _by_subject([*objects.check_work(installation), *catalog.check(installation)])
    finally:
        delete(uris)

    assert found["work: s3:DeleteObject"].status is found["scratch table"].status is Status.warning
    assert uris[0] in found["work: s3:DeleteObject"].seen
    assert "by hand" in found["scratch table"].mend


def test_warehouse_in_a_table_bucket_is_left_to_the_catalog(
    cloud: CloudSettings, aws: _Aws, installed: Any
) -> None:
    arn = "arn:aws:s3tables:us-east-1:111122223333:bucket/acme-lake"

    (finding,) = objects.check_lake(installed(_environment(cloud, aws, **{f"{PREFIX}WAREHOUSE": arn})))

    assert finding.status is Status.skipped
    assert arn in finding.seen


def test_environment_that_says_nothing_is_told_what_to_set(
    installed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    found = _examined(installed({}))

    assert {"variable modlake_work_uri", "credentials", "clock", "work", "catalog"} <= _failed(found)
    assert CONNECTION in found["credentials"].mend
    assert "docs/aws.md, step 4" in found["work"].mend
    assert "AWS_DEFAULT_REGION" in found["pools"].mend
    assert all(finding.mend for finding in found.values() if finding.status is Status.failed)
