"""Exact bounds of a submission and of its replacements: gas, fees, deadlines, depths, and what a cancel may cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.errors import OperatorNeeded, Refused, Retryable, UnsendableTransaction
from agent.execution.submission.checks import only_undoes, require_before_deadline
from agent.execution.submission.replacement import cancel_transaction, with_bumped_fees
from agent.execution.submission.submitter import Submitter
from agent.model import Head, IntentKind, IntentState, UnsignedTx
from agent.ports import Grant, Simulation
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, GWEI, OTHER, START_S, WALLET, Bench, bench, grant, patient, tx, when_sent

REVOCATION = replace(grant(IntentKind.APPROVE), approval_terms=(OTHER, WALLET, 0))
CANCEL = grant(IntentKind.CANCEL)


def head(base_fee_wei: int | None = GWEI) -> Head:
    return Head(CHAIN_ID, 5, "0x" + "11" * 32, START_S, base_fee_wei)


def submitter(folder: Path, **simulated: Any) -> Submitter:
    """Return a submitter whose node answers every simulation with these fields."""
    setup = bench(folder)
    simulation = replace(Simulation(True, "", 60_000, head()), **simulated)
    node: Any = SimpleNamespace(simulate=lambda _tx, _sender: simulation)
    return Submitter(setup.store.journal, setup.store.budgets, setup.signer, node, setup.clock, setup.settings, lambda: setup.paused)


def test_deadline_refuses_from_its_second_on() -> None:
    require_before_deadline(START_S - 1, START_S)

    with pytest.raises(Refused) as refusal:
        require_before_deadline(START_S, START_S)
    assert [verdict.guard for verdict in refusal.value.verdicts] == ["deadline"]


@pytest.mark.parametrize(
    ("granted", "undoes"),
    [
        pytest.param(CANCEL, True, id="cancel"),
        pytest.param(REVOCATION, True, id="allowance of zero"),
        pytest.param(replace(REVOCATION, approval_terms=(OTHER, WALLET, 1)), False, id="allowance of one"),
        pytest.param(replace(REVOCATION, approval_terms=None), False, id="no terms"),
        pytest.param(replace(REVOCATION, kind=IntentKind.SWAP), False, id="swap"),
    ],
)
def test_a_cancel_and_an_allowance_of_zero_alone_undo(granted: Grant, undoes: bool) -> None:
    assert only_undoes(granted) is undoes


def test_a_simulation_may_use_exactly_the_gas_of_the_transaction(tmp_path: Path) -> None:
    assert submitter(tmp_path, gas=100_000).simulate(tx(0), None, grant()).gas == tx(0).gas


def test_simulation_with_one_gas_more_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsendableTransaction) as refusal:
        submitter(tmp_path, gas=100_001).simulate(tx(0), None, grant())
    assert [verdict.guard for verdict in refusal.value.verdicts] == ["gas"]


def test_a_transaction_whose_gas_is_not_chosen_yet_may_use_any(tmp_path: Path) -> None:
    assert submitter(tmp_path, gas=1).simulate(replace(tx(0), gas=0), None, grant()).gas == 1


def test_a_node_of_another_chain_needs_the_operator(tmp_path: Path) -> None:
    with raises_code(OperatorNeeded, "chain", CHAIN_ID + 1, CHAIN_ID):
        submitter(tmp_path, head=replace(head(), chain_id=CHAIN_ID + 1)).simulate(tx(0), None, CANCEL)


@pytest.mark.parametrize("granted", [CANCEL, REVOCATION])
def test_unlevel_endpoints_hold_up_no_transaction_that_undoes(tmp_path: Path, granted: Grant) -> None:
    assert submitter(tmp_path, height_disagreement="apart").simulate(tx(0), None, granted).ok


def test_unlevel_endpoints_hold_up_a_swap(tmp_path: Path) -> None:
    with raises_code(Retryable, "lag"):
        submitter(tmp_path, height_disagreement="apart").simulate(tx(0), None, grant())


@pytest.mark.parametrize(("reverted", "kind"), [(True, UnsendableTransaction), (False, Refused)], ids=["revert", "no answer"])
def test_only_a_revert_makes_a_transaction_unsendable(tmp_path: Path, reverted: bool, kind: type[Refused]) -> None:
    with pytest.raises(Refused) as refusal:
        submitter(tmp_path, ok=False, reason="why", reverted=reverted).simulate(tx(0), None, grant())
    assert type(refusal.value) is kind


def test_a_data_fee_up_to_the_granted_one_is_paid(tmp_path: Path) -> None:
    granted = replace(grant(), max_data_fee_wei=7)

    assert submitter(tmp_path, data_fee_wei=7).simulate(tx(0), None, granted).data_fee_wei == 7


def test_a_data_fee_one_wei_above_the_granted_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refusal:
        submitter(tmp_path, data_fee_wei=8).simulate(tx(0), None, replace(grant(), max_data_fee_wei=7))
    assert [verdict.guard for verdict in refusal.value.verdicts] == ["data_fee"]


def mined_with(setup: Bench, gas_price_wei: int) -> Callable[[], object]:
    """Return a look for the mined transaction of a setup, whose receipt has this gas price."""
    setup.chain.gas_used = 100_000
    setup.chain.gas_price_wei = gas_price_wei
    return setup.run


def test_a_receipt_may_cost_all_that_was_signed_for(tmp_path: Path) -> None:
    assert mined_with(bench(tmp_path), 10 * GWEI)().state is IntentState.FINAL  # type: ignore[attr-defined]


def test_receipt_above_the_signed_cost_is_not_believed(tmp_path: Path) -> None:
    with raises_code(Retryable, "answer", 100_000 * (10 * GWEI + 1)):
        mined_with(bench(tmp_path), 10 * GWEI + 1)()


def fees(max_fee_wei: int, tip_wei: int = 8) -> UnsignedTx:
    return replace(tx(0), max_fee_wei=max_fee_wei, max_priority_fee_wei=tip_wei)


@pytest.mark.parametrize(("paid_wei", "bumped_wei"), [(80, 90), (81, 92), (1, 2)])
def test_each_fee_of_a_bump_rises_by_an_eighth_rounded_up(paid_wei: int, bumped_wei: int) -> None:
    legacy = replace(tx(0), max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=paid_wei)

    bumped = with_bumped_fees(fees(paid_wei, paid_wei), head(None), None)

    assert (bumped.max_fee_wei, bumped.max_priority_fee_wei, bumped.gas_price_wei) == (bumped_wei, bumped_wei, None)
    assert with_bumped_fees(legacy, head(None), None) == replace(legacy, gas_price_wei=bumped_wei)


def test_a_bump_covers_five_full_blocks_and_its_tip() -> None:
    assert with_bumped_fees(fees(80), head(100), None).max_fee_wei == 2 * 100 + 9


@pytest.mark.parametrize(
    ("limit_wei", "aim_wei", "bumped_wei"),
    [(150, 120, 120), (120, 150, 120), (150, None, 150), (150, 40, 90)],
    ids=["gas money is lower", "limit is lower", "no gas money", "an eighth is higher"],
)
def test_bump_aims_at_the_lower_cap_and_an_eighth_at_least(limit_wei: int, aim_wei: int | None, bumped_wei: int) -> None:
    assert with_bumped_fees(fees(80), head(100), limit_wei, aim_wei).max_fee_wei == bumped_wei


@pytest.mark.parametrize(
    ("base_fee_wei", "limit_wei"), [(1, 90), (100, 100)], ids=["an eighth more is the limit", "the base fee is the limit"]
)
def test_bump_is_sent_at_the_limit_and_refused_a_wei_above(base_fee_wei: int, limit_wei: int) -> None:
    assert with_bumped_fees(fees(80), head(base_fee_wei), limit_wei).max_fee_wei == limit_wei

    with raises_code(Refused, "gas_price"):
        with_bumped_fees(fees(80), head(base_fee_wei), limit_wei - 1)


def test_a_cancel_sends_nothing_to_the_wallet_itself() -> None:
    cancel = cancel_transaction(replace(tx(4), value_wei=5), WALLET, head(), None)

    assert (cancel.to, cancel.value_wei, cancel.data, cancel.gas, cancel.nonce) == (WALLET, 0, "0x", 0, 4)


@pytest.mark.parametrize(("estimated", "gas"), [(17_499, 21_000), (17_500, 21_000), (17_505, 21_006), (21_000, 25_200)])
def test_cancel_gas_is_a_fifth_more_and_a_transfer_at_least(tmp_path: Path, estimated: int, gas: int) -> None:
    setup = patient(tmp_path)
    simulate = setup.chain.simulate

    def estimate(unsigned: UnsignedTx, sender: str) -> Simulation:
        simulation = simulate(unsigned, sender)
        return replace(simulation, gas=estimated) if unsigned.data == "0x" else simulation

    setup.chain.simulate = estimate  # type: ignore[method-assign]

    def spoil_or_mine() -> None:
        setup.chain.simulation = "execution reverted"
        if len(setup.chain.sent) > 1:
            setup.chain.mine(setup.chain.sent[-1])

    when_sent(setup, 1, spoil_or_mine)
    setup.run()

    cancels = [intent for intent in setup.store.journal.intents() if intent.kind is IntentKind.CANCEL]

    assert [intent.tx.gas for intent in cancels] == [gas]


@pytest.mark.parametrize("granted", [CANCEL, REVOCATION])
def test_switch_not_known_to_be_hard_lets_nothing_out(setup: Bench, granted: Grant) -> None:
    paused = Submitter(setup.store.journal, setup.store.budgets, setup.signer, setup.chain, setup.clock, setup.settings, lambda: True)

    with pytest.raises(Refused) as refusal:
        paused.require_running(granted)
    assert [verdict.guard for verdict in refusal.value.verdicts] == ["kill_switch"]
