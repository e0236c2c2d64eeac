"""Late transactions, partial plans and mistakes of the config on a real chain: what is left is named, nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest

from agent.errors import ConfigError, TrimtabError
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from tests.support.agents import (
    ROOMY,
    agent_config,
    agent_on,
    allow,
    at_send,
    fund,
    legs_of,
    purse,
    reopened_agent,
    require_rebalance,
    skipped_text,
    swap_of,
    trusted_config,
    yes,
)
from tests.support.fakes.clock import waiting_clock
from tests.support.text import mentions

TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD = {"WETH": 60_000, "USDC": 30_000}


def test_a_transaction_that_comes_too_late_is_not_sent(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    allow(chain, "WETH")

    def progress(event: str) -> None:
        if event == "before:signed":
            chain.warp(100)

    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        before = purse(chain)
        outcome = require_rebalance(agent, OutcomeKind.REFUSED, progress=progress)
        assert "deadline" in outcome.reason
        assert purse(chain) == before
        swap_of(agent.rebalance(send=True, confirm=yes))


def test_transaction_mined_too_late__reverts_on_its_deadline(chain: LocalChain, tmp_path: Path) -> None:
    node = chain.node
    assert isinstance(node, AnvilNode)
    fund(chain, HELD)
    allow(chain, "WETH")
    clock = waiting_clock(chain, on_sleep=lambda: node.mine_at(chain.now_s() + 100))
    with reopened_agent(chain, trusted_config(chain, tmp_path, ROOMY, TARGETS), clock=clock) as agent:
        before = purse(chain)
        try:
            outcome = agent.rebalance(send=True, confirm=yes, progress=at_send(1, lambda: node.rpc("evm_setAutomine", False)))
        finally:
            node.rpc("evm_setAutomine", True)
        assert outcome.kind is OutcomeKind.FAILED
        assert purse(chain).raw == before.raw


def test_moves_below_min_trade_are_left_and_named(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 32_505, "WBTC": 16_495, "USDC": 18_000, "USDT": 14_000, "LINK": 9_000})
    with agent_on(chain, tmp_path, ROOMY | {"limits.min_trade": "600"}) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        plan, _, receipt = swap_of(outcome)
        assert "limits.min_trade" in next(item.why for item in plan.skipped if item.subject == "USDT")
        net = receipt.net_transfers(chain.wallet.address)
        for symbol in ("USDC", "USDT", "LINK"):
            assert net.get(chain.tokens[symbol].address, 0) == 0


@pytest.mark.parametrize(
    ("share", "skipped"),
    [("1%", True), ("30%", False)],
)
def test_turnover_limit_s_rest__is_named_and_done_next_time(chain: LocalChain, tmp_path: Path, share: str, skipped: bool) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY | {"limits.turnover": share}, TARGETS) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        plan, _, _ = swap_of(outcome)
        assert ("limits.turnover" in skipped_text(plan.skipped)) is skipped
        assert plan.turnover <= Fraction(share.rstrip("%")) / 100 * 90_000 * 10**6
        assert agent.rebalance().kind is (OutcomeKind.PLANNED if skipped else OutcomeKind.HOLD)


def test_no_usable_pool_is_said_for_every_token_it_strands(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY | {"limits.pool_min_value": "1000000000"}, TARGETS) as agent:
        before = purse(chain)
        outcome = require_rebalance(agent, OutcomeKind.REFUSED)
        assert mentions(outcome.reason, "WETH", "15000 USDC", "pool")
        assert purse(chain) == before


def test_an_owner_who_says_no_has_nothing_sent(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        before = purse(chain)
        outcomes: list[StepOutcome] = []

        def no(outcome: StepOutcome) -> bool:
            outcomes.append(outcome)
            return False

        assert agent.rebalance(send=True, confirm=no).kind is OutcomeKind.DECLINED
        assert agent.rebalance(send=True).kind is OutcomeKind.DECLINED
        assert agent.rebalance(confirm=yes).kind is OutcomeKind.PLANNED
        assert len(outcomes) == 1
        assert legs_of(outcomes[0])
        assert purse(chain) == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"limits.slipage": "1%"}, "limits.slipage: unknown key"),
        ({"limits.slippage": None}, "limits.slippage: missing"),
        ({"chain.wrapped_native": "0x00000000000000000000000000000000000000Ff"}, "checksum"),
    ],
)
def test_a_config_that_is_wrong_ends_before_any_chain_is_asked(
    anvil_chain: LocalChain, tmp_path: Path, changes: Mapping[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        agent_config(anvil_chain, tmp_path, changes)


def test_a_token_without_code_is_named_before_anything_else(local_chain: LocalChain, tmp_path: Path) -> None:
    loaded = agent_config(local_chain, tmp_path, {"portfolio.assets.0.address": local_chain.accounts[5].address})
    with pytest.raises(TrimtabError, match=local_chain.accounts[5].address), reopened_agent(local_chain, loaded):
        pass
