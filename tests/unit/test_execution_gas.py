"""What a replacement may cost: the ceiling, a multiple of the first gas money, what a day may burn, the base fee of now (T7)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.errors import OperatorNeeded, Refused, Retryable
from agent.execution.reconcile import MAX_GAS_MULTIPLE, RESERVED_BUMPS, TxReplacer
from agent.model import IntentKind, IntentState
from agent.signing.terms import BUMP_DENOMINATOR, BUMP_NUMERATOR
from tests.support.text import raises_code
from tests.support.transactions import GWEI, START_S, grant, killed_at, patient, require_dearer, states, tx, when_sent

S = IntentState


def test_bumps_leave_room_for_a_cancel_and_its_bump_and_nothing_goes_above_the_ceiling(tmp_path: Path) -> None:
    ceiling = 20 * GWEI
    made = patient(tmp_path, max_fee_wei=ceiling, mined_timeout_s=40)
    with raises_code(Retryable, "not_mined"):
        made.run()
    intents = list(reversed(made.store.journal.intents()))
    kinds = [intent.kind for intent in intents]
    bumps, cancels = kinds.count(IntentKind.SWAP), kinds.count(IntentKind.CANCEL)
    assert kinds == [IntentKind.SWAP] * bumps + [IntentKind.CANCEL] * cancels
    assert bumps > 2
    assert cancels >= RESERVED_BUMPS
    require_dearer(intents)
    assert max(intent.tx.max_fee_wei for intent in intents) <= ceiling
    assert any("the limit" in event.text for event in made.events)
    made.chain.mine(made.chain.sent[-1])
    made.executor().reconcile()
    assert states(made) == [("swap", "cancelled")] * bumps + [("cancel", "cancelled")] * (cancels - 1) + [("cancel", "final")]


def test_without_a_ceiling_gas_money_still_ends_at_a_multiple_of_the_first(tmp_path: Path) -> None:
    made = patient(tmp_path, max_fee_wei=None, mined_timeout_s=59)
    first_wei = 100_000 * 10 * GWEI
    made.store.steps.begin("s", START_S, "{}")
    granted = replace(grant(), max_gas_wei=first_wei)
    with pytest.raises(Retryable):
        made.executor().run("s", IntentKind.SWAP, tx(0), granted, "swap")
    swaps = [intent for intent in made.store.journal.intents() if intent.kind is IntentKind.SWAP]
    assert max(intent.tx.gas * intent.tx.max_fee_wei for intent in swaps) <= MAX_GAS_MULTIPLE * first_wei
    assert len(swaps) == 12  # 1.125 ** 11 is below four, 1.125 ** 12 above
    assert all(
        made.store.journal.grant(intent.id).max_gas_wei >= intent.tx.gas * intent.tx.max_fee_wei for intent in made.store.journal.intents()
    )


@pytest.mark.parametrize("is_booked", [True, False])
def test_what_a_day_may_burn_bounds_bumps_and_a_cancel_that_risks_no_more_still_goes(tmp_path: Path, is_booked: bool) -> None:
    """Gas that is mined and not booked yet counts like booked gas."""
    made = patient(tmp_path, gas_per_day_wei=100_000 * 12 * GWEI)
    earlier = made.store
    made.chain.automine = True
    done = made.run(0)
    assert done.receipt is not None
    assert done.receipt.gas_cost_wei == 100_000 * GWEI
    if is_booked:
        earlier.budgets.book_intent(done, Fraction(0), Fraction(0), done.receipt.gas_cost_wei, START_S)
    made.chain.automine = False
    when_sent(made, 3, lambda: made.chain.mine(made.chain.sent[2]))
    assert made.run(1).state is S.CANCELLED
    cancel, original = made.store.journal.intents()[:2]
    assert "limits.gas_per_day" in cancel.note  # 1 burnt, and 11.25 more
    assert cancel.tx.gas * cancel.tx.max_fee_wei < original.tx.gas * original.tx.max_fee_wei


def test_the_data_fee_counts_in_what_a_day_may_burn(tmp_path: Path) -> None:
    def bumps(data_fee_wei: int | None) -> int:
        folder = tmp_path / str(data_fee_wei)
        folder.mkdir()
        made = patient(folder, gas_per_day_wei=100_000 * 12 * GWEI, mined_timeout_s=40)
        made.store.steps.begin("s", START_S, "{}")
        with pytest.raises(Retryable):
            made.executor().run("s", IntentKind.SWAP, tx(0), replace(grant(), max_data_fee_wei=data_fee_wei), "swap")
        return len([intent for intent in made.store.journal.intents() if intent.kind is IntentKind.SWAP])

    assert bumps(None) == bumps(0) == 2
    assert bumps(100_000 * GWEI) == 1  # 11.25 for the bump, and 1 for its data


def test_a_base_fee_above_the_ceiling_is_waited_out(tmp_path: Path) -> None:
    made = patient(tmp_path, mined_timeout_s=10)

    def spike() -> None:
        made.chain.base_fee_wei = 1000 * GWEI

    made.clock.each = spike
    with pytest.raises(Retryable):
        made.run()
    assert len(made.chain.sent) == 1
    made.chain.base_fee_wei = GWEI
    when_sent(made, 2, lambda: made.chain.mine(made.chain.sent[1]))
    made.executor().reconcile()
    assert states(made) == [("swap", "replaced"), ("swap", "final")]


def test_a_bump_goes_at_once_to_what_the_base_fee_asks_by_now(tmp_path: Path) -> None:
    made = patient(tmp_path)

    def dear() -> None:
        made.chain.base_fee_wei = 30 * GWEI
        if len(made.chain.sent) == 2:
            made.chain.mine(made.chain.sent[1])

    made.clock.each = dear
    assert made.run().tx.max_fee_wei == 2 * 30 * GWEI + GWEI * BUMP_NUMERATOR // BUMP_DENOMINATOR


def test_a_lost_transaction_that_is_too_cheap_by_now_goes_out_for_more(tmp_path: Path) -> None:
    made = patient(tmp_path)
    made.chain.lose = True
    killed_at(made, "after:send")
    made.chain.lose = False
    made.chain.base_fee_wei = 30 * GWEI
    when_sent(made, 2, made.chain.mine)
    made.executor().reconcile()
    assert states(made) == [("swap", "replaced"), ("swap", "final")]


def test_a_cancel_that_cannot_be_paid_for_is_told_to_the_operator(tmp_path: Path) -> None:
    made = patient(tmp_path)
    simulate = made.chain.simulate
    made.chain.simulate = lambda unsigned, sender: (
        replace(simulate(unsigned, sender), ok=False, reason="insufficient funds") if made.chain.sent else simulate(unsigned, sender)
    )
    with raises_code(OperatorNeeded, "cannot_cancel"):
        made.run()
    assert len(made.chain.sent) == 1


def test_hurrying_by_hand_says_why_nothing_may_be_sent(tmp_path: Path) -> None:
    made = patient(tmp_path, max_fee_wei=10 * GWEI)
    killed_at(made, "after:send")
    executor = made.executor()
    with raises_code(Refused, "gas_price"):
        TxReplacer(executor._submitter).bump_or_cancel(0)
    assert len(made.chain.sent) == 1


def test_a_bump_aims_no_higher_than_its_gas_money_allows(tmp_path: Path) -> None:
    made = patient(tmp_path, max_fee_wei=None)
    first_wei = 100_000 * 10 * GWEI
    made.store.steps.begin("s", START_S, "{}")

    def dear() -> None:
        made.chain.base_fee_wei = 25 * GWEI  # twice that would be more than four times the first
        if len(made.chain.sent) == 2:
            made.chain.mine(made.chain.sent[1])

    made.clock.each = dear
    ended = made.executor().run("s", IntentKind.SWAP, tx(0), replace(grant(), max_gas_wei=first_wei), "swap")
    assert (ended.kind, ended.state) == (IntentKind.SWAP, S.FINAL)
    assert ended.tx.max_fee_wei == MAX_GAS_MULTIPLE * 10 * GWEI
