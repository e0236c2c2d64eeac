"""What a replacement may cost: the ceiling, a multiple of the first gas money, what a day may burn, the base fee of now (T7)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.chain.sender import TipRefused
from agent.errors import OperatorNeeded, Refused, Retryable
from agent.execution import SubmissionEvent
from agent.execution.submission.replacement import MAX_GAS_MULTIPLE, MAX_TIP_RAISES, TxReplacer
from agent.model import IntentKind, IntentState, UnsignedTx
from agent.ports import Grant
from agent.signing.terms import BUMP_DENOMINATOR, BUMP_NUMERATOR
from agent.venues.gas_fees import RESERVED_BUMPS
from tests.support.signing import ESCAPE, futures_grant
from tests.support.text import raises_code
from tests.support.transactions import GWEI, START_S, Bench, Killed, grant, killed_at, patient, require_dearer, states, tx, when_sent

S = IntentState


def test_bumps_leave_room_for_a_cancel_below_the_ceiling(tmp_path: Path) -> None:
    ceiling = 20 * GWEI
    setup = patient(tmp_path, max_fee_wei=ceiling, mined_timeout_s=40)

    with raises_code(Retryable, "not_mined"):
        setup.run()
    intents = list(reversed(setup.store.journal.intents()))
    kinds = [intent.kind for intent in intents]
    bumps = kinds.count(IntentKind.SWAP)
    cancels = kinds.count(IntentKind.CANCEL)
    assert kinds == [IntentKind.SWAP] * bumps + [IntentKind.CANCEL] * cancels
    assert bumps > 2
    assert cancels >= RESERVED_BUMPS
    require_dearer(intents)
    assert max(intent.tx.max_fee_wei for intent in intents) <= ceiling
    assert any("the limit" in event.text for event in setup.events)
    setup.chain.mine(setup.chain.sent[-1])
    setup.executor().reconcile()
    assert states(setup) == [("swap", "cancelled")] * bumps + [("cancel", "cancelled")] * (cancels - 1) + [("cancel", "final")]


def test_bumps_without_a_ceiling_end_at_four_times_the_grant(tmp_path: Path) -> None:
    setup = patient(tmp_path, max_fee_wei=None, mined_timeout_s=59)
    first_wei = 100_000 * 10 * GWEI
    setup.store.steps.begin("s", START_S, "{}")
    granted = replace(grant(), max_gas_wei=first_wei)

    with raises_code(Retryable, "not_mined", "a resend would exceed the gas cost allowed for one transaction"):
        setup.executor().run("s", tx(0), granted, "swap")
    swaps = [intent for intent in setup.store.journal.intents() if intent.kind is IntentKind.SWAP]
    assert max(intent.tx.gas * intent.tx.max_fee_wei for intent in swaps) <= MAX_GAS_MULTIPLE * first_wei
    assert len(swaps) == 12  # 1.125 ** 11 is below four, 1.125 ** 12 above
    assert all(
        setup.store.journal.grant(intent.id).max_gas_wei >= intent.tx.gas * intent.tx.max_fee_wei
        for intent in setup.store.journal.intents()
    )


@pytest.mark.parametrize("is_booked", [True, False])
def test_gas_of_a_day_bounds_bumps_and_no_cheaper_cancel(tmp_path: Path, is_booked: bool) -> None:
    """Gas that is mined and not booked yet counts like booked gas."""
    setup = patient(tmp_path, gas_per_day_wei=100_000 * 12 * GWEI)
    earlier = setup.store
    setup.chain.automine = True

    first_intent = setup.run(0)

    assert first_intent.receipt.gas_cost_wei == 100_000 * GWEI
    if is_booked:
        earlier.budgets.book_intent(first_intent, Fraction(0), Fraction(0), first_intent.receipt.gas_cost_wei, START_S)
    setup.chain.automine = False
    when_sent(setup, 3, lambda: setup.chain.mine(setup.chain.sent[2]))
    assert setup.run(1).state is S.CANCELLED
    cancel, original = setup.store.journal.intents()[:2]
    assert "limits.gas_per_day" in cancel.note  # 1 burnt, and 11.25 more
    assert cancel.tx.gas * cancel.tx.max_fee_wei < original.tx.gas * original.tx.max_fee_wei


@pytest.mark.parametrize(
    ("data_fee_wei", "swap_count"),
    [
        pytest.param(None, 2, id="no data fee"),
        pytest.param(0, 2, id="a data fee of nothing"),
        pytest.param(75_000 * GWEI, 2, id="at the limit"),
        pytest.param(75_000 * GWEI + 1, 1, id="one wei beyond"),
    ],
)
def test_data_fee_counts_in_the_gas_of_a_day(tmp_path: Path, data_fee_wei: int | None, swap_count: int) -> None:
    """A bump of 100,000 gas costs 11.25 gwei a gas, and a day 12."""
    setup = patient(tmp_path, gas_per_day_wei=100_000 * 12 * GWEI, mined_timeout_s=40)
    setup.store.steps.begin("s", START_S, "{}")

    with raises_code(Retryable, "not_mined", "limits.gas_per_day"):
        setup.executor().run("s", tx(0), replace(grant(), max_data_fee_wei=data_fee_wei), "swap")

    assert [intent.kind for intent in setup.store.journal.intents()].count(IntentKind.SWAP) == swap_count


def test_a_base_fee_above_the_ceiling_is_waited_out(tmp_path: Path) -> None:
    setup = patient(tmp_path, mined_timeout_s=10)

    def spike() -> None:
        setup.chain.base_fee_wei = 1000 * GWEI

    setup.clock.on_sleep = spike

    with raises_code(Retryable, "not_mined"):
        setup.run()
    assert len(setup.chain.sent) == 1
    setup.chain.base_fee_wei = GWEI
    when_sent(setup, 2, lambda: setup.chain.mine(setup.chain.sent[1]))
    setup.executor().reconcile()
    assert states(setup) == [("swap", "replaced"), ("swap", "final")]


def test_a_bump_goes_at_once_to_what_the_base_fee_asks_by_now(tmp_path: Path) -> None:
    setup = patient(tmp_path)

    def dear() -> None:
        setup.chain.base_fee_wei = 30 * GWEI
        if len(setup.chain.sent) == 2:
            setup.chain.mine(setup.chain.sent[1])

    setup.clock.on_sleep = dear

    assert setup.run().tx.max_fee_wei == 2 * 30 * GWEI + GWEI * BUMP_NUMERATOR // BUMP_DENOMINATOR


def test_lost_transaction_below_the_base_fee_is_bumped(tmp_path: Path) -> None:
    setup = patient(tmp_path)
    setup.chain.lose = True
    killed_at(setup, "after:send")
    setup.chain.lose = False
    setup.chain.base_fee_wei = 30 * GWEI
    when_sent(setup, 2, setup.chain.mine)

    setup.executor().reconcile()

    assert states(setup) == [("swap", "replaced"), ("swap", "final")]


def test_cancel_that_cannot_be_paid_needs_the_operator(tmp_path: Path) -> None:
    setup = patient(tmp_path)
    simulate = setup.chain.simulate
    setup.chain.simulate = lambda unsigned, sender: (
        replace(simulate(unsigned, sender), ok=False, reason="insufficient funds") if setup.chain.sent else simulate(unsigned, sender)
    )

    with raises_code(OperatorNeeded, "cannot_cancel"):
        setup.run()
    assert len(setup.chain.sent) == 1


def test_bump_above_the_gas_price_limit_is_refused(tmp_path: Path) -> None:
    setup = patient(tmp_path, max_fee_wei=10 * GWEI)
    killed_at(setup, "after:send")
    executor = setup.executor()

    with raises_code(Refused, "gas_price"):
        TxReplacer(executor._submitter).bump_or_cancel(0)
    assert len(setup.chain.sent) == 1


def test_a_bump_aims_no_higher_than_its_gas_money_allows(tmp_path: Path) -> None:
    setup = patient(tmp_path, max_fee_wei=None)
    first_wei = 100_000 * 10 * GWEI
    setup.store.steps.begin("s", START_S, "{}")

    def dear() -> None:
        setup.chain.base_fee_wei = 25 * GWEI  # twice that would be more than four times the first
        if len(setup.chain.sent) == 2:
            setup.chain.mine(setup.chain.sent[1])

    setup.clock.on_sleep = dear

    ended = setup.executor().run("s", tx(0), replace(grant(), max_gas_wei=first_wei), "swap")

    assert (ended.kind, ended.state) == (IntentKind.SWAP, S.FINAL)
    assert ended.tx.max_fee_wei == MAX_GAS_MULTIPLE * 10 * GWEI


# --- One replacement by hand, of a transaction that waits at 10 gwei for 100,000 gas.


EMERGENCY = replace(futures_grant(ESCAPE, is_emergency=True), deadline_s=START_S + 90, max_gas_wei=10**18)


def replacer_of(setup: Bench, granted: Grant, unsigned: UnsignedTx | None = None) -> TxReplacer:
    """Return the replacer of a setup whose process ended when it had sent this transaction."""

    def die(event: SubmissionEvent) -> None:
        if event.name == "after:send":
            raise Killed

    setup.on_event = die
    setup.store.steps.begin("replaced", START_S, "{}")
    with pytest.raises(Killed):
        setup.executor().run("replaced", unsigned or tx(0), granted, "replaced")
    setup.on_event = None
    return TxReplacer(setup.executor()._submitter)


def replacer_with_ceilings(folder: Path, emergency_mwei: int, usual_mwei: int) -> tuple[Bench, TxReplacer]:
    """Return the replacer of an emergency at 10 gwei, with these ceilings per unit of gas."""
    setup = patient(folder, max_fee_wei=usual_mwei * 10**6, emergency_gas_ceilings=(emergency_mwei * 10**6, None))
    return setup, replacer_of(setup, EMERGENCY)


def test_cancel_of_an_emergency_may_cost_its_own_ceiling(tmp_path: Path) -> None:
    setup, replacer = replacer_with_ceilings(tmp_path, 11_250, 10_000)

    replacer.cancel(setup.store.journal.intents()[0], "why")

    assert len(setup.chain.sent) == 2


def test_cancel_of_an_emergency_above_its_own_ceiling_is_refused(tmp_path: Path) -> None:
    setup, replacer = replacer_with_ceilings(tmp_path, 11_249, 100_000)

    with raises_code(Refused, "gas_price"):
        replacer.cancel(setup.store.journal.intents()[0], "why")
    assert len(setup.chain.sent) == 1


@pytest.mark.parametrize(
    ("granted", "demanded_wei", "ceilings", "remedy"),
    [
        pytest.param(EMERGENCY, 0, (11 * GWEI, None), "raise futures.limits.emergency_gas_price, or wait", id="bumped price"),
        pytest.param(EMERGENCY, 12 * GWEI, (11 * GWEI, None), "raise futures.limits.emergency_gas_price, or wait", id="tip"),
        pytest.param(EMERGENCY, 0, (60 * GWEI, 0), "wait, or raise futures.limits.emergency_gas_per_day", id="day"),
        pytest.param(grant(), 0, (11 * GWEI, None), "raise limits.gas_price, or wait", id="usual price"),
        pytest.param(grant(), 12 * GWEI, (11 * GWEI, None), "raise limits.gas_price, or wait", id="usual tip"),
        pytest.param(grant(), 0, (60 * GWEI, 0), "wait, or raise limits.gas_per_day", id="usual day"),
    ],
)
def test_cancel_beyond_a_ceiling__names_the_key_of_that_ceiling(
    tmp_path: Path, granted: Grant, demanded_wei: int, ceilings: tuple[int, int | None], remedy: str
) -> None:
    price_wei, day_wei = ceilings
    setup = patient(tmp_path, emergency_gas_ceilings=ceilings, max_fee_wei=price_wei, gas_per_day_wei=day_wei)
    replacer = replacer_of(setup, granted)
    simulate = setup.chain.simulate
    setup.chain.simulate = lambda unsigned, sender: replace(simulate(unsigned, sender), gas=100_000)  # type: ignore[method-assign]
    if demanded_wei:
        setup.store.budgets.mark_demanded_tip(demanded_wei, START_S)
    with pytest.raises(Refused) as refusal:
        replacer.cancel(setup.store.journal.intents()[0], "why")
    assert refusal.value.remedy == remedy


def test_cancel_without_a_ceiling_costs_no_demanded_gas_price(tmp_path: Path) -> None:
    """A demanded tip has a cap, a demanded gas price has none."""
    setup = patient(tmp_path, max_fee_wei=None)
    setup.chain.base_fee_wei = 0
    legacy_tx = replace(tx(0), max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=GWEI)
    replacer = replacer_of(setup, replace(grant(), max_gas_wei=legacy_tx.max_gas_cost_wei), legacy_tx)
    setup.store.budgets.mark_demanded_tip(1_000_000 * GWEI, START_S)

    with raises_code(Refused, "gas_cost", "a resend would exceed the gas cost allowed for one transaction"):
        replacer.cancel(setup.store.journal.intents()[0], "why")


@pytest.mark.parametrize(("late_s", "deadline_s"), [(0, START_S + 90), (89, START_S + 90), (91, START_S + 91)])
def test_a_cancel_after_the_deadline_is_granted_until_now(tmp_path: Path, late_s: int, deadline_s: int) -> None:
    setup = patient(tmp_path)
    replacer = replacer_of(setup, grant())
    setup.chain.timestamp_s = START_S + late_s
    replacer.cancel(setup.store.journal.intents()[0], "why")

    granted = setup.store.journal.grant(setup.store.journal.intents()[0].id)

    assert (granted.now_s, granted.deadline_s) == (START_S + late_s, deadline_s)


@pytest.mark.parametrize(
    ("demanded_wei", "granted_wei", "kind"),
    [
        (GWEI, 10 * GWEI, IntentKind.CANCEL),
        (GWEI + 1, 10 * GWEI, IntentKind.FUTURES),
        (0, 45 * GWEI // 4, IntentKind.FUTURES),
        (0, 45 * GWEI // 4 - 4, IntentKind.CANCEL),
    ],
    ids=["tip already paid", "a higher tip", "four times the granted gas", "more than that"],
)
def test_an_emergency_costs_its_ceiling_only_for_a_higher_tip(
    tmp_path: Path, demanded_wei: int, granted_wei: int, kind: IntentKind
) -> None:
    setup = patient(tmp_path, emergency_gas_ceilings=(100 * GWEI, None))
    replacer = replacer_of(setup, replace(EMERGENCY, max_gas_wei=100_000 * granted_wei // MAX_GAS_MULTIPLE))
    if demanded_wei:
        setup.store.budgets.mark_demanded_tip(demanded_wei, START_S)

    replacer.bump_or_cancel(0)

    assert setup.store.journal.intents()[0].kind is kind


def replacer_with_estimate(folder: Path, gas: int) -> tuple[Bench, TxReplacer]:
    """Return the replacer of 90,000 gas at 8 gwei on a spent day, whose cancel is estimated at this gas."""
    setup = patient(folder, gas_per_day_wei=0)
    replacer = replacer_of(setup, grant(), replace(tx(0, max_fee_wei=8 * GWEI), gas=90_000))
    simulate = setup.chain.simulate
    setup.chain.simulate = lambda unsigned, sender: replace(simulate(unsigned, sender), gas=gas)  # type: ignore[method-assign]
    return setup, replacer


def test_cancel_that_risks_no_more_passes_a_spent_day(tmp_path: Path) -> None:
    """A cancel of 80,000 gas at 9 gwei costs what its original may cost."""
    setup, replacer = replacer_with_estimate(tmp_path, 66_667)

    replacer.cancel(setup.store.journal.intents()[0], "why")

    assert len(setup.chain.sent) == 2


def test_cancel_that_risks_more_is_refused_on_a_spent_day(tmp_path: Path) -> None:
    setup, replacer = replacer_with_estimate(tmp_path, 66_668)

    with raises_code(Refused, "gas_per_day"):
        replacer.cancel(setup.store.journal.intents()[0], "why")
    assert len(setup.chain.sent) == 1


@pytest.mark.parametrize(("limit_gwei", "kind"), [(1_125_000, IntentKind.FUTURES), (1_124_999, IntentKind.CANCEL)])
def test_an_emergency_has_a_day_of_gas_of_its_own(tmp_path: Path, limit_gwei: int, kind: IntentKind) -> None:
    setup = patient(tmp_path, gas_per_day_wei=0, emergency_gas_ceilings=(100 * GWEI, limit_gwei * GWEI))
    setup.chain.automine = True
    usual = setup.run(0)
    setup.store.budgets.book_intent(usual, Fraction(0), Fraction(0), 10**18, START_S)
    setup.chain.automine = False

    replacer_of(setup, EMERGENCY, tx(1)).bump_or_cancel(1)

    assert setup.store.journal.intents()[0].kind is kind


def test_nothing_is_cancelled_that_a_lagging_node_has_in_a_block(tmp_path: Path) -> None:
    setup = patient(tmp_path)
    replacer = replacer_of(setup, grant())
    setup.chain.mine()
    setup.chain.nonces = lambda _owner: (0, 1)  # type: ignore[method-assign]

    setup.chain.simulation = "STF"

    assert replacer.bump_or_cancel(0) is None
    assert states(setup) == [("swap", "mined")]


def test_of_refused_tips_the_last_refusal_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replacer = replacer_of(patient(tmp_path), grant())
    refusals = [TipRefused(str(number), (), number) for number in range(MAX_TIP_RAISES + 1)]
    later = iter(refusals[1:])
    monkeypatch.setattr(replacer, "bump_or_cancel", lambda _nonce: next(later))

    with pytest.raises(TipRefused) as caught:
        replacer.raise_tip(0, refusals[0])
    assert caught.value is refusals[-1]


def test_refused_replacement_is_tried_again_after_its_wait(tmp_path: Path) -> None:
    setup = patient(tmp_path, bump_after_s=3)
    replacer = replacer_of(setup, grant())
    setup.paused = True
    callback = replacer.replacement_callback(0)
    tries_s = []
    for waited_s in range(10):
        events_before = len(setup.events)
        callback(waited_s)
        if len(setup.events) > events_before:
            tries_s.append(waited_s)

    assert tries_s == [3, 6, 9]
