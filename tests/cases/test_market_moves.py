"""The market moves between snapshot and block: nothing is lost beyond the limits, and what reverts is told, booked and left behind."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.artifacts import npm_artifact
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.localchain.chain import SWAP_ROUTER_02_ARTIFACT
from agent.localchain.nodes import AnvilNode
from agent.model import Intent, IntentKind, IntentState
from agent.units import BPS
from tests.support import lp_on_chain
from tests.support.agents import (
    ROOMY,
    USD,
    WalletBalances,
    agent_on,
    allow,
    at_send,
    failed_verdicts,
    fund,
    legs_of,
    loss_usd,
    meanwhile,
    off_target,
    purse,
    require_rebalance,
    swap_of,
    yes,
)
from tests.support.constants import GWEI
from tests.support.markets.moves import before_a_swap

TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD = {"WETH": 60_000, "USDC": 30_000}
PLAN_COST = Fraction(50, BPS)
SLIPPAGE = Fraction(30, BPS)
ONE_POOL = {"venues.uniswap_v2": None, "venues.uniswap_v3.fee_tiers": [500]}
"""All that is sold goes through one pool, which the whale knows too."""
POOL = "v3 WETH/USDC 500"


def whale(chain: LocalChain, usd: int, sold: str = "WETH") -> Callable[[], object]:
    """Sells for this many dollars into the pool."""
    raw = int(usd / chain.deployed_world.prices_usd[sold] * 10 ** chain.tokens[sold].decimals)
    return lambda: chain.swap(POOL, sold, raw)


def only_gas(chain: LocalChain, before: WalletBalances) -> int:
    """Wei spent since, where no token moved."""
    after = purse(chain)
    assert after.raw == before.raw
    return before.native_wei - after.native_wei


def gas_paid_wei(outcome: StepOutcome) -> int:
    return sum(intent.receipt.gas_cost_wei for intent in outcome.transactions if intent.receipt is not None)


def assert_lost_within_limits(chain: LocalChain, before: WalletBalances, outcome: StepOutcome) -> None:
    """Require that the wallet lost at most the plan's cost and the slippage of what it traded."""
    assert outcome.plan is not None
    limit = PLAN_COST * outcome.plan.turnover + SLIPPAGE * outcome.plan.gross_volume
    assert loss_usd(chain, before, chain.deployed_world.prices_usd) * USD <= limit


def swaps(outcome: StepOutcome) -> list[IntentState]:
    return [intent.state for intent in outcome.transactions if intent.kind is IntentKind.SWAP]


def test_market_moved_during_the_question__is_planned_anew(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        preview = agent.plan()
        price = chain.deployed_world.prices_usd["WETH"] * Fraction(98, 100)
        outcome = agent.rebalance(send=True, confirm=meanwhile(lambda: chain.move_market({"WETH": price})))
        plan, _, _ = swap_of(outcome)
        assert preview.plan is not None
        assert plan.block > preview.plan.block
        assert sum(leg.amount_in_raw for leg in plan.legs) < sum(leg.amount_in_raw for leg in legs_of(preview))
        assert max(off_target(chain, TARGETS).values()) <= 10


def in_the_question(agent: Agent, event: Callable[[], object]) -> StepOutcome:
    """Rebalance; the event happens while the owner confirms."""
    return agent.rebalance(send=True, confirm=meanwhile(event))


def after_the_last_check(agent: Agent, event: Callable[[], object]) -> StepOutcome:
    """Rebalance; the event happens just before the transaction is sent."""
    return agent.rebalance(send=True, confirm=yes, progress=at_send(1, event))


MOMENTS = {"while the owner confirms": in_the_question, "after the last check": after_the_last_check}
ENDS = pytest.mark.parametrize(
    ("rebalance_beside", "kind", "reason", "swap_states"),
    [
        pytest.param(in_the_question, OutcomeKind.REFUSED, "simulation", [], id="while the owner confirms"),
        pytest.param(after_the_last_check, OutcomeKind.FAILED, "revert", [IntentState.REVERTED], id="after the last check"),
    ],
)
"""How a rebalance ends whose swap cannot be carried out any more."""


@pytest.mark.parametrize("rebalance_beside", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("usd", [40_000, pytest.param(400_000, marks=pytest.mark.slow)])
def test_whale_within_the_floors__costs_at_most_the_slippage(
    chain: LocalChain, tmp_path: Path, usd: int, rebalance_beside: Callable[..., StepOutcome]
) -> None:
    """The allowance is there, so that the plan of the snapshot is the one that is sent."""
    fund(chain, HELD)
    allow(chain, "WETH")
    with agent_on(chain, tmp_path, ROOMY | ONE_POOL, TARGETS) as agent:
        before = purse(chain)
        outcome = rebalance_beside(agent, whale(chain, usd))
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert_lost_within_limits(chain, before, outcome)


@ENDS
@pytest.mark.parametrize("usd", [pytest.param(1_500_000, marks=pytest.mark.slow), 10_000_000])
def test_whale_beyond_the_floors__costs_only_gas(
    chain: LocalChain,
    tmp_path: Path,
    usd: int,
    rebalance_beside: Callable[..., StepOutcome],
    kind: OutcomeKind,
    reason: str,
    swap_states: list[IntentState],
) -> None:
    fund(chain, HELD)
    allow(chain, "WETH")
    with agent_on(chain, tmp_path, ROOMY | ONE_POOL, TARGETS) as agent:
        before = purse(chain)
        outcome = rebalance_beside(agent, whale(chain, usd))
        assert (outcome.kind, swaps(outcome)) == (kind, swap_states)
        assert reason in outcome.reason
        assert only_gas(chain, before) == gas_paid_wei(outcome)


def drain(chain: LocalChain) -> Callable[[], object]:
    """Whoever provides the pool's liquidity takes all of it out."""
    functions = lp_on_chain.manager(chain)
    owner = chain.whale.address
    info = chain.deployed_world.pool_by_name[POOL]

    def gone() -> None:
        for number in range(functions.balanceOf(owner).call()):
            token_id = functions.tokenOfOwnerByIndex(owner, number).call()
            about = functions.positions(token_id).call()
            if about[7] > 0 and tuple(about[2:5]) == (info.token0.address, info.token1.address, info.fee_pips):
                chain.send(functions.decreaseLiquidity((token_id, about[7], 0, 0, lp_on_chain.FAR_FUTURE_S)), owner)

    return gone


@ENDS
def test_pool_drained_before_the_block__takes_nothing(
    chain: LocalChain,
    tmp_path: Path,
    rebalance_beside: Callable[..., StepOutcome],
    kind: OutcomeKind,
    reason: str,
    swap_states: list[IntentState],
) -> None:
    fund(chain, HELD)
    allow(chain, "WETH")
    with agent_on(chain, tmp_path, ROOMY | ONE_POOL, TARGETS) as agent:
        before = purse(chain)
        outcome = rebalance_beside(agent, drain(chain))
        assert (outcome.kind, swaps(outcome)) == (kind, swap_states)
        assert reason in outcome.reason
        assert outcome.plan is not None
        assert len(outcome.plan.legs) == 1
        assert only_gas(chain, before) == gas_paid_wei(outcome)


def swap_behind_the_whale(chain: LocalChain, agent: Agent, weth: int) -> tuple[StepOutcome, Intent]:
    """Rebalance while the whale sells WETH: it sees our swap in the mempool, pays more, and is first in the same block."""
    node = chain.node
    assert isinstance(node, AnvilNode)
    router = chain.contract(chain.addresses.swap_router_02, npm_artifact(SWAP_ROUTER_02_ARTIFACT))
    order = (chain.tokens["WETH"].address, chain.tokens["USDC"].address, 500, chain.whale.address, weth * 10**18, 0, 0)
    front: list[bytes] = []

    def run_in_front() -> None:
        node.rpc("evm_setAutomine", False)
        fees = {"gas": 1_000_000, "maxFeePerGas": 100 * GWEI, "maxPriorityFeePerGas": 50 * GWEI}
        front.append(router.functions.exactInputSingle(order).transact({"from": chain.whale.address, **fees}))

    try:
        outcome = after_the_last_check(agent, run_in_front)
    finally:
        node.rpc("evm_setAutomine", True)
    (swap,) = [intent for intent in outcome.transactions if intent.kind is IntentKind.SWAP]
    assert swap.receipt is not None
    first = chain.w3.eth.get_transaction_receipt(front[0])
    assert (first["blockNumber"], first["transactionIndex"]) == (swap.receipt.block_number, 0)
    return outcome, swap


def test_sandwich_in_one_block__stays_within_floors(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    allow(chain, "WETH")
    with agent_on(chain, tmp_path, ROOMY | ONE_POOL, TARGETS) as agent:
        before = purse(chain)
        outcome, swap = swap_behind_the_whale(chain, agent, weth=100)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert swap.receipt is not None
        received_raw = swap.receipt.net_transfers(chain.wallet.address)[chain.tokens["USDC"].address]
        assert received_raw < sum(leg.amount_out_raw for leg in legs_of(outcome))
        assert_lost_within_limits(chain, before, outcome)


def test_sandwich_in_one_block__beyond_the_floors_reverts(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    allow(chain, "WETH")
    with agent_on(chain, tmp_path, ROOMY | ONE_POOL, TARGETS) as agent:
        before = purse(chain)
        outcome, swap = swap_behind_the_whale(chain, agent, weth=1_000)
        assert (outcome.kind, swap.state) == (OutcomeKind.FAILED, IntentState.REVERTED)
        assert only_gas(chain, before) > 0


def test_gas_of_a_revert__is_a_loss_and_the_next_step_completes(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        mark = dict(chain.deployed_world.prices_usd)
        down = {"WETH": mark["WETH"] * Fraction(9, 10)}
        outcome = require_rebalance(agent, OutcomeKind.FAILED, progress=at_send(2, lambda: chain.move_market(down, twap_follows=False)))
        assert "revert" in outcome.reason
        paid = gas_paid_wei(outcome)
        chain.move_market(mark)
        before_next = purse(chain)
        history = agent.rebalance().step_input.history
        assert history.failures.reverts_in_row == 1
        booked = history.budgets.loss_24h / USD
        assert booked == pytest.approx(float(paid * mark["WETH"] / 10**18), rel=1e-6)
        assert history.budgets.gas_24h_wei == paid
        assert history.budgets.turnover_24h == 0
        done = agent.rebalance(send=True, confirm=yes)
        assert loss_usd(chain, before_next, mark) * USD <= PLAN_COST * swap_of(done)[0].turnover
        assert done.input_after is not None
        assert done.input_after.history.failures.reverts_in_row == 0
        assert done.input_after.history.budgets.turnover_24h > 0


def test_three_reverts_in_a_row__stop_the_agent_for_a_person(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY | ONE_POOL, TARGETS) as agent:
        before = purse(chain)
        for reverts in range(3):
            mark = dict(chain.deployed_world.prices_usd)
            outcome = agent.rebalance(send=True, confirm=yes, progress=before_a_swap(agent, whale(chain, 2_000_000)))
            assert swaps(outcome) == [IntentState.REVERTED], f"after {reverts}: {outcome.reason}"
            chain.move_market(mark)
        spent = only_gas(chain, before)
        for _ in range(2):
            stopped = require_rebalance(agent, OutcomeKind.REFUSED)
            assert [verdict.guard for verdict in failed_verdicts(stopped)] == ["reverts_in_row"]
            assert swaps(stopped) == []
            chain.warp(86_500)
        assert spent > 0
        assert purse(chain).raw == before.raw
