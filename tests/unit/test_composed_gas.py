"""How much gas a transaction carries: by the node's estimate, and never less than its plan counts with."""

from __future__ import annotations

from agent.planning import strategies
from agent.venues.composer import GAS_MARGIN, RouterComposer
from tests.builders import NOW_S, OWNER, step_input
from tests.scripted import ManualClock, ScriptedChain


def test_an_estimate_of_a_second_in_which_a_pair_was_traded_does_not_starve_the_swap() -> None:
    step = step_input(values={"WETH": 7_000, "USDC": 3_000})
    plan = strategies.rebalance(step).plan
    assert plan is not None
    chain, clock = ScriptedChain(timestamp_s=NOW_S, base_nonce=step.snapshot.nonce_latest), ManualClock()
    clock.now = NOW_S
    composed = RouterComposer(chain, OWNER, clock).swap(step, plan)
    assert chain.simulate(composed.tx, OWNER).gas < plan.gas_units
    assert composed.tx.gas == int(plan.gas_units * GAS_MARGIN)
