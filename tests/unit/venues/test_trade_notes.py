"""The title of a trade: why, in short, and which tokens it sells and buys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.model import Rebalance
from agent.planning import proposals
from agent.venues.composer import RouterComposer
from tests.support.builders import NOW_S, OWNER, step_input
from tests.support.fakes.clock import FakeClock
from tests.support.transactions import ScriptedChain

RISEN = {"WETH": 7_000, "USDC": 3_000}
FALLEN = {"WETH": 3_000, "USDC": 7_000}
STOP = "stop_loss of WETH at 2,700.00 USDC fired at 2,650.00 USDC (2026-12-01 02:36:19 UTC): all of it is sold"


@pytest.mark.parametrize(
    ("values", "reason", "marks", "beginning", "end"),
    [
        pytest.param(RISEN, "WETH at 70 % is above its band", {}, "rebalance: sell 0.", " WETH for USDC", id="rebalance that sells"),
        pytest.param(FALLEN, "first rebalance; WETH at 30 %", {}, "rebalance: buy WETH with 1", " USDC", id="rebalance that buys"),
        pytest.param(RISEN, STOP, {"is_exit": True}, STOP.partition(": ")[0] + ": sell 0.", " WETH for USDC", id="stop loss"),
        pytest.param(
            RISEN,
            "raise USDC for a withdrawal, part 2 of about 3",
            {"is_exit": True},
            "raise USDC for a withdrawal: sell 0.",
            " WETH for USDC",
            id="withdrawal",
        ),
        pytest.param(FALLEN, "invest the deposit", {"by_owner": True}, "invest the deposit: buy WETH with ", " USDC", id="deposit"),
        pytest.param(RISEN, "manual swap of 0.5 WETH", {"by_hand": True}, "sell 0.", " WETH for USDC", id="manual swap"),
    ],
)
def test_trade_note__says_why_and_which_tokens_it_trades(
    values: dict[str, int], reason: str, marks: dict[str, bool], beginning: str, end: str
) -> None:
    step = step_input(values=values)
    plan = proposals.propose_rebalance(step).plan
    assert plan is not None
    assert isinstance(plan.decision, Rebalance)
    plan = replace(plan, decision=replace(plan.decision, reason=reason, **marks))
    clock = FakeClock()
    clock.time_s = NOW_S
    chain = ScriptedChain(timestamp_s=NOW_S, base_nonce=step.snapshot.nonce_latest)
    note = RouterComposer(chain, OWNER, clock).swap_transaction(step, plan).note
    assert (note[: len(beginning)], note[-len(end) :]) == (beginning, end)
