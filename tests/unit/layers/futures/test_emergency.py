"""Positions closed ahead of their liquidation: before all spot work, with a fee ceiling, a gas budget and a native floor of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent import guards
from agent.backtest.futures_alone import simulate_book
from agent.errors import Refused, Retryable
from agent.guards.case import build_guard_case
from agent.layers.futures.policy.plans import EMERGENCY_GAS_PRICE_MULTIPLE, emergency_gas_per_day_wei, emergency_gas_price_limit_wei
from agent.layers.futures.policy.targets import emergency_sizes
from agent.layers.futures.state import FuturesState, futures_policy, planned_futures, with_policy
from agent.margin import account as margin
from agent.margin.state import after_fill_at_mark
from agent.model import AdjustFutures, ExitFailures, Hold, IntentKind, IntentState, LimitOrder, Plan, Rebalance, StepInput, TopUp, Verdict
from agent.model.futures import FuturesGrant, Hedge, PerpOrder, PerpOrderKind
from agent.model.transactions import PerpFill
from agent.planning.proposals import orders_proposer, propose_rebalance
from agent.policy import failures
from agent.policy.decide import decide
from agent.signing.rules import require_signable
from tests.support.builders import GWEI, NOW_S, token, v3_pool, with_snapshot
from tests.support.decisions.exits_of_a_step import step_with_equal_stops
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.simulated import SETTINGS, long_btc, moves
from tests.support.perpetuals.steps import FUTURES_POLICY, OVER, book, step_of
from tests.support.plans import evidence
from tests.support.signing import ESCAPE, FUTURES_RULES, futures_grant, order_tx
from tests.support.transactions import START_S, bench, patient, receipt, tx

NEAR = book(1_300, 10 * E18)
"""Value 1,300 at a maintenance margin of 1,250."""


def judged(step: StepInput) -> dict[str, Verdict]:
    plan: Plan | None = propose_rebalance(step).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    return {verdict.guard: verdict for verdict in guards.judge(step, plan, evidence(step, plan))}


def refusing(step: StepInput) -> set[str]:
    return {name for name, verdict in judged(step).items() if not verdict.passed}


def at_gas(step: StepInput, gwei: int, native_wei: int = 10 * E18) -> StepInput:
    return with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=gwei * GWEI), native_wei=native_wei)


def with_limits(step: StepInput, **changes: Any) -> StepInput:
    return replace(step, limits=replace(step.limits, **changes))


def with_futures_limits(step: StepInput, **changes: Any) -> StepInput:
    policy = futures_policy(step) or FUTURES_POLICY
    return with_policy(step, replace(policy, limits=replace(policy.limits, **changes)))


@pytest.mark.parametrize(("margin_account", "first"), [(NEAR, AdjustFutures), (OVER, Rebalance)])
def test_emergency__precedes_exits_and_a_reduction_follows_them(margin_account: Any, first: type) -> None:
    step = with_policy(with_snapshot(step_with_equal_stops(["T0"]), futures=margin_account), FUTURES_POLICY)
    decided = decide(step)
    assert isinstance(decided.decision, first)
    assert bool(decided.exit_token) is (first is Rebalance)


@pytest.mark.parametrize("margin_account", [NEAR, OVER])
def test_limit_orders_do_not_delay_a_reduction(margin_account: Any) -> None:
    step = step_of(margin_account)
    order = LimitOrder("one", token("WETH").address, token("USDC").address, E18 // 10, Fraction(1, 10**20), NOW_S + 100, NOW_S)
    outcome = orders_proposer([order])(step)
    assert isinstance(outcome.decision_result.decision, AdjustFutures)
    assert orders_proposer([order])(with_policy(step, None)).decision_result.filled_order_id == "one"


def test_an_emergency_closes_half_at_its_own_bound() -> None:
    plan = propose_rebalance(step_of(NEAR)).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    assert planned_futures(plan).is_emergency
    assert [order.size_raw for order in planned_futures(plan).orders] == [-5 * E18]
    assert refusing(step_of(NEAR)) == set()


@pytest.mark.parametrize("collateral", [1_255, 1_300, 1_500])
def test_an_emergency_ends_beyond_its_distance_by_the_hysteresis(collateral: int) -> None:
    rules = replace(FUTURES_POLICY.limits, emergency_distance_bps=1_000, hysteresis_bps=2_000)
    for sign in (1, -1):
        margin_account = book(collateral, sign * 10 * E18)
        [size] = emergency_sizes(margin_account, replace(FUTURES_POLICY, limits=rules)).values()
        assert abs(size) >= 5 * E18
        after = after_fill_at_mark(margin_account, "ETH", size)
        distance = margin.liquidation_distance(after, "ETH")
        assert distance is None or abs(distance) >= Fraction(12, 100)
        less = after_fill_at_mark(margin_account, "ETH", size + sign * 10**16)
        assert abs(size) == 5 * E18 or abs(margin.liquidation_distance(less, "ETH") or 1) < Fraction(12, 100)


@pytest.mark.parametrize("margin_account", [NEAR, OVER], ids=["emergency", "reduction"])
@pytest.mark.parametrize("source", ["mean behind its feed", "depeg"])
def test_spot_prices_at_odds_hold_no_reduction_back(margin_account: Any, source: str) -> None:
    """In a crash the mean of a pool follows its feed late, and a dollar token may leave its peg."""
    step = step_of(margin_account)
    if source == "depeg":
        rounds = tuple(replace(feed, answer=feed.answer * 9 // 10) if at == 1 else feed for at, feed in enumerate(step.snapshot.feeds))
        step = with_snapshot(step, feeds=rounds)
    else:
        step = with_snapshot(step, pools=(v3_pool(token("WETH"), token("USDC"), 2_000, twap_price=2_500),))
    assert isinstance(decide(step).decision, AdjustFutures)
    assert not refusing(step) & {"oracle_deviation", "depeg", "feed_health"}


def test_a_silent_spot_feed_holds_no_emergency_back() -> None:
    step = step_of(NEAR)
    silent = replace(step.snapshot.feeds[0], updated_at_s=NOW_S - 10**6)
    step = with_snapshot(step, feeds=(silent, *step.snapshot.feeds[1:]))
    decision = decide(step).decision
    assert isinstance(decision, AdjustFutures)
    assert "no reference price" in decision.reason
    assert not refusing(step)
    reduces = decide(with_snapshot(step, futures=OVER)).decision
    assert isinstance(reduces, AdjustFutures)
    assert "no reference price" in reduces.reason


def test_the_fee_ceiling_of_an_emergency_is_its_own() -> None:
    dear = {"gas_price_wei": 60 * GWEI, "gas_per_day_wei": None}
    assert "gas_price" in refusing(with_limits(at_gas(step_of(OVER), 100), **dear))
    near = with_limits(at_gas(step_of(NEAR), 100), **dear)
    assert refusing(near) == set()
    assert refusing(with_limits(at_gas(near, 60 * EMERGENCY_GAS_PRICE_MULTIPLE + 1), **dear)) == {"gas_price"}
    assert refusing(with_futures_limits(near, emergency_gas_price_wei=90 * GWEI)) == {"gas_price"}
    assert emergency_gas_price_limit_wei(FUTURES_POLICY.limits, replace(near.limits, gas_price_wei=None)) is None


@pytest.mark.parametrize(("less_wei", "passes"), [(0, True), (1, False)])
def test_an_emergency_may_use_all_its_limits_of_gas(less_wei: int, passes: bool) -> None:
    step = at_gas(step_of(NEAR, emergency_gas_24h_wei=7), 100)
    plan = propose_rebalance(step).plan
    assert plan is not None
    price_wei = step.snapshot.current_gas_price_wei
    capped = with_futures_limits(step, emergency_gas_price_wei=price_wei)
    worst_wei = build_guard_case(capped, plan, evidence(capped, plan)).worst_gas_wei()
    step_by_guard = {
        "gas_price": with_futures_limits(step, emergency_gas_price_wei=price_wei - less_wei),
        "gas_per_day": with_futures_limits(capped, emergency_gas_per_day_wei=worst_wei + 7 - less_wei),
        "native_floor": with_snapshot(capped, native_wei=worst_wei - less_wei),
    }
    for guard, limited in step_by_guard.items():
        verdicts = guards.judge(limited, plan, evidence(limited, plan))
        assert [verdict.passed for verdict in verdicts if verdict.guard == guard] == [passes], guard


def test_an_emergency_without_a_price_limit_pays_any_price() -> None:
    verdict = judged(with_limits(at_gas(step_of(NEAR), 1), gas_price_wei=None))["gas_price"]
    assert (verdict.passed, verdict.limit) == (True, "off")


@pytest.mark.parametrize("key", ["gas_price_wei", "gas_per_day_wei"])
def test_emergency__has_its_limit_of_gas_where_that_of_others_is_off(key: str) -> None:
    step = with_limits(at_gas(step_of(NEAR, emergency_gas_24h_wei=7), 100), gas_price_wei=None, gas_per_day_wei=None)
    guard = key.removesuffix("_wei")
    for limit_wei, passes in ((E18, True), (1, False)):
        verdict = judged(with_futures_limits(step, **{f"emergency_{key}": limit_wei}))[guard]
        assert verdict.passed == passes
        assert "emergenc" in verdict.limit
        assert verdict.measured_text != "not measured"
    assert judged(step)[guard].measured_text == "not measured"
    ordinary = with_limits(at_gas(step_of(OVER), 100), gas_price_wei=None, gas_per_day_wei=None)
    assert judged(with_futures_limits(ordinary, **{f"emergency_{key}": 1}))[guard].passed, "the limit of emergencies alone"


def test_the_gas_budget_of_an_emergency_is_its_own() -> None:
    day = {"gas_per_day_wei": E18 // 10}
    spent = {"gas_24h_wei": E18}
    assert "gas_per_day" in refusing(with_limits(at_gas(step_of(OVER, **spent), 1), **day))
    near = with_limits(at_gas(step_of(NEAR, **spent), 1), **day)
    assert refusing(near) == set()
    used = with_limits(at_gas(step_of(NEAR, emergency_gas_24h_wei=E18 // 10), 1), **day)
    assert refusing(used) == {"gas_per_day"}
    assert refusing(with_futures_limits(used, emergency_gas_per_day_wei=E18)) == set()
    assert emergency_gas_per_day_wei(FUTURES_POLICY.limits, used.limits) == E18 // 10


def test_the_daily_budget_of_reductions_holds_no_emergency_back() -> None:
    """The mark alone is near liquidation: at the index no limit is broken."""
    fallen = book(1_300, 10 * E18, index=Fraction(3_000))
    step = step_of(fallen, reduced_notional_24h=Fraction(90_000 * 10**6))
    assert judged(step)["reduction_per_day"].passed
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert planned_futures(plan).is_emergency
    ordinary = plan.with_layer(replace(planned_futures(plan), is_emergency=False))
    assert not {verdict.guard: verdict for verdict in guards.judge(step, ordinary, evidence(step, ordinary))}["reduction_per_day"].passed


def test_emergency__may_use_the_native_floor_for_its_own_gas() -> None:
    floor = {"native_floor_wei": E18}
    assert "native_floor" in refusing(with_limits(at_gas(step_of(OVER), 1, E18), **floor))
    near = with_limits(at_gas(step_of(NEAR), 1, E18 // 100), **floor, native_top_up_wei=2 * E18)
    assert isinstance(decide(near).decision, AdjustFutures)
    assert refusing(near) == set()
    assert isinstance(decide(with_snapshot(near, native_wei=E18 // 10_000)).decision, TopUp)


MANY = failures.MAX_REVERTS_IN_ROW + 5
MINUTE_S = failures.FIRST_WAIT_S
COSTLY = 0
FREE = MANY
"""Rejections among the failures that cost no gas."""


def hedged(**history: object) -> StepInput:
    """A hedge of a limit's reduction: bought back first."""
    short = book(4_000, -10 * E18)
    hedge = Hedge("ETH", token("WETH").address, -5 * E18, NOW_S - 10**6, Fraction(1))
    return with_policy(step_of(short, hedges=(hedge,), **history), replace(FUTURES_POLICY, hedges=(hedge,)))


WAITS: dict[str, tuple[Callable[..., StepInput], int, int]] = {
    "emergency": (lambda **past: step_of(NEAR, **past), COSTLY, MINUTE_S),
    "emergency at a venue": (lambda **past: step_of(NEAR, **past), FREE, MINUTE_S),
    "reduction": (lambda **past: step_of(OVER, **past), COSTLY, 32 * MINUTE_S),
    "reduction at a venue": (lambda **past: step_of(OVER, **past), FREE, MINUTE_S),
    "reduction at a venue, twice for gas": (lambda **past: step_of(OVER, **past), FREE - 2, MINUTE_S),
    "reduction at a venue, four times for gas": (lambda **past: step_of(OVER, **past), FREE - 4, 2 * MINUTE_S),
    "hedge": (hedged, COSTLY, 32 * MINUTE_S),
    "hedge at a venue": (hedged, FREE, MINUTE_S),
}


@pytest.mark.parametrize(("step_after", "free", "wait_s"), WAITS.values(), ids=WAITS)
def test_planner_and_guard_try_a_failed_reduction_again_at_once(step_after: Callable[..., StepInput], free: int, wait_s: int) -> None:
    """At one second: no plan is made that the guard refuses, and the guard passes as soon as there is one."""
    for waited_s in (wait_s - 1, wait_s):
        step = step_after(failed_exits=(ExitFailures("ETH", MANY, 0, NOW_S - waited_s, free),))
        plan = propose_rebalance(step_after()).plan
        assert plan is not None
        by_guard = {verdict.guard: verdict.passed for verdict in guards.judge(step, plan, evidence(step, plan))}["reverts_in_row"]
        by_planner = isinstance(propose_rebalance(step).decision_result.decision, AdjustFutures)
        assert (by_planner, by_guard) == (waited_s == wait_s,) * 2
    assert refusing(step) == set()


@pytest.mark.parametrize(("gwei", "signs"), [(200, True), (301, False)])
def test_the_signer_holds_an_emergency_to_its_own_ceiling(gwei: int, signs: bool) -> None:
    futures = FUTURES_RULES.futures
    assert futures is not None
    rules = replace(FUTURES_RULES, max_fee_wei=60 * GWEI, futures=replace(futures, emergency_fee_wei=300 * GWEI))
    tx = replace(order_tx(ESCAPE), max_fee_wei=gwei * GWEI)
    grant = replace(futures_grant(ESCAPE, is_emergency=True), max_gas_wei=10**20)
    calm = replace(grant, layer_grant=FuturesGrant(ESCAPE, grant.layer_grant.account)) if grant.layer_grant else grant
    nonces = {tx.nonce: None}
    if signs:
        require_signable(tx, grant, rules, nonces)
    else:
        with pytest.raises(Refused, match="emergency"):
            require_signable(tx, grant, rules, nonces)
    with pytest.raises(Refused, match=r"limits\.gas_price"):
        require_signable(tx, calm, rules, nonces)


def test_a_resend_of_an_emergency_has_its_own_ceilings(tmp_path: Path) -> None:
    settings = replace(patient(tmp_path).settings, emergency_gas_ceilings=(7, 8))
    grant = futures_grant(ESCAPE, is_emergency=True)
    assert settings.gas_ceilings_of(grant) == (7, 8)
    calm = replace(grant, layer_grant=replace(grant.layer_grant, is_emergency=False)) if grant.layer_grant else grant
    assert settings.gas_ceilings_of(calm) == (settings.max_fee_wei, settings.gas_per_day_wei)


def test_pending_emergency__is_cancelled_above_the_usual_ceiling(tmp_path: Path) -> None:
    submitter_bench = patient(tmp_path)
    submitter_bench.settings = replace(submitter_bench.settings, max_fee_wei=60 * GWEI, emergency_gas_ceilings=(300 * GWEI, None))
    submitter_bench.store.steps.begin("escape", submitter_bench.clock.now_s(), "{}")
    pending = replace(tx(0), max_fee_wei=100 * GWEI)
    granted = replace(futures_grant(ESCAPE, is_emergency=True), max_gas_wei=10**20, deadline_s=START_S + 90)

    def late() -> None:
        submitter_bench.chain.timestamp_s = START_S + 90
        if len(submitter_bench.chain.sent) == 2:
            submitter_bench.chain.mine(submitter_bench.chain.sent[1])

    submitter_bench.clock.on_sleep = late
    ended = submitter_bench.executor().run("escape", IntentKind.FUTURES, pending, granted, "escape")
    assert (ended.kind, ended.state) == (IntentKind.FUTURES, IntentState.CANCELLED)
    newest = submitter_bench.store.journal.intents()[0]
    assert newest.kind is IntentKind.CANCEL
    assert (newest.tx.max_fee_wei or 0) > 100 * GWEI
    assert submitter_bench.store.journal.grant(newest.id).is_emergency


@pytest.mark.parametrize("is_emergency", [True, False])
def test_bumped_emergency__uses_the_gas_budget_of_emergencies(tmp_path: Path, is_emergency: bool) -> None:
    """What an ordinary swap burnt of its own budget leaves the budget of emergencies whole."""
    submitter_bench = patient(tmp_path, gas_per_day_wei=100_000 * 12 * GWEI, mined_timeout_s=40)
    submitter_bench.settings = replace(
        submitter_bench.settings, emergency_gas_ceilings=(submitter_bench.settings.max_fee_wei, submitter_bench.settings.gas_per_day_wei)
    )
    submitter_bench.chain.automine = True
    burnt = submitter_bench.run(0)
    submitter_bench.store.budgets.book_intent(burnt, Fraction(0), Fraction(0), 100_000 * 12 * GWEI, START_S)
    submitter_bench.chain.automine = False
    submitter_bench.store.steps.begin("escape", submitter_bench.clock.now_s(), "{}")
    granted = replace(futures_grant(ESCAPE, is_emergency=is_emergency), max_gas_wei=10**20, deadline_s=START_S + 300)
    with pytest.raises(Retryable):
        submitter_bench.executor().run("escape", IntentKind.FUTURES, tx(1), granted, "escape")
    bumps = [intent for intent in submitter_bench.store.journal.intents_at(1) if intent.kind is IntentKind.FUTURES]
    assert len(bumps) == (2 if is_emergency else 1)


def test_the_signer_cancels_an_emergency_at_its_own_ceiling() -> None:
    futures = FUTURES_RULES.futures
    assert futures is not None
    rules = replace(FUTURES_RULES, max_fee_wei=60 * GWEI, futures=replace(futures, emergency_fee_wei=300 * GWEI))
    cancel = replace(order_tx(ESCAPE), to=rules.wallet, data="0x", max_fee_wei=200 * GWEI)
    escape = futures_grant(ESCAPE, is_emergency=True)
    grant = replace(escape, kind=IntentKind.CANCEL, max_gas_wei=10**20)
    require_signable(cancel, grant, rules, {cancel.nonce: None})
    with pytest.raises(Refused, match=r"limits\.gas_price"):
        require_signable(cancel, replace(grant, layer_grant=None), rules, {cancel.nonce: None})


def test_the_budgets_keep_gas_and_hedges_of_an_emergency(tmp_path: Path) -> None:
    submitter_bench = bench(tmp_path)
    hedge = Hedge("ETH", token("WETH").address, -5, NOW_S, Fraction(1))
    escape = futures_grant(ESCAPE, is_emergency=True)
    assert escape.layer_grant is not None
    for number, granted in enumerate((escape.layer_grant, replace(escape.layer_grant, hedges=(hedge,)))):
        step_id = f"escape {number}"
        submitter_bench.store.steps.begin(step_id, submitter_bench.clock.now_s(), "{}")
        grant = replace(escape, layer_grant=granted, max_gas_wei=10**20, deadline_s=START_S + 90)
        intent = submitter_bench.executor().run(step_id, IntentKind.FUTURES, tx(number), grant, "escape")
        submitter_bench.store.budgets.book_intent(intent, Fraction(0), Fraction(0), 7, START_S)
    history = submitter_bench.store.budgets.history(START_S)
    assert (history.emergency_gas_24h_wei, history.budgets.gas_24h_wei) == (14, 14)
    later = submitter_bench.store.budgets.history(START_S + 9 * DAY_S)
    assert (history.layer(FuturesState).last_emergency_s, later.layer(FuturesState).last_emergency_s, later.emergency_gas_24h_wei) == (
        START_S,
        START_S,
        0,
    )
    assert history.layer(FuturesState).hedges == (hedge,)


def test_the_record_of_a_hedge_follows_what_was_filled(tmp_path: Path) -> None:
    """A venue beside the chain cancels the rest of an order; the rest of the hedge stays open."""
    submitter_bench = bench(tmp_path)
    order = PerpOrder("ETH", 5, PerpOrderKind.MARKET, 10**10, True)
    hedge = Hedge("ETH", token("WETH").address, -5, NOW_S, Fraction(1))
    closing = futures_grant(order, hedges=(replace(hedge, size_raw=0, at_s=NOW_S + 9),), hedges_before=(hedge,))
    submitter_bench.store.steps.begin("close", submitter_bench.clock.now_s(), "{}")
    grant = replace(closing, max_gas_wei=10**20, deadline_s=START_S + 90)
    intent = submitter_bench.store.journal.add_intent("close", IntentKind.FUTURES, tx(0), grant, "close", START_S, None)
    submitter_bench.store.journal.advance(intent.id, IntentState.SIGNED, START_S, tx_hash="0x1")
    submitter_bench.store.journal.advance(intent.id, IntentState.BROADCAST, START_S)
    fill = PerpFill("0x2", "0x3", "ETH", 2, -4_000, 2)
    changed_receipt = replace(receipt("0x1", 0, "0x00", 1), fills=(fill,))
    intent = submitter_bench.store.journal.advance(intent.id, IntentState.MINED, START_S, receipt=changed_receipt)
    submitter_bench.store.budgets.book_intent(intent, Fraction(0), Fraction(0), 0, START_S)
    assert submitter_bench.store.budgets.history(START_S).layer(FuturesState).hedges == (replace(hedge, size_raw=-3),)


# --- Nothing is opened for a while after an emergency.

HOUR_S = 3_600
DAY_S = 86_400
SAFE = book(10_000)
"""Closed, after the price came back."""


@pytest.mark.parametrize(("since_s", "opens"), [(0, False), (HOUR_S, False), (DAY_S - 1, False), (DAY_S, True)])
def test_nothing_is_opened_within_the_cooldown_of_an_emergency(since_s: int, opens: bool) -> None:
    """A price that gaps by 30 % and back would otherwise close and open the book at every tick."""
    step = with_futures_limits(step_of(SAFE, last_emergency_s=NOW_S - since_s), emergency_cooldown_s=DAY_S)
    proposal = propose_rebalance(step)
    assert bool(proposal.plan) is opens
    if not opens:
        assert isinstance(proposal.decision_result.decision, Hold)
        assert "no position is opened before" in proposal.decision_result.decision.reason
    judged_plan = propose_rebalance(step_of(SAFE)).plan
    assert judged_plan is not None
    refused = {verdict.guard for verdict in guards.judge(step, judged_plan, evidence(step, judged_plan)) if not verdict.passed}
    assert ("reopening" in refused) is not opens


def test_the_cooldown_of_an_emergency_holds_no_reduction_back() -> None:
    for margin_account in (OVER, NEAR):
        cooled = with_futures_limits(step_of(margin_account, last_emergency_s=NOW_S - 60), emergency_cooldown_s=DAY_S)
        plan = propose_rebalance(cooled).plan
        free = propose_rebalance(step_of(margin_account)).plan
        assert plan is not None
        assert free is not None
        assert planned_futures(plan) is not None
        assert planned_futures(free) is not None
        assert planned_futures(plan).orders == planned_futures(free).orders
        assert refusing(cooled) == set()


def test_a_simulated_book_reopens_only_after_the_cooldown() -> None:
    prices = [100] * 4 + [74] * 3 + [100] * 40
    times = {}
    for cooldown_s in (0, DAY_S):
        limits = replace(SETTINGS.policy.limits, emergency_cooldown_s=cooldown_s, emergency_distance_bps=1_000)
        settings = replace(long_btc(30_000), policy=replace(long_btc(30_000).policy, limits=limits, leverage_band_bps=1_000))
        fills = simulate_book(moves(*prices), settings).agent_book.fills
        closed = [fill.bar for fill in fills if fill.trigger == "liquidation"]
        assert closed, fills
        assert closed[0] <= 6, fills
        times[cooldown_s] = min(fill.bar for fill in fills if fill.bar > closed[-1] and fill.size_raw > 0) - closed[-1]
    assert times[0] <= 3
    assert 24 <= times[DAY_S] <= 26
