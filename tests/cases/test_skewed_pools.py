"""T1: whoever moves pools before the snapshot and back afterwards takes no more from the portfolio than its limits say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.localchain.world import V2Spec, V3Spec
from agent.units import BPS, PIPS
from tests.support.agents import ROOMY, USD, Purse, agent_on, explained, fund, lost, purse, yes
from tests.support.samples import slow

ONLY_FLOORS = {**ROOMY, "limits.daily_loss": "off", "limits.gas_per_day": "off"}
"""Budgets over a day are off, so that nothing but the plan's own limits stands between the whale and the portfolio."""
NO_ORACLE = {**ONLY_FLOORS, "limits.oracle_deviation": "off"}
"""Not even the oracle guard: floors and plan_cost alone."""
HELD = {"WETH": 40_000, "WBTC": 10_000, "USDC": 10_000, "USDT": 20_000, "LINK": 10_000}
SIZES = ("0.001", "0.005", "0.02", "0.1", "1", "10")
"""Of the whole pool's value: from one that nobody notices to one that drains it."""
FEW = ("0.001", "0.02", "10")
LARGE = ("0.1", "1", "10")
sizes = pytest.mark.parametrize("sizes", [pytest.param(FEW, id="few"), pytest.param(SIZES, id="all", marks=pytest.mark.slow)])
PLAN_COST, SLIPPAGE, IMPACT = Fraction(50, BPS), Fraction(30, BPS), Fraction(100, BPS)
"""The template's limits."""


def value_usd(chain: LocalChain, pool: str) -> int:
    return next(spec.value_usd for spec in chain.world.pools if isinstance(spec, V2Spec | V3Spec) and spec.name == pool)


@contextmanager
def skewed(chain: LocalChain, pools: Sequence[str], sold: str, size: str) -> Iterator[None]:
    """A whale sells `size` of each pool's value in `sold` into it, waits, and trades all that it got back."""
    got = {}
    for pool in pools:
        raw = Fraction(size) * value_usd(chain, pool) / chain.deployed_world.prices_usd[sold] * 10 ** chain.tokens[sold].decimals
        got[pool] = chain.swap(pool, sold, int(raw))
    yield
    for pool, raw in got.items():
        info = chain.deployed_world.pool_by_name[pool]
        chain.swap(pool, (info.token1 if info.token0.symbol == sold else info.token0).symbol, raw)


def healed(chain: LocalChain, pools: Sequence[str]) -> None:
    """These pools are back at the world price."""
    for pool in pools:
        chain.arbitrage(chain.deployed_world.pool_by_name[pool])


def step(chain: LocalChain, agent: Agent, held: Mapping[str, int] = HELD) -> tuple[StepOutcome, Purse]:
    fund(chain, held)
    explained(agent)
    before = purse(chain)
    return agent.rebalance(send=True, confirm=yes), before


def most_lost(chain: LocalChain, outcome: StepOutcome, lag: Fraction = Fraction(0)) -> Fraction:
    """Dollars that the limits allow a step to lose at fair prices, gas included.

    plan_cost · T + slippage · G + 2 · lag · T + gas of approvals, for turnover T and gross volume G at the reference
    prices, when no reference is off the fair price by more than `lag`: holdings that change by Δᵢ lose at fair prices
    what they lose at reference prices and at most lag · Σ|Δᵢ| more, and Σ|Δᵢ| is 2T.
    """
    plan = outcome.plan
    assert plan is not None
    approvals_wei = sum(intent.receipt.gas_cost_wei for intent in outcome.transactions[:-1] if intent.receipt is not None)
    approvals_usd = Fraction(approvals_wei, 10**18) * chain.deployed_world.prices_usd["WETH"]
    return ((PLAN_COST + 2 * lag) * plan.turnover + SLIPPAGE * plan.gross_volume) / USD + approvals_usd


def require_fair_floors(chain: LocalChain, outcome: StepOutcome) -> None:
    """No leg may pay less than fair value less fee, impact and slippage limits, whatever its pool said at the snapshot."""
    assert outcome.plan is not None
    usd = {token.address: chain.deployed_world.prices_usd[symbol] / 10**token.decimals for symbol, token in chain.tokens.items()}
    for leg in outcome.plan.legs:
        fair = leg.amount_in_raw * usd[leg.token_in] / usd[leg.token_out]
        assert leg.min_out_raw + 1 >= fair * (1 - Fraction(leg.fee_pips, PIPS) - IMPACT) * (1 - SLIPPAGE)


def attacked(
    chain: LocalChain, agent: Agent, sizes: Sequence[str], pools: Sequence[str], sold: str, held: Mapping[str, int] = HELD
) -> dict[str, OutcomeKind]:
    """Every size in turn; returns how each step ended."""
    ends = {}
    for size in sizes:
        with skewed(chain, pools, sold, size):
            outcome, before = step(chain, agent, held)
        loss = lost(chain, before, chain.deployed_world.prices_usd)
        if outcome.kind is OutcomeKind.DONE:
            assert loss <= most_lost(chain, outcome), f"{size} of {pools} in {sold}"
            require_fair_floors(chain, outcome)
        else:
            assert outcome.kind is OutcomeKind.REFUSED, outcome.reason
            assert loss == 0
        ends[size] = outcome.kind
        healed(chain, pools)
    return ends


@sizes
@pytest.mark.parametrize(
    ("pool", "sold"),
    [*slow([("v3 WETH/USDC 500", "WETH"), ("v3 WETH/USDC 500", "USDC")]), ("v2 WETH/USDC", "USDC")],
)
def test_a_whale_that_skews_one_pool_of_many_and_unwinds(
    anvil_chain: LocalChain, tmp_path: Path, pool: str, sold: str, sizes: Sequence[str]
) -> None:
    with agent_on(anvil_chain, tmp_path, ONLY_FLOORS) as agent:
        ends = attacked(anvil_chain, agent, sizes, [pool], sold)
        assert ends["0.001"] is OutcomeKind.DONE
        assert ends["10"] is OutcomeKind.REFUSED


@sizes
@pytest.mark.parametrize("sold", ["WETH", pytest.param("USDC", marks=pytest.mark.slow)])
def test_a_whale_that_skews_the_only_pool_meets_floors_and_plan_cost_without_any_oracle(
    anvil_chain: LocalChain, tmp_path: Path, sold: str, sizes: Sequence[str]
) -> None:
    """The wallet's WETH above target must be sold through this pool or not at all."""
    chain = anvil_chain
    alone = {"venues.uniswap_v2": None, "venues.uniswap_v3.pools": [chain.address_by_pool["v3 WETH/USDC 500"]]}
    with agent_on(chain, tmp_path, {**NO_ORACLE, **alone}, {"WETH": "50%", "USDC": "50%"}) as agent:
        ends = attacked(chain, agent, sizes, ["v3 WETH/USDC 500"], sold, {"WETH": 60_000, "USDC": 30_000})
        assert ends["0.001"] is OutcomeKind.DONE
        if sold == "WETH":  # the price of what we sell is pushed down: a bad one is never taken
            assert {ends[size] for size in sizes if size in LARGE} == {OutcomeKind.REFUSED}


@sizes
@pytest.mark.parametrize("sold", [pytest.param("WETH", marks=pytest.mark.slow), "USDC"])
def test_a_whale_that_skews_several_pools_at_once_and_unwinds(
    anvil_chain: LocalChain, tmp_path: Path, sold: str, sizes: Sequence[str]
) -> None:
    pools = ["v3 WETH/USDC 500", "v3 WETH/USDC 3000", "v2 WETH/USDC"]
    with agent_on(anvil_chain, tmp_path, ONLY_FLOORS) as agent:
        ends = attacked(anvil_chain, agent, sizes, pools, sold)
        assert ends["0.001"] is OutcomeKind.DONE
        assert {ends[size] for size in sizes if size in LARGE} == {OutcomeKind.REFUSED}


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "moves",
    [
        *slow([{"WETH": "-1.4"}, {"WBTC": "1.4", "LINK": "1.4", "WETH": "1.4"}]),
        {"WBTC": "0.7", "LINK": "-0.7", "USDT": "-0.5"},
    ],
    ids=str,
)
def test_feeds_that_lag_within_the_oracle_limit_cost_no_more_than_the_lag(
    anvil_chain: LocalChain, tmp_path: Path, moves: Mapping[str, str], every: int
) -> None:
    """The market moved by up to 1.5 % and no feed said so; a whale skews a pool on top, against us either way."""
    chain = anvil_chain
    lag = Fraction(150, BPS)
    with agent_on(chain, tmp_path, ONLY_FLOORS) as agent:
        fund(chain, HELD)
        usd = chain.deployed_world.prices_usd
        chain.move_market({s: usd[s] * (1 + Fraction(p) / 100) for s, p in moves.items()}, twap_follows=False, feeds_follow=False)
        done = 0
        for sold, size in (("WETH", "0.001"), ("WETH", "0.01"), ("USDC", "0.01"), ("USDC", "0.001"))[::every]:
            with skewed(chain, ["v3 WETH/USDC 500"], sold, size):
                outcome, before = step(chain, agent)
            loss = lost(chain, before, chain.deployed_world.prices_usd)
            if outcome.kind is OutcomeKind.DONE:
                assert loss <= most_lost(chain, outcome, lag)
                done += 1
            else:
                assert outcome.kind is OutcomeKind.REFUSED, outcome.reason
                assert loss == 0
            healed(chain, ["v3 WETH/USDC 500"])
        assert done > 0, "not one step was taken, so nothing was shown"


def test_a_real_move_that_feeds_and_means_have_not_followed_waits(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """Spot moved by 5 %, feeds not: nothing is traded at prices that may be false; once feeds and means follow, it is."""
    chain = anvil_chain
    with agent_on(chain, tmp_path, ONLY_FLOORS) as agent:
        fund(chain, HELD)
        before = purse(chain)
        price = chain.deployed_world.prices_usd["WETH"] * Fraction(105, 100)
        chain.move_market({"WETH": price}, twap_follows=False, feeds_follow=False)
        waits = agent.rebalance(send=True, confirm=yes)
        assert waits.kind is OutcomeKind.REFUSED
        assert "oracle_deviation" in waits.reason
        assert purse(chain) == before
        chain.move_market({"WETH": price})
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
