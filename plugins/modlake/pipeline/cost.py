"""What judging images costs."""

from __future__ import annotations

from modlake.exceptions import ModlakeTerminalError


def estimate_cost_usd(images: int, price_per_image_usd: float) -> float:
    """Return the price of judging that many images at one flat price, in US dollars."""
    return round(images * price_per_image_usd, 6)


def check_budget(images: int, price_per_image_usd: float, max_cost_usd: float | None) -> None:
    """Raise ModlakeTerminalError when the estimate passes the budget; None is no budget."""
    estimate = estimate_cost_usd(images, price_per_image_usd)
    if max_cost_usd is not None and estimate > max_cost_usd:
        raise ModlakeTerminalError(
            f"Judging {images:,} images would cost about {estimate:,.2f} USD "
            f"({price_per_image_usd} USD an image), over the budget of {max_cost_usd:,.2f} USD. "
            "Nothing was submitted. Raise max_cost_usd, or correct modlake_price_per_image_usd."
        )
