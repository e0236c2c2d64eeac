"""Any holdings, any targets, any market: one step ends on target or says which bound stood in the way, and no limit is ever broken."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from agent.app.agent import Agent
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.units import BPS, largest_remainder
from tests.support.agents import (
    FIVE,
    ROOMY,
    USD,
    WalletBalances,
    agent_on,
    fund,
    loss_usd,
    off_target,
    pool_prices,
    purse,
    require_exact,
    skipped_text,
    swap_of,
    yes,
)

NEAR_BPS = 10
SYMBOLS = tuple(FIVE)
GAS_SLACK = Fraction(1, 10)
"""Part of the burnt gas by which the model may lie above it."""
percents = st.lists(st.integers(1, 20), min_size=5, max_size=5).map(
    lambda parts: dict(zip(SYMBOLS, largest_remainder([Fraction(part) for part in parts], 100), strict=True))
)
holdings = st.tuples(st.lists(st.integers(0, 10), min_size=5, max_size=5), st.integers(20_000, 95_000)).map(
    lambda drawn: {s: Fraction(part * drawn[1], sum(drawn[0]) or 1) for s, part in zip(SYMBOLS, drawn[0], strict=True)}
)
percent_moves = st.integers(-20, 25)
moves = st.fixed_dictionaries(
    {}, optional={"WETH": percent_moves, "WBTC": percent_moves, "LINK": percent_moves, "USDT": st.sampled_from([Fraction(1, 10)])}
)
bounds = st.fixed_dictionaries(
    {
        "limits.price_impact": st.sampled_from(["1%", "0.1%", "0.02%"]),
        "limits.plan_cost": st.sampled_from(["0.5%", "1%", "0.15%"]),
        "limits.turnover": st.sampled_from(["off", "30%", "5%"]),
        "limits.min_trade": st.sampled_from(["10", "500"]),
    }
)


@pytest.mark.slow
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(percents=percents, usd_by_symbol=holdings, moves=moves, bounds=bounds)
def test_one_step_ends_on_target_or_names_the_bound(
    chain: LocalChain,
    percents: dict[str, int],
    usd_by_symbol: dict[str, Fraction],
    moves: dict[str, int | Fraction],
    bounds: dict[str, str],
) -> None:
    mark = chain.snapshot()
    try:
        # Depths are in the description's dollars: funded before the market moves, a portfolio is worth up to a quarter more.
        fund(chain, {symbol: usd * Fraction(3, 4) for symbol, usd in usd_by_symbol.items()})
        usd = chain.deployed_world.prices_usd
        if moves:
            chain.move_market({symbol: usd[symbol] * (1 + Fraction(percent) / 100) for symbol, percent in moves.items()})
        targets = {symbol: f"{percent}%" for symbol, percent in percents.items()}
        with tempfile.TemporaryDirectory() as folder, agent_on(chain, Path(folder), ROOMY | bounds, targets) as agent:
            before = purse(chain)
            prices = pool_prices(chain)
            outcome = agent.rebalance(send=True, confirm=yes)
            event(outcome.kind.value)
            if outcome.kind is OutcomeKind.DONE:
                require_kept_limits(chain, agent, outcome, before, prices)
                require_near_or_named(chain, outcome, targets)
            else:
                assert outcome.kind in (OutcomeKind.HOLD, OutcomeKind.HALT, OutcomeKind.REFUSED), outcome.reason
                assert purse(chain) == before, f"a market that stood still let the first plan pass and not the second: {outcome.reason}"
            if outcome.kind is OutcomeKind.HALT:
                assert "min_trade" in outcome.reason or not any(usd_by_symbol.values()), outcome.reason
            if outcome.kind is OutcomeKind.HOLD:
                is_outside = any(drift.is_outside_band for drift in outcome.decision_result.drifts)
                named = ("not worth its cost (limits.plan_cost", "no route within limits.plan_cost corrects it")
                assert not is_outside or any(bound in outcome.reason for bound in named), outcome.reason
    finally:
        chain.revert(mark)


def require_kept_limits(chain: LocalChain, agent: Agent, outcome: StepOutcome, before: WalletBalances, prices: dict[str, Fraction]) -> None:
    """To the wei as planned; no dearer, no larger, and no pool further than allowed, all measured on the chain."""
    require_exact(chain, outcome, before)
    plan, _, receipt = swap_of(outcome)
    limits = agent.context.limits
    assert limits.plan_cost_bps is not None
    traded = loss_usd(chain, before, chain.deployed_world.prices_usd, gas=False) * USD
    assert traded == plan.cost.total - plan.cost.gas
    assert plan.cost.total * BPS <= plan.turnover * limits.plan_cost_bps
    assert receipt.gas_used <= plan.gas_units <= receipt.gas_used * (1 + GAS_SLACK), f"{plan.gas_units} planned, {receipt.gas_used} burnt"
    total = sum(drift.value for drift in outcome.decision_result.drifts)
    if limits.turnover_bps is not None:
        assert plan.turnover * BPS <= total * limits.turnover_bps
    now = pool_prices(chain)
    assert limits.price_impact_bps is not None
    for name, info in chain.deployed_world.pool_by_name.items():
        fell = min(now[name] / prices[name], prices[name] / now[name])
        assert (1 - fell) * BPS <= limits.price_impact_bps, f"{name} was moved too far"
        assert (info.address in {leg.pool for leg in plan.legs}) is (now[name] != prices[name])
    assert receipt.block_number > plan.block


def require_near_or_named(chain: LocalChain, outcome: StepOutcome, targets: dict[str, str]) -> None:
    assert outcome.plan is not None
    named = {item.subject for item in outcome.plan.skipped}
    for symbol, off in off_target(chain, targets).items():
        if off > NEAR_BPS:
            assert symbol in named or any("drift" in text for text in named), (
                f"{symbol} is {float(off):.1f} bps off: {skipped_text(outcome.plan.skipped)}"
            )


@pytest.mark.parametrize("worth", [300, 1_000, 3_000])
def test_small_wallet__is_on_target_or_told_its_gas(chain: LocalChain, tmp_path: Path, worth: int) -> None:
    fund(chain, {"WETH": worth * 2 // 3, "USDC": worth // 3})
    with agent_on(chain, tmp_path, ROOMY, {"WETH": "50%", "USDC": "50%"}) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        if outcome.kind is OutcomeKind.DONE:
            assert max(off_target(chain, {"WETH": "50%", "USDC": "50%"}).values()) <= NEAR_BPS
        else:
            assert "gas" in outcome.reason
            assert purse(chain) == before
