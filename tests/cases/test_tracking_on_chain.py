"""The tracking trigger on a chain, from one line of config to the mined swaps: it waits, trades back to the edge, waits again."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.app.records import step_history
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.policy.triggers.no_trade_zone import ZoneInterval
from tests.support.agents import ROOMY, agent_on, explained, fund, purse, require_exact, weights, yes
from tests.support.text import mentions

TARGETS = {"WETH": "50%", "USDC": "50%"}
ON_TARGET_USD = 25_000


def tracking(strictness: str) -> dict[str, object]:
    return ROOMY | {"policy.trigger": {"kind": "tracking", "strictness": strictness}, "policy.destination": "zone"}


@pytest.mark.parametrize("strictness", ["relaxed", "normal", "strict"])
def test_tracking__waits_trades_to_the_edge_and_waits_again(anvil_chain: LocalChain, tmp_path: Path, strictness: str) -> None:
    """Without [policy.risk]: a pair needs no figure, and the class of WETH stands in."""
    chain = anvil_chain
    with agent_on(chain, tmp_path, tracking(strictness), TARGETS) as agent:
        fund(chain, {"WETH": ON_TARGET_USD, "USDC": ON_TARGET_USD})
        inside = agent.rebalance(send=True, confirm=yes)
        assert inside.kind is OutcomeKind.HOLD
        zone = inside.decision_result.zone
        assert zone is not None
        assert mentions(zone.sample_text, "WETH 65 %", "ether")
        weth = zone.intervals[0]
        assert 0.5 < weth.high < weth.trigger_high < 0.6

        beyond_usd = moved_usd(weth, 1.02)
        fund(chain, {"WETH": ON_TARGET_USD + beyond_usd, "USDC": ON_TARGET_USD - beyond_usd})
        explained(agent)
        before = purse(chain)
        done = agent.rebalance(send=True, confirm=yes)
        require_exact(chain, done, before)
        assert mentions(done.reason, "WETH", "target 50 %", "is beyond")
        landed = float(weights(chain, TARGETS)["WETH"]) / 10_000 - 0.5
        edge = float(weth.high) - 0.5
        assert edge * 0.9 < landed < edge * 1.1 + 0.006, "at the edge, less what the pool's own price moved"

        again = agent.rebalance(send=True, confirm=yes)
        assert again.kind is OutcomeKind.HOLD
        told = " ".join(step_history.explain(tmp_path / "trimtab.toml", done.step_id)["sentences"])
        assert mentions(told, "rebalance", "WETH is moved beyond", "Correcting it cost", "waiting a year", "usual volatilities")


def test_tracking__just_inside_its_trigger__holds(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    with agent_on(chain, tmp_path, tracking("normal"), TARGETS) as agent:
        fund(chain, {"WETH": ON_TARGET_USD, "USDC": ON_TARGET_USD})
        zone = agent.plan().decision_result.zone
        assert zone is not None
        inside_usd = moved_usd(zone.intervals[0], 0.97)
        fund(chain, {"WETH": ON_TARGET_USD - inside_usd, "USDC": ON_TARGET_USD + inside_usd})
        explained(agent)
        held = agent.rebalance(send=True, confirm=yes)
        assert held.kind is OutcomeKind.HOLD
        assert mentions(held.reason, "closest is WETH")


def moved_usd(interval: ZoneInterval, share: float) -> int:
    """Dollars of WETH above its target at this share of its trigger."""
    return round(2 * ON_TARGET_USD * (float(interval.trigger_high) - 0.5) * share)
