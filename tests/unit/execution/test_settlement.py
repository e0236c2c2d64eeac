"""Tests of agent/execution/settlement.py: what each leg exchanged, and loss, turnover and outflow at the prices before the trade (T6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent import codec
from agent.accounting.export import TokenNames
from agent.app.documents.past import executions
from agent.errors import PassingFault
from agent.execution import settlement
from agent.execution.settlement import BookingPrices, LegExecution, TradePurpose
from agent.model import (
    MAX_BLOCK_LEAD_S,
    Entry,
    EntryKind,
    Goal,
    Intent,
    IntentKind,
    IntentState,
    Leg,
    LegPlace,
    ManagedSwap,
    Payout,
    Plan,
    PlanCost,
    Posting,
    Rebalance,
    Receipt,
    StepInput,
    Transfer,
)
from agent.store import Store
from agent.units import NATIVE, Token
from tests.support.builders import step_input
from tests.support.text import raises_code
from tests.support.transactions import OTHER, START_S, WALLET, grant, new_store, receipt, record_sent, tx

WETH = "0x" + "Aa" * 20
USDC = "0x" + "Bb" * 20
DAI = "0x" + "Cc" * 20
ROUTER = OTHER
PRICES = {WETH: Fraction(2_000), USDC: Fraction(1)}
POOL = "0x" + "11" * 20
SECOND = "0x" + "22" * 20
ZERO = Fraction(0)
Amounts = Mapping[str, int]


def leg(pool: str, token_in: str, token_out: str, amount_in: int, amount_out: int, venue: str = "uniswap_v3") -> Leg:
    return Leg(pool, venue, token_in, token_out, 3000, amount_in, amount_out, 1, 1, 1, LegPlace.WALLET, LegPlace.WALLET)


def plan_of(*legs: Leg) -> Plan:
    cost = PlanCost(ZERO, ZERO, ZERO, ZERO)
    return Plan(1, Rebalance("", Goal(())), legs, (), (), cost, ZERO, ZERO, 0, None, (), (), 9)


def receipt_of(*transfers: Transfer, **changes: Any) -> Receipt:
    return replace(receipt("0xaa", 1, "0x01"), transfers=transfers, **changes)


# --- Legs


def realised(plan: Plan, block: Receipt) -> list[tuple[int | None, int | None]]:
    """Return the amounts into and out of each leg."""
    return [(execution.in_raw, execution.out_raw) for execution in settlement.realised_legs(plan, block)]


def test_realised_legs_take_the_transfers_of_their_pools() -> None:
    plan = plan_of(
        leg(POOL, WETH, USDC, 10, 19_000), leg(SECOND, WETH, USDC, 5, 9_500), leg(POOL, WETH, USDC, 2, 3_700), leg(POOL, USDC, DAI, 7, 7)
    )
    block = receipt_of(
        Transfer(USDC, POOL, WALLET, 19_001),
        Transfer(WETH, WALLET, POOL, 10),
        Transfer(WETH, WALLET, SECOND, 5),
        Transfer(USDC, SECOND, WALLET, 9_400),
        Transfer(USDC, POOL, WALLET, 3_699),
        Transfer(WETH, WALLET, POOL, 2),
    )

    assert realised(plan, block) == [(10, 19_001), (5, 9_400), (2, 3_699), (None, None)]
    assert [execution.leg for execution in settlement.realised_legs(plan, block)] == list(plan.legs)


def test_realised_legs_share_what_passes_from_pool_to_pool() -> None:
    plan = plan_of(leg(POOL, WETH, USDC, 10, 19_000), leg(SECOND, USDC, DAI, 19_000, 19_000))
    block = receipt_of(Transfer(WETH, WALLET, POOL, 10), Transfer(USDC, POOL, SECOND, 18_999), Transfer(DAI, SECOND, WALLET, 18_990))

    assert realised(plan, block) == [(10, 18_999), (18_999, 18_990)]


def test_realised_legs_of_one_manager_take_its_swaps_in_order() -> None:
    plan = plan_of(leg(POOL, WETH, USDC, 10, 19_000), leg(SECOND, USDC, DAI, 7, 7), leg(POOL, WETH, USDC, 2, 3_700))
    swaps = (ManagedSwap(POOL, 10, 19_001), ManagedSwap(SECOND, 7, 6), ManagedSwap(POOL, 2, 3_699))

    assert realised(plan, receipt_of(managed_swaps=swaps)) == [(10, 19_001), (7, 6), (2, 3_699)]


def test_realised_wraps_take_their_own_events() -> None:
    plan = plan_of(leg(WETH, NATIVE, WETH, 3, 3, "wrapped_native"), leg(WETH, WETH, NATIVE, 4, 4, "wrapped_native"))
    events = (Transfer(WETH, WALLET, NATIVE, 4), Transfer(WETH, NATIVE, WALLET, 3))

    assert realised(plan, receipt_of(wrap_transfers=events)) == [(3, 3), (4, 4)]


@pytest.mark.parametrize(
    ("in_raw", "out_raw", "is_known", "difference_share"),
    [
        pytest.param(10, 19_000, True, 0, id="as planned"),
        pytest.param(10, 18_000, True, Fraction(-1, 19), id="less out"),
        pytest.param(5, 9_500, True, 0, id="half of both"),
        pytest.param(9, 19_000, True, Fraction(1, 9), id="less in"),
        pytest.param(None, 19_000, False, None, id="no amount in"),
        pytest.param(10, None, False, None, id="no amount out"),
        pytest.param(0, 19_000, True, None, id="nothing in"),
    ],
)
def test_leg_execution_compares_its_rate_with_the_planned(
    in_raw: int | None, out_raw: int | None, is_known: bool, difference_share: Fraction | None
) -> None:
    execution = LegExecution(leg(POOL, WETH, USDC, 10, 19_000), in_raw, out_raw)

    assert execution.is_known is is_known
    assert execution.difference_share == difference_share


def swap_in(state: IntentState, *transfers: Transfer) -> Intent:
    return Intent("i", "s", IntentKind.SWAP, state, tx(0), "", 0, None, "0xaa", receipt_of(*transfers))


SOLD = tuple(Transfer(WETH, WALLET, pool, raw) for pool, raw in ((POOL, 10), (POOL, 2), (SECOND, 4)))
BOUGHT = (Transfer(USDC, POOL, WALLET, 18_000), Transfer(USDC, POOL, WALLET, 3_700), Transfer(DAI, SECOND, WALLET, 7_900))
THREE_LEGS = replace(
    plan_of(leg(POOL, WETH, USDC, 10, 19_000), leg(POOL, WETH, USDC, 2, 3_700), leg(SECOND, WETH, DAI, 4, 8_000)), turnover=Fraction(30_700)
)
FINAL_SWAP = swap_in(IntentState.FINAL, *SOLD, *BOUGHT)
LOSS_ENTRY = Entry(
    "e", EntryKind.TRADE, 1, 1, "", "", (Posting("trading", DAI, -7_900, Fraction(-7_900)), Posting("trading", USDC, 1, Fraction(2)))
)
ALL_AMOUNTS = {WETH: "-16", USDC: "21700", DAI: "7900"}


@pytest.mark.parametrize(
    ("further_swaps", "amounts"),
    [
        pytest.param((), [(10, 18_000), (2, 3_700), (4, 7_900)], id="its swaps alone"),
        pytest.param((ManagedSwap(OTHER, 1, 1),), [(10, 18_000), (2, 3_700), (4, 7_900)], id="another pool's too"),
        pytest.param((ManagedSwap(POOL, 1, 1),), [(None, None), (None, None), (4, 7_900)], id="one too many"),
    ],
)
def test_leg_executions_of_a_manager_are_its_swaps(
    further_swaps: tuple[ManagedSwap, ...], amounts: list[tuple[int | None, int | None]]
) -> None:
    """The manager's transfers are those of all swaps together, and name no pool."""
    swaps = (ManagedSwap(POOL, 10, 18_000), ManagedSwap(POOL, 2, 3_700), ManagedSwap(SECOND, 4, 7_900), *further_swaps)
    managed = replace(FINAL_SWAP, receipt=receipt_of(Transfer(WETH, WALLET, OTHER, 16), managed_swaps=swaps))

    leg_executions = executions.leg_executions(THREE_LEGS, managed)

    assert [(execution.in_raw, execution.out_raw) for execution in leg_executions] == amounts


def test_leg_executions_leave_doubtful_amounts_unknown() -> None:
    """A third transfer out of a pool with two legs may belong to either of them; the other pool's amounts are beyond doubt."""
    doubtful = swap_in(IntentState.FINAL, *SOLD, *BOUGHT, Transfer(USDC, POOL, OTHER, 500))

    leg_executions = executions.leg_executions(THREE_LEGS, doubtful)

    assert [(execution.in_raw, execution.out_raw) for execution in leg_executions] == [(10, None), (2, None), (4, 7_900)]
    assert [execution.difference_share for execution in leg_executions] == [None, None, Fraction(-1, 80)]


@pytest.mark.parametrize(
    ("intent", "entries", "document"),
    [
        pytest.param(FINAL_SWAP, [LOSS_ENTRY], (0, ALL_AMOUNTS, "-2100", -684.04), id="all amounts known"),
        pytest.param(FINAL_SWAP, [], (0, ALL_AMOUNTS, None, None), id="no entry yet"),
        pytest.param(
            swap_in(IntentState.FINAL, *SOLD, BOUGHT[0], BOUGHT[2]), [LOSS_ENTRY], (2, None, None, None), id="a transfer is missing"
        ),
    ],
)
def test_execution_document_sums_known_amounts(intent: Intent, entries: list[Entry], document: tuple[Any, ...]) -> None:
    names = TokenNames({}, Token(USDC, "USDC", 0))
    fields = ("unknown", "amounts", "difference", "difference_bps")

    expected = {"legs": 3} | dict(zip(fields, document, strict=True))
    assert executions.execution_document([(THREE_LEGS, intent)], entries, names) == expected


def test_execution_document_is_none_for_a_pending_swap() -> None:
    pending = swap_in(IntentState.BROADCAST, *SOLD, *BOUGHT)

    assert executions.execution_document([(THREE_LEGS, pending)], [LOSS_ENTRY], TokenNames({}, Token(USDC, "USDC", 0))) is None


# --- Loss and turnover


@pytest.mark.parametrize(
    ("before", "after", "gas_value", "loss"),
    [
        pytest.param({WETH: 100, USDC: 1_000}, {WETH: 90, USDC: 20_500}, 7, 20_000 - 19_500 + 7, id="a bad trade and its gas"),
        pytest.param({WETH: 1}, {USDC: 2_000}, 3, 3, id="a fair trade costs its gas"),
        pytest.param({WETH: 1}, {USDC: 2_100}, 3, -97, id="a gain is negative"),
        pytest.param({WETH: 1}, {}, 0, 2_000, id="a token that is gone"),
        pytest.param({WETH: 3}, {WETH: 2}, 0, 2_000, id="a token that is less"),
        pytest.param({}, {DAI: 5}, 0, 0, id="an unpriced token that grew"),
        pytest.param({DAI: 5}, {DAI: 5}, 0, 0, id="an unpriced token unchanged"),
    ],
)
def test_trade_loss_is_at_the_prices_before(before: Amounts, after: Amounts, gas_value: int, loss: int) -> None:
    assert settlement.trade_loss(before, after, PRICES, Fraction(gas_value)) == loss


def test_trade_loss_of_one_unit_without_a_price_is_unknown() -> None:
    with raises_code(PassingFault, "reference_price"):
        settlement.trade_loss({DAI: 5}, {DAI: 4}, PRICES, ZERO)


def test_trade_loss_of_churn_adds_up() -> None:
    balances = {WETH: 1000, USDC: 0}
    total = ZERO
    for _ in range(10):
        away = {WETH: 0, USDC: balances[WETH] * 1990}
        home = {WETH: away[USDC] // 2010, USDC: 0}
        total += settlement.trade_loss(balances, away, PRICES, Fraction(1)) + settlement.trade_loss(away, home, PRICES, Fraction(1))
        balances = home

    assert total == (1000 - balances[WETH]) * 2000 + 20
    assert total > 150_000


@pytest.mark.parametrize(
    ("change_by_token", "turnover"),
    [
        pytest.param({WETH: -10, USDC: 19_000}, Fraction(39_000, 2), id="half of both sides"),
        pytest.param({USDC: -1}, Fraction(1, 2), id="a decrease alone"),
        pytest.param({DAI: 3}, 0, id="an unpriced token"),
    ],
)
def test_trade_turnover_is_half_of_all_changes(change_by_token: Amounts, turnover: Fraction) -> None:
    assert settlement.trade_turnover(change_by_token, PRICES) == turnover


# --- Booking

GAS_FREE = BookingPrices(PRICES, native_price=ZERO)
GAS_PRICE = Fraction(1, 10**12)
GAS_WEI = receipt_of().gas_cost_wei
PRICED_GAS = BookingPrices(PRICES, native_price=GAS_PRICE)
WRAPPED = BookingPrices(PRICES, ZERO, wrapped_native=WETH)
ORDINARY = TradePurpose()
SALE = Transfer(WETH, WALLET, ROUTER, 10)
"""Ten of a token at 2,000."""


def proceeds(raw: int) -> Transfer:
    return Transfer(USDC, ROUTER, WALLET, raw)


@dataclass(frozen=True)
class Booking:
    """What a booked intent counts in the limits of its day."""

    loss: Fraction
    turnover: Fraction
    outflow: Fraction
    gas_wei: int


def mined_intent(
    folder: Path, *transfers: Transfer, kind: IntentKind = IntentKind.SWAP, value_wei: int = 0, **receipt_changes: Any
) -> tuple[Store, Intent]:
    """Return a store and its only intent, which is in a block with these events."""
    store = new_store("memory", folder)
    store.steps.begin("unreadable", START_S, "{}")
    intent = store.journal.add_intent("unreadable", replace(tx(0), value_wei=value_wei), grant(kind), "", START_S, None)
    block = receipt_of(*transfers, **receipt_changes)
    return store, record_sent(store.journal, intent, "0xaa", receipt=block)


def book(
    folder: Path,
    *transfers: Transfer,
    prices: BookingPrices = GAS_FREE,
    purpose: TradePurpose = ORDINARY,
    balances: tuple[Amounts, Amounts] | None = None,
    **fields: Any,
) -> Booking:
    """Book a mined swap, or payout; `fields` as of `mined_intent`."""
    kind = IntentKind.SWAP if purpose.payout is None else IntentKind.PAYOUT
    store, intent = mined_intent(folder, *transfers, kind=kind, **fields)
    loss = settlement.book_intent(store.budgets, intent, WALLET, prices, START_S, balances, purpose)
    day = store.budgets.history(START_S).budgets
    assert store.journal.unbooked_intents() == ()
    assert day.loss_24h == max(loss, ZERO)
    return Booking(loss, day.turnover_24h, day.outflow_24h, day.gas_24h_wei)


def test_book_intent_takes_the_receipt_without_balances(tmp_path: Path) -> None:
    booking = book(tmp_path, SALE, proceeds(19_900), prices=PRICED_GAS)

    assert booking == Booking(100 + GAS_WEI * GAS_PRICE, Fraction(39_900, 2), ZERO, GAS_WEI)


@pytest.mark.parametrize(
    ("proceeds_raw", "usdc_after", "loss"),
    [
        pytest.param(20_000, 15_000, 5_000, id="events that lie"),
        pytest.param(15_000, 1_015_000, 5_000, id="a deposit in between"),
        pytest.param(15_001, 15_000, 5_000, id="events one unit better"),
    ],
)
def test_larger_loss_of_events_and_balances_is_booked(tmp_path: Path, proceeds_raw: int, usdc_after: int, loss: int) -> None:
    balances = ({WETH: 10, USDC: 0}, {WETH: 0, USDC: usdc_after})

    assert book(tmp_path, SALE, proceeds(proceeds_raw), balances=balances).loss == loss


@pytest.mark.parametrize(
    ("proceeds_raw", "can_prove_gain", "loss_without_gas"),
    [
        pytest.param(20_500, True, -500, id="gain at its own prices"),
        pytest.param(20_500, False, 0, id="gain at other prices"),
        pytest.param(20_001, False, 0, id="gain of one unit at other prices"),
        pytest.param(19_999, False, 1, id="loss of one unit at other prices"),
    ],
)
def test_prices_of_another_time_prove_no_gain(tmp_path: Path, proceeds_raw: int, can_prove_gain: bool, loss_without_gas: int) -> None:
    booking = book(tmp_path, SALE, proceeds(proceeds_raw), prices=replace(PRICED_GAS, can_prove_gain=can_prove_gain))

    assert booking.loss == loss_without_gas + GAS_WEI * GAS_PRICE


def test_revert_loses_its_gas(tmp_path: Path) -> None:
    booking = book(tmp_path, prices=PRICED_GAS, status=0)

    assert (booking.loss, booking.turnover) == (GAS_WEI * GAS_PRICE, 0)


@pytest.mark.parametrize(
    ("exempt_value", "turnover"),
    [
        pytest.param(0, 20_000, id="nothing exempt"),
        pytest.param(19_999, 1, id="all but one unit exempt"),
        pytest.param(20_000, 0, id="all exempt"),
        pytest.param(20_001, 0, id="more than all exempt"),
    ],
)
def test_turnover_is_less_the_exempt_part_and_not_negative(tmp_path: Path, exempt_value: int, turnover: int) -> None:
    purpose = TradePurpose(exempt_turnover=Fraction(exempt_value))

    assert book(tmp_path, SALE, proceeds(20_000), purpose=purpose).turnover == turnover


@pytest.mark.parametrize(
    ("proceeds_token", "turnover"),
    [
        pytest.param(USDC, 0, id="into what it sells for"),
        pytest.param(WETH, 15_000, id="into another token"),
        pytest.param("", 17_500, id="no exit"),
    ],
)
def test_exit_turnover_is_what_it_buys_of_other_tokens(tmp_path: Path, proceeds_token: str, turnover: int) -> None:
    purpose = TradePurpose(exit_proceeds_token=proceeds_token)

    assert book(tmp_path, SALE, proceeds(15_000), purpose=purpose).turnover == turnover


PAID = Transfer(USDC, WALLET, ROUTER, 15_000)
UNWRAPPED = (Transfer(WETH, ROUTER, NATIVE, 7),)
"""The recipient of a payout, a contract, turns coins of its own into native coin meanwhile."""


@pytest.mark.parametrize(
    ("transfers", "payout", "changes", "outflow"),
    [
        pytest.param([PAID], Payout(USDC, ROUTER, 15_000, 0, 1), {}, 15_000, id="a token"),
        pytest.param([], Payout(USDC, ROUTER, 15_000, 0, 1), {"status": 0}, 0, id="a revert"),
        pytest.param([Transfer(DAI, WALLET, ROUTER, 7)], Payout(DAI, ROUTER, 7, 0, 1), {}, 0, id="an unpriced token"),
        pytest.param([], Payout(NATIVE, OTHER, 5, 0, 1), {"value_wei": 5}, 10_000, id="native coin"),
        pytest.param([], Payout(NATIVE, ROUTER, 5, 0, 1), {"value_wei": 5, "wrap_transfers": UNWRAPPED}, 10_000, id="a recipient unwraps"),
    ],
)
def test_payout_is_an_outflow_and_neither_loss_nor_turnover(
    tmp_path: Path, transfers: list[Transfer], payout: Payout, changes: dict[str, Any], outflow: int
) -> None:
    booking = book(tmp_path, *transfers, prices=WRAPPED, purpose=TradePurpose(payout), **changes)

    assert (booking.loss, booking.turnover, booking.outflow) == (0, 0, outflow)


def test_payout_that_takes_one_unit_more_loses_it(tmp_path: Path) -> None:
    """Its token keeps a part of each transfer."""
    taken = Transfer(USDC, WALLET, ROUTER, 15_001)

    booking = book(tmp_path, taken, purpose=TradePurpose(Payout(USDC, ROUTER, 15_000, 0, 1)))

    assert (booking.loss, booking.turnover, booking.outflow) == (1, 0, 15_000)


@pytest.mark.parametrize(
    ("wrap_transfers", "loss", "turnover"),
    [
        pytest.param((Transfer(WETH, NATIVE, WALLET, 5),), 0, 0, id="wrapped"),
        pytest.param((Transfer(WETH, NATIVE, WALLET, 4),), 2_000, 1_000, id="one wei less than sent"),
        pytest.param((), 5 * 2_000, 5 * 1_000, id="sent for nothing"),
    ],
)
def test_native_coin_counts_as_its_token(tmp_path: Path, wrap_transfers: tuple[Transfer, ...], loss: int, turnover: int) -> None:
    booking = book(tmp_path, prices=WRAPPED, value_wei=5, wrap_transfers=wrap_transfers)

    assert (booking.loss, booking.turnover) == (loss, turnover)


def test_book_intent_needs_a_receipt(tmp_path: Path) -> None:
    store, intent = mined_intent(tmp_path)

    with pytest.raises(ValueError, match="no receipt"):
        settlement.book_intent(store.budgets, replace(intent, receipt=None), WALLET, GAS_FREE, START_S)


# --- Native coin, gas and times


def test_unwrapped_raw_counts_by_token_and_holder() -> None:
    block = receipt_of(
        wrap_transfers=(
            Transfer(WETH, WALLET, NATIVE, 5),
            Transfer(WETH, ROUTER, NATIVE, 7),
            Transfer(WETH, NATIVE, WALLET, 3),
            Transfer(USDC, WALLET, NATIVE, 2),
        )
    )

    assert [block.unwrapped_raw(WETH, WALLET), block.unwrapped_raw(WETH, WALLET, ROUTER), block.unwrapped_raw(DAI, WALLET)] == [5, 12, 0]


@pytest.mark.parametrize("has_transfer", [False, True], ids=["as WETH9", "beside a Transfer event"])
def test_net_transfers_count_a_wrap_once(has_transfer: bool) -> None:
    wrap = Transfer(WETH, NATIVE, WALLET, 3)

    assert receipt_of(*(wrap,) * has_transfer, wrap_transfers=(wrap,)).net_transfers(WALLET) == {WETH: 3}


@pytest.mark.parametrize(
    ("to", "status", "change_wei"),
    [
        pytest.param(OTHER, 1, 7 - 5, id="to another"),
        pytest.param(WALLET, 1, 7, id="to itself"),
        pytest.param(OTHER, 0, 0, id="reverted"),
    ],
)
def test_native_change_is_unwrapped_less_sent(tmp_path: Path, to: str, status: int, change_wei: int) -> None:
    _, intent = mined_intent(tmp_path, value_wei=5, status=status, wrap_transfers=(Transfer(WETH, WALLET, NATIVE, 7),))
    sending = replace(intent, tx=replace(intent.tx, to=to))

    assert sending.native_change_wei(WALLET, WETH) == change_wei


@pytest.mark.parametrize(
    ("more_wei", "after_wei"),
    [pytest.param(-1, 0, id="one wei less than the gas"), pytest.param(0, 0, id="the gas"), pytest.param(1, 1, id="one wei more")],
)
def test_after_gas_leaves_no_native_coin_below_zero(tmp_path: Path, more_wei: int, after_wei: int) -> None:
    _, intent = mined_intent(tmp_path)
    step = step_input()
    step = replace(step, snapshot=replace(step.snapshot, native_wei=GAS_WEI + more_wei))

    after = settlement.after_gas(step, intent)

    assert after.snapshot.native_wei == after_wei
    assert after.history.budgets.gas_24h_wei - step.history.budgets.gas_24h_wei == GAS_WEI
    assert settlement.after_gas(step, replace(intent, receipt=None)) == step


def test_balances_with_native_coin_are_those_before_the_gas(tmp_path: Path) -> None:
    _, intent = mined_intent(tmp_path)
    before = replace(step_input().snapshot, native_wei=10**18)
    after = replace(before, native_wei=10**18 - GAS_WEI - 5)

    balances = settlement._with_native(({WETH: 3, USDC: 4}, {WETH: 1, USDC: 6}), (before, after), intent, WETH)

    assert balances == ({WETH: 3 + 10**18, USDC: 4}, {WETH: 1 + 10**18 - 5, USDC: 6})


def step_at(block_s: int, now_s: int) -> StepInput:
    step = step_input()
    return replace(step, snapshot=replace(step.snapshot, head=replace(step.snapshot.head, timestamp_s=block_s), now_s=now_s))


LEAD_S = MAX_BLOCK_LEAD_S
CLOCK_S = 1_000


@pytest.mark.parametrize(
    ("block_s", "review_s"),
    [
        pytest.param(CLOCK_S - 100, CLOCK_S - 100, id="before the clock"),
        pytest.param(CLOCK_S + LEAD_S, CLOCK_S + LEAD_S, id="at the limit"),
        pytest.param(CLOCK_S + LEAD_S + 1, CLOCK_S + LEAD_S, id="one second beyond"),
    ],
)
def test_review_time_is_at_most_a_little_after_the_clock(block_s: int, review_s: int) -> None:
    assert step_at(block_s, CLOCK_S).snapshot.trusted_time_s == review_s


@pytest.mark.parametrize(
    ("block_s", "own_step_s", "booked_at_s"),
    [
        pytest.param(900, None, 900, id="before the clock"),
        pytest.param(2_000, None, CLOCK_S + LEAD_S, id="far after the clock"),
        pytest.param(2_000, 1_500, 1_500, id="a later step of its own"),
        pytest.param(2_000, 500, CLOCK_S + LEAD_S, id="an earlier step of its own"),
        pytest.param(1_400, 1_500, 1_400, id="before its own step"),
    ],
)
def test_booking_time_is_at_most_the_later_of_clock_and_step(block_s: int, own_step_s: int | None, booked_at_s: int) -> None:
    own_step = None if own_step_s is None else step_at(own_step_s, now_s=own_step_s)

    assert settlement._booking_time_s(step_at(block_s, CLOCK_S).snapshot, own_step) == booked_at_s


# --- The step of a transaction


def test_originating_step_is_read_from_the_store(tmp_path: Path) -> None:
    store, intent = mined_intent(tmp_path)
    store.steps.begin("own", START_S, codec.dumps(step_input()))

    assert settlement.originating_step(store.steps, replace(intent, step_id="own")) == step_input()


@pytest.mark.parametrize("step_id", ["missing", "unreadable"])
def test_originating_step_is_none_if_missing_or_unreadable(tmp_path: Path, step_id: str) -> None:
    store, intent = mined_intent(tmp_path)

    assert settlement.originating_step(store.steps, replace(intent, step_id=step_id)) is None
