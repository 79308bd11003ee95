"""SIGKILL of Airflow's own processes in the middle of a run.

It takes minutes, so it runs only with `--kill-airflow`, as `./modlake soak` gives it; that of PostgreSQL runs
always, in tests/integration/test_up.py, where an Airflow is up anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest

from tests.support.airflow_killed import Component, kill_in_the_middle_of_a_run
from tests.support.checkout import Checkout, temporary_checkout

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def checkout(pytestconfig: pytest.Config) -> Iterator[Checkout]:
    if not pytestconfig.getoption("--kill-airflow", False):
        pytest.skip("takes minutes: give --kill-airflow, or run ./modlake soak --kill-airflow")
    with temporary_checkout() as made:
        made.run("up")
        yield made


@pytest.mark.parametrize(("component", "number"), [("triggerer", 1), ("scheduler", 2), ("postgres", 3)])
def test_a_run_whose_airflow_is_killed(checkout: Checkout, component: Component, number: int) -> None:
    kill_in_the_middle_of_a_run(checkout, component, date(2026, 3, number))
