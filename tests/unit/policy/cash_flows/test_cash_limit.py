"""The account of portfolio.use_cash: pure rules of deposits, withdrawals and changes of the setting, and the store's record of it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.app.start.doctor.checks import cash_checks
from agent.errors import Retryable
from agent.execution.step_memory import record_cash
from agent.model import CashAccount, CashMemory, CashState, ExpectedBalances, ExternalTransaction, OpeningBalance, StepInput
from agent.policy.cash_flows import cash_limit
from agent.policy.cash_flows.cash_limit import excluded_amounts
from agent.policy.decide import decide
from agent.policy.drift import investable_total
from agent.store import open_memory_store
from agent.units import NATIVE
from tests.support.builders import address, raw, step_input, token
from tests.support.configs.samples import config_error
from tests.support.text import mentions
from tests.support.tokens import USDC

NONE = ExpectedBalances((), (), (), None, 0)
LIMIT = raw(1_000, USDC)


def memory(account: CashAccount | None = None, changes: tuple[int, ...] = (), paid: tuple[int, ...] = ()) -> CashMemory:
    return CashMemory(account, changes, paid, 0, 0, (), 0)


def cash_step(cash: int, limit: int | None = LIMIT, weth: int = 0) -> StepInput:
    base_step = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": weth, "USDC": cash})
    return replace(base_step, portfolio=replace(base_step.portfolio, use_cash_raw=limit))


def with_unused_cash_reserved(base_step: StepInput, cash_memory: CashMemory | None = None, balances: ExpectedBalances = NONE) -> StepInput:
    return cash_limit.reserve_unused_cash(base_step, cash_memory or memory(), balances)


def account(taken: int, unused: int, limit: int = 1_000) -> CashAccount:
    return CashAccount(USDC.address, raw(limit, USDC), raw(taken, USDC), raw(unused, USDC))


def test_cash_above_the_limit_is_excluded_by_name() -> None:
    capped_step = with_unused_cash_reserved(cash_step(5_000))
    decided = decide(capped_step)
    assert investable_total(decided.drifts) == LIMIT
    assert mentions(decided.decision.reason, "4000 USDC", "portfolio.use_cash")
    assert [(address, amount) for address, amount, _ in excluded_amounts(capped_step)] == [(USDC.address, raw(4_000, USDC))]
    assert investable_total(decide(with_unused_cash_reserved(cash_step(5_000, None))).drifts) == raw(5_000, USDC), "off"


@pytest.mark.parametrize(
    ("taken", "unused", "deposit", "usable"),
    [
        pytest.param(600, 100, 500, 400, id="beyond the room"),
        pytest.param(600, 0, 300, 300, id="within the room"),
        pytest.param(1_000, 500, 500, 0, id="no room"),
        pytest.param(1_000, 200, 500, 300, id="no room, less of it unused"),
        pytest.param(0, 4_000, 800, 800, id="within the room, more unused"),
    ],
)
def test_usable_deposit_is_what_the_limit_leaves(taken: int, unused: int, deposit: int, usable: int) -> None:
    weth = token("WETH").address
    cash = CashState(account(taken, unused), True, True, 0, raw(unused, USDC))
    deposits = {weth: 7, USDC.address: raw(deposit, USDC)}
    assert cash_limit.usable_deposits(USDC, cash, deposits) == {weth: 7} | ({USDC.address: raw(usable, USDC)} if usable else {})
    assert cash_limit.usable_deposits(USDC, cash, {weth: 7}) == {weth: 7}
    assert cash_limit.usable_deposits(USDC, None, deposits) == deposits


@pytest.mark.parametrize(
    ("wallet_cash", "stored", "warns"),
    [(999, None, True), (1_000, None, False), (40, account(40, 0), False)],
    ids=["less", "enough", "begun"],
)
def test_cash_checks_compare_use_cash_with_the_wallet(wallet_cash: int, stored: CashAccount | None, warns: bool) -> None:
    results = list(cash_checks(with_unused_cash_reserved(cash_step(wallet_cash), memory(stored))))
    assert [result.finding for result in results] == ["portfolio.use_cash is 1000 USDC, the wallet has 999"] * warns


def test_used_cash_is_what_trades_leave_of_it() -> None:
    bought = with_unused_cash_reserved(cash_step(4_500, weth=500), memory(account(1_000, 4_000)))
    assert investable_total(decide(bought).drifts) == raw(1_000, USDC)
    sold = with_unused_cash_reserved(cash_step(9_000), memory(account(1_000, 4_000)))
    assert investable_total(decide(sold).drifts) == raw(5_000, USDC), "what sales bring stays in use"


@pytest.mark.parametrize(
    ("before", "changes", "taken", "unused"),
    [
        pytest.param(account(400, 0), (3_000,), 1_000, 2_400, id="deposit beyond the limit"),
        pytest.param(account(1_000, 4_000), (500,), 1_000, 4_500, id="deposit into the rest"),
        pytest.param(account(1_000, 4_000), (-3_000,), 1_000, 1_000, id="withdrawal within the rest"),
        pytest.param(account(1_000, 4_000), (-4_300,), 700, 0, id="withdrawal beyond the rest"),
        pytest.param(account(1_000, 4_000), (-4_300, 4_300), 1_000, 4_000, id="withdrawal and deposit"),
        pytest.param(account(1_000, 0), (-1_500,), 0, 0, id="withdrawal of more than all"),
    ],
)
def test_deposits_fill_the_limit_and_withdrawals_empty_the_rest(
    before: CashAccount, changes: tuple[int, ...], taken: int, unused: int
) -> None:
    after = cash_limit.with_transfers(before, [raw(change, USDC) for change in changes])
    assert (after.taken_raw, after.unused_raw) == (raw(taken, USDC), raw(unused, USDC))


def test_payout_makes_room_for_a_later_deposit() -> None:
    after = cash_limit.with_recorded_changes(account(1_000, 4_000), memory(account(1_000, 4_000), paid=(raw(600, USDC),)))
    assert (after.taken_raw, after.unused_raw) == (raw(400, USDC), raw(4_000, USDC))
    assert cash_limit.with_transfers(after, [raw(700, USDC)]).unused_raw == raw(4_100, USDC)


@given(st.integers(0, 10**12), st.lists(st.integers(-(10**12), 10**12), max_size=12), st.integers(0, 10**12))
def test_taken_cash_never_exceeds_the_limit(held_raw: int, changes: list[int], limit: int) -> None:
    taken = min(limit, held_raw)
    account_now = CashAccount(USDC.address, limit, taken, held_raw - taken)
    for change in changes:
        change_raw = max(change, -(account_now.taken_raw + account_now.unused_raw))  # nobody moves what is not there
        after = cash_limit.with_transfers(account_now, [change_raw])
        assert 0 <= after.taken_raw <= limit
        assert after.unused_raw >= 0
        assert after.taken_raw + after.unused_raw == account_now.taken_raw + account_now.unused_raw + change_raw
        account_now = after


@pytest.mark.parametrize(
    ("cash", "limit", "unused"),
    [
        pytest.param(4_500, 2_000, 3_000, id="limit above what was taken"),
        pytest.param(4_500, 9_000, 0, id="limit above all"),
        pytest.param(4_500, 700, 4_300, id="limit below what was taken"),
        pytest.param(4_000, 700, 4_000, id="cash all in the rest"),
    ],
)
def test_changed_limit_takes_from_or_returns_to_the_rest(cash: int, limit: int, unused: int) -> None:
    capped_step = with_unused_cash_reserved(cash_step(cash, raw(limit, USDC), weth=500), memory(account(1_000, 4_000)))
    assert capped_step.history.cash_flows.cash.unused_raw == raw(unused, USDC)
    assert capped_step.history.cash_flows.cash.account.unused_raw == raw(unused, USDC)


def test_increase_that_an_exit_sold_counts_as_cash_rounded_up() -> None:
    weth = token("WETH").address
    prices = {weth: Fraction(1, 2), USDC.address: Fraction(1)}
    increases = cash_limit.increases_after_sales({weth: 4, USDC.address: 9}, cash_step(0).portfolio, {weth: 7}, prices)
    assert increases == {weth: 7, USDC.address: 2}


def test_record_cash_refuses_a_stale_or_unexplained_account() -> None:
    with closing(open_memory_store(1, address("wallet"), token("WETH").address)) as store:
        opened = with_unused_cash_reserved(cash_step(5_000), store.cash.read(USDC.address, 10**9))
        record_cash(store.cash, opened.history)
        cash_memory = store.cash.read(USDC.address, 10**9)
        assert cash_memory.account.unused_raw == raw(4_000, USDC)
        assert cash_memory.version == 1
        record_cash(store.cash, with_unused_cash_reserved(cash_step(5_000), cash_memory).history)  # the same again writes nothing
        assert store.cash.read(USDC.address, 10**9).version == 1
        with pytest.raises(Retryable, match="cash changed while its account was recorded"):
            record_cash(store.cash, with_unused_cash_reserved(cash_step(5_000)).history)
        unexplained = replace(NONE, openings=(OpeningBalance(USDC.address, raw(3_000, USDC), 0),))
        store.cash.forget()
        with pytest.raises(Retryable, match="cash changed while its account was recorded"):
            record_cash(store.cash, with_unused_cash_reserved(cash_step(5_000), balances=unexplained).history)
        assert store.cash.read(USDC.address, 10**9).account is None


def test_use_cash_refuses_a_rebasing_numeraire() -> None:
    used = ('# use_cash = "1000"', 'use_cash = "1000"')
    symbol = 'symbol = "USDC"'
    assert mentions(config_error(used, (symbol, f'{symbol}\nrebasing = "1%"')), "use_cash", "USDC", "rebasing")
    assert mentions(config_error(('numeraire = "USDC"', 'numeraire = "USDC"\nuse_cash = "-5"')), "use_cash", "-5")


def test_owner_payments_come_from_the_rest_and_swaps_do_not() -> None:
    usdc = USDC.address
    weth = token("WETH").address
    with closing(open_memory_store(1, address("wallet"), weth)) as store:
        assert store.cash.record(CashAccount(usdc, 1_000, 1_000, 4_000), 0)
        opened = cash_step(5_000).snapshot
        assert store.balances.record(opened, {usdc: 5_000}, (), 0)
        block = opened.head.number
        payment = ((usdc, -3_500),)
        swap = ((usdc, -200), (weth, 7))
        income = ((usdc, 50), (NATIVE, -1))
        for number, changes in enumerate((payment, swap, income), 1):
            transaction = ExternalTransaction(f"0x{number}", block + number, number, Fraction(0), Fraction(0), 0, changes, number)
            store.balances.record_prior_day((transaction,), number)
        memory = store.cash.read(usdc, block + 3)
        assert memory.account is not None
        assert memory.changes == (-3_500, 50)
        after = cash_limit.with_recorded_changes(memory.account, memory)
        assert (after.taken_raw, after.unused_raw) == (1_000, 550)
        assert store.cash.record(after, memory.version)
        assert store.cash.read(usdc, block + 3).changes == ()
