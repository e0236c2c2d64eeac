"""The books of strategies brought up to a block: opened once, moved by every transaction and flow, the wallet's to the base unit."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from agent.layers.strategies.policy import accounting, netting
from agent.layers.strategies.state import (
    STRATEGY_UNITS,
    NavPoint,
    StrategiesState,
    StrategyBooking,
    StrategyBookingKind,
    StrategyHealth,
    StrategyLedger,
    StrategyState,
)
from agent.layers.strategies.store import StrategyStore
from agent.model import (
    ExternalTransaction,
    ExternalTransfer,
    ExternalTransferKind,
    Intent,
    IntentKind,
    IntentState,
    Receipt,
    StepInput,
    Transfer,
    UnsignedTx,
)
from agent.store.store import Store
from agent.store.tables import ExternalTransferRow
from agent.units import NATIVE
from tests.support.builders import (
    ETHER,
    OWNER,
    address,
    balances,
    books_of,
    brought_up,
    opening,
    raw,
    split,
    step_input,
    strategy,
    strategy_coins,
    sums_to_the_wallet,
    token,
    with_snapshot,
    with_stored_bookings,
)
from tests.support.constants import USD
from tests.support.ledgers import moved
from tests.support.stores import store_fixture
from tests.support.text import mentions
from tests.support.tokens import USDC, WETH

UP = {"WETH": 8_000, "USDC": 2_000}
DOWN = {"WETH": 2_000, "USDC": 8_000}
TWO = split(strategy("up", 6_000, UP), strategy("down", 4_000, DOWN))
POOL = address("some pool")
HOME = address("home")
NEW = StrategyLedger()


def shared(**changes: object) -> StepInput:
    """2.5 WETH at 2,000 and 5,000 USDC, shared by two."""
    return step_input(**changes).with_config(TWO)  # type: ignore[arg-type]  # keywords of the builder


def flow(symbol: str, coins: Fraction | int | str, number: int = 1) -> ExternalTransfer:
    coin = token(symbol)
    return ExternalTransfer(
        number, coin.address, raw(coins, coin) if Fraction(coins) > 0 else -raw(-Fraction(coins), coin), None, 999, 1_000, 1, False, None
    )


def swap(changes: dict[str, Fraction | int | str], name: str = "t1", kind: IntentKind = IntentKind.SWAP, gas_wei: int = 0) -> Intent:
    """A mined transaction that moved so many whole coins of each token into (+) or out of (-) the wallet."""
    moved = []
    for symbol, coins in changes.items():
        coin = token(symbol)
        amount = Fraction(coins)
        ends = (POOL, OWNER) if amount > 0 else (OWNER, POOL)
        moved.append(Transfer(coin.address, *ends, raw(abs(amount), coin)))
    receipt = Receipt(f"0x{name}", 1, 1_000, "0xb", 1, gas_wei, tuple(moved))
    tx = UnsignedTx(31_337, 0, POOL, 0, "0x", 1, 1, 1, None)
    return Intent(name, "s1", kind, IntentState.FINAL, tx, "", 0, None, f"0x{name}", receipt)


def test_books__open_by_share_and_leave_the_rest_to_nobody() -> None:
    step = brought_up(shared(reserves={"USDC": 100}))
    assert [(strategy_book.name, strategy_book.units) for strategy_book in books_of(step).strategy_books] == [
        ("up", 6 * 10**15),
        ("down", 4 * 10**15),
    ]
    assert (strategy_coins(step, "up", "WETH"), strategy_coins(step, "down", "WETH")) == (Fraction(3, 2), 1)
    assert (strategy_coins(step, "up", "USDC"), strategy_coins(step, "down", "USDC")) == (3_000, 2_000)
    assert sums_to_the_wallet(step)


def test_the_value_of_a_unit_follows_every_base_unit() -> None:
    """Of 5,000 dollars one base unit is 200 of the 10^12."""
    whole = Fraction(5_000 * 10**6)
    units = accounting.units_to_issue(0, Fraction(0), whole, 0)
    assert accounting.nav_per_unit(whole, units) == 10**12
    assert accounting.nav_per_unit(whole + 1, units) == 10**12 + 200
    assert accounting.nav_per_unit(whole * 11 / 10, units) == 11 * 10**11
    assert accounting.nav_per_unit(whole, 0) is None


def test_what_is_written_down_is_found_again() -> None:
    first = brought_up(shared())
    again = brought_up(shared(), with_stored_bookings(NEW, first))
    assert books_of(again).strategy_books == books_of(first).strategy_books
    assert books_of(again).unstored_bookings == ()


def test_a_deposit_is_shared_by_capital_and_is_no_return() -> None:
    ledger = with_stored_bookings(NEW, brought_up(shared()))
    step = brought_up(balances(shared(), USDC=6_000), replace(ledger, transfers=(flow("USDC", 1_000),)))
    assert (strategy_coins(step, "up", "USDC"), strategy_coins(step, "down", "USDC")) == (3_600, 2_400)
    assert [strategy_book.units for strategy_book in books_of(step).strategy_books] == [66 * 10**14, 44 * 10**14]
    assert not books_of(step).fault
    assert sums_to_the_wallet(step)


def test_withdrawal_of_one_s_holding__is_paid_by_all_in_kind() -> None:
    ledger = opening({"up": {"WETH": "2.5", "USDC": 1_000}, "down": {"WETH": 0, "USDC": 4_000}})
    step = brought_up(balances(shared(), WETH="1.5"), replace(ledger, transfers=(flow("WETH", -1),)))
    assert not books_of(step).fault
    assert sums_to_the_wallet(step)
    capital = {name: strategy_coins(step, name, "WETH") * 2_000 + strategy_coins(step, name, "USDC") for name in ("up", "down")}
    assert abs(capital["up"] - 4_800) < Fraction(1, 100)
    assert abs(capital["down"] - 3_200) < Fraction(1, 100)


def test_flows_can_be_of_one_strategy() -> None:
    ledger = replace(with_stored_bookings(NEW, brought_up(shared())), transfer_strategy="down")
    step = brought_up(balances(shared(), USDC=6_000), replace(ledger, transfers=(flow("USDC", 1_000),)))
    assert (strategy_coins(step, "up", "USDC"), strategy_coins(step, "down", "USDC")) == (3_000, 3_000)


@pytest.mark.parametrize("receiver", [None, "down"], ids=["all", "one"])
@pytest.mark.parametrize("unit_nav", [8 * 10**11, 3 * 10**12], ids=["after a loss", "after a gain"])
def test_capital_after_none_left_is_no_return(unit_nav: int, receiver: str | None) -> None:
    """The owner took all out, and all units are burnt: the next are worth what the last were."""
    state = StrategyState("down", StrategyHealth.ACTIVE, 0, unit_nav=unit_nav, index=unit_nav)
    opened = with_stored_bookings(replace(NEW, states=(state,), transfer_strategy=receiver), brought_up(shared()))
    empty = brought_up(
        balances(shared(), WETH=0, USDC=0), replace(opened, transfers=(flow("WETH", Fraction(-5, 2)), flow("USDC", -5_000, 2)))
    )
    assert [book.units for book in books_of(empty).strategy_books] == [0, 0]

    filled = brought_up(
        balances(shared(), WETH=0, USDC=3_000), replace(with_stored_bookings(opened, empty), transfers=(flow("USDC", 3_000, 3),))
    )

    book = books_of(filled).by_name["down"]
    value = Fraction(book.balance_raw(USDC.address))
    assert value > 0
    assert accounting.nav_per_unit(value, book.units) == unit_nav


def test_capital_of_a_strategy_that_resumes_from_nothing_is_no_return() -> None:
    """Its floor was zero: netting gives it capital again."""
    state = StrategyState("down", StrategyHealth.ACTIVE, 0, unit_nav=8 * 10**11, index=8 * 10**11)
    opened = opening({"up": {"WETH": "2.5", "USDC": 5_000}, "down": {}})
    units_booking = StrategyBooking("burnt", StrategyBookingKind.CROSS, 1, 1, (("down", STRATEGY_UNITS, -(10**18)),))
    step = brought_up(shared(), replace(opened, bookings=(*opened.bookings, units_booking), states=(state,)))
    assert books_of(step).by_name["down"].units == 0

    booking = accounting.netting_booking(step, "s1", netting.strategy_adjustments)

    assert booking is not None
    units = sum(raw for name, token, raw in booking.changes if (name, token) == ("down", STRATEGY_UNITS))
    prices = {WETH.address: Fraction(2_000 * USD, ETHER), USDC.address: Fraction(1)}
    value = sum(raw * prices[token] for name, token, raw in booking.changes if name == "down" and token in prices)
    assert accounting.nav_per_unit(Fraction(value), units) == 8 * 10**11


def test_a_flow_that_nobody_has_written_down_yet_counts_too() -> None:
    ledger = with_stored_bookings(NEW, brought_up(shared()))
    fresh = replace(flow("USDC", 1_000), id=0)
    assert sums_to_the_wallet(brought_up(balances(shared(), USDC=6_000), ledger, [fresh]))


def test_a_trade_of_unknown_purpose_is_borne_by_capital() -> None:
    ledger = with_stored_bookings(NEW, brought_up(shared()))
    traded = replace(ledger, unbooked_intents=(swap({"WETH": -1, "USDC": 1_990}),))
    step = brought_up(balances(shared(), WETH="1.5", USDC=6_990), traded)
    assert not books_of(step).fault
    assert sums_to_the_wallet(step)
    assert [strategy_book.total_cost for strategy_book in books_of(step).strategy_books] == [6 * 10**6, 4 * 10**6]
    assert [strategy_book.units for strategy_book in books_of(step).strategy_books] == [6 * 10**15, 4 * 10**15], (
        "a loss is a return, and takes no units"
    )


def test_trade__is_shared_by_the_wishes_of_its_own_step() -> None:
    own = brought_up(shared())
    ledger = replace(with_stored_bookings(NEW, own), unbooked_intents=(swap({"WETH": "0.29", "USDC": -600}),))
    step = brought_up(balances(shared(), WETH="2.79", USDC=4_400), ledger, own=lambda _: own)
    assert not books_of(step).fault
    assert sums_to_the_wallet(step)
    up, down = books_of(step).strategy_books
    assert (up.total_cost, down.total_cost) == (20 * 10**6, 0), "all that the market filled was wished by one"
    assert (strategy_coins(step, "down", "WETH"), strategy_coins(step, "down", "USDC")) == (Fraction(4, 10), 3_200)
    assert up.last_rebalance_s == down.last_rebalance_s == step.snapshot.head.timestamp_s
    assert (
        netting.net_strategies(step, {WETH.address: Fraction(2_000 * 10**6, 10**18), USDC.address: Fraction(1)}).trigger_result.fired
        is False
    )


@pytest.mark.parametrize("state", [IntentState.MINED, IntentState.REVERTED])
@pytest.mark.parametrize(("gas_wei", "includes_native"), [(0, False), (10**15, True)], ids=["gas beside", "gas of the asset"])
def test_reverted_trade_starts_no_cooldown_and_nets_nothing(state: IntentState, gas_wei: int, includes_native: bool) -> None:
    """Nothing was traded: only its gas is paid, by capital. A revert that is not final is mined, too."""
    step = shared()
    asset = replace(step.portfolio.assets[0], includes_native=includes_native)
    own = brought_up(replace(step, portfolio=replace(step.portfolio, assets=(asset, step.portfolio.assets[1]))))
    trade = swap({}, gas_wei=gas_wei)
    assert trade.receipt is not None
    reverted = replace(trade, state=state, receipt=replace(trade.receipt, status=0))
    ledger = replace(with_stored_bookings(NEW, own), unbooked_intents=(reverted,))

    after = brought_up(with_snapshot(own, native_wei=own.snapshot.native_wei - gas_wei), ledger, own=lambda _: own)

    assert not books_of(after).fault
    assert [book.last_rebalance_s for book in books_of(after).strategy_books] == [None, None]
    assert [strategy_coins(after, name, "USDC") for name in ("up", "down")] == [3_000, 2_000]
    up, down = books_of(after).strategy_books
    assert up.total_cost * 4 == down.total_cost * 6
    assert up.total_cost + down.total_cost == gas_wei * Fraction(2_000 * USD, ETHER)


def test_a_payout_is_taken_from_all_like_a_withdrawal() -> None:
    ledger = with_stored_bookings(NEW, brought_up(shared()))
    step = brought_up(balances(shared(), USDC=4_000), replace(ledger, unbooked_intents=(swap({"USDC": -1_000}, kind=IntentKind.PAYOUT),)))
    assert not books_of(step).fault
    assert sums_to_the_wallet(step)
    assert [strategy_book.units for strategy_book in books_of(step).strategy_books] == [54 * 10**14, 36 * 10**14]
    assert {strategy_book.total_cost for strategy_book in books_of(step).strategy_books} == {0}


def test_gas_of_the_native_asset_is_a_cost_of_all() -> None:
    native = shared()
    asset = replace(native.portfolio.assets[0], includes_native=True)
    native = replace(native, portfolio=replace(native.portfolio, assets=(asset, native.portfolio.assets[1])))
    ledger = with_stored_bookings(NEW, brought_up(native))
    paid = replace(native.snapshot, native_wei=native.snapshot.native_wei - 10**15)
    gas = swap({}, kind=IntentKind.APPROVE, gas_wei=10**15)
    step = brought_up(replace(native, snapshot=paid), replace(ledger, unbooked_intents=(gas,)))
    assert gas.balance_changes(OWNER, WETH.address) == {NATIVE: -(10**15)}
    assert not books_of(step).fault
    assert sum((strategy_book.total_cost for strategy_book in books_of(step).strategy_books), Fraction(0)) == 2 * 10**6


def test_a_reserve_that_grows_is_given_by_all_and_comes_back() -> None:
    ledger = with_stored_bookings(NEW, brought_up(shared()))
    asset = replace(shared().portfolio.assets[1], reserve_raw=1_000 * 10**6)
    reserved_step = replace(shared(), portfolio=replace(shared().portfolio, assets=(shared().portfolio.assets[0], asset)))
    step = brought_up(reserved_step, ledger)
    assert sums_to_the_wallet(step)
    assert [strategy_coins(step, name, "USDC") for name in ("up", "down")] == [2_400, 1_600]
    back = brought_up(shared(), with_stored_bookings(ledger, step))
    assert sums_to_the_wallet(back)
    assert [strategy_book.units for strategy_book in books_of(back).strategy_books] == [6 * 10**15, 4 * 10**15]


def test_a_single_unit_that_nothing_explains_is_a_fault() -> None:
    ledger = with_stored_bookings(NEW, brought_up(shared()))
    step = shared()
    holdings = tuple(replace(holding, raw=holding.raw - (holding.token == USDC.address)) for holding in step.snapshot.holdings)
    updated = brought_up(replace(step, snapshot=replace(step.snapshot, holdings=holdings)), ledger)
    assert mentions(books_of(updated).fault, "USDC: 5000", "4999.999999")


def test_owner_s_word__makes_books_agree_with_wallet_and_config() -> None:
    ledger = with_stored_bookings(NEW, brought_up(shared()))
    three = split(strategy("up", 5_000, UP), strategy("new", 3_000, DOWN), strategy("third", 2_000, DOWN))
    step = balances(shared(), USDC=6_000).with_config(three)
    assert mentions(books_of(brought_up(shared().with_config(three), ledger)).fault, "down", "closed", "new", "third", "opened")
    strategy_books = accounting.apply_configured_split(step, ledger, lambda _: None, netting.strategy_adjustments)
    changed = step.with_layer(StrategiesState(strategy_books))
    assert not strategy_books.fault
    assert sums_to_the_wallet(changed)
    capital = {
        name: strategy_coins(changed, name, "WETH") * 2_000 + strategy_coins(changed, name, "USDC") for name in ("up", "new", "third")
    }
    assert [round(capital[name]) for name in ("up", "new", "third")] == [5_500, 3_300, 2_200]
    again = brought_up(step, replace(ledger, bookings=(*ledger.bookings, *strategy_books.unstored_bookings)))
    assert books_of(again).strategy_books == strategy_books.strategy_books
    assert not books_of(again).fault


EVENTS = st.lists(
    st.tuples(st.sampled_from(["flow", "swap", "payout"]), st.integers(-100, 100), st.integers(-100, 100)), min_size=1, max_size=8
)


@given(EVENTS, st.sampled_from([None, "up", "down"]))
def test_any_events_in_any_order__sum_to_the_wallet(events: list[tuple[str, int, int]], to: str | None) -> None:
    step = shared(reserves={"USDC": 50})
    ledger = replace(with_stored_bookings(NEW, brought_up(step)), transfer_strategy=to)
    coins_by_symbol = {"WETH": Fraction(5, 2), "USDC": Fraction(5_050)}
    for number, (kind, weth, usdc) in enumerate(events):
        moves = {"WETH": max(Fraction(weth, 37), -coins_by_symbol["WETH"]), "USDC": max(Fraction(usdc) * 41, -coins_by_symbol["USDC"])}
        moves = {
            symbol: Fraction(raw(abs(coins), token(symbol)) * (1 if coins > 0 else -1), 10 ** token(symbol).decimals)
            for symbol, coins in moves.items()
        }
        coins_by_symbol = {symbol: coins_by_symbol[symbol] + coins for symbol, coins in moves.items()}
        if kind == "flow":
            flows = [flow(symbol, coins, 2 * number + place) for place, (symbol, coins) in enumerate(moves.items()) if coins]
            ledger = replace(ledger, transfers=tuple(flows), unbooked_intents=())
        else:
            sort = IntentKind.SWAP if kind == "swap" else IntentKind.PAYOUT
            ledger = replace(ledger, transfers=(), unbooked_intents=(swap({s: c for s, c in moves.items() if c}, f"t{number}", sort),))
        now = brought_up(balances(step, **coins_by_symbol), ledger)
        assert not books_of(now).fault
        assert sums_to_the_wallet(now)
        assert min(raw for strategy_book in books_of(now).strategy_books for _, raw in strategy_book.holdings) >= 0
        ledger = with_stored_bookings(ledger, now)


store = store_fixture("file", wallet=OWNER)


def test_store__returns_what_it_got_and_is_never_overwritten(store: Store) -> None:
    pending = books_of(brought_up(shared())).unstored_bookings
    assert store.layer_repository(StrategyStore).ledger() == StrategyLedger()
    assert store.layer_repository(StrategyStore).record_bookings(pending, 0)
    assert not store.layer_repository(StrategyStore).record_bookings((replace(pending[0], source="other"),), 0), (
        "the books were turned since"
    )
    strategy_ledger = store.layer_repository(StrategyStore).ledger()
    assert (strategy_ledger.bookings, strategy_ledger.record_version) == (pending, 1)
    state = StrategyState("up", StrategyHealth.PAUSED, 5, "why", 4, -300, 6, 7, 8, ((WETH.address, Fraction(1, 3)),))
    store.layer_repository(StrategyStore).record_states([state], {"up": NavPoint(7_200, 10, 11)}, 1)
    store.layer_repository(StrategyStore).record_states([state], {"up": NavPoint(7_300, 12, 13)}, 1)
    store.layer_repository(StrategyStore).record_states([replace(state, reason="old")], {}, 0)
    assert store.layer_repository(StrategyStore).ledger().states == (state,)
    for since_s in (0, 7_200):
        points = store.layer_repository(StrategyStore).nav_points("up", since_s)
        assert points == (NavPoint(7_200, 10, 11),), "the first of each hour stands"
    assert (
        store.layer_repository(StrategyStore).nav_points("up", 7_201) == () == store.layer_repository(StrategyStore).nav_points("down", 0)
    )
    assert not store.layer_repository(StrategyStore).record_bookings((), 0, ["up"]), "written since"
    assert store.layer_repository(StrategyStore).ledger().states == (state,)
    assert store.layer_repository(StrategyStore).record_bookings((), 1, ["up"])
    assert store.layer_repository(StrategyStore).ledger().states == () == store.layer_repository(StrategyStore).nav_points("up", 0)
    store.layer_repository(StrategyStore).set_transfer_strategy("up")
    assert store.layer_repository(StrategyStore).ledger().transfer_strategy == "up"
    assert store.layer_repository(StrategyStore).ledger().record_version == 3


def test_ledger__external_transactions_of_one_block__are_in_order_of_nonce(store: Store) -> None:
    strategies = store.layer_repository(StrategyStore)
    bookings = books_of(brought_up(shared())).unstored_bookings
    assert strategies.record_bookings(bookings, 0)
    first = ExternalTransaction("0x0b", bookings[0].block + 1, 3, Fraction(0), Fraction(0), 0, (), 0)
    store.balances.record_prior_day((replace(first, tx_hash="0x0a", nonce=1), first), 2)
    assert [tx_hash for tx_hash, *_ in strategies.ledger().external_transactions] == ["0x0b", "0x0a"]


def test_flows__before_the_books_are_in_them_and_later_wait_once(store: Store) -> None:
    def note(delta: int) -> None:
        deposit = {
            "token": USDC.address,
            "since_block": 1,
            "block_number": 2,
            "chain_s": 3,
            "blocks_trading": False,
            "kind": ExternalTransferKind.DEPOSIT.value,
        }
        with store.db.write("write a flow") as db:
            db.execute(insert(ExternalTransferRow), deposit | {"delta_raw": str(delta)})

    note(1)
    assert store.layer_repository(StrategyStore).record_bookings(books_of(brought_up(shared())).unstored_bookings, 0)
    assert store.layer_repository(StrategyStore).ledger().transfers == ()
    note(2)
    waiting = store.layer_repository(StrategyStore).ledger().transfers
    assert [transfer.delta_raw for transfer in waiting] == [2]
    store.layer_repository(StrategyStore).record_bookings(
        (StrategyBooking(f"flow {waiting[0].id}", StrategyBookingKind.FLOW, 2, 3, ()),), 1
    )
    assert store.layer_repository(StrategyStore).ledger().transfers == ()


def test_ledger__unrecorded_transfer_s_booking_has_no_id(store: Store) -> None:
    strategy_store = store.layer_repository(StrategyStore)
    strategy_store.record_bookings(books_of(brought_up(shared())).unstored_bookings, 0)
    unrecorded = StrategyBooking("flow without a record 0", StrategyBookingKind.FLOW, 2, 3, ())
    assert strategy_store.record_bookings((unrecorded,), 1)
    assert strategy_store.ledger().bookings[-1] == unrecorded


def test_reorganisation__takes_the_booking_and_the_next_brings_one(store: Store) -> None:
    opened = books_of(brought_up(shared())).unstored_bookings
    store.layer_repository(StrategyStore).record_bookings(opened, 0)
    moved(store, 0, 2_000, Transfer(USDC.address, OWNER, POOL, 7))
    (intent,) = store.layer_repository(StrategyStore).ledger().unbooked_intents
    assert store.layer_repository(StrategyStore).record_bookings(
        (StrategyBooking(intent.id, StrategyBookingKind.TRADE, 2_000, 1, (("up", USDC.address, -7),)),), 1
    )
    assert store.layer_repository(StrategyStore).ledger().unbooked_intents == ()
    assert len(store.layer_repository(StrategyStore).ledger().bookings) == 2
    receipt = intent.receipt
    assert receipt is not None
    store.journal.advance(intent.id, IntentState.BROADCAST, 1)
    assert store.layer_repository(StrategyStore).ledger().bookings == opened
    assert store.layer_repository(StrategyStore).ledger().unbooked_intents == ()
    store.journal.advance(intent.id, IntentState.MINED, 2, receipt=replace(receipt, block_number=2_001))
    assert [unbooked_intent.id for unbooked_intent in store.layer_repository(StrategyStore).ledger().unbooked_intents] == [intent.id]


def test_dust_without_end_becomes_one_booking_and_the_sum_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.layers.strategies.store.FOLD_THRESHOLD", 5)
    store.layer_repository(StrategyStore).record_bookings(books_of(brought_up(shared())).unstored_bookings, 0)
    for number in range(1, 9):
        change = (("up", USDC.address, number), ("down", USDC.address, 1))
        assert store.layer_repository(StrategyStore).record_bookings(
            (StrategyBooking(f"flow {number}", StrategyBookingKind.FLOW, 1_000 + number, number, change),), number
        )
    assert len(store.layer_repository(StrategyStore).ledger().bookings) == 9, "none of them is deep yet"
    assert store.layer_repository(StrategyStore).record_bookings((StrategyBooking("flow 9", StrategyBookingKind.FLOW, 9_000, 9, ()),), 9)
    _, folded, newest = store.layer_repository(StrategyStore).ledger().bookings
    assert {name: raw for name, _, raw in folded.changes} == {"up": 36, "down": 8}
    assert newest.source == "flow 9"
    assert store.layer_repository(StrategyStore).record_bookings(
        (StrategyBooking("aside 9", StrategyBookingKind.RESERVE, 9_001, 9, ()),), 10
    )
    assert store.layer_repository(StrategyStore).ledger().transfers == ()
