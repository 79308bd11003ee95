"""The lake's catalog, for commands that read tables without SQL."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cli.lake_environment import PREFIX, lake_environment
from localcloud import cloud
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


def open_lake_catalog(cloud_settings: CloudSettings) -> Catalog:
    """Opens the catalog that pyiceberg's variables name, by default the one of this state directory."""
    configuration = lake_environment(cloud_settings, os.environ)
    needs_cloud = configuration.get(PREFIX + "S3__ENDPOINT") == cloud_settings.s3_endpoint
    if needs_cloud and cloud.status(cloud_settings).s3.state != "running":
        raise ModlakeTerminalError(
            "The local cloud, which holds the tables, is not running: start it with ./modlake cloud start."
        )
    os.environ.update(configuration)  # pyiceberg reads it when it is imported
    from modlake.lake import catalog

    return catalog.open_catalog()
