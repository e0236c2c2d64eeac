"""The kill switch at hard, on a real chain: what waits is cancelled, what may be taken is taken back, nothing is traded (T14)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agent.app.money import shutdown
from agent.chain import snapshot
from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from agent.model import Halt, HaltCode, IntentKind, IntentState, UnreadableItem
from agent.policy import decide
from tests.support.agents import ROOMY, agent_on, allow, allowances, at_send, fund, purse, reopened_agent, swap_of, trusted_config, yes
from tests.support.fakes.clock import waiting_clock
from tests.support.text import mentions, raises_code

TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD = {"WETH": 60_000, "USDC": 30_000}


def no_decider(_: object) -> NoReturn:
    raise AssertionError("a report asks for a decision")


def frozen(chain: LocalChain, symbol: str) -> None:
    """From now on the token reverts every approval, and does all else as before: a proxy over its own code."""
    node = chain.node
    token = chain.tokens[symbol].address
    assert isinstance(node, AnvilNode)
    inner = "0x" + "c0de" * 10
    node.rpc("anvil_setCode", inner, node.rpc("eth_getCode", token, "latest"))
    refuse = "5f3560e01c63095ea7b314603857"  # selector of approve: to the revert at 0x38
    forward = f"365f5f375f5f365f73{inner[2:]}5af43d5f5f3e156038573d5ff3"
    node.rpc("anvil_setCode", token, f"0x{refuse}{forward}5b5f5ffd")


@pytest.mark.slow
def test_hard_pause__cancels_what_waits_and_revokes_the_rest(chain: LocalChain, tmp_path: Path) -> None:
    node = chain.node
    clock = waiting_clock(chain)
    assert isinstance(node, AnvilNode)
    fund(chain, HELD)
    allow(chain, "WETH", "LINK")
    with reopened_agent(chain, trusted_config(chain, tmp_path, ROOMY, TARGETS | {"LINK": "0%"}), clock=clock) as agent:
        before = purse(chain)
        try:
            with raises_code(Retryable, "not_mined"):
                agent.rebalance(send=True, confirm=yes, progress=at_send(1, lambda: node.rpc("evm_setAutomine", False)))
            swaps = agent.context.store.journal.intents()
            assert {(intent.kind, intent.state, intent.tx.nonce) for intent in swaps} == {
                (IntentKind.SWAP, IntentState.BROADCAST, before.nonce)
            }
            agent.context.kill_switch.pause("stop it all", 1, hard=True)
            clock.on_sleep = lambda: node.mine(1)
            pending_and_allowances = agent.pending_and_allowances()
            assert {intent.id for intent in pending_and_allowances.pending_intents} == {intent.id for intent in swaps}
            assert sorted(open_allowance.token_label for open_allowance in pending_and_allowances.open_allowances) == ["LINK", "WETH"]
            outcome = agent.cancel_and_revoke("stop it all")
        finally:
            node.rpc("evm_setAutomine", True)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert mentions(outcome.reason, "1 of 1", "2 of 2", "allowances")
        assert [(intent.kind, intent.state) for intent in outcome.transactions] == [
            *[(IntentKind.SWAP, IntentState.CANCELLED)] * len(swaps),
            (IntentKind.CANCEL, IntentState.FINAL),
            (IntentKind.APPROVE, IntentState.FINAL),
            (IntentKind.APPROVE, IntentState.FINAL),
        ]
        assert not any(allowances(chain).values())
        assert purse(chain).raw == before.raw
        again_told = agent.cancel_and_revoke("stop it all")
        assert again_told.kind is OutcomeKind.HALT
        assert "no open" in again_told.reason
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.REFUSED
        assert purse(chain).nonce == before.nonce + 3
        agent.context.kill_switch.resume("seen", 1)
        swap_of(agent.rebalance(send=True, confirm=yes))


def test_a_soft_or_unreadable_switch_takes_nothing_back(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    allow(chain, "WETH")
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        before = purse(chain)
        agent.context.kill_switch.pause("lunch", 1)
        outcome = agent.cancel_and_revoke("lunch")
        assert outcome.kind is OutcomeKind.FAILED
        assert "allowances are" in outcome.reason
        assert purse(chain) == before


def test_hard_pause__allowance_that_cannot_be_read__is_a_failure(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_parts = snapshot.snapshot_parts

    def parts_without_allowance(*arguments: Any) -> Any:
        parts = read_parts(*arguments)
        unread = UnreadableItem("allowance of WETH to 0x1", "0x1", "reverted")
        return replace(parts, allowances=(), unreadable_items=(*parts.unreadable_items, unread))

    with agent_on(anvil_chain, tmp_path, ROOMY, TARGETS) as agent:
        agent.context.kill_switch.pause("stop it all", 1, hard=True)
        monkeypatch.setattr(snapshot, "snapshot_parts", parts_without_allowance)
        outcome = agent.cancel_and_revoke("stop it all")
        assert outcome.kind is OutcomeKind.FAILED
        assert "the allowance of WETH to 0x1 cannot be read: reverted" in outcome.reason
        agent.context.kill_switch.resume("seen", 1)
        preview = shutdown.stop(agent, confirm=lambda _: True)
        assert (preview.state, preview.reason) == ("planned", "the allowance of WETH to 0x1 cannot be read: reverted")
        report = shutdown.stop(agent, send=True, confirm=lambda _: True)
        assert (report.state, report.unrevoked_text) == ("stopped", "the allowance of WETH to 0x1 cannot be read: reverted")


def test_report_of_a_hard_pause_decides_nothing(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, HELD)
    allow(chain, "WETH")
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        agent.context.kill_switch.pause("stop", 1, hard=True)
        monkeypatch.setattr(decide, "DECIDERS", (no_decider,))
        outcome = agent.cancel_and_revoke("stop")
        assert outcome.kind is OutcomeKind.DONE
        assert outcome.decision_result.decision == Halt(outcome.reason, (HaltCode.HARD_PAUSE,))
        assert {drift.symbol for drift in outcome.decision_result.drifts} == set(TARGETS)


def test_one_token_that_refuses_stops_no_other(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    allow(chain, "WETH", "USDC")
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        agent.context.kill_switch.pause("stop", 1, hard=True)
        frozen(chain, "WETH")
        outcome = agent.cancel_and_revoke("stop")
        assert outcome.kind is OutcomeKind.FAILED
        assert "WETH: simulation" in outcome.reason
        allowances_left = allowances(chain)
        assert allowances_left["USDC"] == 0
        assert allowances_left["WETH"] > 0


def test_run_paused_hard__takes_back_at_once_and_trades_nothing(chain: LocalChain, tmp_path: Path) -> None:
    clock = waiting_clock(chain)
    fund(chain, HELD)
    with reopened_agent(chain, trusted_config(chain, tmp_path, ROOMY, TARGETS), clock=clock) as agent:
        allow(chain, "WETH")
        agent.context.kill_switch.pause("lunch", 1)
        looks = agent.run(send=True, confirm=yes, every="1h")
        kinds = [next(looks).kind]  # type: ignore[union-attr]  # an outcome
        agent.context.kill_switch.pause("stop", 1, hard=True)
        clock.sleeps.clear()
        kinds.append(next(looks).kind)  # type: ignore[union-attr]  # an outcome
        assert sum(clock.sleeps) < 60, "an hour's rest ends at once"
        assert not any(allowances(chain).values())
        kinds.append(next(looks).kind)  # type: ignore[union-attr]  # an outcome
        assert kinds == [OutcomeKind.REFUSED, OutcomeKind.DONE, OutcomeKind.HALT]
        assert sum(clock.sleeps) >= 3600, "once it has seen it, it rests as ever"
        looks.close()
