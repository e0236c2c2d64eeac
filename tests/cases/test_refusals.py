"""Every reason to send nothing, met on a real chain: the guard is named with what it measured, and the wallet is as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.app.agent import Agent
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from agent.model import IntentKind, IntentState, Verdict
from tests.support.agents import (
    ROOMY,
    agent_config,
    agent_on,
    allowances,
    failed_verdicts,
    fund,
    purse,
    reopened_agent,
    require_rebalance,
    swap_of,
    trusted_config,
    yes,
)
from tests.support.fakes.clock import chain_clock
from tests.support.fakes.transport import RecordingTransport
from tests.support.stores import unpin
from tests.support.text import causes, mentions

TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD = {"WETH": 60_000, "USDC": 30_000}


def require_refused(chain: LocalChain, agent: Agent, guard: str) -> Verdict:
    """One step that is refused by exactly this guard and does nothing; returns its verdict."""
    before = purse(chain)
    outcome = require_rebalance(agent, OutcomeKind.REFUSED)
    assert purse(chain) == before
    assert outcome.transactions == ()
    assert agent.context.store.journal.intents() == ()
    (verdict,) = failed_verdicts(outcome)
    assert verdict.guard == guard
    assert guard in outcome.reason
    return verdict


@pytest.mark.parametrize(
    ("guard", "changes", "measured", "limit"),
    [
        pytest.param("native_floor", {"limits.native_floor": "10"}, "9.99", "at least 10 native", id="native floor"),
        pytest.param("gas_per_day", {"limits.gas_per_day": "0.0000001"}, "native", "0.0000001 native", id="gas a day"),
        pytest.param("gas_price", {"limits.gas_price": "0.5 gwei"}, "gwei", "0.5 gwei", id="gas price"),
        pytest.param("max_live_value", {"portfolio.max_live_value": "89999"}, "90000", "89999", id="value ceiling"),
    ],
)
def test_a_limit_of_the_config_refuses_with_what_was_measured(
    chain: LocalChain, tmp_path: Path, guard: str, changes: Mapping[str, object], measured: str, limit: str
) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY | {"limits.plan_cost": "off"} | changes, TARGETS) as agent:
        verdict = require_refused(chain, agent, guard)
        assert measured in verdict.measured_text
        assert limit in verdict.limit


def test_a_base_fee_above_the_gas_price_limit_waits(chain: LocalChain, tmp_path: Path) -> None:
    assert isinstance(chain.node, AnvilNode)
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY | {"limits.plan_cost": "off", "limits.gas_per_day": "off"}, TARGETS) as agent:
        chain.node.rpc("anvil_setNextBlockBaseFeePerGas", hex(70 * 10**9))
        chain.node.rpc("evm_mine")
        require_refused(chain, agent, "gas_price")
        chain.node.rpc("anvil_setNextBlockBaseFeePerGas", hex(10**9))
        chain.node.rpc("evm_mine")
        swap_of(agent.rebalance(send=True, confirm=yes))


def test_a_head_older_than_its_limit_is_not_traded_on(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with reopened_agent(chain, trusted_config(chain, tmp_path, ROOMY, TARGETS), clock=chain_clock(chain, 91)) as agent:
        verdict = require_refused(chain, agent, "head_age")
        assert (verdict.measured_text, verdict.limit) == ("91 s", "90 s")


def test_stale_feed_of_a_token__trades_nothing_until_its_next_round(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY | {"reference.kind": ["feed"], "reference.feed_max_age": "2h"}, TARGETS) as agent:
        chain.refresh_feeds(["WETH"])
        updated_at_s = chain.now_s()
        chain.warp(7_100, refresh_feeds=False)
        chain.refresh_feeds(["USDC"])
        chain.warp(updated_at_s + 7_200 - chain.now_s(), refresh_feeds=False)
        assert agent.plan().kind is OutcomeKind.PLANNED, "at its greatest age"
        chain.warp(1, refresh_feeds=False)
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        assert outcome.kind is OutcomeKind.HALT, outcome.reason
        assert mentions(outcome.reason, "the feed of WETH is 7201 s old", "7200 s"), outcome.reason
        assert (purse(chain), agent.context.store.journal.intents()) == (before, ())
        chain.refresh_feeds(["WETH"])
        swap_of(agent.rebalance(send=True, confirm=yes))


def test_a_paused_agent_sends_nothing_until_it_is_resumed(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        agent.context.kill_switch.pause("the owner is away", 1)
        assert "is away" in require_refused(chain, agent, "kill_switch").measured_text or agent.context.kill_switch.file.exists()
        agent.context.kill_switch.resume("", 2)
        agent.context.kill_switch.file.touch()
        assert str(agent.context.kill_switch.file) in require_refused(chain, agent, "kill_switch").measured_text
        agent.context.kill_switch.file.unlink()
        swap_of(agent.rebalance(send=True, confirm=yes))


def test_pause_after_every_check__still_stops_the_send(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        before = purse(chain)

        def progress(event: str) -> None:
            if event == "before:signed":
                agent.context.kill_switch.pause("now", 1)

        outcome = require_rebalance(agent, OutcomeKind.REFUSED, progress=progress)
        assert causes(outcome) == ("kill_switch",)
        assert purse(chain) == before
        (intent,) = agent.context.store.journal.intents()
        assert (intent.kind, intent.state) == (IntentKind.APPROVE, IntentState.CANCELLED)
        assert set(allowances(chain).values()) == {0}
        assert "never sent" in agent.context.store.journal.transitions(intent.id)[-1].note


def test_paused_agent__sends_no_approval(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        agent.context.kill_switch.pause("the owner is away", 1)
        require_refused(chain, agent, "kill_switch")
        assert set(allowances(chain).values()) == {0}
        agent.context.kill_switch.resume("", 2)
        first, *_ = require_rebalance(agent).transactions
        assert first.kind is IntentKind.APPROVE, "it was due"


def test_nothing_is_sent_before_contracts_are_trusted(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with reopened_agent(chain, agent_config(chain, tmp_path, ROOMY, TARGETS)) as agent:
        verdict = require_refused(chain, agent, "allowlist")
        assert mentions(verdict.measured_text, f"{chain.addresses.swap_router_02}", "not pinned")


def test_a_contract_that_is_trusted_no_more_is_named(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        unpin(agent.context.store, chain.tokens["USDC"].address)
        verdict = require_refused(chain, agent, "allowlist")
        assert mentions(verdict.measured_text, f"{chain.tokens['USDC'].address}", "not pinned")


def test_code_that_changed_since_it_was_trusted_is_refused(chain: LocalChain, tmp_path: Path) -> None:
    """One more byte behind the router's code changes nothing it does, and its hash."""
    assert isinstance(chain.node, AnvilNode)
    fund(chain, HELD)
    router = chain.addresses.swap_router_02
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        code = chain.node.rpc("eth_getCode", router, "latest")
        chain.node.rpc("anvil_setCode", router, code + "00")
        assert mentions(require_refused(chain, agent, "allowlist").measured_text, f"{router}", "changed")
        chain.node.rpc("anvil_setCode", router, code)
        swap_of(agent.rebalance(send=True, confirm=yes))


def more(by_bps: int, *targets: str) -> Callable[[str, list[Any], Any], Any]:
    """Falsifies what a call of one of these quoters pays: the first of QuoterV2's four words, the last of the others' answers."""

    def change(method: str, params: list[Any], answer: Any) -> Any:
        if method != "eth_call" or str(params[0].get("to")).lower() not in {t.lower() for t in targets} or not isinstance(answer, str):
            return answer
        at = 2 if str(params[0]["data"]).startswith("0xc6a5026a") else len(answer) - 64
        paid = int(answer[at : at + 64], 16) * (10_000 + by_bps) // 10_000
        return f"{answer[:at]}{paid:064x}{answer[at + 64 :]}"

    return change


@pytest.mark.parametrize("by_bps", [-60, 60])
def test_a_second_quote_that_disagrees_refuses(chain: LocalChain, tmp_path: Path, by_bps: int) -> None:
    fund(chain, HELD)
    at = chain.addresses
    liar = RecordingTransport(chain.transport, "local", more(by_bps, at.quoter_v1, at.quoter_v2, at.v2_router))
    with agent_on(chain, tmp_path, ROOMY, TARGETS, transports=[liar]) as agent:
        verdict = require_refused(chain, agent, "second_quote_deviation")
        assert 59 < float(verdict.measured_text.split()[0]) < 61


@pytest.mark.parametrize("quoter", ["quoter_v1", "quoter_v2"])
def test_second_quotes_that_differ_from_each_other_refuse(anvil_chain: LocalChain, tmp_path: Path, quoter: str) -> None:
    """By 1 bps, far within the limit: contracts at one block have one answer."""
    fund(anvil_chain, HELD)
    liar = RecordingTransport(anvil_chain.transport, "local", more(1, getattr(anvil_chain.addresses, quoter)))
    with agent_on(anvil_chain, tmp_path, ROOMY, TARGETS, transports=[liar]) as agent:
        verdict = require_refused(anvil_chain, agent, "second_quote_deviation")
        assert "second quotes" in verdict.measured_text


def test_wallet_without_gas_money__is_told_and_sends_nothing(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    chain.set_native(10**12)
    with agent_on(chain, tmp_path, ROOMY | {"limits.native_floor": "off"}, TARGETS) as agent:
        before = purse(chain)
        outcome = require_rebalance(agent, OutcomeKind.REFUSED)
        assert "gas" in outcome.reason
        assert purse(chain) == before
        assert outcome.transactions == ()
        chain.set_native(10**18)
        swap_of(agent.rebalance(send=True, confirm=yes))


def test_an_empty_wallet_halts_and_says_so(anvil_chain: LocalChain, tmp_path: Path) -> None:
    fund(anvil_chain, {})
    with agent_on(anvil_chain, tmp_path) as agent:
        outcome = require_rebalance(agent, OutcomeKind.HALT)
        assert causes(outcome) == ("empty",)
        assert outcome.transactions == ()
