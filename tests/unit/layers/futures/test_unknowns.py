"""Reductions of futures while something else is unknown: another market's index, spot prices, quarantined tokens; and what then waits."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.app.alerting import RunFacts, cycle_alerts
from agent.app.documents.futures_report import build_futures_report
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.accounting import margin_reading
from agent.layers.futures.planning.orders import plan_futures
from agent.layers.futures.policy.exposure import margin_fault
from agent.layers.futures.policy.needs import due_stops, spot_value_in_quote
from agent.layers.futures.policy.targets import FuturesTrigger, fired_triggers, reduction_sizes
from agent.layers.futures.state import futures_policy, margin_account, with_policy
from agent.margin import account as margin
from agent.margin.state import after_fill_at_mark, is_reduction
from agent.model import AdjustFutures, Decision, FeedRound, Halt, Hold, ScreenedToken, StepInput, TokenFinding, UnreadableItem
from agent.model.futures import (
    FuturesPlan,
    FuturesPolicy,
    FuturesReading,
    FuturesTarget,
    Hedge,
    MarginAccount,
    MarginTier,
    StaleRead,
    StaleReadKind,
)
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import current_drifts, decide
from agent.policy.quarantine import quarantine_tokens
from tests.support.builders import NOW_S, address, step_input, token, v3_pool, with_feed, with_history, with_snapshot, without_feed
from tests.support.decisions.exits_of_a_step import step_with_equal_stops
from tests.support.perpetuals.accounts import E18, account, market
from tests.support.perpetuals.steps import FUTURES_POLICY, LIMITS, OVER, PUSHED, book, futures_of, proposed_futures, step_of
from tests.support.perpetuals.unknowns import HALVES, STALE_S, two_market_account
from tests.support.plans import proposed_plan, refusing_guards

MULTIPLE = replace(FUTURES_POLICY, limits=replace(LIMITS, spot_multiple_bps=10_000))
"""Futures at most once the spot value."""
SPENT = {"reduced_notional_24h": Fraction(20_000 * 10**6)}
"""The day's budget of reductions is used."""


def policy_with(base: FuturesPolicy = FUTURES_POLICY, **limits: Any) -> FuturesPolicy:
    return replace(base, limits=replace(base.limits, **limits))


def planned(step: StepInput) -> FuturesPlan:
    """Return the step's actions on futures, which only reduce and which every guard passes."""
    proposal = propose_rebalance(step)
    futures = futures_of(proposed_plan(step))
    judged = proposal.changed_step or step
    assert refusing_guards(judged, proposed_plan(step)) == []
    assert all(is_reduction(margin_account(judged.snapshot), order) for order in futures.orders)
    return futures


def decision_of(step: StepInput) -> Decision:
    return propose_rebalance(step).decision_result.decision


def markets_of(futures: FuturesPlan) -> set[str]:
    return {order.market for order in futures.orders}


# --- A stale index in another market with a position


@pytest.mark.parametrize("btc", [E18 // 4, -E18 // 4])
def test_stale_index__holds_no_emergency_of_another_market_back(btc: int) -> None:
    futures = planned(step_of(two_market_account(1_300, 7 * E18, btc), HALVES))
    assert (futures.is_emergency, markets_of(futures)) == (True, {"ETH"})
    assert any("the index of BTC is" in why for why in futures.refusal_texts)


def test_emergency__counts_the_stale_market_at_its_mark() -> None:
    """ETH alone is far from its liquidation; the loss in BTC, by the venue's own mark, brings it near."""
    calm = two_market_account(6_000, 5 * E18, E18)
    assert "liquidation is near" not in decide(step_of(calm, HALVES)).decision.reason
    futures = planned(step_of(margin.with_moved_marks(calm, {"BTC": Fraction(-11, 100)}), HALVES))
    assert (futures.is_emergency, markets_of(futures)) == (True, {"ETH"})


def test_emergency__goes_on_until_fresh_markets_are_closed() -> None:
    account_now = two_market_account(2_900, 5 * E18, E18)
    ticks = 0
    while account_now.size_raw("ETH") and ticks < 20:
        for order in proposed_futures(step_of(account_now, HALVES)).orders:
            assert order.market == "ETH"
            assert is_reduction(account_now, order)
            account_now = after_fill_at_mark(account_now, order.market, order.size_raw)
        ticks += 1
    assert 0 < ticks < 20
    last = decide(step_of(account_now, HALVES)).decision
    assert isinstance(last, Hold)
    assert "the index of BTC is" in last.reason


@pytest.mark.parametrize("collateral", [1_300, 6_000])
@pytest.mark.parametrize("eth_s", [0, NOW_S + 100, STALE_S], ids=["not read", "in the future", "stale"])
def test_no_fresh_index__orders_nothing(eth_s: int, collateral: int) -> None:
    proposal = propose_rebalance(step_of(two_market_account(collateral, 7 * E18, E18 // 4, eth_s=eth_s), HALVES))
    assert proposal.plan is None
    assert isinstance(proposal.decision_result.decision, Hold)
    assert "futures: no order, the " in proposal.decision_result.decision.reason


def test_limit__cuts_fresh_markets_by_as_much_more() -> None:
    margin_account = two_market_account(10_000, 15 * E18, E18 // 2)
    futures = planned(step_of(margin_account, HALVES))
    assert (futures.is_emergency, markets_of(futures)) == (False, {"ETH"})
    size_raw = futures.orders[0].size_raw
    assert abs(size_raw) > abs(reduction_sizes(margin_account, HALVES, Fraction(0))["ETH"])
    assert (margin.leverage(after_fill_at_mark(margin_account, "ETH", size_raw)) or 99) <= 3


@pytest.mark.parametrize(("btc_s", "deposits"), [(STALE_S, False), (NOW_S - 60, True)], ids=["stale", "fresh"])
def test_stale_index__deposits_no_margin(btc_s: int, deposits: bool) -> None:
    policy = replace(policy_with(HALVES, top_up_per_day_bps=None), collateral=token("USDC").address)
    margin_account = replace(two_market_account(10_000, 13 * E18, E18 // 2, btc_s=btc_s), collateral_unit_raw=10**12)
    assert bool(planned(step_of(margin_account, policy)).account_actions) is deposits


def test_stale_index__opens_nothing() -> None:
    assert propose_rebalance(step_of(two_market_account(10_000, 2 * E18, E18 // 10), HALVES)).plan is None


def test_order_of_a_stale_index__is_refused_by_its_guard() -> None:
    plan = proposed_plan(step_of(two_market_account(1_300, 7 * E18, E18 // 4, btc_s=NOW_S - 60), HALVES))
    assert markets_of(futures_of(plan)) == {"ETH", "BTC"}
    assert "index_age" in refusing_guards(step_of(two_market_account(1_300, 7 * E18, E18 // 4), HALVES), plan)


def hedged_step(eth_s: int) -> StepInput:
    """Return a step in which [futures.hedge] was removed, so that a short is bought back; the index of BTC is stale."""
    hedge = Hedge("ETH", token("WETH").address, -E18, NOW_S - 100, Fraction(1))
    policy = replace(HALVES, hedges=(hedge,), band_bps=0)
    return step_of(two_market_account(10_000, -E18, E18 // 10, eth_s=eth_s), policy, hedges=(hedge,))


def test_stale_index__keeps_no_hedge_of_another_market_open() -> None:
    futures = planned(hedged_step(NOW_S - 60))
    assert futures.trigger == "close_hedge"
    assert [(order.market, order.size_raw) for order in futures.orders] == [("ETH", E18)]
    assert propose_rebalance(hedged_step(STALE_S)).plan is None


# --- Missing and contradictory spot prices


def with_wbtc(margin_account: MarginAccount, policy: FuturesPolicy = FUTURES_POLICY) -> StepInput:
    """Return a third asset of half of the spot portfolio's value, which prices and pays nothing."""
    weights = {"WETH": 2_500, "USDC": 2_500, "WBTC": 5_000}
    return with_policy(with_snapshot(step_input(weights, values=weights), futures=margin_account), policy)


def unread(step: StepInput, symbol: str) -> StepInput:
    """Return the step whose balance of a token could not be read."""
    address = token(symbol).address
    holdings = tuple(holding for holding in step.snapshot.holdings if holding.token != address)
    return with_snapshot(step, holdings=holdings, unreadable_items=(UnreadableItem(f"balance of {symbol}", address, "reverted"),))


BLINDED = {
    "feed of the coin stopped": with_feed(step_of(OVER), "WETH", updated_at_s=NOW_S - 10**6),
    "feed of the coin gone": without_feed(step_of(OVER), "WETH"),
    "feed of the numeraire stopped": with_feed(step_of(OVER), "USDC", updated_at_s=NOW_S - 10**6),
    "feed of another asset gone": without_feed(with_wbtc(OVER), "WBTC"),
    "pools and feeds gone": with_snapshot(without_feed(without_feed(step_of(OVER), "WETH"), "USDC"), pools=()),
    "balance of the coin": unread(step_of(OVER), "WETH"),
    "balance of another asset": unread(with_wbtc(OVER), "WBTC"),
    "feed from the future": with_feed(step_of(OVER), "WETH", updated_at_s=NOW_S + 1_000),
    "answer of zero": with_feed(step_of(OVER), "WETH", answer=0),
}
blinded_steps = pytest.mark.parametrize("step", BLINDED.values(), ids=BLINDED)


@pytest.mark.parametrize("spent", [0, 19_000 * 10**6])
@blinded_steps
def test_missing_spot_price__holds_no_reduction_back(step: StepInput, spent: int) -> None:
    """Leverage is judged and bounded by what the venue answers; what depends on the missing price is named and held."""
    step = with_history(step, reduced_notional_24h=Fraction(spent))
    futures = planned(step)
    assert futures.trigger == "leverage"
    assert [order.size_raw for order in futures.orders] == [order.size_raw for order in planned(step_of(OVER)).orders]
    decision = decision_of(step)
    assert isinstance(decision, AdjustFutures)
    assert decision.is_reducing
    assert "nothing else is traded" in decision.reason


@blinded_steps
def test_missing_spot_price__holds_the_multiple_and_opens_nothing(step: StepInput) -> None:
    decision = decision_of(with_policy(with_snapshot(step, futures=book(10_000, 10 * E18)), MULTIPLE))
    assert isinstance(decision, Halt)
    assert "spot_multiple is not judged" in decision.reason
    assert propose_rebalance(with_policy(with_snapshot(step, futures=book(10_000)), FUTURES_POLICY)).plan is None


@blinded_steps
def test_alert_and_margin__show_the_reduction_due_without_prices(step: StepInput) -> None:
    step = with_policy(step, policy_with(spot_multiple_bps=50_000))
    refused = StepOutcome("0123456789ab", OutcomeKind.REFUSED, "", step, propose_rebalance(step).decision_result, None)
    [alert] = [alert for alert in cycle_alerts(refused, RunFacts(False, "", None)) if alert.key.startswith("futures:")]
    assert alert.key == "futures:leverage"
    assert "It would close " in alert.text
    report = build_futures_report(step, futures_policy(step), current_drifts(step))
    assert report.plan.orders == planned(step).orders
    assert {limit_check.limit_name: limit_check.measured_text for limit_check in report.limit_checks}["spot_multiple"] == "unknown"


def test_exit__precedes_a_reduction_beside_a_missing_price() -> None:
    step = without_feed(with_policy(with_snapshot(step_with_equal_stops(["T0", "T1"]), futures=OVER), FUTURES_POLICY), "T1")
    step = with_snapshot(step, pools=tuple(pool for pool in step.snapshot.pools if token("T1").address not in (pool.token0, pool.token1)))
    assert propose_rebalance(step).decision_result.exit_token == token("T0").address


WBTC_POOL = v3_pool(token("WBTC"), token("USDC"), 60_000, twap_price=60_000)
THREE_ASSETS = with_wbtc(OVER, policy_with(spot_multiple_bps=31_000))


@pytest.mark.parametrize(
    "step",
    [
        with_feed(with_snapshot(THREE_ASSETS, pools=(*THREE_ASSETS.snapshot.pools, WBTC_POOL)), "WBTC", answer=6_000 * 10**8),
        with_feed(THREE_ASSETS, "USDC", answer=11 * 10**7),
    ],
    ids=["mean", "depeg"],
)
def test_contradictory_spot_price__enlarges_no_reduction(step: StepInput) -> None:
    """The portfolio looks worth less than half: the leverage is cut, the spot multiple waits."""
    assert decision_of(step).reason.count("nothing else is traded") == 1
    assert planned(step).orders == planned(step_of(OVER)).orders


def without_sequencer(step: StepInput) -> StepInput:
    feed = address("sequencer")
    reference = replace(step.reference, sequencer_feed=feed, sequencer_grace_s=3_600)
    down = FeedRound(feed, 0, 1, 1, NOW_S - 60, NOW_S - 60, 1)
    return with_snapshot(replace(step, reference=reference), feeds=(*step.snapshot.feeds, down))


@pytest.mark.parametrize(
    "step",
    [without_sequencer(step_of(OVER)), step_of(OVER, last_rebalance_s=NOW_S + 10_000)],
    ids=["sequencer", "store ahead"],
)
def test_chain_fault__still_holds_a_reduction_back(step: StepInput) -> None:
    assert isinstance(decide(step).decision, Halt)


# --- A quarantined asset is of unknown value, not of none


def shut(step: StepInput, symbol: str = "WBTC") -> StepInput:
    return quarantine_tokens(step, [ScreenedToken(token(symbol).address, TokenFinding.CODE_CHANGED)])


def test_quarantined_asset__reduces_nothing_for_the_spot_multiple() -> None:
    """8,000 of futures on 10,000 of spot, of which 5,000 cannot be valued."""
    step = with_wbtc(book(10_000, 4 * E18), replace(MULTIPLE, leverage_bps=8_000))
    assert isinstance(decide(step).decision, Hold)
    step = shut(step)
    decision = decide(step).decision
    assert isinstance(decision, Hold)
    assert all(words in decision.reason for words in ("spot_multiple is not judged", "WBTC is in quarantine"))
    assert spot_value_in_quote(step, current_drifts(step)) is None
    assert not build_futures_report(step, futures_policy(step), current_drifts(step)).plan.orders


def test_quarantined_asset_not_held__leaves_the_spot_value_known() -> None:
    step = step_input({"WETH": 5_000, "USDC": 4_000, "WBTC": 1_000}, values={"WETH": 5_000, "USDC": 5_000, "WBTC": 0})
    step = shut(with_policy(with_snapshot(step, futures=book(10_000, 10 * E18)), MULTIPLE))
    decision = decide(step).decision
    assert spot_value_in_quote(step, current_drifts(step)) == 10_000 * E18
    assert isinstance(decision, AdjustFutures)
    assert "spot_multiple is above its limit" in decision.reason


def test_quarantined_asset__holds_and_enlarges_no_other_reduction() -> None:
    assert planned(shut(with_wbtc(OVER, policy_with(spot_multiple_bps=30_000)))).orders == planned(step_of(OVER)).orders


@pytest.mark.parametrize(("policy", "opens"), [(MULTIPLE, False), (FUTURES_POLICY, True)], ids=["multiple", "none"])
def test_quarantined_asset__opens_nothing_on_an_unknown_multiple(policy: FuturesPolicy, opens: bool) -> None:
    proposal = propose_rebalance(shut(with_wbtc(book(10_000), replace(policy, leverage_bps=4_000))))
    assert bool(proposal.plan) is opens, proposal.decision_result.decision.reason


# --- The daily budget of reductions, at the index (T12)


def is_within_budget(step: StepInput) -> bool:
    """Return whether the plan that the step would have with a fresh budget passes the guard."""
    plan = proposed_plan(with_history(step, reduced_notional_24h=Fraction(0)))
    assert futures_of(plan).orders
    return "reduction_per_day" not in refusing_guards(step, plan)


@pytest.mark.parametrize(("off", "passes"), [(0, True), (1, False)])
def test_daily_budget__counts_orders_at_the_index_exactly(off: int, passes: bool) -> None:
    """At the mark, 5 % lower, another 0.1x would fit."""
    closed = sum(abs(order.size_raw) for order in planned(step_of(PUSHED)).orders) * 2_000
    spent = Fraction(2 * margin.account_value_raw(PUSHED) - closed, 10**12) + off
    assert is_within_budget(step_of(PUSHED, reduced_notional_24h=spent)) is passes


@pytest.mark.parametrize(("btc_s", "passes"), [(STALE_S, False), (NOW_S - 60, True)], ids=["stale", "fresh"])
def test_daily_budget__is_not_waived_by_another_s_stale_index(btc_s: int, passes: bool) -> None:
    """At the old index of BTC the leverage is above its limit, at its mark a pushed ETH alone breaks it."""
    eth, btc = two_market_account(10_000, 7 * E18, E18 // 2).markets
    markets = (replace(eth, mark=eth.mark * Fraction(95, 100)), replace(btc, index=btc.index * Fraction(80, 100), index_s=btc_s))
    pushed = replace(two_market_account(10_000, 7 * E18, E18 // 2), markets=markets)
    assert is_within_budget(step_of(pushed, HALVES, **SPENT)) is passes


@pytest.mark.parametrize("btc", [E18 // 4, -E18 // 4])
def test_daily_budget__is_waived_by_a_crash_beside_a_stale_index(btc: int) -> None:
    """The market of the stale index counts at the better of its two prices, which no push makes worse."""
    fallen = margin.with_moved_marks(two_market_account(12_000, 15 * E18, btc), {"ETH": Fraction(-1, 10), "BTC": Fraction(-1, 10)})
    eth, stale_btc = fallen.markets
    fallen = replace(fallen, markets=(replace(eth, index=eth.mark), stale_btc))
    assert is_within_budget(step_of(fallen, HALVES, reduced_notional_24h=Fraction(90_000 * 10**6)))


def test_daily_budget__is_not_waived_by_an_unknown_spot_value() -> None:
    """Half of the spot value is in quarantine: what is left of it demands nothing."""
    assert not is_within_budget(shut(with_history(with_wbtc(PUSHED, policy_with(spot_multiple_bps=39_000)), **SPENT)))


@pytest.mark.parametrize(("over", "passes"), [(OVER, True), (PUSHED, False)])
def test_unknown_day__holds_only_what_the_index_does_not_demand(over: MarginAccount, passes: bool) -> None:
    assert is_within_budget(step_of(over, unknown_reason="the ledger was restored")) is passes


def test_emergency__is_apart_from_the_daily_budget() -> None:
    assert is_within_budget(step_of(book(1_300, 10 * E18), reduced_notional_24h=Fraction(10**12)))


# --- The share that a limit of utilisation leaves


FEELESS = replace(market("ETH"), fee_ppm=0, index_s=NOW_S - 60)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("move", [Fraction(-3, 10), Fraction(0), Fraction(1, 10), Fraction(9, 10)])
def test_utilisation__keeps_as_much_as_its_limit_allows(sign: int, move: Fraction) -> None:
    margin_account = margin.with_moved_marks(account(3_000, {"ETH": sign * 4 * E18}, FEELESS), {"ETH": sign * move})
    policy = policy_with(max_leverage_bps=10**6, max_utilisation_bps=2_000, stress_move_bps=0, slippage_bps=0, hysteresis_bps=0)
    sizes = [*reduction_sizes(margin_account, policy, Fraction(0)).values()]
    if (margin.utilisation(margin_account) or 1) <= Fraction(2, 10):
        assert sizes == []
        return
    [size] = sizes
    assert (margin.utilisation(after_fill_at_mark(margin_account, "ETH", size)) or 0) <= Fraction(2, 10)
    less = after_fill_at_mark(margin_account, "ETH", size - (1 if size > 0 else -1) * 2 * 10**15)
    assert (margin.utilisation(less) or 0) > Fraction(2, 10), "no more is closed than the limit demands"


AT_TARGET = replace(
    policy_with(max_leverage_bps=40_000, max_utilisation_bps=6_000, stress_move_bps=2_000),
    targets=(FuturesTarget("ETH", 10_000),), leverage_bps=20_000, band_bps=500,
)  # fmt: skip


def long_of_two(initial_ppm: int) -> MarginAccount:
    """Return a long of 2x at a venue with this initial margin."""
    priced = replace(FEELESS, tiers=(MarginTier(0, initial_ppm, 62_500),))
    return replace(account(10_000, {"ETH": 10 * E18}, priced), initial_on_debt=False)


@pytest.mark.parametrize("move", [Fraction(55, 100), Fraction(9, 10)])
@pytest.mark.parametrize("initial_ppm", [100_000, 500_000])
def test_gain__deposits_nothing_and_sells_nothing(move: Fraction, initial_ppm: int) -> None:
    """A long of 2x gains 55 % and is at 1.48x: below its target, with its liquidation beyond the stress move. That holds even
    at a venue whose initial margin alone is above the limit.
    """
    margin_account = margin.with_moved_marks(long_of_two(initial_ppm), {"ETH": move})
    rich = Fraction(10**6 * E18)
    plan = plan_futures(margin_account, AT_TARGET, rich, NOW_S, depositable_raw=10**6 * E18)
    assert fired_triggers(margin_account, AT_TARGET, rich) == ()
    assert (plan.orders, plan.account_actions) == ((), ())


def test_utilisation_above_its_limit__reduces_a_book_at_target() -> None:
    assert fired_triggers(long_of_two(500_000), AT_TARGET, None) == (FuturesTrigger.UTILISATION,)


# --- Parts of the account that may be old


def with_old_part(step: StepInput, kind: StaleReadKind) -> StepInput:
    reading = FuturesReading(margin_account(step.snapshot), stale_reads=(StaleRead(kind, "HTTP 503"),))
    return replace(step, snapshot=step.snapshot.with_layer(reading))


@pytest.mark.parametrize("kind", StaleReadKind)
def test_old_part__refuses_an_opening_and_passes_a_reduction(kind: StaleReadKind) -> None:
    opening = step_of(book(4_000, 0))
    reduction = step_of(OVER)
    old_opening, old_reduction = (with_old_part(step, kind) for step in (opening, reduction))
    assert refusing_guards(opening, proposed_plan(opening)) == refusing_guards(old_reduction, proposed_plan(reduction)) == []
    assert refusing_guards(old_opening, proposed_plan(opening))
    assert [isinstance(decision_of(step), AdjustFutures) for step in (old_opening, old_reduction)] == [False, True]


@pytest.mark.parametrize("kind", StaleReadKind)
def test_margin__is_unknown_while_transfers_or_funding_may_miss(kind: StaleReadKind) -> None:
    step = with_old_part(step_of(OVER), kind)
    is_unknown = kind in (StaleReadKind.TRANSFERS, StaleReadKind.FUNDING)
    assert bool(margin_fault(step.snapshot, futures_policy(step))) is is_unknown
    assert (margin_reading(step.snapshot, futures_policy(step)) is None) is is_unknown


@pytest.mark.parametrize("kind", StaleReadKind)
def test_stops__are_changed_unless_the_open_orders_may_be_old(kind: StaleReadKind) -> None:
    policy = policy_with(resting_stop_bps=200)
    step = step_of(replace(OVER, is_on_chain=False), policy)
    old = with_old_part(step, kind)
    assert due_stops(step.snapshot, step.history, policy)
    assert bool(due_stops(old.snapshot, old.history, policy)) is (kind is not StaleReadKind.ORDERS)
