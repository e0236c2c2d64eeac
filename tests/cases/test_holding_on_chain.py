"""[holding] on a chain: what a rebalance bought stays for its time, a stop sells it all the same, and a new store knows the trade."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from agent.execution.step_context import OutcomeKind
from agent.layers.holding.state import HoldingState
from agent.localchain import LocalChain
from agent.model import Plan
from tests.support.agents import ROOMY, agent_on, fund, reopened_agent, require_rebalance, swap_of, trusted_config, yes
from tests.support.constants import DAY_S
from tests.support.text import mentions

HALVES = {"WETH": "50%", "USDC": "50%"}
HELD = {"holding": {"hours": "24h"}, **ROOMY}


def sold_symbols(chain: LocalChain, plan: Plan) -> list[str]:
    """Symbols of what a plan sells."""
    changes = plan.wallet_changes()
    return [symbol for symbol, token in chain.tokens.items() if changes.get(token.address, 0) < 0]


def raise_weth(chain: LocalChain, factor: Fraction) -> None:
    chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * factor})


def test_bought_asset__is_sold_by_the_next_only_after_its_time(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 3_000, "USDC": 7_000})
    with agent_on(chain, tmp_path, HELD, HALVES) as agent:
        plan, _, _ = swap_of(agent.rebalance(send=True, confirm=yes))
        assert sold_symbols(chain, plan) == ["USDC"]
        raise_weth(chain, Fraction(3, 2))
        ((bought, at_s),) = agent.step_input().layer(HoldingState).bought_s_by_token
        assert bought == chain.tokens["WETH"].address
        before = chain.balance("WETH")
        waits = require_rebalance(agent, OutcomeKind.HOLD)
        assert chain.balance("WETH") == before
        assert mentions(waits.reason, "WETH, bought", "is kept until", "holding.hours"), waits.reason
        assert "is kept until" in agent.status().decision_result.decision.reason
        chain.clock.sleep(at_s + DAY_S - chain.now_s() + 1)
        raise_weth(chain, Fraction(1))
        plan, _, _ = swap_of(agent.rebalance(send=True, confirm=yes))
        assert sold_symbols(chain, plan) == ["WETH"]


def test_a_stop_sells_what_was_bought_just_now(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 3_000, "USDC": 7_000})
    stop = {"portfolio.assets.0.stop_loss": "10%", "limits.price_impact": "2%", **HELD}
    with reopened_agent(chain, trusted_config(chain, tmp_path, stop, HALVES)) as agent:
        swap_of(agent.rebalance(send=True, confirm=yes))
        raise_weth(chain, Fraction(4, 5))
        chain.mine(3)
        outcome = require_rebalance(agent)
        assert mentions(outcome.reason, "stop_loss"), outcome.reason
        assert chain.balance("WETH") == 0


def test_a_new_store_holds_what_the_wallet_has_just_traded(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 3_000, "USDC": 7_000})
    with agent_on(chain, tmp_path / "first", HELD, HALVES, vouched=False) as agent:
        swap_of(agent.rebalance(send=True, confirm=yes))
    with agent_on(chain, tmp_path / "second", HELD, HALVES, vouched=False) as agent:
        raise_weth(chain, Fraction(3, 2))
        assert mentions(agent.rebalance(send=True, confirm=yes).reason, "WETH, bought", "is kept until")
