"""The tracking trigger on a chain, from one line of config to the mined swaps: it waits, trades back to the edge, waits again."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from agent.app.documents.past import step_history
from agent.app.money import transfers
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import Hold, TradeSide
from agent.policy.decide import decide
from agent.policy.triggers.no_trade_zone import ZoneInterval
from tests.support.agents import (
    USD,
    agent_on,
    explain_balances,
    fund,
    off_target,
    purse,
    reopened_agent,
    require_exact_rebalance,
    require_rebalance,
    swap_of,
    trusted_config,
    weights,
    yes,
)
from tests.support.constants import HOME
from tests.support.gradual_execution import OFF, ROUNDS, recovering_clock
from tests.support.markets.tracking import tracking_policy
from tests.support.text import mentions

TARGETS = {"WETH": "50%", "USDC": "50%"}
ON_TARGET_USD = 25_000


@pytest.mark.parametrize("strictness", ["relaxed", "normal", "strict"])
def test_tracking__waits_trades_to_the_edge_and_waits_again(chain: LocalChain, tmp_path: Path, strictness: str) -> None:
    """Without [policy.risk]: a pair needs no figure, and the class of WETH stands in."""
    with agent_on(chain, tmp_path, tracking_policy(strictness), TARGETS) as agent:
        fund(chain, {"WETH": ON_TARGET_USD, "USDC": ON_TARGET_USD})
        inside = require_rebalance(agent, OutcomeKind.HOLD)
        zone = inside.decision_result.zone
        assert zone is not None
        assert mentions(zone.sample_text, "WETH 65 %", "ether")
        weth = zone.intervals[0]
        assert 0.5 < weth.high < weth.trigger_high < 0.6

        beyond_usd = moved_usd(weth, 1.02)
        fund(chain, {"WETH": ON_TARGET_USD + beyond_usd, "USDC": ON_TARGET_USD - beyond_usd})
        explain_balances(agent)
        done = require_exact_rebalance(chain, agent)
        assert mentions(done.reason, "WETH", "target 50 %", "is beyond")
        landed = float(weights(chain, TARGETS)["WETH"]) / 10_000 - 0.5
        edge = float(weth.high) - 0.5
        assert edge <= landed < edge * 1.04, "at the edge, less what the pool's own price moved"

        require_rebalance(agent, OutcomeKind.HOLD)
        text = " ".join(step_history.explain(tmp_path / "trimtab.toml", done.step_id)["sentences"])
        assert mentions(
            text,
            "rebalance",
            "WETH is moved beyond",
            "Correcting it alone was estimated at",
            "once, waiting costs as much in",
            "usual volatilities",
        )
        assert re.search(r"% against 50 % \(band [\d.]{2,5}-[\d.]{2,5} % at these weights of the others\), outside", text)


def test_tracking__just_inside_its_trigger__holds(chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(chain, tmp_path, tracking_policy("normal"), TARGETS) as agent:
        fund(chain, {"WETH": ON_TARGET_USD, "USDC": ON_TARGET_USD})
        zone = agent.plan().decision_result.zone
        assert zone is not None
        inside_usd = moved_usd(zone.intervals[0], 0.97)
        fund(chain, {"WETH": ON_TARGET_USD - inside_usd, "USDC": ON_TARGET_USD + inside_usd})
        explain_balances(agent)
        next_outcome = require_rebalance(agent, OutcomeKind.HOLD)
        assert mentions(next_outcome.reason, "closest is WETH")


SPREAD = {"WETH": "50%", "WBTC": "20%", "USDC": "30%"}


def test_tracking__coins_with_a_cheap_pool__are_exchanged_for_each_other(chain: LocalChain, tmp_path: Path) -> None:
    """WETH to WBTC costs 0.05 %, and each 0.05 and 0.1 % against USDC: neither has left its own range."""
    targets = {"WETH": "35%", "WBTC": "35%", "USDC": "30%"}
    with agent_on(chain, tmp_path, tracking_policy("normal"), targets) as agent:
        fund(chain, {"WETH": 17_500, "WBTC": 17_500, "USDC": 15_000})
        inside = require_rebalance(agent, OutcomeKind.HOLD)
        assert inside.decision_result.zone is not None
        (pair,) = inside.decision_result.zone.risk.pair_widths
        beyond_usd = round(pair.trigger_ppm * 50_000 / 10**6 * 1.03)

        fund(chain, {"WETH": 17_500 + beyond_usd, "WBTC": 17_500 - beyond_usd, "USDC": 15_000})
        explain_balances(agent)
        done = require_exact_rebalance(chain, agent)
        one_sided = replace(done.step_input.policy, trade_side=TradeSide.SELL)
        assert isinstance(decide(replace(done.step_input, policy=one_sided)).decision, Hold), "by its own range WETH would wait"
        plan, _, _ = swap_of(done)
        assert {(leg.token_in, leg.token_out) for leg in plan.legs} == {(chain.tokens["WETH"].address, chain.tokens["WBTC"].address)}
        assert mentions(done.reason, "WETH", "is beyond", "WBTC")
        landed_usd = float(weights(chain, targets)["WETH"]) / 10_000 * 50_000 - 17_500
        edge_usd = pair.edge_ppm * 50_000 / 10**6
        assert edge_usd <= landed_usd < edge_usd * 1.04, "at the edge, less what the pool's own price moved"
        require_rebalance(agent, OutcomeKind.HOLD)


def test_tracking__deposit_is_used_and_withdrawal_made_good(chain: LocalChain, tmp_path: Path) -> None:
    """Small deposits wait, larger ones buy, at once by `invest` and by themselves in a run; nothing else is sold for them."""
    with agent_on(chain, tmp_path, tracking_policy("normal") | {"wallet.payout_addresses": [HOME]}, SPREAD) as agent:
        fund(chain, {"WETH": 25_000, "WBTC": 10_000, "USDC": 15_000})
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD

        chain.set_balance("USDC", purse(chain).raw["USDC"] + 500 * USD)
        small = transfers.invest(agent, send=True, confirm=yes)
        assert small.outcome is not None
        assert (small.outcome.kind, small.is_recorded) == (OutcomeKind.HOLD, True)
        assert mentions(small.outcome.reason, "stays uninvested")

        before = purse(chain)
        chain.set_balance("USDC", before.raw["USDC"] + 8_000 * USD)
        invested = transfers.invest(agent, send=True, confirm=yes)
        assert invested.outcome is not None
        assert invested.outcome.kind is OutcomeKind.DONE, invested.outcome.reason
        assert purse(chain).raw["WETH"] > before.raw["WETH"]
        assert purse(chain).raw["WBTC"] >= before.raw["WBTC"]
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD, "the rule wants no more"

        before = purse(chain)
        chain.set_balance("USDC", before.raw["USDC"] + 15_000 * USD)
        explain_balances(agent)
        require_rebalance(agent)
        assert all(purse(chain).raw[symbol] >= before.raw[symbol] for symbol in ("WETH", "WBTC"))
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD

        paid = transfers.withdraw(agent, transfers.WithdrawalRequest("30000", to=HOME), send=True, confirm=yes)
        assert paid.state == "paid", paid.reason
        before = purse(chain)
        require_rebalance(agent)
        assert all(purse(chain).raw[symbol] <= before.raw[symbol] for symbol in ("WETH", "WBTC"))
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD


def test_tracking__stop_loss_sells_all_and_the_rest_keeps_ranges(chain: LocalChain, tmp_path: Path) -> None:
    stop = {"portfolio.assets.0.stop_loss": "1800", "limits.price_impact": "2%"}
    with agent_on(chain, tmp_path, tracking_policy("normal") | stop, SPREAD) as agent:
        fund(chain, {"WETH": 25_000, "WBTC": 10_000, "USDC": 15_000})
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        chain.move_market({"WETH": 1_700})
        fired = agent.rebalance(send=True, confirm=yes)
        plan, _, _ = swap_of(fired)
        assert plan.is_exit
        assert float(weights(chain, SPREAD)["WETH"]) < 10, "less than the smallest trade is left"
        after = require_rebalance(agent, OutcomeKind.HOLD)
        assert mentions(after.reason, "closest is WBTC")


@pytest.mark.parametrize(("side", "excess_usd"), [("sell", -8_000), ("buy", 8_000)])
def test_tracking__one_side__holds_what_the_other_would_trade(chain: LocalChain, tmp_path: Path, side: str, excess_usd: int) -> None:
    with agent_on(chain, tmp_path, tracking_policy("normal") | {"policy.only": side}, TARGETS) as agent:
        fund(chain, {"WETH": ON_TARGET_USD + excess_usd, "USDC": ON_TARGET_USD - excess_usd})
        before = purse(chain)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        assert purse(chain) == before


@pytest.mark.parametrize(("side", "excess_usd"), [("sell", 8_000), ("buy", -8_000)])
def test_tracking__one_side__trades_to_the_edge_of_that_side(chain: LocalChain, tmp_path: Path, side: str, excess_usd: int) -> None:
    with agent_on(chain, tmp_path, tracking_policy("normal") | {"policy.only": side}, TARGETS) as agent:
        fund(chain, {"WETH": ON_TARGET_USD + excess_usd, "USDC": ON_TARGET_USD - excess_usd})
        zone = require_exact_rebalance(chain, agent).decision_result.zone
        assert zone is not None
        weth = zone.intervals[0]
        assert 0.01 < weth.high - weth.low < 0.1
        edge = weth.high if side == "sell" else weth.low
        assert float(weights(chain, TARGETS)["WETH"]) / 10_000 == pytest.approx(float(edge), abs=10**-6)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD


@pytest.mark.parametrize("waiting_cost", ["zone", pytest.param("0.1bps", marks=pytest.mark.slow)])
def test_tracking__rounds_go_on_until_the_range_is_reached(chain: LocalChain, tmp_path: Path, waiting_cost: str) -> None:
    """Each execution ends where one trade at its prices would; the pools come back, and the next goes on."""
    fund(chain, OFF)
    changes = ROUNDS | tracking_policy("normal") | {"execution.waiting_cost": waiting_cost}
    with reopened_agent(chain, trusted_config(chain, tmp_path, changes, TARGETS), clock=recovering_clock(chain)) as agent:
        outcomes = [agent.rebalance(send=True, confirm=yes) for _ in range(4)]
    assert outcomes[0].kind is OutcomeKind.DONE
    assert mentions(outcomes[0].reason, "gradual execution", "done in")
    assert outcomes[-1].kind is OutcomeKind.HOLD
    assert mentions(outcomes[-1].reason, "all within their ranges")
    assert max(off_target(chain, TARGETS).values()) < 450


def moved_usd(interval: ZoneInterval, share: float) -> int:
    """Dollars of WETH above its target at this share of its trigger."""
    return round(2 * ON_TARGET_USD * (float(interval.trigger_high) - 0.5) * share)
