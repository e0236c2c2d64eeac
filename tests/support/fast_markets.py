"""Random markets and settings for the fast kernel, and the same runs bar by bar in plain Python, written from the rules alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isinf

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.backtest.kernel.sweep import KernelSetting, TradingCosts
from agent.model import Destination, Every, HybridTrigger, Threshold

START_S, HOUR_S = 1_600_000_000, 3_600
EDGE = 1e-12
VALUE = 1e6
SYMBOLS = ("A", "B", "C", "D", "E")


@dataclass
class Plain:
    """What a plain run came to."""

    values: list[float] = field(default_factory=list)
    rebalanced: list[int] = field(default_factory=list)
    turnover: float = 0.0
    costs: float = 0.0
    stranded: float = 0.0
    hold: float = 0.0


def market(seed: int, bars: int, assets: int, missing: bool = False) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Times an hour apart, some further, and prices that move by about 3 % a bar; with `missing`, listed late, delisted, with holes."""
    chance = np.random.default_rng(seed)
    times = START_S + np.cumsum(chance.choice([1, 1, 1, 1, 1, 1, 1, 3], bars)) * HOUR_S
    prices = 10 ** chance.uniform(-3, 4, assets) * np.exp(np.cumsum(0.03 * chance.standard_normal((bars, assets)), axis=0))
    if missing:
        prices[chance.random((bars, assets)) < 0.01] = np.nan
        prices[: bars // 3, 1] = np.nan
        prices[bars * 2 // 3 :, assets - 1] = np.nan
        prices[0, 0] = 1.0
    return times, prices


@st.composite
def settings_of(draw: st.DrawFn, assets: int) -> KernelSetting:
    """Any trigger, destination and cost that the kernel knows."""
    cuts = sorted(draw(st.lists(st.integers(0, 10_000), min_size=assets - 1, max_size=assets - 1)))
    targets = tuple(b - a for a, b in zip([0, *cuts], [*cuts, 10_000], strict=True))
    absolute, relative = draw(st.sampled_from([(300, None), (800, None), (None, 1_000), (None, 2_500), (500, 2_000)]))
    band, every = Threshold(absolute, relative), Every(draw(st.sampled_from([3_600, 18_000, 86_400, 250_000])))
    trigger = draw(st.sampled_from([band, every, HybridTrigger(band, every)]))
    destination = draw(st.sampled_from([Destination.TARGET, Destination.HALFWAY, Destination.BAND]))
    if isinstance(trigger, Every) and destination is Destination.BAND:
        destination = Destination.TARGET
    fee, depth = draw(st.sampled_from([0.0, 10.0, 300.0])), draw(st.sampled_from([inf, 1e8, 3e5]))
    numeraire = draw(st.sampled_from([None, 0]))
    cooldown_s, least = draw(st.sampled_from([0, 0, 30_000])), draw(st.sampled_from([0.0, 0.0, 20_000.0]))
    return KernelSetting(targets, trigger, destination, TradingCosts.pools(fee, depth, assets, numeraire), cooldown_s, least)


def parts(setting: KernelSetting) -> tuple[Threshold | None, int]:
    """Band and interval of a trigger."""
    match setting.trigger:
        case HybridTrigger(threshold, Every(every_s)):
            return threshold, every_s
        case Every(every_s):
            return None, every_s
        case Threshold():
            return setting.trigger, 0
    raise AssertionError(setting.trigger)


def width(band: Threshold | None, target: float) -> float:
    """Half of a band."""
    widths = [] if band is None or band.absolute_bps is None else [band.absolute_bps / 1e4]
    widths += [] if band is None or band.relative_bps is None else [band.relative_bps / 1e4 * target]
    return min(widths, default=0.0)


def spread(shares: list[float], least: list[float], most: list[float]) -> list[float]:
    """Each to the nearest of its interval, and what is left over by the room of each."""
    land = [min(max(share, a), b) for share, a, b in zip(shares, least, most, strict=True)]
    left = 1.0 - sum(land)
    rooms = [b - x if left > 0 else x - a for x, a, b in zip(land, least, most, strict=True)]
    return land if sum(rooms) == 0 else [x + left * room / sum(rooms) for x, room in zip(land, rooms, strict=True)]


def left_after(values: list[float], land: list[float], fee: list[float], depth: list[float]) -> float:
    """What is left when all stand at `land` of it: by bisection on what sales bring and purchases take."""

    def surplus(left: float) -> float:
        found = 0.0
        for value, share, cost, side in zip(values, land, fee, depth, strict=True):
            wanted = share * left - value
            if wanted < 0:
                net = -wanted * (1 - cost)
                found += net if isinf(side) else side * net / (side + net)
            elif not isinf(side) and wanted >= side:
                return -inf
            else:
                found -= (wanted if isinf(side) else side * wanted / (side - wanted)) / (1 - cost)
        return found

    low, high = 0.0, sum(values)
    if all(cost == 0 and isinf(side) for cost, side in zip(fee, depth, strict=True)):
        return high
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if surplus(middle) > 0 else (low, middle)
    return (low + high) / 2


def plain(times: NDArray[np.int64], prices: NDArray[np.float64], setting: KernelSetting, patience: int | None = None) -> Plain:
    """The whole run, one bar after another."""
    bars, count = prices.shape
    band, every_s = parts(setting)
    fee, depth = [bps / 1e4 for bps in setting.costs.fee_bps], list(setting.costs.depth)
    units, first, last, absent = [0.0] * count, [0.0] * count, [0.0] * count, [0] * count
    begun, due_s, rested_s, found = False, 0, 0, Plain()
    for t in range(bars):
        known = [not np.isnan(price) for price in prices[t]]
        absent = [0 if here or price == 0 else gone + 1 for here, price, gone in zip(known, last, absent, strict=True)]
        last = [float(price) if here else old for here, price, old in zip(known, prices[t], last, strict=True)]
        now = int(times[t])
        waits = any(gone > 0 and (patience is None or gone <= patience) for gone in absent)
        whole = sum(bps for bps, here in zip(setting.targets_bps, known, strict=True) if here)
        if not waits and whole > 0:
            on = [i for i in range(count) if known[i]]
            targets = [setting.targets_bps[i] / whole for i in on]
            if not begun:
                begun = True
                for i, target in zip(on, targets, strict=True):
                    units[i] = first[i] = VALUE * target / last[i]
            values = [units[i] * last[i] for i in on]
            total = sum(values)
            if now >= due_s and total > 0:
                shares = [value / total for value in values]
                low = [max(0.0, target - width(band, target)) for target in targets]
                high = [min(1.0, target + width(band, target)) for target in targets]
                outside = any(not a - EDGE <= share <= b + EDGE for share, a, b in zip(shares, low, high, strict=True))
                fires = band is None or outside
                if not fires or now >= rested_s:
                    due_s = now + every_s
                if fires and now >= rested_s:
                    if setting.destination is Destination.BAND:
                        least = [max(a, 1 - (sum(high) - b)) for a, b in zip(low, high, strict=True)]
                        most = [min(b, 1 - (sum(low) - a)) for a, b in zip(low, high, strict=True)]
                        nearest = [min(max(share, a), b) for share, a, b in zip(shares, least, most, strict=True)]
                        land = spread(shares, least, most)
                    else:
                        part = 1.0 if setting.destination is Destination.TARGET else 0.5
                        land = nearest = [share + part * (target - share) for share, target in zip(shares, targets, strict=True)]
                    largest = max(abs(a - b) for a, b in zip(nearest, shares, strict=True))
                    if largest > EDGE and largest * total >= setting.min_trade:
                        left = left_after(values, land, [fee[i] for i in on], [depth[i] for i in on])
                        for i, share, value in zip(on, land, values, strict=True):
                            units[i] = share * left / last[i]
                            found.turnover += abs(share * left - value) / 2
                        found.costs += total - left
                        found.rebalanced.append(t)
                        rested_s = now + setting.cooldown_s
        found.values.append(sum(u * p for u, p in zip(units, last, strict=True)) if begun else VALUE)
    found.hold = sum(u * p for u, p in zip(first, last, strict=True)) if begun else VALUE
    found.stranded = sum(u * p for u, p, price in zip(units, last, prices[-1], strict=True) if np.isnan(price))
    return found
