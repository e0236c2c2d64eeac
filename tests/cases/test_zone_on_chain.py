"""A zone on the chain, from the config's text to the mined swap: it waits, trades to its edge, waits again, and tells why."""

from __future__ import annotations

from pathlib import Path

from agent.app.documents.past import step_history
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import Hold
from tests.support.agents import (
    agent_on,
    explain_balances,
    fund,
    require_exact_rebalance,
    require_rebalance,
    swap_of,
    weights,
)
from tests.support.markets.zones import TARGETS, ZONE
from tests.support.text import mentions

EDGE_BPS = 0.0005 / (2 * 0.5 * 30 / 365 * (0.8**2 + 0.005**2)) * 10_000
"""95 bps: the fee of the cheapest pool, 0.05 %, over λ·H·σ²."""


def test_a_zone_waits_trades_to_its_edge_and_waits_again(chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(chain, tmp_path, ZONE, TARGETS) as agent:
        fund(chain, {"WETH": 50_400, "USDC": 49_600})
        inside = require_rebalance(agent, OutcomeKind.HOLD)
        assert mentions(inside.reason, "within", "zone")
        assert inside.decision_result.zone is not None
        edge = float(inside.decision_result.zone.intervals[0].high) * 10_000 - 5_000
        assert abs(edge - EDGE_BPS) < 10, "the pool stands within a basis point of the reference"

        fund(chain, {"WETH": 54_000, "USDC": 46_000})
        explain_balances(agent)
        done = require_exact_rebalance(chain, agent)
        plan, _, _ = swap_of(done)
        assert plan.zone_tradeoff is not None
        assert plan.zone_tradeoff.covers_cost
        stands = float(weights(chain, TARGETS)["WETH"]) - 5_000
        assert EDGE_BPS * 0.9 < stands < EDGE_BPS + 60, "at the edge, less what the pool's own price moved"

        again = require_rebalance(agent, OutcomeKind.HOLD)
        assert isinstance(again.decision, Hold)
        assert agent.status().decision_result.decision == again.decision
        text = " ".join(step_history.explain(tmp_path / "trimtab.toml", done.step_id)["sentences"])
        assert mentions(text, "rebalance", "outside", "zone")
        assert "A plan was estimated to save" in text
        assert mentions(text, "WETH", "traded to")


def test_plan_not_worth_its_gas__is_a_hold_with_all_figures(chain: LocalChain, tmp_path: Path) -> None:
    """Of 10,000 a deviation of 5.2 points would pay its swap, and not the transaction around it and its approval."""
    with agent_on(chain, tmp_path, ZONE, TARGETS) as agent:
        fund(chain, {"WETH": 5_520, "USDC": 4_480})
        next_outcome = require_rebalance(agent, OutcomeKind.HOLD)
        assert next_outcome.transactions == ()
        assert "whole plan" in next_outcome.reason
        assert isinstance(next_outcome.decision, Hold)
        assert next_outcome.decision.limiting_rule == "policy.trigger"
        zone = next_outcome.decision_result.zone
        assert zone is not None
        assert zone.plan_tradeoff is not None
        assert 0 < zone.plan_tradeoff.saved_risk < zone.plan_tradeoff.cost
        text = " ".join(step_history.explain(tmp_path / "trimtab.toml", next_outcome.step_id)["sentences"])
        assert mentions(text, "held", "zone")
        assert "A plan was estimated to save" in text
        fund(chain, {"WETH": 5_700, "USDC": 4_300})
        explain_balances(agent)
        assert agent.plan().kind is OutcomeKind.PLANNED
