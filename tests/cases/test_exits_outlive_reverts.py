"""Who pushes a pool between look and block makes transactions revert: rebalances stop, exits go on after waits that grow."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.app.alerting import RunFacts
from agent.app.alerting import cycle_alerts as alerts
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import AlertKind
from agent.policy import failures
from tests.support.agents import ROOMY, failed_verdicts, fund, purse, reopened_agent, swap_of, trusted_config, yes
from tests.support.endpoints import passing_on, serve
from tests.support.markets.moves import before_a_swap

TWO = {"WETH": "50%", "USDC": "50%"}
BLOCKS = 3
CRASH = 2_400
STOP = {"portfolio.assets.0.stop_loss": "2500", "policy.confirm_blocks": BLOCKS, "limits.price_impact": "2%", **ROOMY}


def settle_market(chain: LocalChain, weth: int) -> None:
    """The market is there, feeds say so, and blocks go by that confirm it."""
    chain.move_market({"WETH": weth})
    chain.mine(BLOCKS + 1)


def griefed(chain: LocalChain, agent: Agent) -> StepOutcome:
    """A look whose swap meets pools that were pushed just before; then they are set back."""
    down = Fraction(CRASH * 93, 100)
    push = before_a_swap(agent, lambda: chain.move_market({"WETH": down}, twap_follows=False))
    outcome = agent.rebalance(send=True, confirm=yes, progress=push)
    chain.move_market({"WETH": CRASH}, twap_follows=False)
    chain.mine(BLOCKS + 1)
    return outcome


def is_waiting(outcome: StepOutcome) -> bool:
    return outcome.kind is OutcomeKind.REFUSED and [intent.guard for intent in failed_verdicts(outcome)] == ["reverts_in_row"]


@pytest.mark.parametrize(
    ("router", "native"),
    [
        pytest.param("rebalancer", False, marks=pytest.mark.slow),
        pytest.param("rebalancer", True, marks=pytest.mark.slow),
        pytest.param("swap_router_02", False, marks=pytest.mark.slow),
        ("swap_router_02", True),
    ],
)
def test_reverted_exit__is_tried_again_after_growing_waits(chain: LocalChain, tmp_path: Path, router: str, native: bool) -> None:
    chain.set_native(10**18)
    fund(chain, {"WETH": 17_150 if native else 20_000, "USDC": 20_000})
    chain.mine(BLOCKS + 1)
    coin = {"portfolio.assets.0.address": "native", "portfolio.assets.0.symbol": "ETH"} if native else {}
    loaded = trusted_config(chain, tmp_path, {**STOP, **coin, "execution.router": router}, TWO)
    with reopened_agent(chain, loaded) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        settle_market(chain, CRASH)
        for _ in range(3):
            assert griefed(chain, agent).kind is OutcomeKind.FAILED
        next_outcome = agent.rebalance(send=True, confirm=yes)
        assert is_waiting(next_outcome)
        assert "this exit is retried at" in failed_verdicts(next_outcome)[0].measured_text
        (text,) = [alert.text for alert in alerts(next_outcome, RunFacts(False, "", None)) if alert.kind is AlertKind.REFUSAL]
        assert "exits are" in text
    for wait_s in (60, 120):
        since_s = chain.now_s()
        with reopened_agent(chain, loaded) as agent:
            next_outcome = agent.rebalance(send=True, confirm=yes)
            assert is_waiting(next_outcome), "a restart shortens no wait"
            (own,) = next_outcome.step_input.history.failures.failed_exits
            assert failures.retry_wait_s(own) == wait_s
            assert since_s - 30 <= own.at_s <= since_s
            chain.warp(wait_s)
            if wait_s == 60:
                assert griefed(chain, agent).kind is OutcomeKind.FAILED, "the griefer pays again"
                continue
            sold = agent.rebalance(send=True, confirm=yes)
            assert swap_of(sold)[0].is_exit
            assert chain.balance("WETH") * CRASH < 10 * 10**18


@pytest.mark.slow
def test_successful_exit__leaves_rebalances_to_their_owner(chain: LocalChain, tmp_path: Path) -> None:
    three = {"WETH": "40%", "WBTC": "30%", "USDC": "30%"}
    fund(chain, {"WETH": 20_000, "WBTC": 15_000, "USDC": 15_000})
    chain.mine(BLOCKS + 1)
    loaded = trusted_config(chain, tmp_path, STOP, three)
    with reopened_agent(chain, loaded) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        settle_market(chain, CRASH)
        for _ in range(3):
            assert griefed(chain, agent).kind is OutcomeKind.FAILED
        chain.warp(60)
        settle_market(chain, CRASH)
        assert swap_of(agent.rebalance(send=True, confirm=yes))[0].is_exit
        chain.move_market({"WBTC": chain.deployed_world.prices_usd["WBTC"] * 2})
        chain.mine(BLOCKS + 1)
        before = purse(chain)
        stopped = agent.rebalance(send=True, confirm=yes)
        assert is_waiting(stopped), stopped.reason
        assert purse(chain).raw == before.raw
        api.resume(loaded.path, lambda _: True)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE


@pytest.mark.slow
def test_with_a_private_endpoint_every_try_of_an_exit_goes_there(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 20_000, "USDC": 20_000})
    chain.mine(BLOCKS + 1)
    with serve(passing_on(chain.url or "")) as relay:
        changes = {**STOP, "execution.submit_url": relay.url, "execution.submit_public_fallback": True}
        with reopened_agent(chain, trusted_config(chain, tmp_path, changes, TWO)) as agent:
            assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
            settle_market(chain, CRASH)
            for _ in range(3):
                assert griefed(chain, agent).kind is OutcomeKind.FAILED
            before = len(relay.seen)
            chain.warp(60)
            settle_market(chain, CRASH)
            sold = agent.rebalance(send=True, confirm=yes)
            assert swap_of(sold)[0].is_exit
            assert len(relay.seen) - before == len(sold.transactions)


@pytest.mark.slow
def test_gas_of_reverts_uses_up_no_loss_that_an_exit_may_make(chain: LocalChain, tmp_path: Path) -> None:
    """Their gas is more than limits.daily_loss, and the exit alone less."""
    chain.set_native(10**18)
    fund(chain, {"WETH": 10_000, "USDC": 10_000})
    chain.mine(BLOCKS + 1)
    loaded = trusted_config(chain, tmp_path, {**STOP, "limits.gas_per_day": "1", "limits.daily_loss": "0.2%"}, TWO)
    with reopened_agent(chain, loaded) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        settle_market(chain, CRASH)
        for wait_s in (0, 0, 0, 60, 120):
            chain.warp(wait_s)
            dear(chain)
            failing = griefed(chain, agent)
            assert failing.kind is OutcomeKind.FAILED, failing.reason
        chain.warp(240)
        dear(chain)
        sold = agent.rebalance(send=True, confirm=yes)
        plan, _, _ = swap_of(sold)
        assert plan.is_exit
        assert chain.balance("WETH") * CRASH < 10 * 10**18
        assert sold.step_input.history.budgets.loss_24h > Fraction(20, 10_000) * chain.balance("USDC"), (
            "a rebalance would be refused for it"
        )


def dear(chain: LocalChain) -> None:
    chain.node.rpc("anvil_setNextBlockBaseFeePerGas", hex(50 * 10**9))
    chain.mine(1)
