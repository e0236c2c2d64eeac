"""What a step leaves behind when it goes wrong: outcomes told as they are, no allowance, no schedule skipped, no block for ever."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState
from tests.support.agents import ROOMY, agent_on, allowances, fund, require_rebalance, yes
from tests.support.text import mentions

TWO = {"WETH": "50%", "USDC": "50%"}
DAILY: dict[str, object] = {"policy.trigger": {"kind": "time", "every": "1d"}}


def drifted(chain: LocalChain) -> None:
    fund(chain, {"WETH": 60_000, "USDC": 30_000})


def crash_before_the_swap(chain: LocalChain) -> Callable[[str], None]:
    """The market falls between the last simulation and the send, so that the swap reverts on chain."""
    events: list[str] = []

    def progress(event: str) -> None:
        events.append(event)
        if events.count("before:send") == 2 and event == "before:send":
            usd = chain.deployed_world.prices_usd
            chain.move_market({"WETH": usd["WETH"] * Fraction(7, 10)})

    return progress


def test_a_reverted_swap_leaves_no_allowance(chain: LocalChain, tmp_path: Path) -> None:
    drifted(chain)
    with agent_on(chain, tmp_path, targets=TWO, changes=ROOMY) as agent:
        outcome = require_rebalance(agent, OutcomeKind.FAILED, progress=crash_before_the_swap(chain))
        assert set(allowances(chain).values()) == {0}
        assert [intent.kind for intent in outcome.transactions] == [IntentKind.APPROVE, IntentKind.SWAP, IntentKind.APPROVE]


def test_reverted_unfinal_swap__is_not_reported_as_done(chain: LocalChain, tmp_path: Path) -> None:
    drifted(chain)
    with agent_on(chain, tmp_path, targets=TWO, changes=ROOMY | {"chain.confirmations": 64}) as agent:
        outcome = agent.rebalance(send=True, confirm=yes, progress=crash_before_the_swap(chain))
        swaps = [i for i in outcome.transactions if i.kind is IntentKind.SWAP]
        assert [i.state for i in swaps] == [IntentState.MINED]
        assert swaps[0].receipt is not None
        assert swaps[0].receipt.status == 0
        assert outcome.kind is OutcomeKind.FAILED


def test_a_refused_plan_does_not_use_up_the_review(chain: LocalChain, tmp_path: Path) -> None:
    drifted(chain)
    with agent_on(
        chain, tmp_path, targets=TWO, changes=ROOMY | DAILY | {"limits.plan_cost": "off", "limits.native_floor": "1000000"}
    ) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.REFUSED
        assert agent.context.store.budgets.history(agent.step_input().snapshot.head.timestamp_s).reviews.last_review_s is None


def test_a_swap_by_hand_is_no_review_of_the_schedule(chain: LocalChain, tmp_path: Path) -> None:
    drifted(chain)
    with agent_on(chain, tmp_path, targets=TWO, changes=ROOMY | DAILY) as agent:
        assert agent.swap("WETH", "USDC", "1", send=True, confirm=lambda _: False).kind is OutcomeKind.DECLINED
        assert agent.context.store.budgets.history(agent.step_input().snapshot.head.timestamp_s).reviews.last_review_s is None


def test_an_approval_whose_swap_was_refused_is_taken_back(chain: LocalChain, tmp_path: Path) -> None:
    """The market moves while the approval is mined: the second plan is refused, or holds, and nothing may stay approved."""
    drifted(chain)
    sent: list[str] = []

    def progress(event: str) -> None:
        sent.append(event)
        if event == "after:final" and sent.count("after:final") == 1:
            usd = chain.deployed_world.prices_usd
            chain.move_market({"WETH": usd["WETH"] / 2})

    with agent_on(chain, tmp_path, targets=TWO, changes=ROOMY) as agent:
        outcome = agent.rebalance(send=True, confirm=yes, progress=progress)
        assert outcome.kind is not OutcomeKind.DONE
        assert set(allowances(chain).values()) == {0}


def test_allowance_found_at_rest__is_taken_back_unless_paused(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 45_000, "USDC": 45_000})
    router = chain.addresses.swap_router_02
    chain.token_contract("WETH").functions.approve(router, 10**18).transact({"from": chain.wallet.address})
    with agent_on(chain, tmp_path, targets=TWO, changes=ROOMY) as agent:
        agent.context.kill_switch.pause("test", 1)
        assert agent.rebalance(send=True, confirm=yes).transactions == ()
        assert allowances(chain)["WETH"] == 10**18
        agent.context.kill_switch.resume("test", 2)
        assert agent.rebalance().transactions == ()
        assert agent.rebalance(send=True).transactions == ()
        assert allowances(chain)["WETH"] == 10**18
        outcome = require_rebalance(agent, OutcomeKind.HOLD)
        assert [mentions(intent.note, "allowance", "WETH", "zero") for intent in outcome.transactions] == [True]
        assert allowances(chain)["WETH"] == 0
