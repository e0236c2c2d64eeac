"""Two stops fired at once, on a real chain: a process that ends anywhere between them neither loses nor repeats a sale."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import Intent, IntentKind, OrderStage
from tests.support.agents import ROOMY, allowances, fund, reopened_agent, trusted_config, yes
from tests.support.stores import dying
from tests.support.transactions import Killed

THREE = {"WETH": "40%", "WBTC": "30%", "USDC": "30%"}
BLOCKS = 3
STOPS = {
    "portfolio.assets.0.stop_loss": "10%",
    "portfolio.assets.1.stop_loss": "10%",
    "policy.confirm_blocks": BLOCKS,
    "limits.price_impact": "2%",
    **ROOMY,
}
KILLS = (20, 30, 36, 42, 52)
"""Durable writes and sends of the first exit and of the second."""


def sold_tokens(chain: LocalChain, intents: tuple[Intent, ...]) -> list[str]:
    """Tokens that left the wallet in swaps that succeeded, oldest first."""
    wallet = chain.wallet.address
    symbols = {token.address: symbol for symbol, token in chain.tokens.items()}
    swaps = sorted(
        (intent for intent in intents if intent.kind is IntentKind.SWAP and intent.succeeded), key=lambda intent: intent.tx.nonce
    )
    return [symbols[token] for swap in swaps if swap.receipt for token, raw in swap.receipt.net_transfers(wallet).items() if raw < 0]


@pytest.mark.parametrize("moment", [pytest.param(kill, marks=pytest.mark.slow) if kill in (30, 36, 42, 52) else kill for kill in KILLS])
def test_a_kill_between_two_exits_neither_loses_nor_repeats_one(chain: LocalChain, tmp_path: Path, moment: int) -> None:
    fund(chain, {"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000})
    chain.mine(BLOCKS + 1)
    loaded = trusted_config(chain, tmp_path, STOPS, THREE)
    with reopened_agent(chain, loaded) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        prices = chain.deployed_world.prices_usd
        chain.move_market({"WETH": prices["WETH"] * 8 / 10, "WBTC": prices["WBTC"] * 8 / 10})
        chain.mine(BLOCKS + 1)
    with reopened_agent(chain, loaded) as agent, dying(agent, moment) as progress, pytest.raises(Killed):
        agent.rebalance(send=True, confirm=yes, progress=progress)
    with reopened_agent(chain, loaded) as agent:
        for _ in range(4):
            try:
                if agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD:
                    break
            except Retryable:
                chain.mine(1)
        assert sold_tokens(chain, agent.context.store.journal.intents(limit=100)) == ["WETH", "WBTC"], "in the portfolio's order, each once"
        assert chain.balance("WETH") == chain.balance("WBTC") == 0
        assert {state.stage for state in agent.step_input().history.orders.states} == {OrderStage.DONE}
        assert set(allowances(chain).values()) == {0}
        assert agent.context.store.journal.open_intents() == ()
