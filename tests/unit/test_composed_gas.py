"""How much gas a transaction carries: by the node's estimate, and never less than its plan counts with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.errors import UnsendableTransaction
from agent.model import DataFeeQuote, Rebalance, UnsignedTx
from agent.planning import proposals
from agent.ports import Approval, Simulation
from agent.venues.composer import GAS_MARGIN, MAX_APPROVAL_GAS, MAX_EXIT_GAS_MULTIPLE, RouterComposer
from tests.support.builders import NOW_S, OWNER, step_input, with_snapshot
from tests.support.text import raises_code
from tests.support.transactions import ManualClock, ScriptedChain

DEAR_DATA = DataFeeQuote(10**14, 10**16, is_charged_as_gas=True)
"""Data fee that is charged as gas while the base chain is congested."""


def test_an_estimate_of_a_second_in_which_a_pair_was_traded_does_not_starve_the_swap() -> None:
    step = step_input(values={"WETH": 7_000, "USDC": 3_000})
    plan = proposals.propose_rebalance(step).plan
    assert plan is not None
    chain, clock = ScriptedChain(timestamp_s=NOW_S, base_nonce=step.snapshot.nonce_latest), ManualClock()
    clock.now = NOW_S
    composed = RouterComposer(chain, OWNER, clock).swap_transaction(step, plan)
    assert chain.simulate(composed.tx, OWNER).gas < plan.gas_units
    assert composed.tx.gas == int(plan.gas_units * GAS_MARGIN)


def test_an_approval_that_burns_gas_is_refused_before_it_eats_the_days_gas() -> None:
    class Burns(ScriptedChain):
        gas = 60_000

        def simulate(self, unsigned: UnsignedTx, sender: str) -> Simulation:
            return replace(super().simulate(unsigned, sender), gas=self.gas)

    step = step_input(values={"WETH": 7_000, "USDC": 3_000})
    chain, clock = Burns(timestamp_s=NOW_S, base_nonce=step.snapshot.nonce_latest), ManualClock()
    clock.now = NOW_S
    approval = Approval(step.portfolio.numeraire.address, step.execution.router, 5, "USDC", "router")
    assert RouterComposer(chain, OWNER, clock).approval_transaction(step, approval).tx.gas == 75_000
    chain.gas = MAX_APPROVAL_GAS
    with raises_code(UnsendableTransaction, "gas", "625000"):
        RouterComposer(chain, OWNER, clock).approval_transaction(step, approval)
    with raises_code(UnsendableTransaction, "gas", "625000"):
        RouterComposer(chain, OWNER, clock).approval_transaction(
            with_snapshot(step, data_fee=replace(DEAR_DATA, is_charged_as_gas=False)), approval
        )
    assert RouterComposer(chain, OWNER, clock).approval_transaction(with_snapshot(step, data_fee=DEAR_DATA), approval).tx.gas == 625_000


@pytest.mark.parametrize("exit_", [False, True])
def test_an_exit_whose_token_burns_gas_is_refused_before_it_eats_the_days_gas(exit_: bool) -> None:
    class Burns(ScriptedChain):
        gas = 0

        def simulate(self, unsigned: UnsignedTx, sender: str) -> Simulation:
            return replace(super().simulate(unsigned, sender), gas=self.gas)

    step = step_input(values={"WETH": 7_000, "USDC": 3_000})
    plan = proposals.propose_rebalance(step).plan
    assert plan is not None
    assert isinstance(plan.decision, Rebalance)
    plan = replace(plan, decision=replace(plan.decision, is_exit=exit_))
    chain, clock = Burns(timestamp_s=NOW_S, base_nonce=step.snapshot.nonce_latest), ManualClock()
    clock.now, chain.gas = NOW_S, MAX_EXIT_GAS_MULTIPLE * plan.gas_units
    assert RouterComposer(chain, OWNER, clock).swap_transaction(step, plan).tx.gas == chain.gas * GAS_MARGIN
    chain.gas += 1
    assert RouterComposer(chain, OWNER, clock).swap_transaction(with_snapshot(step, data_fee=DEAR_DATA), plan).tx.gas > chain.gas
    if exit_:
        with raises_code(UnsendableTransaction, "gas", str(chain.gas)):
            RouterComposer(chain, OWNER, clock).swap_transaction(step, plan)
    else:
        assert RouterComposer(chain, OWNER, clock).swap_transaction(step, plan).tx.gas > chain.gas
