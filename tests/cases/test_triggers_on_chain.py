"""Triggers from block to receipt: each step by an agent that was started anew, since all that a trigger needs is in the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.app.research.whatif import WhatIfOptions, what_if
from agent.config.loaded import LoadedConfig
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import Threshold
from tests.support.agents import (
    ROOMY,
    USD,
    agent_on,
    fund,
    off_target,
    purse,
    reopened_agent,
    require_rebalance,
    swap_of,
    trusted_config,
    yes,
)
from tests.support.text import mentions

HALVES = {"WETH": "50%", "USDC": "50%"}
W2 = {"WBTC": "50%", "WETH": "30%", "USDC": "20%"}
DAY_S = 86_400
HOUR_S = 3_600


def look(chain: LocalChain, loaded: LoadedConfig) -> StepOutcome:
    with reopened_agent(chain, loaded) as agent:
        return agent.rebalance(send=True, confirm=yes)


def drift_to(chain: LocalChain, usd: Mapping[str, int]) -> None:
    """The market moves WETH so far that this stands of what was half and half."""
    start = chain.deployed_world.prices_usd["WETH"]
    weth_usd = chain.balance("WETH") * start / 10 ** chain.tokens["WETH"].decimals
    chain.move_market({"WETH": start * usd["WETH"] / weth_usd})


def test_reviews_and_executions__act_whoever_was_restarted(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 6_000, "USDC": 4_000})
    trigger = {"kind": "review", "review_every": "1d", "execute_every": "3d"}
    loaded = trusted_config(chain, tmp_path, ROOMY | {"policy.trigger": trigger}, HALVES)
    first = look(chain, loaded)
    swap_of(first)
    assert first.reason.startswith("first execution")
    drift_to(chain, {"WETH": 5_600})
    assert look(chain, loaded).kind is OutcomeKind.HOLD
    chain.warp(DAY_S)
    review = look(chain, loaded)
    assert review.kind is OutcomeKind.HOLD
    assert "review due" in review.reason
    assert mentions(review.reason, "sell 3", "of WETH")
    assert "executed from" in review.reason
    between = look(chain, loaded)
    assert "would" not in between.reason
    assert "next execution" in between.reason
    chain.warp(2 * DAY_S)
    executed = look(chain, loaded)
    swap_of(executed)
    assert "execution due" in executed.reason
    assert max(off_target(chain, HALVES).values()) <= 10


def test_selling_alone__leaves_the_proceeds_in_the_numeraire(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WBTC": 5_800, "WETH": 2_400, "USDC": 1_800})
    with agent_on(chain, tmp_path, ROOMY | {"policy.only": "sell"}, W2) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        swap_of(outcome)
        after = purse(chain)
        assert after.raw["WETH"] == before.raw["WETH"]
        assert after.raw["WBTC"] < before.raw["WBTC"]
        assert float(Fraction(after.raw["USDC"] - before.raw["USDC"], USD)) == pytest.approx(800, abs=4)
        next_outcome = require_rebalance(agent, OutcomeKind.HOLD)
        assert mentions(next_outcome.reason, "policy.only", "sell")
        assert purse(chain).raw == after.raw


def test_crash__fires_once_by_prices_of_earlier_runs(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without past rounds of the feeds (tests/cases/test_past_prices_at_once.py has them)."""
    monkeypatch.setattr("agent.app.agent.fill_price_windows", lambda *_: ())
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    trigger = {"kind": "drawdown", "fall": "20%", "within": "3h"}
    loaded = trusted_config(chain, tmp_path, ROOMY | {"policy.trigger": trigger}, HALVES)
    start = chain.deployed_world.prices_usd["WETH"]
    chain.move_market({"WETH": start * Fraction(7, 10)})
    assert mentions(look(chain, loaded).reason, "WETH", "no recorded price")
    chain.move_market({"WETH": start})
    for _ in range(4):
        chain.warp(HOUR_S)
        assert look(chain, loaded).kind is OutcomeKind.HOLD
    chain.move_market({"WETH": start * Fraction(81, 100)})
    assert mentions(look(chain, loaded).reason, "no asset", "20 %")
    chain.move_market({"WETH": start * Fraction(79, 100)})
    crash = look(chain, loaded)
    swap_of(crash)
    assert mentions(crash.reason, "20 %", "WETH", "21")
    assert max(off_target(chain, HALVES).values()) <= 10
    chain.warp(60)
    again_ = look(chain, loaded)
    assert again_.kind is OutcomeKind.HOLD
    assert "last rebalance" in again_.reason or "highest" in again_.reason


def test_a_fall_from_an_imported_high_acts_at_the_first_look(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 4_000, "USDC": 6_000})
    loaded = trusted_config(chain, tmp_path, ROOMY | {"policy.trigger": {"kind": "drawdown", "fall": "20%", "within": "7d"}}, HALVES)
    price = chain.deployed_world.prices_usd["WETH"]
    now = datetime.fromtimestamp(chain.clock.now_s(), UTC)
    closes = tmp_path / "closes.csv"
    high = (now - timedelta(hours=30)).isoformat()
    low = (now - timedelta(hours=1)).isoformat()
    closes.write_text(f"time,symbol,close\n{high},WETH,{float(price) * 1.3}\n{low},WETH,{float(price)}\n")
    with reopened_agent(chain, loaded) as agent:
        api.import_prices(agent, closes)
        first = agent.rebalance(send=True, confirm=yes)
    swap_of(first)
    assert mentions(first.reason, "20 %", "WETH", "23")
    assert "highest" in first.reason
    assert look(chain, loaded).kind is OutcomeKind.HOLD, "one fall is answered once"


def test_w2_on_the_chain_trades_what_whatif_says_within_costs(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WBTC": 5_800, "WETH": 2_700, "USDC": 1_500})
    what_if_document = what_if(
        WhatIfOptions(
            {"WBTC": 5_000, "WETH": 3_000, "USDC": 2_000},
            {"WBTC": Fraction(5_800), "WETH": Fraction(2_700), "USDC": Fraction(1_500)},
            Threshold(None, 1_000),
        )
    )
    with agent_on(chain, tmp_path, targets=W2) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        swap_of(outcome)
        assert [drift.symbol for drift in outcome.decision_result.drifts if drift.is_outside_band] == list(what_if_document.symbols_outside)
        assert outcome.plan is not None
        cost = float(outcome.plan.cost.total / USD)
        after = purse(chain)
        for symbol, trade in what_if_document.trades.items():
            token = chain.tokens[symbol]
            done = float((after.raw[symbol] - before.raw[symbol]) * chain.deployed_world.prices_usd[symbol] / 10**token.decimals)
            assert done == pytest.approx(float(trade), abs=cost + 0.1)
