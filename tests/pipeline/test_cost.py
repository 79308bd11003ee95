from __future__ import annotations

import pytest

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.cost import check_budget, estimate_cost_usd


def test_the_estimate_is_images_times_price_without_float_dust() -> None:
    assert estimate_cost_usd(3, 0.001) == 0.003
    assert estimate_cost_usd(0, 0.001) == 0.0


@pytest.mark.parametrize("max_cost_usd", [None, 10.0, 10.5])
def test_a_budget_that_suffices_passes(max_cost_usd: float | None) -> None:
    check_budget(10_000, 0.001, max_cost_usd)


@pytest.mark.parametrize("max_cost_usd", [9.99, 0.0])
def test_a_budget_that_does_not_suffice_is_named(max_cost_usd: float) -> None:
    with pytest.raises(ModlakeTerminalError, match=r"10,000 images .* 10\.00 USD"):
        check_budget(10_000, 0.001, max_cost_usd)
