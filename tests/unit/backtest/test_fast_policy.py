"""The fast kernel decides what the policy decides: the same bands, goals, schedules and cooldowns, held against exact fractions."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.backtest.kernel import BAND, HALFWAY, TARGET, set_bands, set_end_shares
from agent.backtest.sweep import KernelSetting, TradingCosts, prepare_prices, run_kernel
from agent.model import NEW_STORE_HISTORY, Asset, Destination, Every, HybridTrigger, Threshold
from agent.policy.drift import band, corrections, drifts_from_balances, investable_total, rebalance_goal
from agent.policy.triggers.rules import evaluate_trigger
from agent.policy.triggers.schedules import schedule_name
from agent.units import BPS
from tests.support.backtests import SYMBOLS, VALUE, market, settings_of, spread
from tests.support.builders import token

SCALE = 10**18
NUMBERS = {Destination.TARGET: TARGET, Destination.HALFWAY: HALFWAY, Destination.BAND: BAND}
WIDTHS = st.one_of(
    st.builds(Threshold, st.integers(1, 3_000), st.none()),
    st.builds(Threshold, st.none(), st.integers(1, 10_000)),
    st.builds(Threshold, st.integers(1, 3_000), st.integers(1, 10_000)),
)


def targets_from(raw: list[int]) -> tuple[int, ...]:
    cuts = [0, *sorted(raw), BPS]
    return tuple(b - a for a, b in pairwise(cuts))


@given(st.lists(st.integers(0, BPS), min_size=1, max_size=5), WIDTHS, st.data())
def test_one_step_decides_and_aims_as_the_policy_does(raw: list[int], widths: Threshold, data: st.DataObject) -> None:
    targets = targets_from(raw)
    raws = data.draw(st.lists(st.integers(0, 10**9), min_size=len(targets), max_size=len(targets)))
    assume(sum(raws) > 0)
    assets = [Asset(token(f"T{i}", 6), bps, 0) for i, bps in enumerate(targets)]
    drifts = drifts_from_balances(
        assets,
        {asset.token.address: amount for asset, amount in zip(assets, raws, strict=True)},
        {asset.token.address: Fraction(1) for asset in assets},
        widths,
    )
    shares = np.array([float(drift.share) for drift in drifts])
    target_shares = np.zeros(len(targets))
    bands = np.zeros((4, len(targets)))
    land = np.zeros(len(targets))
    absolute, relative = (np.nan if bps is None else bps / BPS for bps in (widths.absolute_bps, widths.relative_bps))
    assert set_bands(np.array(targets) / BPS, absolute, relative, np.ones(len(targets), dtype=bool), target_shares, bands)
    edges = [band(widths, bps) for bps in targets]
    assert bands[0] == pytest.approx([float(low / BPS) for low, _ in edges], abs=1e-15)
    assert bands[1] == pytest.approx([float(high / BPS) for _, high in edges], abs=1e-15)
    for destination, number in NUMBERS.items():
        aim = rebalance_goal(drifts, destination)
        largest = set_end_shares(number, shares, target_shares, bands, land)
        assert largest == pytest.approx(float(max(abs(v) for v in corrections(drifts, aim).values()) / investable_total(drifts)), abs=1e-12)
        assert land.sum() == pytest.approx(1.0, abs=1e-12)
        for aimed, weight in zip(land, aim.weights, strict=True):
            assert float(weight.low) - 1e-12 <= aimed <= float(weight.high) + 1e-12
        # No more is moved than the goal cannot do without: what is too much, or what is missing, whichever is more.
        off = [float(value / investable_total(drifts)) for value in corrections(drifts, aim).values()]
        least = max(sum(x for x in off if x > 0), -sum(x for x in off if x < 0))
        assert np.abs(land - shares).sum() / 2 == pytest.approx(least, abs=1e-12)


def by_policy(times: list[int], prices: np.ndarray, setting: KernelSetting) -> tuple[list[int], float]:
    """Bars at which the policy asks for a rebalance, and what the holdings come to: exact, in base units of 18 decimals, at no cost."""
    assets = [Asset(token(f"T{i}", 18), bps, 0) for i, bps in enumerate(setting.targets_bps)]
    addresses = [asset.token.address for asset in assets]
    raw_by_token = {
        at: int(Fraction(VALUE) * bps / BPS / Fraction(float(price)) * SCALE)
        for at, bps, price in zip(addresses, setting.targets_bps, prices[0], strict=True)
    }
    history = NEW_STORE_HISTORY
    rebalanced = []
    worth = Fraction(0)
    for bar, (now, row) in enumerate(zip(times, prices, strict=True)):
        known = {at: Fraction(float(price)) for at, price in zip(addresses, row, strict=True)}
        drifts = drifts_from_balances(assets, raw_by_token, known, setting.trigger)
        answer = evaluate_trigger(setting.trigger, drifts, now, history)
        last = history.reviews.last_rebalance_s
        rests = answer.fired and last is not None and now < last + setting.cooldown_s
        aim = rebalance_goal(drifts, setting.destination)
        largest = max(abs(value) for value in corrections(drifts, aim).values())
        if answer.fired and not rests and largest * 10**12 > investable_total(drifts) and largest >= Fraction(setting.min_trade) * SCALE:
            shares = spread([drift.share for drift in drifts], [w.low for w in aim.weights], [w.high for w in aim.weights])
            raw_by_token = {at: int(share * investable_total(drifts) / known[at]) for at, share in zip(addresses, shares, strict=True)}
            rebalanced.append(bar)
            history = replace(history, reviews=replace(history.reviews, last_rebalance_s=now))
        if answer.is_review_due and not rests:
            schedule = setting.trigger.schedule if isinstance(setting.trigger, HybridTrigger) else setting.trigger
            assert isinstance(schedule, Every)
            history = replace(history, reviews=replace(history.reviews, last_review_s=now, by_schedule=((schedule_name(schedule), now),)))
        worth = sum((raw_by_token[at] * known[at] for at in addresses), Fraction(0))
    return rebalanced, float(worth / SCALE)


@given(st.data(), st.integers(0, 10**6), st.integers(2, 4))
def test_run__trades_when_the_policy_would_and_ends_alike(data: st.DataObject, seed: int, assets: int) -> None:
    setting = replace(data.draw(settings_of(assets)), costs=TradingCosts.for_pools(0, inf, assets))
    times, prices = market(seed, 60, assets)
    kernel_result = run_kernel(prepare_prices(SYMBOLS[:assets], times, prices), setting, VALUE)
    rebalanced, worth = by_policy(times.tolist(), prices, setting)
    assert kernel_result.rebalance_bars.tolist() == rebalanced
    assert kernel_result.final_value == pytest.approx(worth, rel=1e-9)
