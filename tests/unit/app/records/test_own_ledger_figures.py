"""Returns of a ledger with several transfers a block, against plain loops."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from statistics import fmean, stdev

import pytest

pytest.importorskip("pyxirr")
pytest.importorskip("empyrical")

from agent.accounting.agreement import require_agreement
from agent.accounting.money_weighted import annualize
from agent.accounting.performance import BuyAndHoldTokens, Performance, performance
from agent.app.records.ledger import daily_returns, statistics
from agent.errors import Refused
from agent.model import Valuation, ValuedHolding
from tests.support.constants import DAY_S
from tests.support.ledgers import USDC, WETH
from tests.support.quantstats_figures import quantstats_figures
from tests.support.records.entries import flow, trade_of
from tests.support.samples import slow

COIN = 10**12
EXACT = {"rel": 1e-9, "abs": 1e-9}


class Fund:
    """Half coins, half cash at first; each block has a price, at most `most_flows` transfers, and at times a swap at a loss."""

    def __init__(self, seed: int, most_flows: int = 5) -> None:
        chance = random.Random(seed)
        price = 100
        coins = 50 * COIN
        cash = 5_000 * COIN
        self.times_s = [DAY_S]
        self.valuations = [valuation(1, DAY_S, coins, cash, price)]
        self.flows: list[list[int]] = [[]]
        self.entries = [replace(trade_of(1), block=1, chain_s=DAY_S)]
        for block in range(2, chance.randint(12, 45)):
            price = max(20, price + chance.randint(-9, 9))
            at_s = self.times_s[-1] + chance.randint(3_600, 2 * DAY_S)
            amounts = []
            for _ in range(min(chance.choice((0, 0, 0, 1, 2, 5)), most_flows)):
                amount = chance.choice((-1, 1)) * chance.randint(1, cash // 20)
                cash += amount
                amounts.append(amount)
                self.entries.append(replace(flow(block, amount), chain_s=at_s))
            if chance.random() < 0.2:
                sold = coins // 10
                coins -= sold
                cash += sold * price * 998 // 1_000
            self.times_s.append(at_s)
            self.flows.append(amounts)
            self.valuations.append(valuation(block, at_s, coins, cash, price))

    def performance(self) -> Performance:
        """Return the performance of the whole time."""
        opening = BuyAndHoldTokens(USDC, WETH)
        measured = performance(self.entries, self.valuations, 0, self.times_s[-1] + 1, WETH, opening)
        assert measured is not None
        return measured


def valuation(block: int, at_s: int, coins: int, cash: int, price: int) -> Valuation:
    """Return the valuation of coins and cash in base units; half and half is wanted."""
    holdings = (ValuedHolding(WETH, coins, 0, Fraction(price), 5_000), ValuedHolding(USDC, cash, 0, Fraction(1), 5_000))
    return Valuation(block, at_s, Fraction(coins * price + cash), holdings)


def unit_growth(values: Sequence[float], flows: Sequence[Sequence[int]]) -> list[float]:
    """Return the value of one unit after each valuation, whose transfers are made at its prices."""
    units = values[0]
    units_after = [units]
    for value, amounts in zip(values[1:], flows[1:], strict=True):
        unit_value = (value - sum(amounts)) / units
        for amount in amounts:
            units += amount / unit_value
        units_after.append(units)
    return [value / units for value, units in zip(values, units_after, strict=True)]


def internal_rate(times_s: Sequence[int], values: Sequence[float], flows: Sequence[Sequence[int]]) -> float:
    """Return the rate of the whole time at which all that was paid in grows to the last value, by halving an interval."""
    span_s = times_s[-1] - times_s[0]
    paid_in = [(1.0, values[0])]
    paid_in += [((times_s[-1] - at_s) / span_s, float(amount)) for at_s, amounts in zip(times_s, flows, strict=True) for amount in amounts]
    low = -0.9
    high = 9.0
    for _ in range(200):
        middle = (low + high) / 2
        if math.fsum(amount * (1 + middle) ** time_left for time_left, amount in paid_in) < values[-1]:
            low = middle
        else:
            high = middle
    return low


def held_values(fund: Fund) -> tuple[list[float], list[float]]:
    """Return what buy and hold is worth before and after the transfers of each valuation: the sum of a block buys half and half,
    or leaves the share that the fund keeps.
    """
    first, second = (float(holding.managed_raw) for holding in fund.valuations[0].holdings)
    before = []
    after = []
    for valuation, amounts in zip(fund.valuations, fund.flows, strict=True):
        price = float(valuation.holdings[0].price)
        before.append(first * price + second)
        if (paid_in := sum(amounts)) > 0:
            first += paid_in / 2 / price
            second += paid_in / 2
        elif paid_in:
            fund_value = float(valuation.managed_value)
            factor = fund_value / (fund_value - paid_in)
            first *= factor
            second *= factor
        after.append(first * price + second)
    return before, after


def require_equal_returns(seed: int) -> None:
    """Compare every return of one random ledger with the plain loops."""
    fund = Fund(seed)
    performance = fund.performance()
    values = [float(valuation.managed_value) for valuation in fund.valuations]
    growth = unit_growth(values, fund.flows)
    assert performance.twr is not None
    assert float(performance.twr) == pytest.approx(growth[-1] - 1, **EXACT)
    mwr = internal_rate(fund.times_s, values, fund.flows)
    assert performance.mwr == pytest.approx(mwr, **EXACT)
    span_s = fund.times_s[-1] - fund.times_s[0]
    if span_s >= 30 * DAY_S:
        assert annualize(mwr, span_s) == pytest.approx((1 + mwr) ** (365 * DAY_S / span_s) - 1, **EXACT)
    amounts = [amount for block_amounts in fund.flows for amount in block_amounts]
    assert (performance.deposits, performance.withdrawals) == (
        sum(amount for amount in amounts if amount > 0),
        -sum(amount for amount in amounts if amount < 0),
    )
    assert float(performance.profit) == pytest.approx(values[-1] - values[0] - sum(amounts), rel=1e-9, abs=1)
    before, after = held_values(fund)
    hold_growth = math.prod(value / earlier for earlier, value in zip(after, before[1:], strict=False))
    assert performance.hold_return is not None
    assert float(performance.hold_return) == pytest.approx(hold_growth - 1, **EXACT)
    hold_profit = math.fsum(value - earlier for earlier, value in zip(after, before[1:], strict=False))
    assert float(performance.hold_profit) == pytest.approx(hold_profit, rel=1e-9, abs=COIN * 1e-9)
    first_price, last_price = (fund.valuations[index].holdings[0].price for index in (0, -1))
    assert performance.benchmark_return == last_price / first_price - 1

    returns = own_daily_returns(fund, growth)
    assert daily_returns(performance.periods) == pytest.approx(returns, **EXACT)
    require_agreement(performance, returns)
    document = statistics(returns)
    assert document is not None
    highest = index = 1.0
    deepest = 0.0
    for daily_return in returns:
        index *= 1 + daily_return
        highest = max(highest, index)
        deepest = min(deepest, index / highest - 1)
    assert document["volatility"] == pytest.approx(stdev(returns) * math.sqrt(365), abs=5.1e-7)
    assert document["sharpe"] == pytest.approx(fmean(returns) / stdev(returns) * math.sqrt(365), abs=5.1e-7)
    assert document["max_drawdown"] == pytest.approx(deepest, abs=5.1e-7)


def own_daily_returns(fund: Fund, growth: Sequence[float]) -> list[float]:
    """Return the growth of a unit from the last valuation of each day to that of the next; none on days without a valuation."""
    last_by_day = {at_s // DAY_S: unit_value for at_s, unit_value in zip(fund.times_s[1:], growth[1:], strict=True)}
    days = range(min(last_by_day), max(last_by_day) + 1)
    levels = [growth[0]]
    for day in days:
        levels.append(last_by_day.get(day, levels[-1]))
    return [after / before - 1 for before, after in pairwise(levels)]


@pytest.mark.parametrize("first_seed", [0, *slow(range(100, 500, 100))])
def test_returns_of_500_ledgers__are_those_of_plain_loops(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 100):
        require_equal_returns(seed)


@pytest.mark.slow
def test_statistics_of_500_ledgers__are_those_of_quantstats() -> None:
    for seed in range(500):
        ledger = Fund(seed).performance()
        returns = daily_returns(ledger.periods)
        document = statistics(returns)
        figures = quantstats_figures(returns)
        assert ledger.twr is not None
        assert document is not None
        assert float(ledger.twr) == pytest.approx(figures.whole_return, **EXACT)
        for name in ("volatility", "sharpe", "max_drawdown"):
            assert document[name] == pytest.approx(getattr(figures, name), abs=5.1e-7)


@pytest.mark.parametrize("error", [2e-6, -0.5, 1e3])
def test_a_period_whose_returns_contradict_each_other_is_refused(error: float) -> None:
    performance = Fund(1).performance()
    assert performance.twr is not None
    returns = daily_returns(performance.periods)
    require_agreement(performance, returns)
    with pytest.raises(Refused, match="return of the valuations"):
        require_agreement(replace(performance, twr=performance.twr + Fraction(error)), returns)
    with pytest.raises(Refused, match="return of the days"):
        require_agreement(performance, [*returns, error])


@pytest.mark.parametrize("error", [2e-6, -2e-6, -0.5, 1e3])
def test_profit_without_flows_that_contradicts_the_return_is_refused(error: float) -> None:
    performance = Fund(1, most_flows=0).performance()
    returns = daily_returns(performance.periods)
    assert performance.profit != 0
    require_agreement(performance, returns)
    profit = performance.profit + performance.start.managed_value * Fraction(error)
    with pytest.raises(Refused) as refusal:
        require_agreement(replace(performance, profit=profit), returns)
    assert [verdict.guard for verdict in refusal.value.verdicts] == ["profit over the start value"]


def test_profit_with_flows_is_not_compared_with_the_return() -> None:
    performance = Fund(1).performance()
    assert performance.deposits > 0
    require_agreement(replace(performance, profit=performance.profit * 7), daily_returns(performance.periods))
