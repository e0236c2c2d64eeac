"""Trend: equal weights in the assets whose price is above its mean, the rest in the numeraire.

Options: `mean`, the number of bars of the mean; `buffer`, the share by which a price that is not
held has to exceed it, and by which one that is held may fall below it.
"""

from __future__ import annotations

from agent.signals import PriceBar, SignalTargets, SignalView


def targets(view: SignalView) -> SignalTargets:
    """Return spot weights, and futures weights of the same trend: long above the mean, short below."""
    bars, buffer = int(view.options.get("mean", "30")), float(view.options.get("buffer", "0.02"))
    assets = [symbol for symbol in view.free if symbol != view.numeraire]
    if view.numeraire not in view.free:
        raise ValueError("the numeraire must not be fixed")
    share = 1 / len(assets)
    spot = {}
    for symbol in assets:
        held = view.weights[symbol] > share / 2
        if above_mean(view.prices[symbol], bars) > (-buffer if held else buffer):
            spot[symbol] = share
    spot[view.numeraire] = 1 - sum(spot.values())
    if not view.markets:
        return SignalTargets(spot)
    part = 1 / len(view.markets)
    futures = {}
    for market, asset in view.markets.items():
        if asset in view.prices:
            distance = above_mean(view.prices[asset], bars)
            futures[market] = 0.0 if abs(distance) < buffer else part if distance > 0 else -part
    return SignalTargets(spot, futures)


def above_mean(prices: tuple[PriceBar, ...], bars: int) -> float:
    """Return how far the newest price is above the mean of the last bars, as a share of it."""
    closes = [bar.close for bar in prices[-bars:]]
    return closes[-1] * len(closes) / sum(closes) - 1
