"""A token that begins to keep a part of each transfer while the agent's swap is pending (threat T30), in whole steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.app.alerting import RunFacts, cycle_alerts
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import AlertKind, IntentKind, IntentState
from tests.support.agents import ROOMY, USD, agent_on, fund, loss_usd, purse, require_rebalance, yes
from tests.support.markets.moves import before_a_swap
from tests.support.markets.pending_fees import HELD, TARGETS, V3_ONLY
from tests.support.markets.switched_fees import FEE_BPS, ZERO, switch_on, switchable
from tests.support.text import mentions

DAILY_LOSS_BPS = 100


@pytest.mark.parametrize("router", ["swap_router_02", pytest.param("rebalancer", marks=pytest.mark.slow)])
@pytest.mark.parametrize("holdings", [HELD, pytest.param({"WETH": 40_000, "USDC": 30_000, "LINK": 30_000}, marks=pytest.mark.slow)])
def test_fee_switched_on_while_pending__costs_a_revert_s_gas(
    chain: LocalChain, tmp_path: Path, holdings: dict[str, int], router: str
) -> None:
    switchable(chain)
    fund(chain, holdings)
    venues = V3_ONLY if router == "swap_router_02" else {}  # a Rebalancer is made for the factories of the config
    with agent_on(chain, tmp_path, {**ROOMY, **venues, "execution.router": router}, TARGETS) as agent:
        before = purse(chain)
        outcome = require_rebalance(agent, OutcomeKind.FAILED, progress=before_a_swap(agent, lambda: switch_on(chain)))
        assert [intent.state for intent in outcome.transactions if intent.kind is IntentKind.SWAP] == [IntentState.REVERTED]
        assert purse(chain).raw == before.raw
        gas = sum(intent.receipt.gas_cost_wei for intent in outcome.transactions if intent.receipt is not None)
        assert before.native_wei - purse(chain).native_wei == gas


def test_fee_on_the_router_s_transfer__ends_the_step_with_an_alert(chain: LocalChain, tmp_path: Path) -> None:
    """No minimum of SwapRouter02 covers its last transfer: the loss is found on the wallet's balance, booked and told."""
    switchable(chain)
    fund(chain, HELD)
    with agent_on(chain, tmp_path, {**ROOMY, **V3_ONLY}, TARGETS) as agent:
        before = purse(chain)
        router = chain.addresses.swap_router_02
        outcome = require_rebalance(agent, OutcomeKind.FAILED, progress=before_a_swap(agent, lambda: switch_on(chain, payer=router)))
        assert mentions(outcome.reason, "LINK", "at least")
        assert outcome.shortfall_tokens == (chain.tokens["LINK"].address,)
        assert [intent.state for intent in outcome.transactions if intent.kind is IntentKind.SWAP] == [IntentState.FINAL]
        (alert,) = [alert for alert in cycle_alerts(outcome, RunFacts(False, "", None)) if alert.kind is AlertKind.ERROR]
        assert mentions(alert.text, "LINK", "minimum")
        gone = loss_usd(chain, before, chain.deployed_world.prices_usd)
        assert gone > HELD["WETH"] * FEE_BPS // 100_000, "half of a purchase of a tenth of the portfolio"
        switch_on(chain, payer=ZERO)
        after = agent.rebalance(send=True, confirm=yes)
        assert after.transactions == (), after.reason
        assert after.step_input.history.budgets.loss_24h >= gone * USD * 99 // 100
        total = sum(HELD.values()) * USD
        assert after.step_input.history.budgets.loss_24h * 10_000 > total * DAILY_LOSS_BPS
