"""Where the tables are: pyiceberg's own variables, with the embedded catalog as default."""

from __future__ import annotations

from collections.abc import Mapping

from localcloud.settings import CloudSettings

PREFIX = "PYICEBERG_CATALOG__MODLAKE__"
LAKE_BUCKET = "modlake-lake"


def lake_environment(cloud: CloudSettings, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of the catalog `modlake`.

    A catalog whose TYPE the environment sets is taken as it is; otherwise the single variables it sets
    (such as URI, for a catalog in PostgreSQL) replace the defaults.
    """
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    if PREFIX + "TYPE" in given:
        return given
    return {
        PREFIX + "TYPE": "sql",
        PREFIX + "URI": f"sqlite:///{cloud.home / 'catalog.db'}",
        PREFIX + "WAREHOUSE": f"s3://{LAKE_BUCKET}/warehouse",
        PREFIX + "S3__ENDPOINT": cloud.s3_endpoint,
        PREFIX + "S3__ACCESS_KEY_ID": cloud.access_key,
        PREFIX + "S3__SECRET_ACCESS_KEY": cloud.secret_key,
        PREFIX + "S3__REGION": cloud.region,
        **given,
    }
