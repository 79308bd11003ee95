from __future__ import annotations

from pathlib import Path

import pytest

from localcloud import cloud, credentials, seaweedfs
from localcloud.errors import LocalCloudError
from localcloud.settings import CHECKOUT, CloudSettings


def test_defaults() -> None:
    settings = CloudSettings.from_environment({})
    assert settings == CloudSettings(home=CHECKOUT / ".modlake")
    assert settings.s3_endpoint == "http://127.0.0.1:8333"
    assert settings.rekognition_endpoint == "http://127.0.0.1:8334"


def test_the_environment_decides_and_reads_back(tmp_path: Path) -> None:
    env = {"MODLAKE_HOME": str(tmp_path), "MODLAKE_S3_PORT": "18333", "MODLAKE_REKOGNITION_PORT": "18334"}
    settings = CloudSettings.from_environment(env)
    assert (settings.home, settings.s3_port, settings.rekognition_port) == (tmp_path, 18333, 18334)
    assert set(settings.internal_ports.values()) == set(range(19333, 19342))
    assert CloudSettings.from_environment(settings.to_environment()) == settings


def test_seaweedfs_gets_the_memory_it_is_given(tmp_path: Path) -> None:
    env = {"MODLAKE_HOME": str(tmp_path), "MODLAKE_SEAWEEDFS_MEMORY_MIB": "2048"}
    settings = CloudSettings.from_environment(env)
    assert seaweedfs.daemon(settings).env["GOMEMLIMIT"] == "2048MiB"
    assert CloudSettings.from_environment(settings.to_environment()) == settings


def test_behind_the_fault_proxy_seaweedfs_has_a_port_of_its_own(tmp_path: Path) -> None:
    env = {"MODLAKE_HOME": str(tmp_path), "MODLAKE_S3_PORT": "18333", "MODLAKE_S3_FAULT_PROXY": "1"}
    settings = CloudSettings.from_environment(env)
    assert settings.s3_endpoint == "http://127.0.0.1:18333"
    assert settings.seaweedfs_endpoint == "http://127.0.0.1:19342"
    assert CloudSettings.from_environment(settings.to_environment()) == settings
    plain = CloudSettings.from_environment(env | {"MODLAKE_S3_FAULT_PROXY": ""})
    assert plain.seaweedfs_endpoint == plain.s3_endpoint


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"MODLAKE_S3_PORT": "http"}, "MODLAKE_S3_PORT='http' is not a number: set it to a free port"),
        (
            {"MODLAKE_SEAWEEDFS_MEMORY_MIB": "2GiB"},
            "set it to mebibytes, 128 or more",
        ),
        ({"MODLAKE_SEAWEEDFS_MEMORY_MIB": "2"}, "MODLAKE_SEAWEEDFS_MEMORY_MIB=2 is too little: set it to"),
        ({"MODLAKE_S3_PORT": "65000"}, "MODLAKE_SEAWEEDFS_PORT=66000 is no usable port"),
        ({"MODLAKE_REKOGNITION_PORT": "8333"}, "ports overlap.*set MODLAKE_S3_PORT"),
        ({"MODLAKE_SEAWEEDFS_PORT": "8330"}, "ports overlap"),
    ],
)
def test_ports_that_cannot_be(env: dict[str, str], told: str) -> None:
    with pytest.raises(LocalCloudError, match=told):
        CloudSettings.from_environment(env)


def test_environment_names_what_aws_tools_read(tmp_path: Path) -> None:
    assert cloud.environment(CloudSettings(home=tmp_path)) == {
        "AWS_ACCESS_KEY_ID": "modlake",
        "AWS_SECRET_ACCESS_KEY": "modlake-local-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:8333",
        "AWS_ENDPOINT_URL_REKOGNITION": "http://127.0.0.1:8334",
    }


def test_status_of_a_cloud_that_never_was_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "none"
    status = cloud.status(CloudSettings(home=home))
    assert (status.running, status.s3.state, status.rekognition.pid) == (False, "stopped", None)
    assert not home.exists()


class TestCredentials:
    def test_the_owner_is_replaced_and_others_stay(self, tmp_path: Path) -> None:
        path = tmp_path / "s3.json"
        assert credentials.write_owner(path, "old", "old-secret")
        text = path.read_text().replace(
            '"identities": [',
            '"identities": [{"name": "reader", "credentials": [{"accessKey": "r", "secretKey": "s"}]},',
        )
        path.write_text(text)

        assert credentials.write_owner(path, "new", "new-secret")
        assert credentials.read_secrets(path) == {"new": "new-secret", "r": "s"}
        assert not credentials.write_owner(path, "new", "new-secret")
        assert path.stat().st_mode & 0o077 == 0

    def test_a_broken_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "s3.json").write_text("{}")
        with pytest.raises(LocalCloudError, match=r"s3\.json is not .* repair or delete it"):
            credentials.read_secrets(tmp_path / "s3.json")
