"""Pools that a whale skews before a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction

import pytest

from agent.app.agent import Agent
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.localchain.world import V2Spec, V3Spec
from agent.units import BPS, PIPS
from tests.support.agents import ROOMY, USD, WalletBalances, explain_balances, fund, loss_usd, purse, yes

ONLY_FLOORS = {**ROOMY, "limits.daily_loss": "off", "limits.gas_per_day": "off"}
"""Budgets over a day are off, so that nothing but the plan's own limits stands between the whale and the portfolio."""
HELD = {"WETH": 40_000, "WBTC": 10_000, "USDC": 10_000, "USDT": 20_000, "LINK": 10_000}
SIZES = ("0.001", "0.005", "0.02", "0.1", "1", "10")
"""Of the whole pool's value: from one that nobody notices to one that drains it."""
FEW = ("0.001", "0.02", "10")
sizes = pytest.mark.parametrize("sizes", [pytest.param(FEW, id="few"), pytest.param(SIZES, id="all", marks=pytest.mark.slow)])
PLAN_COST = Fraction(50, BPS)
SLIPPAGE = Fraction(30, BPS)
IMPACT = Fraction(100, BPS)
"""The template's limits."""


def value_usd(chain: LocalChain, pool: str) -> int:
    return next(spec.value_usd for spec in chain.world.pools if isinstance(spec, V2Spec | V3Spec) and spec.name == pool)


@contextmanager
def skew_pools(chain: LocalChain, pools: Sequence[str], sold: str, size: str) -> Iterator[None]:
    """A whale sells `size` of each pool's value in `sold` into it, waits, and trades all that it got back."""
    skewed = {}
    for pool in pools:
        raw = Fraction(size) * value_usd(chain, pool) / chain.deployed_world.prices_usd[sold] * 10 ** chain.tokens[sold].decimals
        skewed[pool] = chain.swap(pool, sold, int(raw))
    yield
    for pool, raw in skewed.items():
        info = chain.deployed_world.pool_by_name[pool]
        chain.swap(pool, (info.token1 if info.token0.symbol == sold else info.token0).symbol, raw)


def heal_pools(chain: LocalChain, pools: Sequence[str]) -> None:
    """These pools are back at the world price."""
    for pool in pools:
        chain.arbitrage(chain.deployed_world.pool_by_name[pool])


def step(chain: LocalChain, agent: Agent, holdings: Mapping[str, int] = HELD) -> tuple[StepOutcome, WalletBalances]:
    fund(chain, holdings)
    explain_balances(agent)
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


def attack_outcomes(
    chain: LocalChain, agent: Agent, sizes: Sequence[str], pools: Sequence[str], sold: str, holdings: Mapping[str, int] = HELD
) -> dict[str, OutcomeKind]:
    """Every size in turn; returns how each step ended."""
    ends = {}
    for size in sizes:
        with skew_pools(chain, pools, sold, size):
            outcome, before = step(chain, agent, holdings)
        loss = loss_usd(chain, before, chain.deployed_world.prices_usd)
        if outcome.kind is OutcomeKind.DONE:
            assert loss <= most_lost(chain, outcome), f"{size} of {pools} in {sold}"
            require_fair_floors(chain, outcome)
        else:
            assert outcome.kind is OutcomeKind.REFUSED, outcome.reason
            assert loss == 0
        ends[size] = outcome.kind
        heal_pools(chain, pools)
    return ends
