"""The installation that is examined: its variables, pools, catalog, and clients of its AWS account."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import NoRegionError

from cli import airflow_environment
from cli.doctor import airflow_records
from cli.doctor.airflow_records import Records
from cli.lake_environment import PREFIX, lake_environment
from cli.settings import Settings
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError

if TYPE_CHECKING:
    from modlake.hooks.object_store import S3ObjectStoreHook
    from modlake.hooks.rekognition import RekognitionHook
    from modlake.pipeline.quotas import Quotas

CONNECTIONS = "AIRFLOW_CONN_"
CONNECTION = f"{CONNECTIONS}AWS_DEFAULT"
VARIABLE = "AIRFLOW_VAR_"

# Somebody waits for the answer, and a firewall drops packets in silence.
_PATIENCE = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 2})


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Installation:
    """What is examined; ``cloud`` is None for AWS, ``environment`` what Airflow and pyiceberg are to see.

    ``now`` is this host's clock.
    """

    settings: Settings
    cloud: CloudSettings | None
    environment: Mapping[str, str] = field(repr=False)  # it holds secrets
    read_variables: Callable[[], Records]
    read_pools: Callable[[], Records]
    adapter_arn: str | None = None
    kms_key_id: str | None = None
    now: Callable[[], datetime] = _utc_now

    @cached_property
    def variables(self) -> Records:
        return self.read_variables()

    @cached_property
    def pools(self) -> Records:
        """Each an :class:`airflow_records.Pool`."""
        return self.read_pools()

    def variable(self, name: str) -> str:
        """An Airflow variable; raises ModlakeTerminalError when it isn't there."""
        value = self.variables.values.get(name)
        if not value:
            raise ModlakeTerminalError(
                f"The variable {name} is not set in {self.variables.place}. "
                "Mend: set it as docs/aws.md, step 4, shows."
            )
        return str(value)

    @property
    def warehouse(self) -> str:
        """Where the tables go: an S3 URI, the ARN of a table bucket, or nothing."""
        return self.environment.get(f"{PREFIX}WAREHOUSE", "")

    @property
    def connection_id(self) -> str | None:
        """None where the environment names no connection: then boto3 finds credentials its own way."""
        return "aws_default" if CONNECTION in self.environment else None

    @cached_property
    def store(self) -> S3ObjectStoreHook:
        from modlake.hooks.object_store import S3ObjectStoreHook

        return S3ObjectStoreHook(aws_conn_id=self.connection_id, config=self._patient(S3ObjectStoreHook))

    @cached_property
    def rekognition(self) -> RekognitionHook:
        from modlake.hooks.rekognition import RekognitionHook

        return RekognitionHook(aws_conn_id=self.connection_id, config=self._patient(RekognitionHook))

    @cached_property
    def quotas(self) -> Quotas:
        """What the account may use at once, as plans find it out."""
        from modlake.hooks.service_quotas import ServiceQuotasHook

        return ServiceQuotasHook(aws_conn_id=self.connection_id).rekognition_quotas(self.rekognition)

    @property
    def region(self) -> str:
        """The region in which Rekognition is called; raises ModlakeTerminalError when nothing names one."""
        try:
            return str(self.rekognition.conn.meta.region_name)
        except NoRegionError as error:
            raise ModlakeTerminalError(
                f"{error} Mend: set region_name in the extra of {CONNECTION}, or AWS_DEFAULT_REGION."
            ) from error

    def client(self, service: str) -> Any:
        """A client of another service than S3 and Rekognition, with the connection's credentials."""
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        return AwsBaseHook(
            aws_conn_id=self.connection_id, client_type=service, config=self._patient(AwsBaseHook)
        ).conn

    def _patient(self, hook: Any) -> Config:
        """The connection's own configuration, which one given to a hook would replace, and our patience."""
        given: Config = hook(aws_conn_id=self.connection_id).config
        return given.merge(_PATIENCE)


def of_checkout(settings: Settings, cloud: CloudSettings, environment: Mapping[str, str]) -> Installation:
    """The installation on the local cloud."""
    connection = airflow_environment.connections(cloud)["aws_default"]
    given = {name: value for name, value in environment.items() if name.startswith(CONNECTIONS)}
    return Installation(
        settings=settings,
        cloud=cloud,
        environment={
            "AIRFLOW_HOME": str(settings.airflow_home),
            **given,
            CONNECTION: json.dumps(connection),
            **lake_environment(cloud, environment),
        },
        read_variables=partial(airflow_records.variables, settings),
        read_pools=partial(airflow_records.pools, settings),
    )


def of_environment(settings: Settings, environment: Mapping[str, str]) -> Installation:
    """The installation that AWS_*, AIRFLOW_CONN_AWS_DEFAULT, AIRFLOW_VAR_* and PYICEBERG_* describe."""
    values = {
        name.removeprefix(VARIABLE).lower(): value
        for name, value in environment.items()
        if name.startswith(VARIABLE)
    }
    return Installation(
        settings=settings,
        cloud=None,
        environment={"AIRFLOW_HOME": str(settings.airflow_home), **environment},
        read_variables=lambda: Records(values, f"the environment ({VARIABLE}*)"),
        read_pools=partial(airflow_records.pools, settings),
    )
