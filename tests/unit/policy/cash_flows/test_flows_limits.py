"""Which changes of balances stop the agent: tokens that change by themselves, gas money, limits, and the owner's word."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent import codec, guards
from agent.errors import ConfigError
from agent.model import ExpectedBalances, ExternalTransfer, ExternalTransferKind, Holding, Rebalance, Snapshot, StepInput
from agent.planning import proposals
from agent.policy.cash_flows import balance_changes
from agent.store import Store
from agent.units import NATIVE
from tests.support import builders
from tests.support.builders import with_history
from tests.support.ledgers import COIN, DAY_S, DOLLAR, LEDGER_USDC, LEDGER_WETH, PRICE, at, looked, opened, remembered
from tests.support.plans import evidence
from tests.support.stores import store_fixture
from tests.support.text import mentions, raises_code, raises_field
from tests.support.transactions import CHAIN_ID, WALLET

store = store_fixture("file", wallet=WALLET, chain_id=CHAIN_ID, wrapped_native=LEDGER_WETH.address)


# tokens that change by themselves, and gas money
def rebasing(step: StepInput, bps: int) -> StepInput:
    assets = tuple(replace(asset, max_rebase_bps=bps if asset.token == LEDGER_WETH else 0) for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


def test_rebase_within_its_limit_is_explained(store: Store) -> None:
    looked(store, rebasing(at(), 100))
    assert looked(store, rebasing(at(1_001, "10.06"), 100)).history.cash_flows.unexplained_transfers == ()
    assert [flow.kind for flow in store.balances.transfers()] == [ExternalTransferKind.REBASE]
    (beyond,) = looked(store, rebasing(at(1_002, "10.12"), 100)).history.cash_flows.unexplained_transfers
    assert beyond.kind is None
    assert looked(store, rebasing(at(1_003, "10.14", later_s=2 * DAY_S), 100)).history.cash_flows.unexplained_transfers == (beyond,)


def test_negative_rebase_is_a_loss(store: Store) -> None:
    looked(store, rebasing(at(), 100))
    assert looked(store, rebasing(at(1_001, "9.95"), 100)).history.budgets.loss_24h == PRICE // 20


def test_gas_money_is_explained_and_its_decrease_is_a_loss(store: Store) -> None:
    looked(store, at())
    assert looked(store, at(1_001, native=5 * COIN)).history.cash_flows.unexplained_transfers == ()
    assert [flow.kind for flow in store.balances.transfers()] == [ExternalTransferKind.GAS_MONEY]
    step = looked(store, at(1_002, native=4 * COIN))
    assert [(flow.token, flow.exceeds_jump_limit) for flow in step.history.cash_flows.unexplained_transfers] == [(NATIVE, True)]
    assert step.history.budgets.loss_24h == PRICE


def test_native_coin_that_is_an_asset_is_a_deposit(store: Store) -> None:
    def native(step: StepInput) -> StepInput:
        return replace(
            step,
            portfolio=replace(
                step.portfolio, assets=tuple(replace(a, includes_native=a.token == LEDGER_WETH) for a in step.portfolio.assets)
            ),
        )

    looked(store, native(at()))
    assert [
        flow.exceeds_jump_limit for flow in looked(store, native(at(1_001, native=2 * COIN))).history.cash_flows.unexplained_transfers
    ] == [True]


# limits
def test_change_without_a_limit_is_reported_and_a_loss(store: Store) -> None:
    def off(step: StepInput) -> StepInput:
        return builders.with_limits(step, balance_jump_bps=None)

    looked(store, off(at()))
    step = looked(store, off(at(1_001, "5")))
    assert [flow.exceeds_jump_limit for flow in step.history.cash_flows.unexplained_transfers] == [False]
    assert step.history.budgets.loss_24h == 5 * PRICE


def test_unpriced_decrease_halts_until_it_has_a_price(store: Store) -> None:
    looked(store, at())
    blind = at(1_001, "9.999", feeds=(), pools=())
    (flow,) = looked(store, blind).history.cash_flows.unexplained_transfers
    assert (flow.value, flow.exceeds_jump_limit) == (None, True)
    past = store.budgets.history(builders.NOW_S)
    assert "no price" in past.budgets.unknown_reason
    assert past.budgets.unpriced_falls_reason == past.budgets.unknown_reason
    dry = balance_changes.apply_balance_changes(
        replace(at(1_002, "9.999"), history=store.budgets.history(builders.NOW_S)), store.balances.expected()
    )
    for step in (dry, looked(store, at(1_002, "9.999"))):
        (transfer,) = step.history.cash_flows.unexplained_transfers
        assert (transfer.value, transfer.exceeds_jump_limit, step.history.budgets.unknown_reason) == (-PRICE // 1_000, False, "")
        assert step.history.budgets.unpriced_falls_reason == ""
        assert step.history.budgets.loss_24h == step.history.budgets.decrease_24h == step.history.budgets.loss_total == PRICE // 1_000


@pytest.mark.parametrize(
    ("fall", "max_rebase_bps", "cause", "lost_value"),
    [
        pytest.param({"weth": "9.95"}, 100, None, PRICE // 20, id="rebase"),
        pytest.param({"weth": "9.95"}, 0, ExternalTransferKind.LOSS, PRICE // 20, id="loss by its owner"),
        pytest.param({"native": COIN // 2}, 0, ExternalTransferKind.LOSS, PRICE // 2, id="native coin"),
    ],
)
@pytest.mark.parametrize("later_s", [0, 2 * DAY_S], ids=["that day", "two days later"])
def test_explained_loss_counts_once_it_has_a_price(
    store: Store, fall: dict[str, Any], max_rebase_bps: int, cause: ExternalTransferKind | None, lost_value: int, later_s: int
) -> None:
    def fallen(block: int, later_s: int = 0, **changes: object) -> StepInput:
        return rebasing(at(block, later_s=later_s, **fall, **changes), max_rebase_bps)

    looked(store, rebasing(at(), max_rebase_bps))
    looked(store, fallen(1_001, feeds=(), pools=()))
    if cause is not None:
        store.balances.classify(1, cause, builders.NOW_S)
    blind = looked(store, fallen(1_002, feeds=(), pools=()))
    assert mentions(blind.history.budgets.unknown_reason, "explained as", "has no price yet")
    assert blind.history.budgets.unpriced_falls_reason == blind.history.budgets.unknown_reason

    dry = remembered(store, fallen(1_003, later_s))
    for step in (dry, looked(store, fallen(1_003, later_s)), looked(store, fallen(1_004, later_s))):
        budgets = step.history.budgets
        assert (budgets.unknown_reason, budgets.unpriced_falls_reason) == ("", "")
        assert (budgets.loss_24h, budgets.loss_total) == (0 if later_s else lost_value, lost_value)
    assert [(flow.value, flow.kind) for flow in store.balances.transfers()] == [(-lost_value, cause or ExternalTransferKind.REBASE)]


def test_priced_fall_leaves_the_day_unknown_while_another_has_no_price() -> None:
    link = builders.token("LINK")
    step = builders.step_input({"WETH": 4_000, "LINK": 3_000, "USDC": 3_000})
    feeds = tuple(feed_round for feed_round in step.snapshot.feeds if feed_round.feed != builders.feed_address("LINK"))
    pools = tuple(pool for pool in step.snapshot.pools if link.address not in (pool.token0, pool.token1))
    step = replace(step, snapshot=replace(step.snapshot, feeds=feeds, pools=pools))
    falls = (
        ExternalTransfer(1, link.address, -COIN, None, 1, 2, builders.NOW_S, False, ExternalTransferKind.REBASE),
        ExternalTransfer(2, LEDGER_WETH.address, -COIN, None, 1, 2, builders.NOW_S, True, None),
    )
    reason = balance_changes.unpriced_loss_reason(falls[1], LEDGER_WETH.address)
    step = with_history(step, unexplained_transfers=falls[1:], unknown_reason=reason, unpriced_falls_reason=reason)

    budgets = balance_changes.apply_balance_changes(step, ExpectedBalances((), (), falls, None, 1)).history.budgets

    assert budgets.unknown_reason == budgets.unpriced_falls_reason == "flow 1, a decrease of LINK explained as rebase, has no price yet"
    assert budgets.loss_total == PRICE


def test_unpriced_increase_is_judged_once_it_has_a_price(store: Store) -> None:
    looked(store, at())
    for number, weth in enumerate(("10.000000000000000001", "12"), 1):
        blind = at(1_000 + 2 * number, weth, feeds=(), pools=())
        flow = looked(store, blind).history.cash_flows.unexplained_transfers[-1]
        assert (flow.value, flow.exceeds_jump_limit) == (None, False), "the missing price itself stops what rests on it"
        dry = balance_changes.apply_balance_changes(
            replace(at(1_001 + 2 * number, weth), history=store.budgets.history(builders.NOW_S)), store.balances.expected()
        )
        for step in (dry, looked(store, at(1_001 + 2 * number, weth))):
            flow = step.history.cash_flows.unexplained_transfers[-1]
            assert flow.value == flow.delta_raw * Fraction(PRICE, COIN)
            assert flow.exceeds_jump_limit is (number == 2)
    later = looked(store, at(1_010, "12", later_s=DAY_S))
    assert [flow.exceeds_jump_limit for flow in later.history.cash_flows.unexplained_transfers] == [False], (
        "the dust waits for its owner, the rest is a deposit"
    )


def test_dust_halts_nothing_while_another_price_is_missing(store: Store) -> None:
    """Else anybody could stop the agent for good, for nothing, in the minute in which a feed is silent."""
    feed = builders.feed_address("WETH")

    def blind(block: int, usdc_raw: int) -> StepInput:
        step = at(block)
        holdings = tuple(
            replace(holding, raw=usdc_raw) if holding.token == LEDGER_USDC.address else holding for holding in step.snapshot.holdings
        )
        feeds = tuple(feed_round for feed_round in step.snapshot.feeds if feed_round.feed != feed)
        return replace(step, snapshot=replace(step.snapshot, holdings=holdings, feeds=feeds, pools=()))

    looked(store, at())
    assert opened(store, blind(1_001, 20_000 * DOLLAR + 1)) == [(LEDGER_USDC.address, 1, False)]
    assert opened(store, blind(1_002, 22_000 * DOLLAR + 1))[1:] == [(LEDGER_USDC.address, 2_000 * DOLLAR, True)]


def swapping(step: StepInput) -> StepInput:
    return replace(step, snapshot=replace(step.snapshot, holdings=tuple(
        Holding(h.token, h.raw * (13 if h.token == LEDGER_WETH.address else 10) // 10) for h in step.snapshot.holdings)))  # fmt: skip


@pytest.mark.parametrize(
    ("value", "blocks_trading", "is_passed"),
    [
        pytest.param(700, False, True, id="below the limit"),
        pytest.param(1_000, False, False, id="above the limit"),
        pytest.param(1, True, False, id="halting"),
        pytest.param(None, False, True, id="without a price"),
        pytest.param(None, True, False, id="without a price, halting"),
    ],
)
def test_balance_jump_guard_refuses_open_changes(value: int | None, blocks_trading: bool, is_passed: bool) -> None:
    """A swap by hand asks no trigger and no decision: the guard stands in its way too. A rise without a price counts when it has one."""
    step = swapping(at())
    flow = ExternalTransfer(
        1, LEDGER_WETH.address, 1, None if value is None else Fraction(value * DOLLAR), 1, 2, builders.NOW_S, blocks_trading, None
    )
    step = with_history(step, unexplained_transfers=(flow,))
    plan = proposals.manual_swap_proposer(LEDGER_WETH.address, LEDGER_USDC.address, COIN // 10)(step).plan
    assert plan is not None
    (verdict,) = [v for v in guards.judge(step, plan, evidence(step, plan)) if v.guard == "balance_jump"]
    assert verdict.passed is is_passed, verdict


Change = tuple[int, int | None, int, bool]


@pytest.mark.parametrize(
    ("changes", "is_passed", "measured"),
    [
        pytest.param([(1, 920, 0, False)], True, "200 bps", id="at the limit"),
        pytest.param([(1, 921, 0, False)], False, "(921 USDC)", id="one dollar above"),
        pytest.param([(1, 300, 0, False), (-1, -621, 0, False)], False, "(921 USDC)", id="rise and fall"),
        pytest.param([(1, 921, DAY_S - 1, False)], False, "(921 USDC)", id="just under a day old"),
        pytest.param([(1, 921, DAY_S, False)], True, "every balance is explained", id="a day old"),
        pytest.param([(1, 1, 2 * DAY_S, True)], False, "(1 USDC)", id="two days old, halting"),
        pytest.param([(1, 1, 0, False), (1, 1, 0, True)], False, "(2 USDC)", id="one of two halting"),
        pytest.param([(-1, None, 0, False)], False, "a balance decreased and its token has no reference price", id="fall without a price"),
        pytest.param(
            [(-1, None, 0, False), (1, 1, 0, False)],
            False,
            "a balance decreased and its token has no reference price",
            id="fall without a price and a rise",
        ),
        pytest.param([(1, None, 0, False), (-1, -1, 0, False)], True, "(1 USDC)", id="rise without a price and a fall"),
    ],
)
def test_balance_jump_guard_adds_up_the_changes_of_a_day(changes: list[Change], is_passed: bool, measured: str) -> None:
    """Sign, dollars, age and whether it halts, of each change; 46,000 in all; limits.balance_jump is 200 bps."""
    step = swapping(at())
    transfers = tuple(
        ExternalTransfer(
            number,
            LEDGER_WETH.address,
            sign,
            None if value is None else Fraction(value * DOLLAR),
            1,
            2,
            builders.NOW_S - age_s,
            blocks_trading,
            None,
        )
        for number, (sign, value, age_s, blocks_trading) in enumerate(changes, 1)
    )
    step = with_history(step, unexplained_transfers=transfers)
    plan = proposals.manual_swap_proposer(LEDGER_WETH.address, LEDGER_USDC.address, COIN // 10)(step).plan
    assert plan is not None
    (verdict,) = [v for v in guards.judge(step, plan, evidence(step, plan)) if v.guard == "balance_jump"]
    assert (verdict.passed, measured in verdict.measured_text) == (is_passed, True), verdict


@pytest.mark.parametrize("max_value", [None, Fraction(2_000 * DOLLAR)])
def test_halt_promises_no_deposit_above_max_live_value(max_value: Fraction | None) -> None:
    gift = ExternalTransfer(1, LEDGER_USDC.address, DOLLAR, Fraction(DOLLAR), 1, 2, builders.NOW_S, True, None)
    step = builders.with_limits(with_history(at(), unexplained_transfers=(gift,)), max_live_value=max_value)
    reason = balance_changes.halt_reason(step.portfolio, step.limits, step.history.cash_flows)
    assert "or accepted as deposits at" in reason
    assert ("while portfolio.max_live_value is exceeded they only end the block then" in reason) is (max_value is not None)


def test_halt_names_the_limit_and_at_most_five_changes() -> None:
    transfers = tuple(
        ExternalTransfer(n, LEDGER_USDC.address, n * DOLLAR, Fraction(n * DOLLAR), 1, 2, builders.NOW_S, True, None) for n in range(1, 8)
    )
    step = with_history(at(), unexplained_transfers=transfers[:5])
    assert mentions(
        balance_changes.halt_reason(step.portfolio, step.limits, step.history.cash_flows),
        "limits.balance_jump",
        "2 %",
        "USDC",
        "1 (1 USDC)",
    )
    assert "more" not in balance_changes.halt_reason(step.portfolio, step.limits, step.history.cash_flows)
    seven = with_history(step, unexplained_transfers=transfers)
    assert mentions(balance_changes.halt_reason(seven.portfolio, seven.limits, seven.history.cash_flows), "5 (5 USDC)", "2 more")
    off = builders.with_limits(step, balance_jump_bps=None)
    assert mentions(balance_changes.halt_reason(off.portfolio, off.limits, off.history.cash_flows), "unexplained", "USDC rose")


@pytest.mark.parametrize("is_exit", [False, True])
def test_guards_hold_no_exit_for_unexplained_changes(is_exit: bool) -> None:
    """Half of everything fell, as much came, and the whole is above its cap: an exit answers for what trades lost alone."""
    step = builders.with_limits(swapping(at()), max_live_value=Fraction(DOLLAR), turnover_bps=None, total_loss_bps=1_000)
    transfers = (
        ExternalTransfer(1, LEDGER_WETH.address, sign, Fraction(sign * 20_000 * DOLLAR), 1, 2, builders.NOW_S, True, None)
        for sign in (-1, 1)
    )
    lost = Fraction(20_000 * DOLLAR)
    step = with_history(
        step, unexplained_transfers=tuple(transfers), loss_24h=lost, loss_total=lost, decrease_24h=lost, decrease_total=lost
    )
    plan = proposals.manual_swap_proposer(LEDGER_WETH.address, LEDGER_USDC.address, COIN // 10)(step).plan
    assert isinstance(plan.decision, Rebalance)
    plan = replace(plan, decision=replace(plan.decision, is_exit=is_exit))
    refused = {v.guard for v in guards.judge(step, plan, evidence(step, plan)) if not v.passed}
    assert refused == (set() if is_exit else {"balance_jump", "daily_loss", "total_loss", "max_live_value"})
    traded = with_history(step, loss_24h=2 * lost, loss_total=2 * lost)
    refused = {v.guard for v in guards.judge(traded, plan, evidence(traded, plan)) if not v.passed}
    assert refused >= {"daily_loss", "total_loss"}, "what trades lost binds an exit too"


def test_unknown_day_refuses_every_daily_limit(store: Store) -> None:
    step = swapping(at())
    step = with_history(step, unknown_reason="nobody knows")
    plan = proposals.manual_swap_proposer(LEDGER_WETH.address, LEDGER_USDC.address, COIN // 10)(step).plan
    assert plan is not None
    refused = {v.guard for v in guards.judge(step, plan, evidence(step, plan)) if not v.passed and "nobody knows" in v.measured_text}
    assert refused == {"daily_loss", "daily_turnover", "gas_per_day"}


def test_dust_sent_a_thousand_times_fills_no_step(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "11"))
    books = store.balances.expected()
    dust = ExternalTransfer(0, LEDGER_USDC.address, 1, Fraction(1), 1, 2, builders.NOW_S, False, None)
    snapshot = at(1_002, "11").snapshot
    assert store.balances.record(snapshot, balance_changes.balances_of(snapshot), [dust] * 1_000, books.version)
    transfers = store.budgets.history(builders.NOW_S).cash_flows.unexplained_transfers
    assert len(transfers) == 51
    assert transfers[0].exceeds_jump_limit
    assert len(store.balances.classify(None, None, 5)) == 1_001


def test_dust_hides_no_loss(store: Store) -> None:
    """Else an owner who explains all that dust would explain a loss with it that he never saw."""
    looked(store, at())
    looked(store, at(1_001, "9.9"))
    books = store.balances.expected()
    dust = ExternalTransfer(0, LEDGER_USDC.address, 1, Fraction(1), 1, 2, builders.NOW_S, False, None)
    snapshot = at(1_002, "9.9").snapshot
    assert store.balances.record(snapshot, balance_changes.balances_of(snapshot), [dust] * 100, books.version)
    transfers = store.budgets.history(builders.NOW_S).cash_flows.unexplained_transfers
    assert (len(transfers), transfers[0].delta_raw) == (51, -COIN // 10)


# the owner's word
def test_classification_must_fit_the_sign_of_the_change(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "9.9", 20_100))
    fell, rose = sorted(store.balances.transfers(), key=lambda flow: flow.delta_raw > 0)
    with raises_field("--as", "or loss"):
        store.balances.classify(fell.id, ExternalTransferKind.GIFT, 5)
    with raises_field("--as", "or gift"):
        store.balances.classify(rose.id, ExternalTransferKind.LOSS, 5)
    assert {flow.kind for flow in store.balances.classify(None, None, 5)} == {ExternalTransferKind.WITHDRAWAL, ExternalTransferKind.DEPOSIT}
    with raises_code(ConfigError, "flow_confirmed"):
        store.balances.classify(rose.id, None, 5)


def test_step_with_unexplained_changes_survives_its_codec(store: Store) -> None:
    looked(store, at())
    step = looked(store, at(1_001, "11"))
    assert codec.loads(StepInput, codec.dumps(step)) == step


def test_contradicting_balances_are_not_compared() -> None:
    contradicting = at().snapshot
    twice: Snapshot = replace(contradicting, holdings=(*contradicting.holdings, Holding(LEDGER_WETH.address, 1)))
    assert set(balance_changes.balances_of(twice)) == {LEDGER_USDC.address, NATIVE}
