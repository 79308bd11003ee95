"""Calls per second, each operation with a quota of its own."""

from __future__ import annotations

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from localcloud.rekognition.behaviour import Behaviour
from localcloud.rekognition.protocol import ApiError


class CallRates:
    """The account's call rates; all its keys share them, as on AWS."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._quotas = {
            "StartMediaAnalysisJob": RateLimitItemPerSecond(behaviour.start_per_second),
            "GetMediaAnalysisJob": RateLimitItemPerSecond(behaviour.get_per_second),
            "ListMediaAnalysisJobs": RateLimitItemPerSecond(behaviour.list_per_second),
            "DetectModerationLabels": RateLimitItemPerSecond(behaviour.detect_per_second),
        }

    def take(self, operation: str) -> None:
        """Count a call; raises ApiError ProvisionedThroughputExceededException over the quota."""
        quota = self._quotas.get(operation)
        if quota is not None and not self._limiter.hit(quota, operation):
            raise ApiError("ProvisionedThroughputExceededException", "Provisioned rate exceeded")
