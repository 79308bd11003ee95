"""Which failures of a task are worth another try."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

# The class by its path, as the rule is written into the serialised DAG.
TERMINAL_ERRORS_FAIL = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception="modlake.exceptions.ModlakeTerminalError",
            action=RetryAction.FAIL,
            reason="No retry can help until somebody changes what the error names",
        )
    ]
)


# For tasks that wait for AWS: throttling and outages pass within the hour, mostly.
PATIENT_RETRIES: dict[str, Any] = {
    "retries": 4,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=15),
}


def never_retry_terminal_errors(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return an operator's arguments with our retry policy, unless they bring one of their own."""
    # A mapped operator passes None for a policy that nobody set.
    return kwargs | {"retry_policy": kwargs.get("retry_policy") or TERMINAL_ERRORS_FAIL}
