"""Which increases count as deposits by themselves within limits.deposit_auto, and that no gift raises a limit by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec, guards
from agent.accounting.entries import transfer_entry
from agent.execution import settlement
from agent.model import EntryKind, ExternalTransfer, ExternalTransferKind, StepInput
from agent.planning import proposals
from agent.planning.partial_plans import daily_loss_left, daily_loss_left_for_exits
from agent.planning.solver.utility import turnover_left
from agent.policy.cash_flows import balance_changes
from agent.policy.cash_flows.automatic_deposits import (
    CONFIRMING_BLOCKS,
    MAX_AUTOMATIC_DEPOSITS,
    MAX_OPEN_FLOWS,
    bound_limits,
    with_automatic_deposits,
)
from agent.store import Store
from agent.units import NATIVE
from tests.support import builders
from tests.support.ledgers import COIN, DAY_S, DOLLAR, LEDGER_USDC, LEDGER_WETH, at
from tests.support.plans import evidence
from tests.support.stores import store_fixture
from tests.support.transactions import CHAIN_ID, WALLET

SHARE_BPS = 1_000
TOTAL = 40_000
"""Dollars in the portfolio of `at()`: 10 WETH at 2,000, and 20,000 USDC."""


store = store_fixture("file", wallet=WALLET, chain_id=CHAIN_ID, wrapped_native=LEDGER_WETH.address)


def looked(store: Store, step: StepInput, share_bps: int | None = SHARE_BPS, max_dollars: int = 100_000) -> StepInput:
    """Run one look as a run does: the step with its history, recorded, then read again and bounded."""
    max_live_value = Fraction(max_dollars * DOLLAR)
    step = builders.with_limits(step, deposit_auto_bps=share_bps, balance_jump_bps=200, max_live_value=max_live_value)

    def read() -> StepInput:
        history = store.budgets.history(step.snapshot.head.timestamp_s)
        return balance_changes.apply_balance_changes(replace(step, history=history), store.balances.expected())

    settlement.record_balance_changes(store.balances, step.snapshot, read)
    return balance_changes.bound_limits(read())


def holds(step: StepInput) -> bool:
    return bool(balance_changes.halt_reason(step.portfolio, step.limits, step.history.cash_flows))


def kinds(store: Store) -> list[ExternalTransferKind | None]:
    return [flow.kind for flow in store.balances.transfers()]


@pytest.mark.parametrize(
    ("weth", "usdc"),
    [("10", 24_000), ("11.9", 20_000), ("10", 20_900)],
    ids=["the numeraire, all of the share", "an asset", "just beyond balance_jump"],
)
def test_a_deposit_within_the_share_counts_after_two_blocks(store: Store, weth: str, usdc: int) -> None:
    looked(store, at())
    assert holds(looked(store, at(1_001, weth, usdc)))
    assert holds(looked(store, at(1_000 + CONFIRMING_BLOCKS, weth, usdc)))
    step = looked(store, at(1_001 + CONFIRMING_BLOCKS, weth, usdc))
    assert not holds(step)
    assert kinds(store) == [ExternalTransferKind.AUTOMATIC]
    (deposit,) = step.history.cash_flows.accepted_deposits
    assert transfer_entry(deposit).kind is EntryKind.DEPOSIT
    assert "accepted as a deposit" in balance_changes.format_accepted_deposits(step.portfolio, (deposit,))
    later = looked(store, at(1_002 + CONFIRMING_BLOCKS, weth, usdc))
    assert later.history.cash_flows.accepted_deposits == (deposit,)
    assert codec.loads(StepInput, codec.dumps(later)) == later


@pytest.mark.parametrize(
    ("share_bps", "weth", "usdc"),
    [(None, "10", 24_000), (0, "10", 24_000), (SHARE_BPS, "10", 24_001), (SHARE_BPS, "12.01", 20_000), (200, "10", 20_801)],
    ids=["off", "zero", "above the share", "an asset above it", "a small share"],
)
def test_increase_beyond_the_share_waits_for_owner_or_day(store: Store, share_bps: int | None, weth: str, usdc: int) -> None:
    looked(store, at(), share_bps)
    for block in (1_001, 1_003, 1_050):
        assert holds(looked(store, at(block, weth, usdc), share_bps))
    assert kinds(store) == [None]
    assert not holds(looked(store, at(1_060, weth, usdc, later_s=DAY_S), share_bps))
    assert kinds(store) == [ExternalTransferKind.ACCEPTED]


@pytest.mark.parametrize("amounts", [(2_000, 2_000, 900), (2_000, 1_200, 900)], ids=["far above", "above by a little"])
def test_deposits_of_a_day_share_one_bound_and_raise_none(store: Store, amounts: tuple[int, ...]) -> None:
    looked(store, at())
    block = 1_000
    usdc = 20_000
    for amount in amounts:
        block = block + 10
        usdc = usdc + amount
        looked(store, at(block, usdc=usdc))
        looked(store, at(block + 5, usdc=usdc))
    assert kinds(store) == [ExternalTransferKind.AUTOMATIC] * 2 + [None], "4,900 and 4,100 of at most 4,000, whatever came before"


def test_above_the_ceiling_of_its_owner_nothing_counts_by_itself(store: Store) -> None:
    looked(store, at(), max_dollars=42_000)
    for block in (1_001, 1_005):
        assert holds(looked(store, at(block, usdc=23_000), max_dollars=42_000))
    assert kinds(store) == [None]


def test_many_deposits_of_a_day_wait_again(store: Store) -> None:
    looked(store, at())
    for number in range(1, MAX_AUTOMATIC_DEPOSITS + 3):
        for block in (1_000, 1_005):
            looked(store, at(block + 10 * number, usdc=20_000 + 900 * number), 2_500)
    assert kinds(store) == [ExternalTransferKind.AUTOMATIC] * MAX_AUTOMATIC_DEPOSITS + [None, None]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (("9", 23_000), ("9", 23_000)),  # a swap by hand: WETH went, USDC came
        (("10", 23_000), ("9.9", 23_000)),  # WETH goes in the block that would confirm it
        (("10", 23_000), ("10", 22_900)),  # a part of it leaves again
    ],
    ids=["a swap by hand", "another asset falls", "a part leaves"],
)
def test_beside_a_fall_no_increase_counts_by_itself(store: Store, first: tuple[str, int], then: tuple[str, int]) -> None:
    looked(store, at())
    looked(store, at(1_001, *first))
    for block in (1_005, 1_010):
        assert holds(looked(store, at(block, *then)))
    assert ExternalTransferKind.AUTOMATIC not in kinds(store)


def test_reorganised_transfer_is_no_deposit(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, usdc=23_000))
    looked(store, at(1_005))
    assert ExternalTransferKind.AUTOMATIC not in kinds(store)


def test_a_token_that_rebases_or_has_no_price_waits(store: Store) -> None:
    def rebasing(step: StepInput) -> StepInput:
        assets = tuple(replace(asset, max_rebase_bps=10 if asset.token == LEDGER_WETH else 0) for asset in step.portfolio.assets)
        return replace(step, portfolio=replace(step.portfolio, assets=assets))

    looked(store, rebasing(at()))
    for block in (1_001, 1_005):
        assert holds(looked(store, rebasing(at(block, "11"))))
    blind = at(1_010, "11", feeds=(), pools=())
    assert looked(store, blind).history.cash_flows.accepted_deposits == ()


def test_dust_beside_it_leaves_the_increase_to_its_owner(store: Store) -> None:
    looked(store, at())
    for number in range(MAX_OPEN_FLOWS):
        looked(store, at(1_001 + number, usdc=20_001 + number))
    usdc = 20_000 + MAX_OPEN_FLOWS + 1_000
    looked(store, at(1_100, usdc=usdc))
    assert holds(looked(store, at(1_110, usdc=usdc)))


def test_native_coin_that_is_an_asset_counts_too(store: Store) -> None:
    def native(step: StepInput) -> StepInput:
        assets = tuple(replace(asset, includes_native=asset.token == LEDGER_WETH) for asset in step.portfolio.assets)
        return replace(step, portfolio=replace(step.portfolio, assets=assets))

    looked(store, native(at()))
    looked(store, native(at(1_001, native=2 * COIN)))
    assert not holds(looked(store, native(at(1_005, native=2 * COIN))))
    assert [(flow.token, flow.kind) for flow in store.balances.transfers()] == [(NATIVE, ExternalTransferKind.AUTOMATIC)]


@pytest.mark.parametrize("gift", [900, 2_000, 4_000])
def test_a_gift_raises_no_limit_for_a_day(store: Store, gift: int) -> None:
    limits = {"turnover_bps": 3_000, "daily_turnover_bps": 6_000, "daily_loss_bps": 100, "total_loss_bps": 1_000}

    def look(block: int, usdc: int, later_s: int = 0) -> StepInput:
        return looked(store, builders.with_limits(at(block, usdc=usdc, later_s=later_s), **limits))

    before = look(1_000, 20_000)
    look(1_001, 20_000 + gift)
    after = look(1_005, 20_000 + gift)
    assert not holds(after)
    total_before, total_after = (Fraction(dollars * DOLLAR) for dollars in (TOTAL, TOTAL + gift))
    left_before = turnover_left(before, total_before)[0]
    left_after = turnover_left(after, total_after)[0]
    assert left_before is not None
    assert left_after is not None
    assert left_before * Fraction(999, 1_000) < left_after <= left_before
    assert daily_loss_left(after) == daily_loss_left(before) == 400 * DOLLAR
    exits_before = daily_loss_left_for_exits(before)
    exits_after = daily_loss_left_for_exits(after)
    assert exits_before is not None
    assert exits_after is not None
    assert exits_after >= exits_before, "it tightens none for an exit"
    aged = look(1_100, 20_000 + gift, DAY_S + 60)
    assert (aged.limits.turnover_bps, aged.history.cash_flows.accepted_deposits) == (3_000, ())


def largest_passed_loss(step: StepInput, guard: str, sold: str, bought: str) -> int:
    """Return the largest loss of the day, in dollars, beside which the guard passes a swap by hand of 1,000 dollars."""
    passed = 0
    refused = 10_000
    while refused - passed > 1:
        dollars = (passed + refused) // 2
        loss = Fraction(dollars * DOLLAR)
        lost = builders.with_history(step, loss_24h=loss, loss_total=loss)
        plan = proposals.manual_swap_proposer(sold, bought, COIN // 2 if sold == LEDGER_WETH.address else 1_000 * DOLLAR)(lost).plan
        assert plan is not None
        (verdict,) = [verdict for verdict in guards.judge(lost, plan, evidence(lost, plan)) if verdict.guard == guard]
        passed, refused = (dollars, refused) if verdict.passed else (passed, dollars)
    return passed


@pytest.mark.parametrize(
    ("guard", "limit", "share"),
    [
        pytest.param("daily_loss", "daily_loss_bps", 500, id="daily loss"),
        pytest.param("total_loss", "total_loss_bps", 1_000, id="total loss"),
    ],
)
def test_no_guard_on_losses_passes_more_for_a_gift(guard: str, limit: str, share: int) -> None:
    """44,000 dollars, of which 4,000 came today: a purchase may lose a share of 40,000."""
    step = builders.with_limits(at(usdc=24_000), **{limit: share})
    gift = ExternalTransfer(
        1, LEDGER_USDC.address, 4_000 * DOLLAR, Fraction(4_000 * DOLLAR), 1, 2, builders.NOW_S, True, ExternalTransferKind.AUTOMATIC
    )
    before, after = (
        largest_passed_loss(builders.with_history(step, accepted_deposits=deposits), guard, LEDGER_USDC.address, LEDGER_WETH.address)
        for deposits in ((), (gift,))
    )
    assert before - after == 4_000 * share // 10_000
    own = replace(gift, kind=ExternalTransferKind.ACCEPTED)
    waited = builders.with_history(step, accepted_deposits=(own,))
    assert largest_passed_loss(waited, guard, LEDGER_USDC.address, LEDGER_WETH.address) == before, "what waited a day counts"


@pytest.mark.parametrize(("now_usd", "waits"), [(2_000, False), (1_500, True), (2_300, True)], ids=["unmoved", "fell", "rose"])
def test_its_value_is_that_of_the_higher_price(store: Store, now_usd: int, waits: bool) -> None:
    """1.9 WETH, found at 2,000, are 3,800 of 40,000. At 1,500 they count as 3,800 of 35,000, at 2,300 as 4,370 of 43,000."""
    looked(store, at())
    looked(store, at(1_001, "11.9"))
    later = builders.with_feed(at(1_005, "11.9", pools=()), "WETH", answer=now_usd * 10**8)
    assert holds(looked(store, later)) is waits


# --- One look at the open increases


BASE_RAW = 40_000 * DOLLAR
ALL_OF_THE_SHARE_RAW = 4_000 * DOLLAR


def increase(raw: int = ALL_OF_THE_SHARE_RAW, number: int = 1, blocks_ago: int = CONFIRMING_BLOCKS, **changes: object) -> ExternalTransfer:
    """Return an open increase of USDC beyond limits.balance_jump, found so many blocks ago."""
    block = at().snapshot.head.number - blocks_ago
    plain = ExternalTransfer(number, LEDGER_USDC.address, raw, Fraction(raw), block - 1, block, builders.NOW_S, True, None)
    return replace(plain, **changes)  # type: ignore[arg-type]  # field names


def kinds_after(
    recorded: Sequence[ExternalTransfer],
    new: Sequence[ExternalTransfer] = (),
    accepted: tuple[ExternalTransfer, ...] = (),
    share_bps: int | None = SHARE_BPS,
) -> list[ExternalTransferKind | None]:
    """Return the kinds of the recorded increases after a look, beside 40,000 dollars that were there before."""
    step = builders.with_history(builders.with_limits(at(), deposit_auto_bps=share_bps), accepted_deposits=accepted)
    prices = {LEDGER_USDC.address: Fraction(1), LEDGER_WETH.address: Fraction(2_000 * DOLLAR, COIN)}
    total_raw = BASE_RAW + sum(flow.delta_raw for flow in (*recorded, *new, *accepted))
    return [flow.kind for flow in with_automatic_deposits(step, recorded, new, prices, Fraction(total_raw))]


AUTOMATIC = ExternalTransferKind.AUTOMATIC
DUST = [increase(0, number, exceeds_jump_limit=False) for number in range(2, MAX_OPEN_FLOWS + 1)]


@pytest.mark.parametrize(
    ("recorded", "new", "accepted"),
    [
        pytest.param([increase()], [], [], id="all of the share"),
        pytest.param([increase(blocks_ago=CONFIRMING_BLOCKS)], [], [], id="confirmed just now"),
        pytest.param([increase(), *DUST], [], [], id="as many changes as are looked at"),
        pytest.param([increase()], [increase(0, 2, 0, token=LEDGER_WETH.address)], [], id="beside a new one of another asset"),
        pytest.param([increase(2_000 * DOLLAR)], [], [increase(2_000 * DOLLAR, 9, kind=AUTOMATIC)], id="the rest of a day's share"),
        pytest.param([increase()], [], [increase(0, 9, kind=ExternalTransferKind.ACCEPTED)], id="after one of the owner"),
    ],
)
def test_increase_counts_as_a_deposit(
    recorded: list[ExternalTransfer], new: list[ExternalTransfer], accepted: list[ExternalTransfer]
) -> None:
    assert kinds_after(recorded, new, tuple(accepted))[0] is AUTOMATIC


@pytest.mark.parametrize(
    ("recorded", "new", "accepted"),
    [
        pytest.param([increase(ALL_OF_THE_SHARE_RAW + 1)], [], [], id="one base unit above the share"),
        pytest.param([increase(blocks_ago=CONFIRMING_BLOCKS - 1)], [], [], id="one block too young"),
        pytest.param([increase(), *DUST], [increase(0, 99, 0, token=LEDGER_WETH.address)], [], id="one change too many"),
        pytest.param([increase()], [increase(0, 2, 0)], [], id="beside a new one of its asset"),
        pytest.param([increase()], [increase(-1, 2, 0, token=LEDGER_WETH.address)], [], id="beside a decrease"),
        pytest.param([increase(value=None)], [], [], id="without a value"),
        pytest.param([increase(token=builders.address("another token"))], [], [], id="no asset"),
        pytest.param([increase(2_000 * DOLLAR + 1)], [], [increase(2_000 * DOLLAR, 9, kind=AUTOMATIC)], id="beyond a day's share"),
    ],
)
def test_increase_waits_for_its_owner(
    recorded: list[ExternalTransfer], new: list[ExternalTransfer], accepted: list[ExternalTransfer]
) -> None:
    assert kinds_after(recorded, new, tuple(accepted))[0] is None


@pytest.mark.parametrize(
    "flow",
    [increase(exceeds_jump_limit=False), increase(kind=ExternalTransferKind.ACCEPTED)],
    ids=["within balance_jump", "explained"],
)
def test_increase_that_blocks_nothing_stays_as_it_is(flow: ExternalTransfer) -> None:
    assert kinds_after([flow]) == [flow.kind]


def test_increase_that_counts_uses_the_share_of_the_next() -> None:
    assert kinds_after([increase(3_900 * DOLLAR, 1), increase(101 * DOLLAR, 2)]) == [AUTOMATIC, None]
    assert kinds_after([increase(3_900 * DOLLAR, 1), increase(100 * DOLLAR, 2)]) == [AUTOMATIC, AUTOMATIC]


@pytest.mark.parametrize(
    ("total_usd", "turnover_bps"),
    [(40_000, 2_700), (8_000, 1_500), (4_000, 0), (3_000, 0), (0, 3_000)],
    ids=["a tenth new", "half new", "all new", "more new than is there", "nothing there"],
)
def test_limits_on_turnover_shrink_by_the_share_of_new_deposits(total_usd: int, turnover_bps: int) -> None:
    step = builders.with_limits(at(), turnover_bps=3_000, daily_turnover_bps=None)
    step = builders.with_history(step, accepted_deposits=(increase(kind=AUTOMATIC),))

    limits = bound_limits(step, Fraction(total_usd * DOLLAR))

    assert (limits.turnover_bps, limits.daily_turnover_bps) == (turnover_bps, None)
