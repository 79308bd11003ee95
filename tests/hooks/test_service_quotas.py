"""Quotas of the account, where they can be read."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from modlake.hooks.service_quotas import ServiceQuotasHook
from modlake.pipeline.quotas import Quotas, default_quotas

RATE = "Transactions per second per account for the Amazon Rekognition Image operation DetectModerationLabels"


def looked(
    pages: Any, *, rekognition: str = "rekognition.us-east-1.amazonaws.com"
) -> tuple[Quotas, mock.Mock]:
    service = mock.Mock()
    service.meta.endpoint_url = "https://servicequotas.us-east-1.amazonaws.com"
    service.get_paginator.return_value.paginate.side_effect = pages
    hook = ServiceQuotasHook()
    hook.__dict__["conn"] = service
    conn = mock.Mock()
    conn.meta.endpoint_url = f"https://{rekognition}"
    return hook.rekognition_quotas(mock.Mock(conn=conn, conn_region_name="us-east-1")), service


def test_they_are_found_by_code_and_by_name() -> None:
    page = {
        "Quotas": [
            {"QuotaCode": "L-1", "QuotaName": "Streams", "Value": 1.0},
            {"QuotaCode": "L-22FA69BA", "QuotaName": "Concurrent Media Analysis jobs", "Value": 40.0},
            {"QuotaCode": "L-2", "QuotaName": RATE, "Value": 120.0},
        ]
    }
    quotas, _ = looked([[{"Quotas": []}, page]])
    assert (quotas.concurrent_jobs, quotas.requests_per_second) == (40, 120)
    assert quotas.concurrent_jobs_source == quotas.requests_per_second_source == "Service Quotas"


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "ListServiceQuotas"),
        EndpointConnectionError(endpoint_url="https://servicequotas"),
    ],
)
def test_what_can_not_be_read_is_aws_default(error: Exception) -> None:
    assert looked(error)[0] == default_quotas("us-east-1")


def test_a_stand_in_has_none() -> None:
    quotas, service = looked([[]], rekognition="127.0.0.1:9000")
    assert quotas == default_quotas("us-east-1")
    service.get_paginator.assert_not_called()
