"""Settlement: what each leg exchanged, and the loss at the prices before the trade (T6)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.accounting.export import TokenNames
from agent.app.documents.past import executions
from agent.errors import PassingFault
from agent.execution import settlement
from agent.execution.settlement import BookingPrices, TradePurpose
from agent.model import (
    Entry,
    EntryKind,
    Goal,
    Intent,
    IntentKind,
    IntentState,
    Leg,
    LegPlace,
    Payout,
    Plan,
    PlanCost,
    Posting,
    Rebalance,
    Transfer,
    UnsignedTx,
)
from agent.units import NATIVE, Token
from tests.support.builders import step_input
from tests.support.records.settlements import DAI, PRICES, ROUTER, USDC, WETH, settled_swap
from tests.support.text import raises_code
from tests.support.transactions import OTHER, START_S, WALLET, bench, receipt

POOL, SECOND = "0x" + "11" * 20, "0x" + "22" * 20


def leg(pool: str, token_in: str, token_out: str, amount_in: int, amount_out: int) -> Leg:
    return Leg(pool, "uniswap_v3", token_in, token_out, 3000, amount_in, amount_out, 1, 1, 1, LegPlace.WALLET, LegPlace.WALLET)


def plan(*legs: Leg) -> Plan:
    nothing = Fraction(0)
    cost = PlanCost(nothing, nothing, nothing, nothing)
    return Plan(1, Rebalance("", Goal(())), legs, (), (), cost, nothing, nothing, 0, None, (), (), 9)


def test_unwrapped_raw_counts_by_token_and_holder() -> None:
    wrapped = (Transfer(WETH, WALLET, NATIVE, 5), Transfer(WETH, ROUTER, NATIVE, 7), Transfer(WETH, NATIVE, WALLET, 3))
    mined = replace(receipt("0xaa", 1, "0x01"), wrap_transfers=(*wrapped, Transfer(USDC, WALLET, NATIVE, 2)))
    assert [mined.unwrapped_raw(WETH, WALLET), mined.unwrapped_raw(WETH, WALLET, ROUTER), mined.unwrapped_raw(DAI, WALLET)] == [5, 12, 0]


def test_realised_legs_take_the_transfers_of_their_pools() -> None:
    traded = plan(
        leg(POOL, WETH, USDC, 10, 19_000), leg(SECOND, WETH, USDC, 5, 9_500), leg(POOL, WETH, USDC, 2, 3_700), leg(POOL, USDC, DAI, 7, 7)
    )
    transfers = (
        Transfer(USDC, POOL, WALLET, 19_001),
        Transfer(WETH, WALLET, POOL, 10),
        Transfer(WETH, WALLET, SECOND, 5),
        Transfer(USDC, SECOND, WALLET, 9_400),
        Transfer(USDC, POOL, WALLET, 3_699),
        Transfer(WETH, WALLET, POOL, 2),
    )
    legs = settlement.realised_legs(traded, replace(_receipt(), transfers=transfers))
    assert [(r.in_raw, r.out_raw) for r in legs] == [(10, 19_001), (5, 9_400), (2, 3_699), (None, None)]
    assert [(r.leg.amount_in_raw, r.leg.amount_out_raw) for r in legs] == [(10, 19_000), (5, 9_500), (2, 3_700), (7, 7)]


def test_realised_wraps_take_their_own_events() -> None:
    wraps, unwraps = (
        replace(leg(WETH, token_in, token_out, raw, raw), venue="wrapped_native")
        for token_in, token_out, raw in ((NATIVE, WETH, 3), (WETH, NATIVE, 4))
    )
    events = (Transfer(WETH, WALLET, NATIVE, 4), Transfer(WETH, NATIVE, WALLET, 3))
    legs = settlement.realised_legs(plan(wraps, unwraps), replace(_receipt(), wrap_transfers=events))
    assert [(leg_execution.in_raw, leg_execution.out_raw) for leg_execution in legs] == [(3, 3), (4, 4)]


def swap(state: IntentState, *transfers: Transfer) -> Intent:
    tx = UnsignedTx(1, 0, ROUTER, 0, "0x", 1, 1, 1, None)
    return Intent("i", "s", IntentKind.SWAP, state, tx, "", 0, None, "0xaa", replace(_receipt(), transfers=transfers))


def test_leg_executions_leave_doubtful_amounts_unknown() -> None:
    """A third transfer out of a pool with two legs may belong to either of them; the other pool's amounts are beyond doubt."""
    traded = replace(
        plan(leg(POOL, WETH, USDC, 10, 19_000), leg(POOL, WETH, USDC, 2, 3_700), leg(SECOND, WETH, DAI, 4, 8_000)),
        turnover=Fraction(30_700),
    )
    sold = [Transfer(WETH, WALLET, pool, raw) for pool, raw in ((POOL, 10), (POOL, 2), (SECOND, 4))]
    bought = [Transfer(USDC, POOL, WALLET, 18_000), Transfer(USDC, POOL, WALLET, 3_700), Transfer(DAI, SECOND, WALLET, 7_900)]
    intent = swap(IntentState.FINAL, *sold, *bought)
    leg_executions = executions.leg_executions(traded, intent)
    assert [(execution.in_raw, execution.out_raw) for execution in leg_executions] == [(10, 18_000), (2, 3_700), (4, 7_900)]
    assert [execution.difference_share for execution in leg_executions] == [Fraction(-1, 19), 0, Fraction(-1, 80)]

    twice = executions.leg_executions(traded, swap(IntentState.FINAL, *sold, *bought, Transfer(USDC, POOL, OTHER, 500)))
    assert [(execution.in_raw, execution.out_raw) for execution in twice] == [(10, None), (2, None), (4, 7_900)]
    assert [execution.difference_share for execution in twice] == [None, None, Fraction(-1, 80)]

    entry = Entry(
        "e", EntryKind.TRADE, 1, 1, "", "", (Posting("trading", DAI, -7_900, Fraction(-7_900)), Posting("trading", USDC, 1, Fraction(2)))
    )
    names = TokenNames({}, Token(USDC, "USDC", 0))
    assert executions.execution_document([(traded, intent)], [entry], names) == {
        "legs": 3,
        "unknown": 0,
        "amounts": {WETH: "-16", USDC: "21700", DAI: "7900"},
        "difference": "-2100",
        "difference_bps": -684.04,
    }
    for entries, unknown in (([], 0), ([entry], 2)):
        intent = intent if not unknown else swap(IntentState.FINAL, *sold, *bought[:1], *bought[2:])
        assert executions.execution_document([(traded, intent)], entries, names) == {
            "legs": 3, "unknown": unknown, "amounts": None if unknown else {WETH: "-16", USDC: "21700", DAI: "7900"},
            "difference": None, "difference_bps": None,
        }  # fmt: skip
    assert executions.execution_document([(traded, swap(IntentState.BROADCAST, *sold, *bought))], [entry], names) is None


def test_trade_loss_is_at_the_prices_before() -> None:
    before, after = {WETH: 100, USDC: 1000}, {WETH: 90, USDC: 20_500}
    assert settlement.trade_loss(before, after, PRICES, Fraction(7)) == 20_000 - 19_500 + 7


def test_trade_loss_of_a_fair_trade_is_its_gas() -> None:
    assert settlement.trade_loss({WETH: 1}, {USDC: 2000}, PRICES, Fraction(3)) == 3
    assert settlement.trade_loss({WETH: 1}, {USDC: 2100}, PRICES, Fraction(3)) == -97


def test_trade_loss_of_churn_adds_up() -> None:
    balances = {WETH: 1000, USDC: 0}
    total = Fraction(0)
    for _ in range(10):
        away = {WETH: 0, USDC: balances[WETH] * 1990}
        home = {WETH: away[USDC] // 2010, USDC: 0}
        total += settlement.trade_loss(balances, away, PRICES, Fraction(1)) + settlement.trade_loss(away, home, PRICES, Fraction(1))
        balances = home
    assert total == (1000 - balances[WETH]) * 2000 + 20
    assert total > 150_000


def test_trade_loss_lets_an_unpriced_token_grow_not_shrink() -> None:
    assert settlement.trade_loss({}, {DAI: 5}, PRICES, Fraction(0)) == 0
    with raises_code(PassingFault, "reference_price"):
        settlement.trade_loss({DAI: 5}, {}, PRICES, Fraction(0))


def test_trade_turnover_is_half_of_all_changes() -> None:
    assert settlement.trade_turnover({WETH: -10, USDC: 19_000, DAI: 3}, PRICES) == Fraction(20_000 + 19_000, 2)


PRICES_WITHOUT_GAS = BookingPrices(PRICES, native_price=Fraction(0))


def test_book_intent_takes_the_receipt_without_balances(tmp_path: Path) -> None:
    setup, intent = settled_swap(tmp_path, Transfer(WETH, WALLET, ROUTER, 10), Transfer(USDC, ROUTER, WALLET, 19_900))
    lost = settlement.book_intent(setup.store.budgets, intent, WALLET, BookingPrices(PRICES, Fraction(1, 10**12)), START_S)
    assert lost == 100 + intent.receipt.gas_cost_wei * Fraction(1, 10**12)
    history = setup.store.budgets.history(START_S)
    assert (history.budgets.loss_24h, history.budgets.turnover_24h, history.budgets.gas_24h_wei) == (
        lost,
        Fraction(39_900, 2),
        intent.receipt.gas_cost_wei,
    )
    assert setup.store.journal.unbooked_intents() == ()


@pytest.mark.parametrize(("into", "turnover"), [(USDC, 0), (WETH, 15_000), ("", 17_500)])
def test_exit_turnover_is_what_it_buys_of_other_tokens(tmp_path: Path, into: str, turnover: int) -> None:
    setup, intent = settled_swap(tmp_path, Transfer(WETH, WALLET, ROUTER, 10), Transfer(USDC, ROUTER, WALLET, 15_000))
    settlement.book_intent(setup.store.budgets, intent, WALLET, PRICES_WITHOUT_GAS, START_S, purpose=TradePurpose(exit_proceeds_token=into))
    assert setup.store.budgets.history(START_S).budgets.turnover_24h == turnover


def test_false_events_hide_no_loss(tmp_path: Path) -> None:
    setup, intent = settled_swap(tmp_path, Transfer(WETH, WALLET, ROUTER, 10), Transfer(USDC, ROUTER, WALLET, 20_000))
    balances = ({WETH: 10, USDC: 0}, {WETH: 0, USDC: 15_000})
    assert settlement.book_intent(setup.store.budgets, intent, WALLET, PRICES_WITHOUT_GAS, START_S, balances) == 5_000


def test_deposit_in_between_hides_no_loss(tmp_path: Path) -> None:
    setup, intent = settled_swap(tmp_path, Transfer(WETH, WALLET, ROUTER, 10), Transfer(USDC, ROUTER, WALLET, 15_000))
    balances = ({WETH: 10, USDC: 0}, {WETH: 0, USDC: 15_000 + 1_000_000})
    assert settlement.book_intent(setup.store.budgets, intent, WALLET, PRICES_WITHOUT_GAS, START_S, balances) == 5_000


def test_revert_loses_its_gas(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    setup.chain.status = 0
    intent = setup.run()
    lost = settlement.book_intent(setup.store.budgets, intent, WALLET, BookingPrices(PRICES, Fraction(1, 10**9)), START_S)
    assert lost == Fraction(intent.receipt.gas_cost_wei, 10**9)
    assert setup.store.budgets.history(START_S).budgets.loss_24h == lost


@pytest.mark.parametrize(("status", "outflow"), [(1, 15_000), (0, 0)])
def test_payout_is_an_outflow_unless_it_reverted(tmp_path: Path, status: int, outflow: int) -> None:
    sent = [Transfer(USDC, WALLET, ROUTER, 15_000)] if status else []
    setup, intent = settled_swap(tmp_path, *sent)
    paid = replace(intent, receipt=replace(intent.receipt, status=status))
    payout = Payout(USDC, ROUTER, 15_000, 0, 1)
    assert settlement.book_intent(setup.store.budgets, paid, WALLET, PRICES_WITHOUT_GAS, START_S, purpose=TradePurpose(payout)) == 0
    history = setup.store.budgets.history(START_S)
    assert (history.budgets.outflow_24h, history.budgets.turnover_24h) == (outflow, 0)


def test_after_gas_deducts_the_gas_of_an_approval_once(tmp_path: Path) -> None:
    _, intent = settled_swap(tmp_path)
    assert intent.receipt is not None
    before = step_input()
    after = settlement.after_gas(before, intent)
    cost_wei = intent.receipt.gas_cost_wei
    assert before.snapshot.native_wei - after.snapshot.native_wei == cost_wei
    assert after.history.budgets.gas_24h_wei - before.history.budgets.gas_24h_wei == cost_wei
    assert settlement.after_gas(before, replace(intent, receipt=None)) == before


def test_book_intent_needs_a_receipt(tmp_path: Path) -> None:
    setup, intent = settled_swap(tmp_path)
    with pytest.raises(ValueError, match="no receipt"):
        settlement.book_intent(setup.store.budgets, replace(intent, receipt=None), WALLET, PRICES_WITHOUT_GAS, START_S)


def _receipt():
    from tests.support.transactions import receipt

    return receipt("0xaa", 1, "0x01")
