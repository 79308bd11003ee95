"""The environment of every Airflow process that a checkout starts, and what its database must hold."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from cli.credentials import ADMIN, Credentials, passwords_file
from cli.lake_environment import lake_environment
from cli.postgres import Postgres
from cli.processes import free_port
from cli.settings import CHECKOUT, POLICIES, Settings
from localcloud.settings import CloudSettings

POOLS = CHECKOUT / "include" / "airflow" / "pools.json"


def airflow_environment(settings: Settings, cloud: CloudSettings, database: Postgres) -> dict[str, str]:
    """The whole environment for `airflow …`: that of this process and our settings."""
    inherited = dict(os.environ)
    # Airflow's side must live from plugins/ alone, which Airflow itself puts on the path.
    inherited.pop("PYTHONPATH", None)
    programs = Path(sys.executable).parent
    return {
        **inherited,
        **lake_environment(cloud, inherited),
        "PATH": f"{programs}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        "NO_PROXY": ",".join(filter(None, ["127.0.0.1", "localhost", inherited.get("NO_PROXY", "")])),
        "AIRFLOW_HOME": str(settings.airflow_home),
        **{f"AIRFLOW__{name}": value for name, value in _options(settings, database).items()},
    }


def _options(settings: Settings, database: Postgres) -> dict[str, str]:
    credentials = Credentials.of(settings)
    return {
        "CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
        "CORE__PLUGINS_FOLDER": str(CHECKOUT / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": str(settings.parallel_tasks),
        "CORE__FERNET_KEY": credentials.fernet_key,
        "CORE__EXECUTION_API_SERVER_URL": f"{settings.airflow_url}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords_file(settings)),
        "DATABASE__SQL_ALCHEMY_CONN": database.sqlalchemy_url("psycopg2"),
        "DATABASE__SQL_ALCHEMY_CONN_ASYNC": database.sqlalchemy_url("asyncpg"),
        "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "API__HOST": "127.0.0.1",
        "API__PORT": str(settings.airflow_port),
        "API__BASE_URL": settings.airflow_url,
        "API__WORKERS": "1",
        "API__SECRET_KEY": credentials.api_secret_key,
        "API_AUTH__JWT_SECRET": credentials.jwt_secret,
        # The fixed defaults of the two log servers collide when another Airflow runs on the machine.
        "LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def connections(cloud: CloudSettings) -> dict[str, dict[str, Any]]:
    """The connection to the local cloud, in the form of `airflow connections import`."""
    return {
        "aws_default": {
            "conn_type": "aws",
            "description": "The local cloud of this checkout",
            "login": cloud.access_key,
            "password": cloud.secret_key,
            "extra": json.dumps(
                {
                    "region_name": cloud.region,
                    "service_config": {
                        "s3": {"endpoint_url": cloud.s3_endpoint},
                        "rekognition": {"endpoint_url": cloud.rekognition_endpoint},
                    },
                    "config_kwargs": {"s3": {"addressing_style": "path"}},
                }
            ),
        }
    }


def variables() -> dict[str, str]:
    """The pipeline's variables; strftime directives stand for the day."""
    return {
        "modlake_ugc_uri": "s3://modlake-ugc/uploads/%Y-%m-%d/",
        "modlake_ugc_marker_uri": "s3://modlake-ugc/complete/%Y-%m-%d",
        "modlake_work_uri": "s3://modlake-work/",
        "modlake_allowed_ugc_uris": json.dumps(["s3://modlake-ugc/uploads/"]),
        "modlake_price_per_image_usd": "0.001",
        "modlake_policies_uri": str(POLICIES),
        "modlake_action_targets": json.dumps(
            {
                "tag": {"key": "moderation"},
                "quarantine": {"uri": "s3://modlake-quarantine/"},
                "review_queue": {"uri": "s3://modlake-work/review/"},
            }
        ),
    }


def pools() -> dict[str, dict[str, Any]]:
    """The pools, in the form of `airflow pools import`."""
    content: dict[str, dict[str, Any]] = json.loads(POOLS.read_text(encoding="utf-8"))
    return content
