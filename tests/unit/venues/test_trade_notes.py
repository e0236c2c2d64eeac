"""The title of a trade: why, in short, and which tokens it sells and buys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.model import Payment, PendingPayment, Rebalance, StepInput
from agent.planning import proposals, requests
from agent.planning.proposals import Proposer
from agent.policy.cash_flows import transfers
from agent.venues.composer import RouterComposer
from tests.support.builders import NOW_S, OWNER, step_input, with_limits
from tests.support.decisions.exits import MARKET, SOUND, step_with_stops
from tests.support.fakes.clock import FakeClock
from tests.support.tokens import USDC, WETH
from tests.support.transactions import ScriptedChain

RISEN = {"WETH": 7_000, "USDC": 3_000}
FALLEN = {"WETH": 3_000, "USDC": 7_000}
STOP = "stop_loss of WETH at 2,700.00 USDC fired at 2,650.00 USDC (2026-12-01 02:36:19 UTC)"


@pytest.mark.parametrize(
    ("values", "decision_fields", "beginning", "end"),
    [
        pytest.param(RISEN, {}, "rebalance: sell 0.", " WETH for USDC", id="rebalance that sells"),
        pytest.param(FALLEN, {"reason": "first rebalance; WETH at 30 %"}, "rebalance: buy WETH with 1", " USDC", id="rebalance that buys"),
        pytest.param(RISEN, {"is_exit": True, "title": STOP}, f"{STOP}: sell 0.", " WETH for USDC", id="stop loss"),
        pytest.param(
            FALLEN,
            {"by_owner": True, "title": "invest A, B: C; D", "reason": "another"},
            "invest A, B: C; D: buy WETH with ",
            " USDC",
            id="punctuation of the title",
        ),
        pytest.param(RISEN, {"by_hand": True}, "sell 0.", " WETH for USDC", id="manual swap"),
    ],
)
def test_trade_note__says_why_and_which_tokens_it_trades(
    values: dict[str, int], decision_fields: dict[str, Any], beginning: str, end: str
) -> None:
    step = step_input(values=values)
    plan = proposals.propose_rebalance(step).plan
    assert plan is not None
    assert isinstance(plan.decision, Rebalance)
    plan = replace(plan, decision=replace(plan.decision, **decision_fields))
    clock = FakeClock()
    clock.time_s = NOW_S
    chain = ScriptedChain(timestamp_s=NOW_S, base_nonce=step.snapshot.nonce_latest)
    note = RouterComposer(chain, OWNER, clock).swap_transaction(step, plan).note
    assert (note[: len(beginning)], note[-len(end) :]) == (beginning, end)


CLAIM = PendingPayment(0, Payment(USDC.address, 4_000_000_000))


@pytest.mark.parametrize(
    ("step", "propose", "title"),
    [
        pytest.param(step_input(values=RISEN), requests.sell_out_proposer(WETH.address), "sell all WETH", id="one token"),
        pytest.param(step_input(values=RISEN), requests.propose_selling_everything, "sell everything for the numeraire", id="stop"),
        pytest.param(step_input(values=RISEN), requests.rebalance_to_targets, "the transition to these targets", id="edit"),
        pytest.param(step_input(values=FALLEN), requests.invest_proposer({USDC.address: 10**9}), "invest the deposit", id="deposit"),
        pytest.param(
            transfers.reserve_claims(with_limits(step_input(values=RISEN), plan_cost_bps=1_000), (CLAIM,)),
            requests.raise_money_proposer(USDC.address),
            "raise USDC for a withdrawal",
            id="withdrawal",
        ),
        pytest.param(
            step_with_stops("LINK", pools=(*MARKET, SOUND)),
            proposals.propose_rebalance,
            "stop_loss of LINK at 1.00000 USDC fired at 10.0000 USDC (1970-01-01 00:00:01 UTC)",
            id="stop loss",
        ),
        pytest.param(step_input(values=RISEN), proposals.propose_rebalance, "rebalance", id="trigger"),
    ],
)
def test_decision_to_trade__has_a_title(step: StepInput, propose: Proposer, title: str) -> None:
    decision = propose(step).decision_result.decision
    assert isinstance(decision, Rebalance)
    assert decision.title == title
