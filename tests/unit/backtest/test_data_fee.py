"""Backtests with a rollup's data fee: it is paid in each transaction and is part of the cost that limits trades."""

from __future__ import annotations

from dataclasses import replace

from agent.backtest.simulate import simulate
from agent.model.rollups import scaled_fee_quote
from agent.policy.minimum import APPROVAL_BYTES, LEG_BYTES
from tests.support.backtests import COIN, DEEP, guarded_spec, risen_prices

FEE_WEI = 10**12


def test_a_rebalance_pays_for_its_swap_and_its_approval() -> None:
    """Gas is free; the sale after the rise, at 130, needs an approval."""
    free, rollup = (simulate(guarded_spec(), risen_prices(), replace(DEEP, data_fee_wei=wei)) for wei in (0, FEE_WEI))
    quote = scaled_fee_quote(FEE_WEI)
    assert quote.expected_data_fee_wei(2 * LEG_BYTES) == FEE_WEI
    assert (len(rollup.rebalances), free.gas, free.is_gas_counted, rollup.is_gas_counted) == (1, 0, False, True)
    assert rollup.gas == 130 * (FEE_WEI + quote.expected_data_fee_wei(APPROVAL_BYTES))


def test_a_data_fee_above_plan_cost_stops_rebalancing() -> None:
    spec = guarded_spec(plan_cost_bps=50)
    cheap, dear = (simulate(spec, risen_prices(), replace(DEEP, data_fee_wei=wei)) for wei in (FEE_WEI, COIN // 10))
    assert (len(cheap.rebalances), len(dear.rebalances)) == (1, 0)
