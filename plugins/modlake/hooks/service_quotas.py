"""Service Quotas: what AWS grants the account, where the identity may look."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from modlake.hooks.rekognition import RekognitionHook
from modlake.pipeline.quotas import CONCURRENT_JOBS_CODE, Quotas, default_quotas

# Only a look: a network without a way to Service Quotas must not hold a night up.
_PATIENCE = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
SOURCE = "Service Quotas"


class ServiceQuotasHook(AwsBaseHook):
    """Interact with AWS Service Quotas, with the connection of the other hooks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["client_type"] = "service-quotas"
        super().__init__(*args, **kwargs)

    @property
    def config(self) -> Config:
        """The connection's configuration, with little patience."""
        given: Config = super().config
        return given.merge(_PATIENCE)

    def rekognition_quotas(self, rekognition: RekognitionHook) -> Quotas:
        """
        Return the quotas of the account, AWS's defaults for what can't be read; never fails.

        A stand-in of Rekognition has none that could be read, unless the connection names an endpoint of
        Service Quotas too.
        """
        quotas = default_quotas(rekognition.conn_region_name)
        try:
            if _is_of_aws(self.conn.meta.endpoint_url) and not _is_of_aws(rekognition.conn.meta.endpoint_url):
                return quotas
            pages = self.conn.get_paginator("list_service_quotas").paginate(ServiceCode="rekognition")
            listed = [quota for page in pages for quota in page["Quotas"]]
        except (ClientError, BotoCoreError) as error:
            self.log.info("Service Quotas can't be read, so AWS's defaults are taken: %s", error)
            return quotas
        for quota in listed:
            if quota.get("QuotaCode") == CONCURRENT_JOBS_CODE:
                quotas = replace(quotas, concurrent_jobs=int(quota["Value"]), concurrent_jobs_source=SOURCE)
            elif _is_rate_of_single_calls(quota.get("QuotaName", "")):
                quotas = replace(
                    quotas, requests_per_second=float(quota["Value"]), requests_per_second_source=SOURCE
                )
        return quotas


def _is_of_aws(endpoint_url: str) -> bool:
    return ".amazonaws.com" in endpoint_url or ".api.aws" in endpoint_url


def _is_rate_of_single_calls(name: str) -> bool:
    # By name, as its code is not documented.
    return "transactions per second" in name.lower() and name.endswith("DetectModerationLabels")
