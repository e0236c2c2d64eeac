"""Recorded steps of a live agent, and paper beside the real thing: the same decisions, and fills to the wei of what contracts pay."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.app.paper import open_paper
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState, Plan, Receipt
from tests.support.agents import FIVE, Changes, explain_balances, fund, purse, reopened_agent, trusted_config, yes

HELD = {symbol: Fraction(share.rstrip("%")) * 900 for symbol, share in FIVE.items()}
"""On target, 90,000 dollars in all."""
ONE = {"chain.confirmations": 1}
NATIVE = {"portfolio.assets.0.address": "native"}


def move_price_of(chain: LocalChain, symbol: str, factor: Fraction) -> None:
    """The price of one token changes, in pools and feeds."""
    chain.move_market({symbol: chain.deployed_world.prices_usd[symbol] * factor})


def swapped(outcome: StepOutcome) -> tuple[Plan, Receipt]:
    """Plan and receipt of the one swap."""
    assert outcome.kind is OutcomeKind.DONE, outcome.reason
    (swap,) = [intent for intent in outcome.transactions if intent.kind is IntentKind.SWAP]
    assert outcome.plan is not None
    assert swap.receipt is not None
    return outcome.plan, swap.receipt


def decision_and_reason(outcome: StepOutcome) -> tuple[str, str]:
    """What was decided, and why."""
    return type(outcome.decision).__name__, outcome.decision_result.decision.reason


@pytest.mark.slow
def test_replay_gives_the_decisions_that_the_live_agent_took(chain: LocalChain, tmp_path: Path) -> None:
    """Holds, three trades with their approvals, a halt, and what follows it."""
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, {**ONE, "record": {"dir": "steps"}, "limits.daily_turnover": "off", "policy.cooldown": "0s"})
    kinds = []

    def look(agent: Agent) -> None:
        kinds.append(agent.rebalance(send=True, confirm=yes).kind)

    with reopened_agent(chain, loaded) as agent:
        for symbol, factor in (("WBTC", Fraction(11, 8)), ("LINK", Fraction(3, 4)), ("WBTC", Fraction(3, 4))):
            look(agent)
            move_price_of(chain, symbol, factor)
            look(agent)
        chain.set_balance("LINK", 2 * chain.balance("LINK"))
        look(agent)
        explain_balances(agent)
        look(agent)
        taken = [(line.id, line.decision, line.reason) for line in reversed(agent.context.store.steps.newest(100))]
    assert len(taken) >= 10
    assert {OutcomeKind.DONE, OutcomeKind.HOLD, OutcomeKind.HALT} <= set(kinds)
    document = api.replay(tmp_path / "steps")
    assert [(step["step"], step["decision"], step["reason"]) for step in document["steps"]] == taken
    assert {step["result"] for step in document["steps"]} == {"same"}, document["steps"]
    assert (document["exit"], document["same"]) == (0, len(taken))


@pytest.mark.parametrize("changes", [pytest.param({}, id="tokens", marks=pytest.mark.slow), pytest.param(NATIVE, id="native coin")])
def test_paper__decides_as_live_and_fills_as_the_contracts_pay(chain: LocalChain, tmp_path: Path, changes: Changes) -> None:
    """Both see the same blocks; then the live one trades, the blocks are taken back, and paper trades on the same pools."""
    fund(chain, HELD)
    chain.node.set_native(chain.wallet.address, (10 if changes else 1) * 10**18)
    chain.set_balance("WETH", 0 if changes else 9 * 10**18)
    loaded = trusted_config(chain, tmp_path, {**ONE, **changes, "limits.native_floor": "0.5", "portfolio.max_live_value": "off"})
    with reopened_agent(chain, loaded) as live, open_paper(loaded, clock=chain.clock, transports=[chain.transport]) as paper:
        for symbol, factor in (("WBTC", Fraction(51, 50)), ("LINK", Fraction(49, 50)), ("WETH", Fraction(11, 8))):
            assert decision_and_reason(paper.plan()) == decision_and_reason(live.plan())
            move_price_of(chain, symbol, factor)
        before = purse(chain)
        mark = chain.snapshot()
        plan, receipt = swapped(live.rebalance(send=True, confirm=yes))
        had = purse(chain)
        chain.revert(mark)
        same, filled = swapped(paper.rebalance(send=True, confirm=api.always_confirm))
        assert purse(chain) == before, "paper touched the real wallet"
        assert same.legs == plan.legs
        assert (filled.transfers, filled.wrap_transfers) == (receipt.transfers, receipt.wrap_transfers)
        assert bool(filled.wrap_transfers) == bool(changes), "native coin is wrapped on the way"
        assert filled.gas_used == plan.gas_units >= receipt.gas_used
        snapshot = paper.step_input().snapshot
        raw_by_token = {holding.token: holding.raw for holding in snapshot.holdings}
        assert {symbol: raw_by_token[token.address] for symbol, token in chain.tokens.items() if token.address in raw_by_token} == {
            symbol: raw for symbol, raw in had.raw.items() if chain.tokens[symbol].address in raw_by_token
        }
        assert snapshot.nonce_latest == had.nonce


class ProcessKilled(Exception):
    """The process is gone."""


@pytest.mark.parametrize("moment", ["before:send", "after:send"])
def test_a_killed_paper_process_fills_what_it_sent_once(chain: LocalChain, tmp_path: Path, moment: str) -> None:
    fund(chain, {"WETH": 8_000, "USDC": 2_000})
    halves = {"WETH": "50%", "USDC": "50%"}
    loaded = trusted_config(chain, tmp_path, ONE, halves)
    event_count = 0

    def dies(event: str) -> None:
        nonlocal event_count
        event_count += event == moment
        if event == moment and event_count == 2:  # the swap, after its approval
            raise ProcessKilled

    with open_paper(loaded, clock=chain.clock, transports=[chain.transport]) as paper, pytest.raises(ProcessKilled):
        paper.rebalance(send=True, confirm=api.always_confirm, progress=dies)
    with open_paper(loaded, clock=chain.clock, transports=[chain.transport]) as paper:
        assert paper.rebalance(send=True, confirm=api.always_confirm).kind is OutcomeKind.HOLD
        swaps = [intent for intent in paper.context.store.journal.intents() if intent.kind is IntentKind.SWAP]
        assert [intent.state for intent in swaps] == [IntentState.FINAL]
        assert {drift: abs(bps) <= 10 for drift, bps in paper.drifts(paper.step_input()).items()} == dict.fromkeys(halves, True)
        assert paper.step_input().history.ledger_mismatch == "", "ledger and paper wallet agree"
