"""How much gas a transaction carries: by the node's estimate, and never less than its plan counts with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.errors import Refused, UnsendableTransaction
from agent.model import DataFeeQuote, Rebalance, StepInput, UnsignedTx
from agent.planning import proposals
from agent.ports import Approval, PreparedTransaction, Simulation
from agent.venues.composer import GAS_MARGIN, MAX_APPROVAL_GAS, MAX_EXIT_GAS_MULTIPLE, RouterComposer
from tests.support.builders import NOW_S, OWNER, step_input, with_history, with_limits, with_snapshot
from tests.support.fakes.clock import FakeClock
from tests.support.text import raises_code
from tests.support.transactions import ScriptedChain

DEAR_DATA = DataFeeQuote(10**14, 10**16, is_charged_as_gas=True)
"""Data fee that is charged as gas while the base chain is congested."""


def test_second_s_estimate__does_not_starve_the_swap() -> None:
    step = step_input(values={"WETH": 7_000, "USDC": 3_000})
    plan = proposals.propose_rebalance(step).plan
    chain = ScriptedChain(timestamp_s=NOW_S, base_nonce=step.snapshot.nonce_latest)
    clock = FakeClock()
    clock.time_s = NOW_S
    composed = RouterComposer(chain, OWNER, clock).swap_transaction(step, plan)
    assert chain.simulate(composed.tx, OWNER).gas < plan.gas_units
    assert composed.tx.gas == int(plan.gas_units * GAS_MARGIN)


def test_gas_burning_approval__is_refused_before_it_costs() -> None:
    class Burns(ScriptedChain):
        gas = 60_000

        def simulate(self, unsigned: UnsignedTx, sender: str) -> Simulation:
            return replace(super().simulate(unsigned, sender), gas=self.gas)

    step = step_input(values={"WETH": 7_000, "USDC": 3_000})
    chain = Burns(timestamp_s=NOW_S, base_nonce=step.snapshot.nonce_latest)
    clock = FakeClock()
    clock.time_s = NOW_S
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
def test_gas_burning_exit__is_refused_before_it_costs(exit_: bool) -> None:
    class Burns(ScriptedChain):
        gas = 0

        def simulate(self, unsigned: UnsignedTx, sender: str) -> Simulation:
            return replace(super().simulate(unsigned, sender), gas=self.gas)

    step = step_input(values={"WETH": 7_000, "USDC": 3_000})
    plan = proposals.propose_rebalance(step).plan
    assert isinstance(plan.decision, Rebalance)
    plan = replace(plan, decision=replace(plan.decision, is_exit=exit_))
    chain = Burns(timestamp_s=NOW_S, base_nonce=step.snapshot.nonce_latest)
    clock = FakeClock()
    clock.time_s, chain.gas = NOW_S, MAX_EXIT_GAS_MULTIPLE * plan.gas_units
    assert RouterComposer(chain, OWNER, clock).swap_transaction(step, plan).tx.gas == chain.gas * GAS_MARGIN
    chain.gas += 1
    assert RouterComposer(chain, OWNER, clock).swap_transaction(with_snapshot(step, data_fee=DEAR_DATA), plan).tx.gas > chain.gas
    if exit_:
        with raises_code(UnsendableTransaction, "gas", str(chain.gas)):
            RouterComposer(chain, OWNER, clock).swap_transaction(step, plan)
    else:
        assert RouterComposer(chain, OWNER, clock).swap_transaction(step, plan).tx.gas > chain.gas


DATA = DataFeeQuote(10**14, 10**14)
"""The same data fee for each transaction, beside its gas."""


def composed_swap(step: StepInput, base_nonce: int | None = None) -> PreparedTransaction:
    plan = proposals.propose_rebalance(step).plan
    assert plan is not None
    chain = ScriptedChain(timestamp_s=NOW_S, base_nonce=step.snapshot.nonce_latest)
    clock = FakeClock()
    chain.base_nonce += 0 if base_nonce is None else base_nonce
    clock.time_s = NOW_S
    return RouterComposer(chain, OWNER, clock).swap_transaction(step, plan)


@pytest.mark.parametrize("spent_wei", [0, 10**15])
@pytest.mark.parametrize(("missing_wei", "granted_less_wei"), [(-1, 0), (0, 0), (1, 1), (10**30, None)])
def test_the_data_fee_is_taken_off_what_the_day_leaves_for_gas(spent_wei: int, missing_wei: int, granted_less_wei: int | None) -> None:
    step = with_snapshot(step_input(values={"WETH": 7_000, "USDC": 3_000}), data_fee=DATA)
    whole = composed_swap(with_limits(step, gas_per_day_wei=None))
    gas_wei = whole.grant.max_gas_wei
    data_fee_wei = whole.grant.max_data_fee_wei
    assert data_fee_wei is not None
    assert data_fee_wei > 0
    day_wei = max(0, spent_wei + gas_wei + data_fee_wei - missing_wei)
    limited = with_history(with_limits(step, gas_per_day_wei=day_wei), gas_24h_wei=spent_wei)
    granted_wei = composed_swap(limited).grant.max_gas_wei
    assert granted_wei == (0 if granted_less_wei is None else gas_wei - granted_less_wei)


def step_short_of(missing_wei: int) -> StepInput:
    """Return a step whose wallet lacks so much for a swap, its data fee and the native floor."""
    step = with_snapshot(step_input(values={"WETH": 7_000, "USDC": 3_000}), data_fee=DATA)
    grant = composed_swap(step).grant
    assert step.limits.native_floor_wei is not None
    return with_snapshot(step, native_wei=step.limits.native_floor_wei + grant.max_gas_wei + (grant.max_data_fee_wei or 0) - missing_wei)


def test_data_fee__up_to_what_exceeds_the_native_floor_is_paid() -> None:
    assert composed_swap(step_short_of(0)).tx.gas > 0


def test_data_fee__is_taken_off_what_exceeds_the_native_floor() -> None:
    with raises_code(Refused, "native_floor"):
        composed_swap(step_short_of(1))


@pytest.mark.parametrize("change", [-1, 1, 7])
def test_nonce_other_than_the_snapshot_s__composes_no_trade(change: int) -> None:
    """Above it another transaction was mined since, and the plan's balances are old; below it the endpoint lags."""
    step = with_snapshot(step_input(values={"WETH": 7_000, "USDC": 3_000}), nonce_latest=5, nonce_pending=5)
    assert composed_swap(step).tx.nonce == 5
    with raises_code(Refused, "nonce") as caught:
        composed_swap(step, change)
    assert [verdict.measured_text for verdict in caught.value.verdicts] == [str(5 + change)]
