"""Reductions of futures while something else is unknown: another market's index, spot prices, quarantined tokens; and what then waits."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import guards
from agent.app.alerting import RunFacts, cycle_alerts
from agent.app.documents.futures_report import build_futures_report
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.accounting import margin_reading
from agent.layers.futures.planning.orders import plan_futures
from agent.layers.futures.policy.exposure import margin_fault
from agent.layers.futures.policy.needs import due_stops, spot_value_in_quote
from agent.layers.futures.policy.targets import FuturesTrigger, fired_triggers, reduction_sizes
from agent.layers.futures.state import futures_policy, margin_account, planned_futures, with_policy
from agent.margin import account as margin
from agent.margin.state import after_fill_at_mark, is_reduction
from agent.model import AdjustFutures, FeedRound, Halt, Hold, Plan, ScreenedToken, StepInput, TokenFinding, UnreadableItem
from agent.model.futures import FuturesPolicy, FuturesReading, FuturesTarget, Hedge, MarginAccount, MarginTier, StaleRead, StaleReadKind
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import current_drifts, decide
from agent.policy.quarantine import quarantine_tokens
from tests.support.builders import NOW_S, address, step_input, token, v3_pool, with_feed, with_history, with_snapshot, without_feed
from tests.support.decisions.exits_of_a_step import step_with_equal_stops
from tests.support.perpetuals.accounts import E18, account, market
from tests.support.perpetuals.steps import FUTURES_POLICY, LIMITS, OVER, PUSHED, book, step_of
from tests.support.perpetuals.unknowns import HALVES, STALE_S, two_market_account
from tests.support.plans import evidence

MULTIPLE = replace(FUTURES_POLICY, limits=replace(LIMITS, spot_multiple_bps=10_000))
"""Futures at most once the spot value."""


def refusing(step: StepInput, plan: Plan) -> set[str]:
    return {verdict.guard for verdict in guards.judge(step, plan, evidence(step, plan)) if not verdict.passed}


def planned(step: StepInput) -> Plan:
    proposal = propose_rebalance(step)
    assert proposal.plan is not None, proposal.decision_result.decision.reason
    assert planned_futures(proposal.plan) is not None, proposal.decision_result.decision.reason
    judged = proposal.changed_step or step
    assert refusing(judged, proposal.plan) == set()
    account = margin_account(judged.snapshot)
    assert account is not None
    assert all(is_reduction(account, order) for order in planned_futures(proposal.plan).orders)
    return proposal.plan


# --- A stale index in another held market.


@pytest.mark.parametrize("btc", [E18 // 4, -E18 // 4])
def test_a_stale_index_holds_no_emergency_of_another_market_back(btc: int) -> None:
    step = step_of(two_market_account(1_300, 7 * E18, btc), HALVES)
    plan = planned(step)
    assert planned_futures(plan) is not None
    assert planned_futures(plan).is_emergency
    assert [order.market for order in planned_futures(plan).orders] == ["ETH"]
    assert any("the index of BTC is" in why for why in planned_futures(plan).refusal_texts)


def test_emergency__counts_the_stale_market_at_its_mark() -> None:
    """ETH alone is far from its liquidation; the loss in BTC, by the venue's own mark, brings it near."""
    calm = step_of(two_market_account(6_000, 5 * E18, E18), HALVES)
    assert "liquidation is near" not in decide(calm).decision.reason
    account_before = margin_account(calm.snapshot)
    assert account_before is not None
    fallen = with_snapshot(calm, futures=margin.with_moved_marks(account_before, {"BTC": Fraction(-11, 100)}))
    plan = planned(fallen)
    assert planned_futures(plan) is not None
    assert planned_futures(plan).is_emergency
    assert [order.market for order in planned_futures(plan).orders] == ["ETH"]


def test_emergency__goes_on_until_fresh_markets_are_closed() -> None:
    account_now = two_market_account(2_900, 5 * E18, E18)
    ticks = 0
    while account_now.size_raw("ETH") and ticks < 20:
        plan = propose_rebalance(step_of(account_now, HALVES)).plan
        if plan is None or planned_futures(plan) is None:
            break
        for order in planned_futures(plan).orders:
            assert order.market == "ETH"
            assert is_reduction(account_now, order)
            account_now = after_fill_at_mark(account_now, order.market, order.size_raw)
        ticks += 1
    assert 0 < ticks < 20
    assert account_now.size_raw("ETH") == 0
    last = decide(step_of(account_now, HALVES)).decision
    assert isinstance(last, Hold)
    assert "the index of BTC is" in last.reason


@pytest.mark.parametrize("fresh_s", [0, NOW_S + 100, STALE_S])
def test_without_any_fresh_index_nothing_is_ordered(fresh_s: int) -> None:
    """Also not while its time could not be read (zero), or is in the future."""
    for collateral in (1_300, 6_000):
        proposal = propose_rebalance(step_of(two_market_account(collateral, 7 * E18, E18 // 4, eth_s=fresh_s), HALVES))
        assert proposal.plan is None
        assert isinstance(proposal.decision_result.decision, Hold)
        assert "futures: no order, the " in proposal.decision_result.decision.reason


def test_limit__cuts_fresh_markets_by_as_much_more() -> None:
    margin_account = two_market_account(10_000, 15 * E18, E18 // 2)
    plan = planned(step_of(margin_account, HALVES))
    assert planned_futures(plan) is not None
    assert not planned_futures(plan).is_emergency
    [order] = planned_futures(plan).orders
    assert order.market == "ETH"
    both = reduction_sizes(margin_account, HALVES, Fraction(0))
    assert abs(order.size_raw) > abs(both["ETH"])
    after = after_fill_at_mark(margin_account, "ETH", order.size_raw)
    assert (margin.leverage(after) or 99) <= 3


def test_stale_index__opens_nothing_and_deposits_no_margin() -> None:
    opening = step_of(two_market_account(10_000, 2 * E18, E18 // 10), HALVES)
    assert propose_rebalance(opening).plan is None
    usdc = token("USDC").address
    policy = replace(HALVES, collateral=usdc, limits=replace(LIMITS, top_up_per_day_bps=None))
    changed_two_market_account = replace(two_market_account(10_000, 13 * E18, E18 // 2), collateral_unit_raw=10**12)
    assert planned_futures(planned(step_of(changed_two_market_account, policy))).account_actions == ()  # type: ignore[union-attr]
    fresh = replace(two_market_account(10_000, 13 * E18, E18 // 2, btc_s=NOW_S - 60), collateral_unit_raw=10**12)
    assert planned_futures(planned(step_of(fresh, policy))).account_actions  # type: ignore[union-attr]


def test_order_of_a_stale_index__is_refused_by_its_guard() -> None:
    fresh = step_of(two_market_account(1_300, 7 * E18, E18 // 4, btc_s=NOW_S - 60), HALVES)
    plan = planned(fresh)
    assert planned_futures(plan) is not None
    assert {order.market for order in planned_futures(plan).orders} == {"ETH", "BTC"}
    assert "index_age" in refusing(step_of(two_market_account(1_300, 7 * E18, E18 // 4), HALVES), plan)


@pytest.mark.parametrize(("eth_s", "closes"), [(NOW_S - 60, True), (STALE_S, False)])
def test_a_stale_index_keeps_no_hedge_of_another_market_open(eth_s: int, closes: bool) -> None:
    """[futures.hedge] was removed, so that the short is bought back."""
    hedge = Hedge("ETH", token("WETH").address, -E18, NOW_S - 100, Fraction(1))
    step = step_of(two_market_account(10_000, -E18, E18 // 10, eth_s=eth_s), replace(HALVES, hedges=(hedge,), band_bps=0), hedges=(hedge,))
    proposal = propose_rebalance(step)
    if not closes:
        assert proposal.plan is None
        return
    plan = planned(step)
    assert planned_futures(plan) is not None
    assert planned_futures(plan).trigger == "close_hedge"
    assert [(order.market, order.size_raw) for order in planned_futures(plan).orders] == [("ETH", E18)]


# --- Missing and contradictory spot prices.


def with_wbtc(margin_account: MarginAccount, policy: FuturesPolicy = FUTURES_POLICY) -> StepInput:
    """A third asset of half of the spot portfolio's value, which prices and pays nothing."""
    step = step_input({"WETH": 2_500, "USDC": 2_500, "WBTC": 5_000}, values={"WETH": 2_500, "USDC": 2_500, "WBTC": 5_000})
    return with_policy(with_snapshot(step, futures=margin_account), policy)


def unread(step: StepInput, symbol: str) -> StepInput:
    """The step whose balance of a token could not be read."""
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


@pytest.mark.parametrize("spent", [0, 19_000 * 10**6])
@pytest.mark.parametrize("name", BLINDED)
def test_a_missing_spot_price_holds_no_reduction_back(name: str, spent: int) -> None:
    """Leverage is judged and bounded by what the venue answers; what depends on the missing price is named and held."""
    step = BLINDED[name]
    step = with_history(step, reduced_notional_24h=Fraction(spent))
    plan = planned(step)
    assert planned_futures(plan) is not None
    assert planned_futures(plan).trigger == "leverage"
    assert [order.size_raw for order in planned_futures(plan).orders] == [
        order.size_raw for order in planned_futures(planned(step_of(OVER))).orders
    ]  # type: ignore[union-attr]
    decision = propose_rebalance(step).decision_result.decision
    assert isinstance(decision, AdjustFutures)
    assert decision.is_reducing
    assert "nothing else is traded" in decision.reason


@pytest.mark.parametrize("name", BLINDED)
def test_missing_spot_price__holds_the_multiple_and_opens_nothing(name: str) -> None:
    calm = with_policy(with_snapshot(BLINDED[name], futures=book(10_000, 10 * E18)), MULTIPLE)
    decision = propose_rebalance(calm).decision_result.decision
    assert isinstance(decision, Halt)
    assert "spot_multiple is not judged" in decision.reason
    empty = with_policy(with_snapshot(BLINDED[name], futures=book(10_000)), FUTURES_POLICY)
    assert propose_rebalance(empty).plan is None


def test_exit__precedes_a_reduction_beside_a_missing_price() -> None:
    step = without_feed(with_policy(with_snapshot(step_with_equal_stops(["T0", "T1"]), futures=OVER), FUTURES_POLICY), "T1")
    step = with_snapshot(step, pools=tuple(pool for pool in step.snapshot.pools if token("T1").address not in (pool.token0, pool.token1)))
    assert propose_rebalance(step).decision_result.exit_token == token("T0").address


@pytest.mark.parametrize("source", ["mean", "depeg"])
def test_a_contradictory_spot_price_enlarges_no_reduction(source: str) -> None:
    """The portfolio looks worth less than half: the leverage is cut, the spot multiple waits."""
    step = with_policy(with_wbtc(OVER), replace(FUTURES_POLICY, limits=replace(LIMITS, spot_multiple_bps=31_000)))
    if source == "depeg":
        step = with_feed(step, "USDC", answer=11 * 10**7)
    else:
        pool = v3_pool(token("WBTC"), token("USDC"), 60_000, twap_price=60_000)
        step = with_feed(with_snapshot(step, pools=(*step.snapshot.pools, pool)), "WBTC", answer=6_000 * 10**8)
    assert propose_rebalance(step).decision_result.decision.reason.count("nothing else is traded") == 1
    orders = planned_futures(planned(step)).orders  # type: ignore[union-attr]
    assert orders == planned_futures(planned(step_of(OVER))).orders  # type: ignore[union-attr]


@pytest.mark.parametrize("code", ["sequencer", "store ahead"])
def test_chain_fault__still_holds_a_reduction_back(code: str) -> None:
    step = step_of(OVER)
    if code == "store ahead":
        step = with_history(step, last_rebalance_s=NOW_S + 10_000)
    else:
        feed = address("sequencer")
        down = FeedRound(feed, 0, 1, 1, NOW_S - 60, NOW_S - 60, 1)
        step = with_snapshot(
            replace(step, reference=replace(step.reference, sequencer_feed=feed, sequencer_grace_s=3_600)),
            feeds=(*step.snapshot.feeds, down),
        )
    assert isinstance(decide(step).decision, Halt)


@pytest.mark.parametrize("name", BLINDED)
def test_alert_and_margin__show_the_reduction_due_without_prices(name: str) -> None:
    step = with_policy(BLINDED[name], replace(FUTURES_POLICY, limits=replace(LIMITS, spot_multiple_bps=50_000)))
    proposal = propose_rebalance(step)
    refused = StepOutcome("0123456789ab", OutcomeKind.REFUSED, "", step, proposal.decision_result, None)
    [alert] = [alert for alert in cycle_alerts(refused, RunFacts(False, "", None)) if alert.key.startswith("futures:")]
    assert alert.key == "futures:leverage"
    assert "It would close " in alert.text
    report = build_futures_report(step, futures_policy(step) or FUTURES_POLICY, current_drifts(step))
    assert report.plan is not None
    assert report.plan.orders == planned_futures(planned(step)).orders
    assert {limit_check.limit_name: limit_check.measured_text for limit_check in report.limit_checks}["spot_multiple"] == "unknown"


# --- A quarantined asset is of unknown value, not of none.


def shut(step: StepInput, symbol: str = "WBTC") -> StepInput:
    return quarantine_tokens(step, [ScreenedToken(token(symbol).address, TokenFinding.CODE_CHANGED)])


def test_quarantined_asset__reduces_nothing_for_the_spot_multiple() -> None:
    """8,000 of futures on 10,000 of spot, of which 5,000 cannot be valued."""
    step = with_wbtc(book(10_000, 4 * E18), replace(MULTIPLE, leverage_bps=8_000))
    assert isinstance(decide(step).decision, Hold)
    decision = decide(shut(step)).decision
    assert isinstance(decision, Hold)
    assert "spot_multiple is not judged" in decision.reason
    assert "WBTC is in quarantine" in decision.reason
    assert spot_value_in_quote(shut(step), current_drifts(shut(step))) is None
    report = build_futures_report(shut(step), futures_policy(step) or FUTURES_POLICY, current_drifts(shut(step)))
    assert report.plan is not None
    assert not report.plan.orders


def test_quarantined_asset_not_held__leaves_the_spot_value_known() -> None:
    step = step_input({"WETH": 5_000, "USDC": 4_000, "WBTC": 1_000}, values={"WETH": 5_000, "USDC": 5_000, "WBTC": 0})
    step = shut(with_policy(with_snapshot(step, futures=book(10_000, 10 * E18)), MULTIPLE))
    assert spot_value_in_quote(step, current_drifts(step)) == 10_000 * E18
    decision = decide(step).decision
    assert isinstance(decision, AdjustFutures)
    assert "spot_multiple is above its limit" in decision.reason


def test_quarantined_asset__holds_and_enlarges_no_other_reduction() -> None:
    step = shut(with_wbtc(OVER, replace(FUTURES_POLICY, limits=replace(LIMITS, spot_multiple_bps=30_000))))
    assert planned_futures(planned(step)).orders == planned_futures(planned(step_of(OVER))).orders  # type: ignore[union-attr]


def test_quarantined_asset__opens_nothing_on_an_unknown_multiple() -> None:
    for policy, opens in ((replace(MULTIPLE, leverage_bps=4_000), False), (replace(FUTURES_POLICY, leverage_bps=4_000), True)):
        proposal = propose_rebalance(shut(with_wbtc(book(10_000), policy)))
        assert bool(proposal.plan) is opens, proposal.decision_result.decision.reason


# --- The daily budget of reductions, at the index (T12).


def budget(step: StepInput) -> bool:
    """True if the plan that the step would have with a fresh budget passes the guard."""
    plan = propose_rebalance(with_history(step, reduced_notional_24h=Fraction(0))).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    assert planned_futures(plan).orders
    return "reduction_per_day" not in refusing(step, plan)


@pytest.mark.parametrize(("off", "passes"), [(0, True), (1, False)])
def test_daily_budget__counts_orders_at_the_index_exactly(off: int, passes: bool) -> None:
    """At the mark, 5 % lower, another 0.1x would fit."""
    plan = planned(step_of(PUSHED))
    account_before = margin_account(step_of(PUSHED).snapshot)
    assert planned_futures(plan) is not None
    assert account_before is not None
    closed = sum(abs(order.size_raw) for order in planned_futures(plan).orders) * 2_000
    most = 2 * margin.account_value_raw(account_before)
    spent = Fraction(most - closed, 10**12) + off
    assert budget(step_of(PUSHED, reduced_notional_24h=spent)) is passes


def test_daily_budget__is_not_waived_by_another_s_stale_index() -> None:
    """At the old index of BTC the leverage is above its limit, at its mark a pushed ETH alone breaks it."""
    margin_account = two_market_account(10_000, 7 * E18, E18 // 2)
    markets = tuple(
        replace(market, mark=market.mark * Fraction(95, 100))
        if market.market == "ETH"
        else replace(market, index=market.index * Fraction(80, 100))
        for market in margin_account.markets
    )
    pushed = replace(margin_account, markets=markets)
    spent = {"reduced_notional_24h": Fraction(20_000 * 10**6)}
    assert not budget(step_of(pushed, HALVES, **spent))
    fresh = replace(pushed, markets=tuple(replace(market, index_s=NOW_S - 60) for market in markets))
    assert budget(step_of(fresh, HALVES, **spent))


@pytest.mark.parametrize("btc", [E18 // 4, -E18 // 4])
def test_daily_budget__is_waived_by_a_crash_beside_a_stale_index(btc: int) -> None:
    """The market of the stale index counts at the better of its two prices, which no push makes worse."""
    margin_account = margin.with_moved_marks(two_market_account(12_000, 15 * E18, btc), {"ETH": Fraction(-1, 10), "BTC": Fraction(-1, 10)})
    fallen = replace(
        margin_account,
        markets=tuple(replace(market, index=market.mark) if market.market == "ETH" else market for market in margin_account.markets),
    )
    assert budget(step_of(fallen, HALVES, reduced_notional_24h=Fraction(90_000 * 10**6)))


def test_the_daily_budget_is_not_waived_by_an_unknown_spot_value() -> None:
    """Half of the spot value is in quarantine: what is left of it demands nothing."""
    step = with_wbtc(PUSHED, replace(FUTURES_POLICY, limits=replace(LIMITS, spot_multiple_bps=39_000)))
    step = with_history(step, reduced_notional_24h=Fraction(20_000 * 10**6))
    assert not budget(shut(step))


@pytest.mark.parametrize(("margin_account", "passes"), [(OVER, True), (PUSHED, False)])
def test_unknown_day__holds_only_what_the_index_does_not_demand(margin_account: MarginAccount, passes: bool) -> None:
    assert budget(step_of(margin_account, unknown_reason="the ledger was restored")) is passes


def test_an_emergency_is_apart_from_the_daily_budget() -> None:
    assert budget(step_of(book(1_300, 10 * E18), reduced_notional_24h=Fraction(10**12)))


# --- The share that a limit of utilisation leaves.


FEELESS = replace(market("ETH"), fee_ppm=0, index_s=NOW_S - 60)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("move", [Fraction(-3, 10), Fraction(0), Fraction(1, 10), Fraction(9, 10)])
def test_utilisation_keeps_as_much_as_its_limit_allows(sign: int, move: Fraction) -> None:
    margin_account = margin.with_moved_marks(account(3_000, {"ETH": sign * 4 * E18}, replace(FEELESS)), {"ETH": sign * move})
    policy = replace(
        FUTURES_POLICY,
        limits=replace(LIMITS, max_leverage_bps=10**6, max_utilisation_bps=2_000, stress_move_bps=0, slippage_bps=0, hysteresis_bps=0),
    )
    if (margin.utilisation(margin_account) or 1) <= Fraction(2, 10):
        assert reduction_sizes(margin_account, policy, Fraction(0)) == {}
        return
    [size] = reduction_sizes(margin_account, policy, Fraction(0)).values()
    after = after_fill_at_mark(margin_account, "ETH", size)
    assert (margin.utilisation(after) or 0) <= Fraction(2, 10)
    less = after_fill_at_mark(margin_account, "ETH", size - (1 if size > 0 else -1) * 2 * 10**15)
    assert (margin.utilisation(less) or 0) > Fraction(2, 10), "no more is closed than the limit demands"


@pytest.mark.parametrize("move", [Fraction(55, 100), Fraction(9, 10)])
@pytest.mark.parametrize("initial_ppm", [100_000, 500_000])
def test_a_gain_deposits_nothing_and_sells_nothing(move: Fraction, initial_ppm: int) -> None:
    """A long of 2x gains 55 % and is at 1.48x: below its target, with its liquidation beyond the stress move. That holds even
    at a venue whose initial margin alone is above the limit.
    """
    priced = replace(FEELESS, tiers=(MarginTier(0, initial_ppm, 62_500),))
    margin_account = margin.with_moved_marks(replace(account(10_000, {"ETH": 10 * E18}, priced), initial_on_debt=False), {"ETH": move})
    limits = replace(LIMITS, max_leverage_bps=40_000, max_utilisation_bps=6_000, stress_move_bps=2_000)
    policy = FuturesPolicy((FuturesTarget("ETH", 10_000),), 20_000, 500, limits)
    rich = Fraction(10**6 * E18)
    assert fired_triggers(margin_account, policy, rich) == ()
    plan = plan_futures(margin_account, policy, rich, NOW_S, depositable_raw=10**6 * E18)
    assert not plan.orders
    assert not plan.account_actions


def test_utilisation_above_its_limit__reduces_a_book_at_target() -> None:
    priced = replace(FEELESS, tiers=(MarginTier(0, 500_000, 62_500),))
    changed_account = replace(account(10_000, {"ETH": 10 * E18}, priced), initial_on_debt=False)
    limits = replace(LIMITS, max_leverage_bps=40_000, max_utilisation_bps=6_000, stress_move_bps=2_000)
    policy = FuturesPolicy((FuturesTarget("ETH", 10_000),), 20_000, 500, limits)
    assert fired_triggers(changed_account, policy, None) == (FuturesTrigger.UTILISATION,)


# --- Parts of the account that may be old.


def with_old_part(step: StepInput, kind: StaleReadKind) -> StepInput:
    reading = FuturesReading(margin_account(step.snapshot), stale_reads=(StaleRead(kind, "HTTP 503"),))
    return replace(step, snapshot=step.snapshot.with_layer(reading))


@pytest.mark.parametrize("kind", StaleReadKind)
def test_old_part__refuses_an_opening_and_passes_a_reduction(kind: StaleReadKind) -> None:
    opening = step_of(book(4_000, 0))
    reduction = step_of(OVER)
    plan = propose_rebalance(opening).plan
    assert plan is not None
    assert refusing(opening, plan) == set()
    assert refusing(with_old_part(opening, kind), plan)
    assert refusing(with_old_part(reduction, kind), planned(reduction)) == set()
    decisions = [propose_rebalance(with_old_part(step, kind)).decision_result.decision for step in (opening, reduction)]
    assert [isinstance(decision, AdjustFutures) for decision in decisions] == [False, True]


@pytest.mark.parametrize("kind", StaleReadKind)
def test_margin__is_unknown_while_transfers_or_funding_may_miss(kind: StaleReadKind) -> None:
    step = with_old_part(step_of(OVER), kind)
    fault = margin_fault(step.snapshot, futures_policy(step))
    assert bool(fault) is (kind in (StaleReadKind.TRANSFERS, StaleReadKind.FUNDING))
    assert (margin_reading(step.snapshot, futures_policy(step)) is None) is bool(fault)


@pytest.mark.parametrize("kind", StaleReadKind)
def test_stops_are_changed_unless_the_open_orders_may_be_old(kind: StaleReadKind) -> None:
    policy = replace(FUTURES_POLICY, limits=replace(LIMITS, resting_stop_bps=200))
    step = step_of(replace(OVER, is_on_chain=False), policy)
    assert due_stops(step.snapshot, step.history, policy)
    old = with_old_part(step, kind)
    assert bool(due_stops(old.snapshot, old.history, policy)) is (kind is not StaleReadKind.ORDERS)
