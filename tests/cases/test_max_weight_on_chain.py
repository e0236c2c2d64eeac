"""limits.max_weight over a real chain: nothing is bought above it, and what rose above it is sold."""

from __future__ import annotations

from pathlib import Path

from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from tests.support.agents import ROOMY, agent_on, explain_balances, failed_verdicts, fund, purse, swap_of, weights, yes
from tests.support.text import mentions

TARGETS = {"WETH": "50%", "USDC": "50%"}
LIMITED = ROOMY | {"limits.max_weight": {"any": "52%"}}


def test_manual_swap_above_the_limit__is_refused_unsent(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 45_000, "USDC": 45_000})
    with agent_on(chain, tmp_path, LIMITED, TARGETS) as agent:
        before = purse(chain)
        refused = agent.swap("USDC", "WETH", "3000", send=True, confirm=yes)
        assert refused.kind is OutcomeKind.REFUSED
        assert [verdict.guard for verdict in failed_verdicts(refused)] == ["max_weight"]
        assert purse(chain) == before


def test_asset_risen_above_the_limit__is_sold_before_its_band(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 47_700, "USDC": 42_300})
    with agent_on(chain, tmp_path, LIMITED, TARGETS) as agent:
        explain_balances(agent)
        (warning,) = (warning for warning in agent.status().warnings if "max_weight" in warning)
        assert mentions(warning, "WETH", "53 %", "limits.max_weight", "52 %")
        swap_of(agent.rebalance(send=True, confirm=yes))
        assert abs(weights(chain, TARGETS)["WETH"] - 5_000) < 10
        assert not [warning for warning in agent.status().warnings if "max_weight" in warning]


def test_asset_above_the_limit__is_sold_though_a_schedule_waits(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 47_000, "USDC": 43_000})
    timed = LIMITED | {"limits.max_weight": {"any": "60%"}, "policy.trigger": {"kind": "time", "every": "28d"}}
    with agent_on(chain, tmp_path, timed, TARGETS) as agent:
        explain_balances(agent)
        swap_of(agent.rebalance(send=True, confirm=yes))  # the first look of a store is due
        fund(chain, {"WETH": 53_000, "USDC": 37_000})
        explain_balances(agent)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD, "58.9 % is below the limit: the schedule decides"
        fund(chain, {"WETH": 58_000, "USDC": 32_000})
        explain_balances(agent)
        outcome = agent.rebalance(send=True, confirm=yes)
        swap_of(outcome)
        assert mentions(outcome.reason, "limits.max_weight", "60 %")
        assert abs(weights(chain, TARGETS)["WETH"] - 5_000) < 10
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
