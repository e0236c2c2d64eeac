"""Mean reversion: more of an asset that has fallen below its mean, less of one that has risen.

Options: `mean`, the number of bars of the mean; `strength`, the change of a weight per deviation;
`most`, the largest change, as a share of the weight.
"""

from __future__ import annotations

from math import sqrt

from agent.signals import PriceBar, SignalTargets, SignalView


def targets(view: SignalView) -> SignalTargets:
    """Return spot weights around an equal share of each asset; the numeraire takes the difference."""
    bars = int(view.options.get("mean", "30"))
    strength = float(view.options.get("strength", "0.25"))
    most = float(view.options.get("most", "0.5"))
    assets = [symbol for symbol in view.free if symbol != view.numeraire]
    if view.numeraire not in view.free:
        raise ValueError("the numeraire must not be fixed")
    share = 1 / (len(assets) + 1)
    spot = {}
    for symbol in assets:
        tilt = -strength * deviations(view.prices[symbol], bars)
        spot[symbol] = share * (1 + min(most, max(-most, tilt)))
    whole = sum(spot.values())
    if whole > 1:
        spot = {symbol: weight / whole for symbol, weight in spot.items()}
    spot[view.numeraire] = max(0.0, 1 - sum(spot.values()))
    return SignalTargets(spot)


def deviations(prices: tuple[PriceBar, ...], bars: int) -> float:
    """Return the newest price's distance from the mean of the last bars, in standard deviations."""
    closes = [bar.close for bar in prices[-bars:]]
    mean = sum(closes) / len(closes)
    spread = sqrt(sum((close - mean) ** 2 for close in closes) / len(closes))
    return (closes[-1] - mean) / spread if spread else 0.0
