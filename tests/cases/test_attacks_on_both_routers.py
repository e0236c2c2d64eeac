"""A thief at work while a whole step runs, on either router: gifts, pushes and pulls between snapshot and block (T1, T5, T11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.execution.settlement import realised_legs
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import LegPlace, Plan
from agent.units import BPS
from tests.support.agents import ROOMY, USD, agent_on, at_send, fund, legs_of, loss_usd, purse, swap_of, yes
from tests.support.markets.skewed_pools import ONLY_FLOORS, attack_outcomes, sizes

ROUTERS = pytest.mark.parametrize("router", ["swap_router_02", "rebalancer"])
HELD = {"LINK": 30_000, "WETH": 31_000, "USDT": 30_000, "WBTC": 4_000, "USDC": 4_000}
PLAN_COST = Fraction(50, BPS)
SLIPPAGE = Fraction(30, BPS)
"""The template's limits."""


def contract_of(chain: LocalChain, router: str) -> str:
    return chain.addresses.rebalancer if router == "rebalancer" else chain.addresses.swap_router_02


def allow(chain: LocalChain, router: str) -> None:
    """The wallet has let the router take everything, so that the plan of the snapshot is the one that is sent."""
    for symbol in chain.tokens:
        approve = chain.token_contract(symbol).functions.approve(contract_of(chain, router), 2**255)
        chain.send(approve, chain.wallet.address, gas=100_000)


def gifts(chain: LocalChain, router: str, raw: int) -> Callable[[], object]:
    """Some of every token for the router, for every pair, and for the wallet."""
    pairs = [info.address for info in chain.deployed_world.pool_by_name.values() if info.version == 2]

    def give() -> None:
        for symbol in chain.tokens:
            for at in (contract_of(chain, router), chain.wallet.address, *pairs):
                chain.send(chain.token_contract(symbol).functions.transfer(at, raw))

    return give


@ROUTERS
def test_gifts_before_the_block__stop_nothing_and_are_no_profit(chain: LocalChain, tmp_path: Path, router: str) -> None:
    """What lies in the router is swapped along: the hub's second leg trades more than planned, and the books say so."""
    raw = 10**6
    fund(chain, HELD)
    with agent_on(chain, tmp_path, {**ROOMY, "execution.router": router}) as agent:
        allow(chain, router)
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes, progress=at_send(1, gifts(chain, router, raw)))
        plan, _, receipt = swap_of(outcome)
        assert any(leg.source is LegPlace.ROUTER for leg in plan.legs), "nothing goes through the router, so nothing was shown"
        for done in realised_legs(plan, receipt):
            assert done.leg.amount_in_raw <= done.in_raw <= done.leg.amount_in_raw + raw
            assert done.leg.amount_out_raw <= done.out_raw
        loss = loss_usd(chain, before, chain.deployed_world.prices_usd) * USD
        assert loss <= PLAN_COST * plan.turnover
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD, "the gifts left nothing to do and nothing to halt at"


def rebalance_behind_a_push(chain: LocalChain, agent: Agent, router: str, usd: int) -> StepOutcome:
    """Rebalance; just before the bytes leave, a whale sells into each pool the token that the plan sells there."""
    allow(chain, router)
    names = {address: name for name, address in chain.address_by_pool.items()}
    symbols = {token.address: symbol for symbol, token in chain.tokens.items()}
    used = [(names[leg.pool], symbols[leg.token_in]) for leg in legs_of(agent.plan())]

    def push() -> None:
        for pool, sold in used:
            chain.swap(pool, sold, int(usd / chain.deployed_world.prices_usd[sold] * 10 ** chain.tokens[sold].decimals))

    return agent.rebalance(send=True, confirm=yes, progress=at_send(1, push))


@pytest.mark.parametrize("router", [pytest.param("swap_router_02", marks=pytest.mark.slow), "rebalancer"])
def test_late_push_beyond_the_floors__costs_only_gas(chain: LocalChain, tmp_path: Path, router: str) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, {**ROOMY, "execution.router": router}) as agent:
        before = purse(chain)
        outcome = rebalance_behind_a_push(chain, agent, router, usd=4_000_000)
        assert outcome.kind is OutcomeKind.FAILED, outcome.reason
        assert purse(chain).raw == before.raw


def floors_of_legs(_: LocalChain, plan: Plan) -> Fraction:
    """Return the most that the floors of a plan's legs let it lose, in numeraire base units."""
    return PLAN_COST * plan.turnover + SLIPPAGE * plan.gross_volume


def floor_of_the_whole(chain: LocalChain, plan: Plan) -> Fraction:
    """Return plan_cost of what a plan sells, the most that the Rebalancer lets it lose, in numeraire base units."""
    sold_usd = sum(leg.amount_in_raw * usd_of(chain, leg.token_in) for leg in plan.legs if leg.source is LegPlace.WALLET)
    return min(floors_of_legs(chain, plan), PLAN_COST * sold_usd * USD + 1)


@pytest.mark.parametrize(
    ("router", "largest_loss"),
    [("swap_router_02", floors_of_legs), pytest.param("rebalancer", floor_of_the_whole, marks=pytest.mark.slow)],
    ids=["swap_router_02", "rebalancer"],
)
def test_late_push_within_the_floors__costs_at_most_the_floors(
    chain: LocalChain, tmp_path: Path, router: str, largest_loss: Callable[[LocalChain, Plan], Fraction]
) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, {**ROOMY, "execution.router": router}) as agent:
        before = purse(chain)
        outcome = rebalance_behind_a_push(chain, agent, router, usd=20_000)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        plan = outcome.plan
        assert plan is not None
        traded = loss_usd(chain, before, chain.deployed_world.prices_usd, gas=False) * USD
        assert plan.cost.total - plan.cost.gas < traded <= largest_loss(chain, plan)


def usd_of(chain: LocalChain, address: str) -> Fraction:
    """Dollars per base unit."""
    symbol = next(symbol for symbol, token in chain.tokens.items() if token.address == address)
    return chain.deployed_world.prices_usd[symbol] / 10 ** chain.tokens[symbol].decimals


@sizes
@pytest.mark.parametrize(
    ("pools", "sold"),
    [
        (["v3 WETH/USDC 500", "v3 WETH/USDC 3000", "v2 WETH/USDC"], "WETH"),
        pytest.param(["v3 WETH/USDC 500"], "USDC", marks=pytest.mark.slow),
    ],
)
def test_whale_before_the_snapshot__gains_as_little_on_rebalancer(
    anvil_chain: LocalChain, tmp_path: Path, pools: list[str], sold: str, sizes: Sequence[str]
) -> None:
    with agent_on(anvil_chain, tmp_path, {**ONLY_FLOORS, "execution.router": "rebalancer"}) as agent:
        ends = attack_outcomes(anvil_chain, agent, sizes, pools, sold)
        assert ends["0.001"] is OutcomeKind.DONE
        assert ends["10"] is OutcomeKind.REFUSED
