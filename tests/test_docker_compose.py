"""docker-compose.yaml fits the checkout that it mounts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load(TEXT)["services"]


def test_every_variable_is_in_the_example_environment() -> None:
    example = {
        line.split("=")[0] for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    }
    assert set(re.findall(r"\$\{(\w+)", TEXT)) == {
        name for name in example if name and not name.startswith("#")
    }


def test_every_mounted_path_exists(services: dict[str, Any]) -> None:
    mounts = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])]
    checkout = [mount for mount in mounts if mount.startswith("./")]
    assert checkout
    for mount in checkout:
        assert (ROOT / mount).exists(), mount


def test_only_loopback_ports_are_published(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_airflow_talks_to_the_local_cloud_whatever_the_environment_says(services: dict[str, Any]) -> None:
    environment = services["scheduler"]["environment"]
    services_of_connection = json.loads(environment["AIRFLOW_CONN_AWS_DEFAULT"])["extra"]["service_config"]
    assert services_of_connection == {
        "s3": {"endpoint_url": "http://localcloud:8333"},
        "rekognition": {"endpoint_url": "http://localcloud:8334"},
    }
    assert environment["PYICEBERG_CATALOG__MODLAKE__S3__ENDPOINT"] == "http://localcloud:8333"


def test_the_pipeline_finds_its_variables(services: dict[str, Any]) -> None:
    dag = (ROOT / "dags" / "moderate_images.py").read_text(encoding="utf-8")
    # `var.value.get` has a default for a variable that is not there.
    asked = set(re.findall(r"var\.(?:value|json)\.(?!get\()(\w+)", dag))
    given = {name.removeprefix("AIRFLOW_VAR_").lower() for name in services["scheduler"]["environment"]}
    assert asked
    assert asked <= given


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="docker-compose is not installed")
def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    environment = tmp_path / "env"
    environment.write_text(
        re.sub(r"=$", "=secret", (ROOT / ".env.example").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    command = ["docker-compose", "--env-file", str(environment), "config", "--quiet"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
