"""Positions closed ahead of their liquidation: before all spot work, with a fee ceiling, a gas budget and a native floor of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent import guards
from agent.backtest.futures_alone import simulate_book
from agent.errors import Refused, Retryable
from agent.guards.case import build_guard_case
from agent.layers.futures.policy.plans import EMERGENCY_GAS_PRICE_MULTIPLE, emergency_gas_per_day_wei, emergency_gas_price_limit_wei
from agent.layers.futures.policy.targets import emergency_sizes
from agent.layers.futures.state import FuturesState, futures_policy, with_policy
from agent.margin import account as margin
from agent.margin.state import after_fill_at_mark
from agent.model import (
    AdjustFutures,
    ExitFailures,
    Hold,
    Intent,
    IntentKind,
    IntentState,
    LimitOrder,
    Rebalance,
    StepInput,
    TopUp,
    UnsignedTx,
    Verdict,
)
from agent.model.futures import Hedge, MarginAccount, PerpOrder, PerpOrderKind
from agent.model.transactions import PerpFill
from agent.planning.proposals import orders_proposer, propose_rebalance, single_order_proposer
from agent.policy import failures
from agent.policy.decide import decide
from agent.ports import Grant
from agent.signing.rules import require_signable
from tests.support.builders import GWEI, NOW_S, token, v3_pool, with_feed, with_limits, with_snapshot
from tests.support.constants import DAY_S, HOUR_S
from tests.support.decisions.exits_of_a_step import step_with_equal_stops
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.simulated import SETTINGS, long_btc, moves
from tests.support.perpetuals.steps import FUTURES_POLICY, OVER, book, futures_of, proposed_futures, step_of
from tests.support.plans import evidence, proposed_plan, refusing_guards, verdict
from tests.support.signing import ESCAPE, FUTURES_RULES, futures_grant, order_tx
from tests.support.text import raises_code
from tests.support.transactions import START_S, Bench, bench, patient, receipt, tx

NEAR = book(1_300, 10 * E18)
"""Value 1,300 at a maintenance margin of 1,250."""


def judged(step: StepInput) -> dict[str, Verdict]:
    """Return the verdicts on the futures that are proposed for a step, by guard."""
    plan = proposed_plan(step)
    futures_of(plan)
    return {verdict.guard: verdict for verdict in guards.judge(step, plan, evidence(step, plan))}


def refusing(step: StepInput) -> set[str]:
    return {name for name, verdict in judged(step).items() if not verdict.passed}


def at_gas(step: StepInput, gwei: int, native_wei: int = 10 * E18) -> StepInput:
    return with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=gwei * GWEI), native_wei=native_wei)


def with_futures_limits(step: StepInput, **changes: Any) -> StepInput:
    policy = futures_policy(step)
    return with_policy(step, replace(policy, limits=replace(policy.limits, **changes)))


# --- Before all else, at its own bound


@pytest.mark.parametrize(("margin_account", "first"), [(NEAR, AdjustFutures), (OVER, Rebalance)])
def test_emergency__precedes_exits_and_a_reduction_follows_them(margin_account: MarginAccount, first: type) -> None:
    result = decide(with_policy(with_snapshot(step_with_equal_stops(["T0"]), futures=margin_account), FUTURES_POLICY))
    assert isinstance(result.decision, first)
    assert bool(result.exit_token) is (first is Rebalance)


@pytest.mark.parametrize("margin_account", [NEAR, OVER])
def test_limit_orders__do_not_delay_a_reduction(margin_account: MarginAccount) -> None:
    order = LimitOrder("one", token("WETH").address, token("USDC").address, E18 // 10, Fraction(1, 10**20), NOW_S + 100, NOW_S)
    propose = orders_proposer([order])
    assert isinstance(propose(step_of(margin_account)).decision_result.decision, AdjustFutures)
    assert single_order_proposer(order)(step_of(margin_account)).plan is None
    assert propose(with_policy(step_of(margin_account), None)).decision_result.filled_order_id == "one"


def test_emergency__closes_half_at_its_own_bound() -> None:
    futures = proposed_futures(step_of(NEAR))
    assert (futures.is_emergency, [order.size_raw for order in futures.orders]) == (True, [-5 * E18])
    assert refusing(step_of(NEAR)) == set()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("collateral", [1_255, 1_300, 1_500])
def test_emergency__ends_beyond_its_distance_by_the_hysteresis(collateral: int, sign: int) -> None:
    limits = replace(FUTURES_POLICY.limits, emergency_distance_bps=1_000, hysteresis_bps=2_000)
    margin_account = book(collateral, sign * 10 * E18)
    [size] = emergency_sizes(margin_account, replace(FUTURES_POLICY, limits=limits)).values()
    distance, distance_of_less = (
        margin.liquidation_distance(after_fill_at_mark(margin_account, "ETH", closed), "ETH") for closed in (size, size + sign * 10**16)
    )
    assert abs(size) >= 5 * E18
    assert distance is None or abs(distance) >= Fraction(12, 100)
    assert abs(size) == 5 * E18 or abs(distance_of_less or 1) < Fraction(12, 100)


def with_late_mean(step: StepInput) -> StepInput:
    return with_snapshot(step, pools=(v3_pool(token("WETH"), token("USDC"), 2_000, twap_price=2_500),))


def with_depeg(step: StepInput) -> StepInput:
    return with_feed(step, "USDC", answer=9 * 10**7)


@pytest.mark.parametrize("margin_account", [NEAR, OVER], ids=["emergency", "reduction"])
@pytest.mark.parametrize("at_odds", [with_late_mean, with_depeg], ids=["mean behind its feed", "depeg"])
def test_spot_prices_at_odds__hold_no_reduction_back(margin_account: MarginAccount, at_odds: Callable[[StepInput], StepInput]) -> None:
    """In a crash the mean of a pool follows its feed late, and a dollar token may leave its peg."""
    step = at_odds(step_of(margin_account))
    assert isinstance(decide(step).decision, AdjustFutures)
    assert not refusing(step) & {"oracle_deviation", "depeg", "feed_health"}


@pytest.mark.parametrize("margin_account", [NEAR, OVER], ids=["emergency", "reduction"])
def test_silent_spot_feed__holds_no_reduction_back(margin_account: MarginAccount) -> None:
    step = with_feed(step_of(margin_account), "WETH", updated_at_s=NOW_S - 10**6)
    decision = decide(step).decision
    assert isinstance(decision, AdjustFutures)
    assert "no reference price" in decision.reason
    assert not refusing(step)


# --- Gas


NO_GAS_LIMITS = {"gas_price_wei": None, "gas_per_day_wei": None}
DEAR = NO_GAS_LIMITS | {"gas_price_wei": 60 * GWEI}
DAY = {"gas_per_day_wei": E18 // 10}
FLOOR = {"native_floor_wei": E18}


@pytest.mark.parametrize(
    ("step", "refusals"),
    [
        pytest.param(with_limits(at_gas(step_of(NEAR), 100), **DEAR), set(), id="price, own ceiling"),
        pytest.param(
            with_limits(at_gas(step_of(NEAR), 60 * EMERGENCY_GAS_PRICE_MULTIPLE + 1), **DEAR), {"gas_price"}, id="price beyond it"
        ),
        pytest.param(
            with_futures_limits(with_limits(at_gas(step_of(NEAR), 100), **DEAR), emergency_gas_price_wei=90 * GWEI),
            {"gas_price"},
            id="price beyond a stated ceiling",
        ),
        pytest.param(with_limits(at_gas(step_of(NEAR, gas_24h_wei=E18), 1), **DAY), set(), id="budget, own"),
        pytest.param(with_limits(at_gas(step_of(NEAR, emergency_gas_24h_wei=E18 // 10), 1), **DAY), {"gas_per_day"}, id="budget used up"),
        pytest.param(
            with_futures_limits(
                with_limits(at_gas(step_of(NEAR, emergency_gas_24h_wei=E18 // 10), 1), **DAY), emergency_gas_per_day_wei=E18
            ),
            set(),
            id="stated budget",
        ),
        pytest.param(with_limits(at_gas(step_of(NEAR), 1, E18 // 100), **FLOOR, native_top_up_wei=2 * E18), set(), id="native floor"),
    ],
)
def test_emergency__has_limits_of_gas_of_its_own(step: StepInput, refusals: set[str]) -> None:
    assert isinstance(decide(step).decision, AdjustFutures)
    assert refusing(step) == refusals


@pytest.mark.parametrize(
    ("step", "guard"),
    [
        pytest.param(with_limits(at_gas(step_of(OVER), 100), **DEAR), "gas_price", id="price"),
        pytest.param(with_limits(at_gas(step_of(OVER, gas_24h_wei=E18), 1), **DAY), "gas_per_day", id="budget"),
        pytest.param(with_limits(at_gas(step_of(OVER), 1, E18), **FLOOR), "native_floor", id="native floor"),
    ],
)
def test_reduction__has_the_usual_limits_of_gas(step: StepInput, guard: str) -> None:
    assert guard in refusing(step)


def test_emergency__without_its_gas_tops_up_first() -> None:
    step = with_limits(at_gas(step_of(NEAR), 1, E18 // 10_000), **FLOOR, native_top_up_wei=2 * E18)
    assert isinstance(decide(step).decision, TopUp)


def test_emergency_limits__are_those_of_others_by_default() -> None:
    limits = with_limits(step_of(NEAR), **DAY).limits
    assert emergency_gas_price_limit_wei(FUTURES_POLICY.limits, replace(limits, gas_price_wei=None)) is None
    assert emergency_gas_per_day_wei(FUTURES_POLICY.limits, limits) == E18 // 10


@pytest.mark.parametrize(("less_wei", "passes"), [(0, True), (1, False)])
def test_emergency__may_use_all_its_limits_of_gas(less_wei: int, passes: bool) -> None:
    step = at_gas(step_of(NEAR, emergency_gas_24h_wei=7), 100)
    plan = proposed_plan(step)
    price_wei = step.snapshot.current_gas_price_wei
    capped = with_futures_limits(step, emergency_gas_price_wei=price_wei)
    worst_wei = build_guard_case(capped, plan, evidence(capped, plan)).worst_gas_wei()
    step_by_guard = {
        "gas_price": with_futures_limits(step, emergency_gas_price_wei=price_wei - less_wei),
        "gas_per_day": with_futures_limits(capped, emergency_gas_per_day_wei=worst_wei + 7 - less_wei),
        "native_floor": with_snapshot(capped, native_wei=worst_wei - less_wei),
    }
    assert [verdict(guard, limited, plan).passed for guard, limited in step_by_guard.items()] == [passes] * 3


def test_emergency__without_a_price_limit_pays_any_price() -> None:
    gas_price = judged(with_limits(at_gas(step_of(NEAR), 1), gas_price_wei=None))["gas_price"]
    assert (gas_price.passed, gas_price.limit) == (True, "off")


@pytest.mark.parametrize("guard", ["gas_price", "gas_per_day"])
@pytest.mark.parametrize(("limit_wei", "passes"), [(E18, True), (1, False)])
def test_emergency__has_its_limit_of_gas_where_that_of_others_is_off(guard: str, limit_wei: int, passes: bool) -> None:
    step, ordinary = (
        with_limits(at_gas(step_of(margin_account, emergency_gas_24h_wei=7), 100), **NO_GAS_LIMITS) for margin_account in (NEAR, OVER)
    )
    limit = {f"emergency_{guard}_wei": limit_wei}
    limited = judged(with_futures_limits(step, **limit))[guard]
    assert limited.passed is passes
    assert "emergenc" in limited.limit
    assert limited.measured_text != "not measured" == judged(step)[guard].measured_text
    assert judged(with_futures_limits(ordinary, **limit))[guard].passed, "the limit of emergencies alone"


def test_daily_budget_of_reductions__holds_no_emergency_back() -> None:
    """The mark alone is near liquidation: at the index no limit is broken."""
    step = step_of(book(1_300, 10 * E18, index=Fraction(3_000)), reduced_notional_24h=Fraction(90_000 * 10**6))
    plan = proposed_plan(step)
    ordinary = plan.with_layer(replace(futures_of(plan), is_emergency=False))
    assert futures_of(plan).is_emergency
    assert verdict("reduction_per_day", step, plan).passed
    assert not verdict("reduction_per_day", step, ordinary).passed


# --- After failures


MANY = failures.MAX_REVERTS_IN_ROW + 5
MINUTE_S = failures.FIRST_WAIT_S


def hedged(**history: object) -> StepInput:
    """Return a hedge of a limit's reduction: bought back first."""
    hedge = Hedge("ETH", token("WETH").address, -5 * E18, NOW_S - 10**6, Fraction(1))
    return step_of(book(4_000, -10 * E18), replace(FUTURES_POLICY, hedges=(hedge,)), hedges=(hedge,), **history)


near = partial(step_of, NEAR)
over = partial(step_of, OVER)


@pytest.mark.parametrize(
    ("step_after", "free_count", "wait_s"),
    [
        pytest.param(near, 0, MINUTE_S, id="emergency"),
        pytest.param(near, MANY, MINUTE_S, id="emergency at a venue"),
        pytest.param(over, 0, 32 * MINUTE_S, id="reduction"),
        pytest.param(over, MANY, MINUTE_S, id="reduction at a venue"),
        pytest.param(over, MANY - 2, MINUTE_S, id="reduction at a venue, twice for gas"),
        pytest.param(over, MANY - 4, 2 * MINUTE_S, id="reduction at a venue, four times for gas"),
        pytest.param(hedged, 0, 32 * MINUTE_S, id="hedge"),
        pytest.param(hedged, MANY, MINUTE_S, id="hedge at a venue"),
    ],
)
@pytest.mark.parametrize("is_over", [False, True], ids=["a second early", "waited"])
def test_planner_and_guard__try_a_failed_reduction_again_at_once(
    step_after: Callable[..., StepInput], free_count: int, wait_s: int, is_over: bool
) -> None:
    """At one second: no plan is made that the guard refuses, and the guard passes as soon as there is one. Some of the failures
    were rejections, which cost no gas.
    """
    step = step_after(failed_exits=(ExitFailures("ETH", MANY, 0, NOW_S - wait_s + (not is_over), free_count),))
    assert isinstance(propose_rebalance(step).decision_result.decision, AdjustFutures) is is_over
    assert verdict("reverts_in_row", step, proposed_plan(step_after())).passed is is_over
    assert not is_over or refusing(step) == set()


# --- Signing and sending


RULES = replace(FUTURES_RULES, max_fee_wei=60 * GWEI, futures=replace(FUTURES_RULES.futures, emergency_fee_wei=300 * GWEI))
ESCAPE_GRANT = replace(futures_grant(ESCAPE, is_emergency=True), max_gas_wei=10**20)


def without_emergency(grant: Grant) -> Grant:
    return replace(grant, layer_grant=replace(grant.layer_grant, is_emergency=False))


def sign(fee_gwei: int, grant: Grant, **fields: Any) -> None:
    """Judge an order, or a transaction with these fields, at this fee."""
    unsigned = replace(order_tx(ESCAPE), max_fee_wei=fee_gwei * GWEI, **fields)
    require_signable(unsigned, grant, RULES, {unsigned.nonce: None})


def test_signer__holds_an_emergency_to_its_own_ceiling() -> None:
    sign(300, ESCAPE_GRANT)
    with pytest.raises(Refused, match="emergency"):
        sign(301, ESCAPE_GRANT)
    with pytest.raises(Refused, match=r"limits\.gas_price"):
        sign(200, without_emergency(ESCAPE_GRANT))


def test_signer__cancels_an_emergency_at_its_own_ceiling() -> None:
    cancel = replace(ESCAPE_GRANT, kind=IntentKind.CANCEL)
    sign(200, cancel, to=RULES.wallet, data="0x")
    with pytest.raises(Refused, match=r"limits\.gas_price"):
        sign(200, replace(cancel, layer_grant=None), to=RULES.wallet, data="0x")


def test_resend_of_an_emergency__has_its_own_ceilings(tmp_path: Path) -> None:
    settings = replace(patient(tmp_path).settings, emergency_gas_ceilings=(7, 8))
    assert settings.gas_ceilings_of(ESCAPE_GRANT) == (7, 8)
    assert settings.gas_ceilings_of(without_emergency(ESCAPE_GRANT)) == (settings.max_fee_wei, settings.gas_per_day_wei)


def run_escape(world: Bench, unsigned: UnsignedTx, grant: Grant = ESCAPE_GRANT, deadline_s: int = START_S + 90) -> Intent:
    """Run an order as a step of its own."""
    step_id = f"escape {unsigned.nonce}"
    world.store.steps.begin(step_id, world.clock.now_s(), "{}")
    return world.executor().run(step_id, unsigned, replace(grant, deadline_s=deadline_s), "escape")


def test_pending_emergency__is_cancelled_above_the_usual_ceiling(tmp_path: Path) -> None:
    world = patient(tmp_path)
    world.settings = replace(world.settings, max_fee_wei=60 * GWEI, emergency_gas_ceilings=(300 * GWEI, None))

    def pass_deadline() -> None:
        world.chain.timestamp_s = START_S + 90
        if len(world.chain.sent) == 2:
            world.chain.mine(world.chain.sent[1])

    world.clock.on_sleep = pass_deadline
    ended = run_escape(world, tx(0, max_fee_wei=100 * GWEI))
    assert (ended.kind, ended.state) == (IntentKind.FUTURES, IntentState.CANCELLED)
    newest = world.store.journal.intents()[0]
    assert newest.kind is IntentKind.CANCEL
    assert newest.tx.max_fee_wei > 100 * GWEI
    assert world.store.journal.grant(newest.id).is_emergency


@pytest.mark.parametrize(
    ("grant", "limit", "bump_count"),
    [
        pytest.param(ESCAPE_GRANT, "could exceed futures.limits.emergency_gas_per_day", 2, id="emergency"),
        pytest.param(without_emergency(ESCAPE_GRANT), "could exceed limits.gas_per_day", 1, id="reduction"),
    ],
)
def test_bumped_emergency__uses_the_gas_budget_of_emergencies(tmp_path: Path, grant: Grant, limit: str, bump_count: int) -> None:
    """What an ordinary swap burnt of its own budget leaves the budget of emergencies whole."""
    burnt_wei = 100_000 * 12 * GWEI
    world = patient(tmp_path, gas_per_day_wei=burnt_wei, mined_timeout_s=40)
    world.settings = replace(world.settings, emergency_gas_ceilings=(world.settings.max_fee_wei, burnt_wei))
    world.chain.automine = True
    world.store.budgets.book_intent(world.run(0), Fraction(0), Fraction(0), burnt_wei, START_S)
    world.chain.automine = False
    with raises_code(Retryable, "not_mined", limit):
        run_escape(world, tx(1), grant, START_S + 300)
    assert [intent.kind for intent in world.store.journal.intents_at(1)].count(IntentKind.FUTURES) == bump_count


# --- Books


HEDGE = Hedge("ETH", token("WETH").address, -5, NOW_S, Fraction(1))


def test_budgets__keep_gas_and_hedges_of_an_emergency(tmp_path: Path) -> None:
    world = bench(tmp_path)
    for number, hedges in enumerate(((), (HEDGE,))):
        grant = replace(ESCAPE_GRANT, layer_grant=replace(ESCAPE_GRANT.layer_grant, hedges=hedges))
        world.store.budgets.book_intent(run_escape(world, tx(number), grant), Fraction(0), Fraction(0), 7, START_S)
    history, later = (world.store.budgets.history(START_S + days * DAY_S) for days in (0, 9))
    assert (history.emergency_gas_24h_wei, history.budgets.gas_24h_wei, later.emergency_gas_24h_wei) == (14, 14, 0)
    assert {past.layer(FuturesState).last_emergency_s for past in (history, later)} == {START_S}
    assert history.layer(FuturesState).hedges == (HEDGE,)


def test_record_of_a_hedge__follows_what_was_filled(tmp_path: Path) -> None:
    """A venue beside the chain cancels the rest of an order; the rest of the hedge stays open."""
    store = bench(tmp_path).store
    order = PerpOrder("ETH", 5, PerpOrderKind.MARKET, 10**10, True)
    closing = futures_grant(order, hedges=(replace(HEDGE, size_raw=0, at_s=NOW_S + 9),), hedges_before=(HEDGE,))
    grant = replace(closing, max_gas_wei=10**20, deadline_s=START_S + 90)
    mined = replace(receipt("0x1", 0, "0x00", 1), fills=(PerpFill("0x2", "0x3", "ETH", 2, -4_000, 2),))
    store.steps.begin("close", START_S, "{}")
    intent = store.journal.add_intent("close", tx(0), grant, "close", START_S, None)
    for state, fields in ((IntentState.SIGNED, {"tx_hash": "0x1"}), (IntentState.BROADCAST, {}), (IntentState.MINED, {"receipt": mined})):
        intent = store.journal.advance(intent.id, state, START_S, **fields)
    store.budgets.book_intent(intent, Fraction(0), Fraction(0), 0, START_S)
    assert store.budgets.history(START_S).layer(FuturesState).hedges == (replace(HEDGE, size_raw=-3),)


# --- Nothing is opened for a while after an emergency


SAFE = book(10_000)
"""Closed, after the price came back."""


@pytest.mark.parametrize("since_s", [0, HOUR_S, DAY_S - 1])
def test_cooldown_of_an_emergency__opens_nothing(since_s: int) -> None:
    """A price that gaps by 30 % and back would otherwise close and open the book at every tick."""
    step = with_futures_limits(step_of(SAFE, last_emergency_s=NOW_S - since_s), emergency_cooldown_s=DAY_S)
    proposal = propose_rebalance(step)
    assert proposal.plan is None
    assert isinstance(proposal.decision_result.decision, Hold)
    assert "no position is opened before" in proposal.decision_result.decision.reason
    assert "reopening" in refusing_guards(step, proposed_plan(step_of(SAFE)))


def test_cooldown_of_an_emergency__ends_to_the_second() -> None:
    step = with_futures_limits(step_of(SAFE, last_emergency_s=NOW_S - DAY_S), emergency_cooldown_s=DAY_S)
    assert "reopening" not in refusing(step)


@pytest.mark.parametrize("margin_account", [OVER, NEAR])
def test_cooldown_of_an_emergency__holds_no_reduction_back(margin_account: MarginAccount) -> None:
    step = with_futures_limits(step_of(margin_account, last_emergency_s=NOW_S - 60), emergency_cooldown_s=DAY_S)
    assert proposed_futures(step).orders == proposed_futures(step_of(margin_account)).orders
    assert refusing(step) == set()


@pytest.mark.parametrize(("cooldown_s", "least_bars", "most_bars"), [(0, 1, 3), (DAY_S, 24, 26)], ids=["none", "a day"])
def test_a_simulated_book_reopens_only_after_the_cooldown(cooldown_s: int, least_bars: int, most_bars: int) -> None:
    settings = long_btc(30_000)
    limits = replace(SETTINGS.policy.limits, emergency_cooldown_s=cooldown_s, emergency_distance_bps=1_000)
    settings = replace(settings, policy=replace(settings.policy, limits=limits, leverage_band_bps=1_000))
    fills = simulate_book(moves(*[100] * 4, *[74] * 3, *[100] * 40), settings).agent_book.fills
    closed = [fill.bar for fill in fills if fill.trigger == "liquidation"]
    assert closed, fills
    assert closed[0] <= 6, fills
    assert least_bars <= min(fill.bar for fill in fills if fill.bar > closed[-1] and fill.size_raw > 0) - closed[-1] <= most_bars
