"""Views of a signal on daily closes."""

from __future__ import annotations

from agent.model.weights import PriceBar, SignalView
from tests.support.constants import DAY_S


def view(markets: dict[str, str] | None = None, **closes: list[float]) -> SignalView:
    prices = {name: tuple(PriceBar(day * DAY_S, close) for day, close in enumerate(path)) for name, path in closes.items()}
    return SignalView(40 * DAY_S, "USDC", prices, dict.fromkeys((*closes, "USDC"), 0.0), {}, markets or {}, {}, (*closes, "USDC"))
