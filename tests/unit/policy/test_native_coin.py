"""Native coin in pure steps: what counts, what may be spent, how legs are paid, what refills gas, and how guards judge it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec, guards
from agent.errors import Refused
from agent.execution.evaluation import evaluate_input
from agent.model import (
    DataFeeQuote,
    Every,
    Goal,
    Hold,
    Leg,
    LegPlace,
    Plan,
    Rebalance,
    StepInput,
    TopUp,
    UnreadableItem,
    UnsignedTx,
    wallet_changes,
)
from agent.model.rollups import DATA_FEE_ITEM, MAX_FEE_RISE
from agent.planning import proposals
from agent.planning.gas import WrappedNative, with_payment_legs
from agent.policy import native_coin
from agent.policy.decide import decide
from agent.policy.drift import compute_drifts
from agent.reference import reference_prices
from agent.units import NATIVE, UINT256_MAX
from tests.support.builders import ETHER, GWEI, NOW_S, address, history, token, with_limits, with_snapshot
from tests.support.decisions.native_coin import FLOOR, native_step, plan_of
from tests.support.plans import evidence, verdict, with_leg
from tests.support.signing import leg
from tests.support.text import raises_code

WETH = token("WETH").address
USDC = token("USDC").address
W = LegPlace.WALLET
R = LegPlace.ROUTER


def refusing_guards(step: StepInput, plan: Plan) -> list[str]:
    """Guards that refuse."""
    swaps = [(number, plan_leg) for number, plan_leg in enumerate(plan.legs) if plan_leg.venue != "wrapped_native"]
    plain = evidence(step, plan)
    quotes = tuple(quote for quote in plain.second_quotes if quote.leg_index in dict(swaps))
    return [f"{v.guard}: {v.measured_text}" for v in guards.judge(step, plan, replace(plain, second_quotes=quotes)) if not v.passed]


@pytest.mark.parametrize(
    ("base_fee_wei", "ceiling_wei", "price_wei"),
    [
        pytest.param(5, None, 12, id="two base fees and the tip"),
        pytest.param(5, 11, 11, id="a wei below"),
        pytest.param(5, 13, 12, id="ceiling above"),
        pytest.param(None, None, 9, id="price of a node without base fee"),
        pytest.param(None, 8, 8, id="ceiling of a legacy price"),
    ],
)
def test_capped_gas_price_is_two_base_fees_and_the_tip(base_fee_wei: int | None, ceiling_wei: int | None, price_wei: int) -> None:
    snapshot = native_step(ETHER, 0, 0).snapshot
    snapshot = replace(snapshot, head=replace(snapshot.head, base_fee_wei=base_fee_wei), priority_fee_wei=2, gas_price_wei=9)

    assert native_coin.capped_gas_price_wei(snapshot, ceiling_wei) == price_wei


@pytest.mark.parametrize(
    ("includes_native", "reserve_raw", "balance_raw", "reserved_raw", "full_reserve_raw"),
    [
        pytest.param(True, 7, ETHER, 7 + FLOOR, ETHER - FLOOR, id="native asset"),
        pytest.param(False, 7, ETHER, 7, ETHER, id="wrapped token alone"),
        pytest.param(True, ETHER, ETHER, ETHER + FLOOR, ETHER, id="reserve beyond the balance"),
        pytest.param(False, 7, None, 7, UINT256_MAX, id="unknown balance"),
    ],
)
def test_reserve_keeps_the_floor_only_of_a_native_asset(
    includes_native: bool, reserve_raw: int, balance_raw: int | None, reserved_raw: int, full_reserve_raw: int
) -> None:
    step = native_step(ETHER, 0, 0, counts=includes_native, reserve_raw=reserve_raw)
    asset = step.portfolio.assets[0]

    assert native_coin.reserved_raw(step.limits, asset) == reserved_raw
    assert native_coin.full_reserve_raw({} if balance_raw is None else {WETH: balance_raw}, step.limits, asset) == full_reserve_raw


def test_balances_add_back_the_gas_that_this_step_spent() -> None:
    step = native_step(ETHER, 2_000, 0)
    step = replace(step, progress=replace(step.progress, spent_gas_wei=5))

    assert native_coin.held_balances(step)[WETH] == 2 * ETHER + 5


@pytest.mark.parametrize(
    ("native_wei", "counts", "wrappable_wei"),
    [
        pytest.param(0, True, 0, id="at floor and gas"),
        pytest.param(1, True, 1, id="a wei above"),
        pytest.param(-1, True, 0, id="a wei below"),
        pytest.param(1, False, 0, id="no native asset"),
    ],
)
def test_wrappable_is_what_floor_and_gas_leave(native_wei: int, counts: bool, wrappable_wei: int) -> None:
    """`native_wei` counts from floor and worst gas."""
    step = native_step(ETHER, 0, 0, counts=counts)
    kept_wei = FLOOR + native_coin.worst_gas_cost_wei(step.snapshot, step.limits)
    snapshot = replace(step.snapshot, native_wei=kept_wei + native_wei)

    assert native_coin.wrappable_wei(snapshot, step.portfolio, step.limits) == wrappable_wei


def test_data_fee_cap_is_that_of_the_exact_transaction() -> None:
    """Its calldata has three bytes."""
    snapshot = replace(native_step(ETHER, 0, 0).snapshot, data_fee=DataFeeQuote(10**12, 10**15, 7, 7))
    transaction = UnsignedTx(1, 0, WETH, 0, "0x010203", 100_000, GWEI, GWEI, None)

    assert native_coin.data_fee_cap_wei(snapshot, transaction) == MAX_FEE_RISE * snapshot.max_fee_beyond_gas_wei(100_000, 3)
    assert native_coin.data_fee_cap_wei(replace(snapshot, data_fee=None), transaction) is None


def test_unknown_data_fee_refuses_all_but_a_revocation() -> None:
    unread = UnreadableItem(DATA_FEE_ITEM, WETH, "no answer")
    snapshot = replace(native_step(ETHER, 0, 0).snapshot, unreadable_items=(unread,))
    transaction = UnsignedTx(1, 0, WETH, 0, "0x", 100_000, GWEI, GWEI, None)

    assert native_coin.data_fee_cap_wei(snapshot, transaction, revokes=True) is None
    with raises_code(Refused, "data_fee", "data fee is unknown") as raised:
        native_coin.data_fee_cap_wei(snapshot, transaction)
    assert raised.value.verdicts[0].measured_text == "no answer"


@pytest.mark.parametrize(
    ("gas_price_limit_wei", "is_topped_up"),
    [
        pytest.param(GWEI + GWEI // 10, True, id="at the price of now"),
        pytest.param(GWEI + GWEI // 10 - 1, False, id="a wei below it"),
    ],
)
def test_top_up_of_a_hold_waits_while_gas_is_above_its_limit(gas_price_limit_wei: int, is_topped_up: bool) -> None:
    step = with_limits(native_step(FLOOR - 1, 5_000, 5_000, counts=False), gas_price_wei=gas_price_limit_wei)

    assert isinstance(native_coin.top_up(step, Hold("rests")), TopUp) is is_topped_up


def test_top_up_of_a_rebalance_does_not_wait_for_cheaper_gas() -> None:
    step = with_limits(native_step(GWEI * 10**5, 5_000, 5_000, counts=False), gas_price_wei=GWEI)

    assert isinstance(native_coin.top_up(step, Rebalance("", Goal(()))), TopUp)


@pytest.mark.parametrize(
    ("weth_raw", "is_topped_up"), [pytest.param(0, True, id="four times its gas"), pytest.param(-1, False, id="a wei less")]
)
def test_top_up_unwraps_at_least_four_times_its_gas(weth_raw: int, is_topped_up: bool) -> None:
    """`weth_raw` counts from four times the gas of an unwrapping."""
    step = native_step(FLOOR - 1, 5_000, 5_000, counts=False)
    least_raw = native_coin.MIN_UNWRAP_GAS_MULTIPLE * native_coin.unwrap_cost_wei(step.snapshot, step.limits)
    holdings = tuple(replace(holding, raw=least_raw + weth_raw) if holding.token == WETH else holding for holding in step.snapshot.holdings)

    assert isinstance(native_coin.top_up(with_snapshot(step, holdings=holdings), Hold("rests")), TopUp) is is_topped_up


def test_both_forms_count_less_reserve_and_gas_floor() -> None:
    step = native_step(2 * ETHER, weth=2_000, usdc=1_000, reserve_raw=ETHER // 2)
    eth = compute_drifts(step, reference_prices(step).price_by_token)[0]
    assert eth.raw == 3 * ETHER
    assert eth.investable_raw == 3 * ETHER - ETHER // 2 - FLOOR
    alone = native_step(2 * ETHER, weth=2_000, usdc=1_000, counts=False)
    assert decide(alone).drifts[0].raw == ETHER
    assert decide(with_limits(step, native_floor_wei=None)).drifts[0].investable_raw == 3 * ETHER - ETHER // 2


@pytest.mark.parametrize(
    ("native", "weth", "wraps"),
    [
        pytest.param(5 * ETHER, 0, "by value", id="wrapped by value"),
        pytest.param(2 * ETHER, 8_000, "none", id="none wrapped"),
        pytest.param(3 * ETHER, 6_000, "first", id="wrapped first"),
    ],
)
def test_native_coin_pays_only_what_wrapped_coin_cannot(native: int, weth: int, wraps: str) -> None:
    usdc = 0 if wraps != "none" else 2_000
    step = native_step(native, weth, usdc) if wraps != "first" else native_step(native, weth, 0, reserve_raw=0)
    if wraps == "first":  # more than either form alone: nearly all ETH has to go
        assets = tuple(replace(asset, target_bps=bps) for asset, bps in zip(step.portfolio.assets, (1_000, 9_000), strict=True))
        step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    plan = plan_of(step)
    wrapped = [plan_leg for plan_leg in plan.legs if plan_leg.token_in == NATIVE]
    kinds = {"by value": {R}, "none": set(), "first": {W}}
    assert {plan_leg.sink for plan_leg in wrapped} == kinds[wraps]
    assert refusing_guards(step, plan) == []
    assert plan.native_after_wei == (None if not wrapped else native - sum(plan_leg.amount_in_raw for plan_leg in wrapped))
    moved = plan.wallet_changes()
    assert dict(plan.holdings_after)[WETH] == weth * ETHER // 2_000 + moved.get(WETH, 0) >= 0
    if plan.native_after_wei is not None:
        assert plan.native_after_wei >= FLOOR + native_coin.worst_gas_cost_wei(step.snapshot, step.limits)


def test_bought_coin_stays_wrapped() -> None:
    step = native_step(ETHER // 4, weth=0, usdc=10_000)
    plan = plan_of(step)
    assert all(plan_leg.venue != "wrapped_native" for plan_leg in plan.legs)
    assert plan.native_after_wei is None
    assert refusing_guards(step, plan) == []


amounts = st.integers(0, 20 * ETHER)


@given(
    wrapped=amounts, free=amounts, refill=st.integers(0, ETHER), sells=st.lists(st.integers(1, 4 * ETHER), max_size=4), counts=st.booleans()
)
def test_payment_legs_change_only_the_form_that_pays(wrapped: int, free: int, refill: int, sells: list[int], counts: bool) -> None:
    refill = min(refill, wrapped)
    wrapped_native = WrappedNative(WETH, wrapped, None, free if counts and not refill else 0, refill, counts)
    swaps: list[Leg] = [leg(WETH, USDC, raw, raw) for raw in sells]
    swaps += [leg(address("link"), WETH, 10**18, 10**16, sink=R), leg(WETH, USDC, 10**16, 10**7, source=R)]
    if sum(sells) > (wrapped - refill + wrapped_native.wrappable_wei):
        return  # more than the plan's cap
    legs = with_payment_legs(wrapped_native, swaps)
    moved = wallet_changes(legs)
    plain = wallet_changes(swaps)
    both = moved.get(WETH, 0) + moved.get(NATIVE, 0)
    assert both == plain.get(WETH, 0)
    assert moved.get(USDC, 0) == plain[USDC]
    assert wrapped + moved.get(WETH, 0) >= 0
    assert moved.get(NATIVE, 0) >= refill - wrapped_native.wrappable_wei
    assert [
        (plan_leg.token_in, plan_leg.amount_in_raw, plan_leg.min_out_raw) for plan_leg in legs if plan_leg.venue != "wrapped_native"
    ] == [(plan_leg.token_in, plan_leg.amount_in_raw, plan_leg.min_out_raw) for plan_leg in swaps]
    if refill:
        assert moved.get(NATIVE, 0) >= refill


@pytest.mark.parametrize(("sold_coins", "missing"), [(2, 0), (4, 2), (6, 4)])
def test_wrap_for_a_sale_leaves_the_refill_of_gas(sold_coins: int, missing: int) -> None:
    """Five are wrapped, of which three are unwrapped for gas: of a sale only two need no wrap."""
    coin = WrappedNative(WETH, 5 * ETHER, None, 10 * ETHER, 3 * ETHER, True)
    first, *_, last = legs = with_payment_legs(coin, [leg(WETH, USDC, sold_coins * ETHER, 10**6)])
    wrapped = first.amount_in_raw if first.token_in == NATIVE else 0
    assert wrapped == missing * ETHER
    assert (last.token_out, last.amount_in_raw) == (NATIVE, 3 * ETHER)
    assert 5 * ETHER + wallet_changes(legs)[WETH] == max(0, 2 - sold_coins) * ETHER


def test_plan_refills_gas_below_the_floor() -> None:
    step = native_step(ETHER, 9_000, 1_000)
    margin = native_coin.worst_gas_cost_wei(step.snapshot, step.limits)
    enough = native_step(FLOOR + margin, 9_000, 1_000)
    assert plan_of(enough).legs[-1].token_out == USDC
    short = native_step(FLOOR + margin - 1, 9_000, 1_000)
    plan = plan_of(short)
    assert plan.legs[-1].token_out == NATIVE
    assert plan.native_after_wei == ETHER // 10
    assert refusing_guards(short, plan) == []
    off = with_limits(short, native_top_up_wei=None)
    assert plan_of(off).legs[-1].token_out == USDC


def test_refill_reaches_floor_and_gas_without_spent_gas() -> None:
    step = native_step(FLOOR, 9_000, 1_000, native_top_up_wei=FLOOR)
    least_wei = FLOOR + native_coin.worst_gas_cost_wei(step.snapshot, step.limits)

    def refill_raw(native_wei: int, spent_gas_wei: int) -> int:
        return native_coin.refill_raw(replace(step.snapshot, native_wei=native_wei), step.limits, spent_gas_wei)

    assert refill_raw(FLOOR, 0) == least_wei - FLOOR
    assert refill_raw(FLOOR - 3, 3) == least_wei - FLOOR
    assert refill_raw(least_wei - 3, 3) == 0


def test_top_up_unwraps_where_gas_or_floor_is_short() -> None:
    step = native_step(ETHER, 9_000, 1_000)
    margin = native_coin.worst_gas_cost_wei(step.snapshot, step.limits)
    assert isinstance(decide(native_step(margin, 9_000, 1_000)).decision, Rebalance)
    poor = decide(native_step(margin - 1, 9_000, 1_000)).decision
    assert isinstance(poor, TopUp)
    assert "gas" in poor.reason
    assert "above" in poor.reason
    resting = native_step(FLOOR - 1, 5_000, 5_000, counts=False)
    top_up = decide(resting).decision
    assert isinstance(top_up, TopUp)
    assert "limits.native_floor" in top_up.reason
    assert top_up.raw == ETHER // 10 - (FLOOR - 1)
    assert isinstance(decide(native_step(FLOOR, 5_000, 5_000, counts=False)).decision, Hold)
    for quiet in (
        with_limits(resting, native_top_up_wei=None),
        with_snapshot(resting, native_wei=native_coin.unwrap_cost_wei(resting.snapshot, resting.limits) - 1),
        with_limits(resting, gas_price_wei=GWEI),
        native_step(FLOOR - 1, 0, 10_000, counts=False),
    ):
        assert not isinstance(decide(quiet).decision, TopUp)


def test_top_up_comes_first_and_leaves_the_review_due() -> None:
    """Only the swaps that follow are the review."""
    due_step = replace(native_step(ETHER, 9_000, 1_000), policy=replace(native_step(ETHER, 9_000, 1_000).policy, trigger=Every(3_600)))
    funded = decide(due_step)
    poor = decide(with_snapshot(due_step, native_wei=native_coin.worst_gas_cost_wei(due_step.snapshot, due_step.limits) - 1))
    assert isinstance(funded.decision, Rebalance)
    assert funded.is_reviewed
    assert funded.due_schedules
    assert isinstance(poor.decision, TopUp)
    assert not poor.is_reviewed
    assert not poor.due_schedules


def test_top_up_never_unwraps_the_reserve() -> None:
    apart = native_step(FLOOR - 1, 2_000, 2_000, counts=False, reserve_raw=ETHER - 1)
    assert native_coin.unwrappable_raw(apart.snapshot, apart.portfolio) == 1
    reserved = native_step(FLOOR - 1, 2_000, 2_000, counts=False, reserve_raw=2 * ETHER)
    assert native_coin.unwrappable_raw(reserved.snapshot, reserved.portfolio) == 0
    counted = native_step(FLOOR - 1, 2_000, 2_000, reserve_raw=ETHER - 1)
    assert native_coin.unwrappable_raw(counted.snapshot, counted.portfolio) == ETHER


def test_top_up_needs_wrapped_coin() -> None:
    step = replace(native_step(FLOOR - 1, 0, 10_000, counts=False), history=history(last_rebalance_s=NOW_S - 60))
    free = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=None), gas_price_wei=0)
    assert isinstance(decide(free).decision, Hold)


def test_top_up_plan_passes_guards_by_its_own_gas() -> None:
    step = native_step(FLOOR // 2, 5_000, 5_000, counts=False)
    proposal = proposals.propose_rebalance(step)
    plan = proposal.plan
    assert isinstance(plan.decision, TopUp)
    assert refusing_guards(step, plan) == []
    assert plan.native_after_wei == ETHER // 10
    assert plan.turnover == 0
    assert dict(plan.holdings_after)[WETH] == 25 * 10**17 - plan.legs[0].amount_in_raw
    worst = native_coin.unwrap_cost_wei(step.snapshot, step.limits)
    assert verdict("native_floor", with_snapshot(step, native_wei=worst), replace(plan, native_after_wei=None)).passed
    assert not verdict("native_floor", with_snapshot(step, native_wei=worst - 1), replace(plan, native_after_wei=None)).passed
    assert evaluate_input(step, proposals.propose_rebalance, None).plan == plan
    assert codec.loads(Plan, codec.dumps(plan)) == plan
    assert codec.loads(StepInput, codec.dumps(step)) == step


@pytest.mark.parametrize(
    ("guard", "change"),
    [
        ("balance", {"amount_in_raw": 5 * ETHER, "amount_out_raw": 5 * ETHER}),
        ("prediction", {"amount_out_raw": 1}),
        ("prediction", {"pool": address("elsewhere")}),
        ("balance", {"token_out": USDC}),
    ],
)
def test_wrap_must_be_at_par_from_what_is_there(guard: str, change: dict[str, object]) -> None:
    step = native_step(5 * ETHER, 0, 0)
    plan = plan_of(step)
    assert plan.legs[0].token_in == NATIVE
    assert verdict(guard, step, plan).passed
    assert not verdict(guard, step, with_leg(plan, 0, **change)).passed


def test_guards_refuse_a_plan_that_spends_below_the_floor() -> None:
    step = native_step(5 * ETHER, 0, 0)
    plan = plan_of(step)
    spent = plan.legs[0].amount_in_raw
    bare = with_snapshot(step, native_wei=spent + FLOOR - 1)
    assert "too much" in verdict("balance", bare, plan).measured_text
    assert not verdict("native_floor", bare, plan).passed
    assert not verdict("balance", native_step(5 * ETHER, 0, 0, counts=False), plan).passed, "native coin that is no asset is not spent"


@pytest.mark.parametrize(("short_wei", "is_passed"), [(0, True), (1, False)])
def test_wrapped_coin_does_not_cover_native_below_the_floor(short_wei: int, is_passed: bool) -> None:
    """The asset covers the plan in both cases, its native form only without a wei missing."""
    plan = plan_of(native_step(5 * ETHER, 0, 0))
    spent = plan.legs[0].amount_in_raw
    beside = native_step(spent + FLOOR - short_wei, 1_000, 0)
    judged = verdict("balance", beside, plan)
    assert judged.passed is is_passed
    assert is_passed or "spends 1 base units" in judged.measured_text
    assert verdict("balance", with_limits(beside, native_floor_wei=None), plan).passed, "without a floor there is room"


@pytest.mark.parametrize(("short_wei", "is_passed"), [(0, True), (1, False)])
def test_native_coin_does_not_cover_missing_wrapped_coin(short_wei: int, is_passed: bool) -> None:
    step = native_step(FLOOR, 8_000, 0)
    plan = plan_of(step)
    spent = sum(plan_leg.amount_in_raw for plan_leg in plan.legs if plan_leg.source is W and plan_leg.token_in == WETH)
    weth_holding, *others = step.snapshot.holdings
    bare = with_snapshot(step, native_wei=9 * ETHER, holdings=(replace(weth_holding, raw=spent - short_wei), *others))
    assert verdict("balance", bare, plan).passed is is_passed


@pytest.mark.parametrize(("more_wei", "is_passed"), [(0, True), (1, False)])
def test_conversion_leaves_the_floor(more_wei: int, is_passed: bool) -> None:
    """Wrapping sells nothing, so that only the native form shows the wei too much."""
    step = native_step(5 * ETHER, 1_000, 0)
    plan = plan_of(step)
    wrapped = 5 * ETHER - FLOOR + more_wei
    wrap = leg(NATIVE, WETH, wrapped, wrapped, pool=WETH, venue="wrapped_native")
    assert verdict("balance", step, replace(plan, legs=(wrap,))).passed is is_passed


@pytest.mark.parametrize(("more_wei", "is_passed"), [(0, True), (1, False)])
def test_wrap_into_the_router_spends_the_asset(more_wei: int, is_passed: bool) -> None:
    """Native coin would do, but all except one coin of the asset is its reserve."""
    step = native_step(3 * ETHER + FLOOR, 2_000, 0, reserve_raw=3 * ETHER)
    wrapped = ETHER + more_wei
    wrap = leg(NATIVE, WETH, wrapped, wrapped, pool=WETH, venue="wrapped_native", sink=R)
    sale = leg(WETH, USDC, wrapped, 1, pool=step.snapshot.pools[0].address, source=R)
    assert verdict("balance", step, replace(plan_of(step), legs=(wrap, sale))).passed is is_passed


@pytest.mark.parametrize("off_wei", [1, -1])
def test_wrong_prediction_of_native_coin_is_refused(off_wei: int) -> None:
    step = native_step(5 * ETHER, 0, 0)
    plan = plan_of(step)
    assert plan.native_after_wei is not None
    wrong = replace(plan, native_after_wei=plan.native_after_wei + off_wei)
    assert verdict("prediction", step, plan).passed
    assert "native" in verdict("prediction", step, wrong).measured_text
