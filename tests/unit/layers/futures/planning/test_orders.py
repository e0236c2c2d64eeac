"""Orders of the futures planner beside markets that the config does not name, that back off or are paused, and parts too small to send."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.futures.planning.orders import cut_reductions, market_order, paused_reason, plan_futures, smaller_orders, top_up_raw
from agent.layers.futures.policy.targets import (
    due_triggers,
    funding_trims,
    sizes_to_target,
)
from agent.margin import account as margin
from agent.model.futures import FuturesLimits, FuturesPlan, FuturesPolicy, FuturesTarget, MarginAccount, MarginDeposit
from tests.support.constants import MONTH_S
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import LOT, TWO, WIDE, wide_book, with_market
from tests.support.perpetuals.plans import LONGS, PLAIN, PLAN_S, POLICY, RICH, ROUGH, account_after_fills, pair_book
from tests.support.samples import examples

TRIPLE = replace(TWO, leverage_bps=30_000, targets=tuple(FuturesTarget(name, 3_333) for name in ("ETH", "BTC", "SOL")))
ONE = replace(LONGS, targets=(FuturesTarget("ETH", 10_000),))


def unnamed(account: MarginAccount, name: str) -> MarginAccount:
    """The account in which the config does not name a market."""
    return with_market(account, name, is_configured=False)


def sizes(plan: FuturesPlan) -> dict[str, int]:
    return {order.market: order.size_raw // LOT for order in plan.orders}


# Markets that the config does not name


def test_unnamed__market_near_liquidation_is_reduced_too() -> None:
    plan = plan_futures(unnamed(pair_book(1_300, 7_000 * LOT, 230 * LOT), "ETH"), LONGS, RICH, PLAN_S)
    assert plan.is_emergency
    assert sizes(plan).keys() == {"ETH", "BTC"}


def test_unnamed__begun_reduction_ends_at_its_goal() -> None:
    plan = plan_futures(unnamed(pair_book(10_000, 2_000 * LOT), "ETH"), LONGS, RICH, PLAN_S, goal_sizes=(("ETH", 1_000 * LOT),))
    assert sizes(plan) == {"ETH": -1_000}


@pytest.mark.parametrize(("waiting", "markets"), [((), {"BTC"}), (("BTC",), {"ETH", "BTC"})])
def test_unnamed__position_is_reduced_if_the_others_back_off(waiting: tuple[str, ...], markets: set[str]) -> None:
    """19,000 where 15,200 may be: 9,000 of BTC are enough, unless its orders wait."""
    plan = plan_futures(unnamed(pair_book(4_000, 5_000 * LOT, 300 * LOT), "ETH"), LONGS, RICH, PLAN_S, waiting_markets=waiting)
    assert sizes(plan).keys() == markets


def test_unnamed__position_above_its_share_is_not_trimmed() -> None:
    policy = replace(LONGS, limits=replace(PLAIN, max_position_bps=7_000))
    plan = plan_futures(unnamed(pair_book(10_000, 8_000 * LOT, 80 * LOT), "ETH"), policy, RICH, PLAN_S)
    assert (plan.trigger, plan.orders) == ("max_position", ())
    assert plan.refusal_texts == ("the account has a position in ETH, which the config does not name",)


def test_unnamed__market_holds_no_trim_of_another_back() -> None:
    policy = replace(LONGS, limits=replace(PLAIN, max_position_bps=7_000))
    plan = plan_futures(unnamed(pair_book(10_000, 8_000 * LOT, 20 * LOT), "BTC"), policy, RICH, PLAN_S)
    assert (plan.trigger, sizes(plan).keys()) == ("max_position", {"ETH"})


def test_unnamed__market_takes_no_deposit() -> None:
    account = replace(unnamed(pair_book(4_000, 7_000 * LOT, 200 * LOT), "BTC"), collateral_unit_raw=10**12)
    plan = plan_futures(account, LONGS, RICH, PLAN_S, depositable_raw=10**12)
    assert (plan.account_actions, sizes(plan).keys()) == ((), {"ETH"})


# Parts of orders


@pytest.mark.parametrize(("spot", "opened"), [(100, {}), (102, {"ETH": 51})])
def test_opening__cut_to_dust_is_not_sent(spot: int, opened: dict[str, int]) -> None:
    """A tenth of the band is 100."""
    policy = replace(ONE, limits=replace(PLAIN, spot_multiple_bps=10_000))
    assert sizes(plan_futures(pair_book(10_000), policy, Fraction(spot * E18), PLAN_S)) == opened


def test_plan__without_an_order_is_no_reduction() -> None:
    plan = plan_futures(with_market(pair_book(10_000), "ETH", is_paused=True), ONE, RICH, PLAN_S)
    assert (plan.orders, plan.is_reducing) == ((), False)


def crowded(**changes: object) -> MarginAccount:
    """12,000 of BTC, paused, and 14,000 of ETH, each of a target of 9,999; 4,000 of SOL."""
    return with_market(with_market(wide_book(ETH=7_000, BTC=400, SOL=40_000), "BTC", is_paused=True), "SOL", **changes)


@pytest.mark.parametrize(("least", "opens"), [(3_900, True), (4_100, False)])
def test_cut_to_target__reduction_makes_room_and_a_small_part_waits(least: int, opens: bool) -> None:
    """4,000 of ETH are sold, which leaves 4,000 of 30,000 for SOL."""
    policy = replace(TRIPLE, limits=replace(WIDE, slippage_bps=0))
    plan = plan_futures(crowded(min_notional_raw=least * E18), policy, RICH, PLAN_S)
    assert sizes(plan)["ETH"] == pytest.approx(-2_000, abs=2)
    assert sizes(plan).get("SOL", 0) == pytest.approx(40_000 if opens else 0, abs=100)


def test_smaller_orders__rest_below_a_lot_is_closed_whole() -> None:
    account = pair_book(10_000, LOT // 2)
    order = market_order(account.market("ETH"), -LOT // 2, 0, is_reduce_only=True)
    [smaller] = smaller_orders(account, FuturesPlan((order,), "", ""), PLAIN, {"ETH": 4})
    assert smaller.size_raw == -LOT // 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({}, ""), ({"is_paused": True}, "ETH is paused"), ({"is_paused": True, "is_isolated": True}, "ETH is set to isolated margin")],
    ids=["open", "paused", "isolated"],
)
def test_paused__isolated_margin_is_named(changes: dict[str, object], reason: str) -> None:
    assert paused_reason(with_market(pair_book(10_000), "ETH", **changes).market("ETH")) == reason


CAPPED = replace(ROUGH, spot_multiple_bps=25_000)


LEVERED = replace(POLICY, limits=CAPPED)


def test_notional_limit__cuts_every_opening_by_one_share() -> None:
    """20,000 of notional wanted, 10,000 allowed: each half gets half, where the first market once took all."""
    plan = plan_futures(pair_book(10_000), LEVERED, Fraction(4_000 * E18), PLAN_S)
    sizes = {order.market: order.size_raw for order in plan.orders}
    eth = abs(sizes["ETH"]) * 2_000
    btc = abs(sizes["BTC"]) * 30_000
    assert 9_700 * E18 < eth + btc <= 10_000 * E18
    assert abs(eth - btc) <= 40 * E18
    assert plan.refusal_texts == ("ETH is cut to what the limits allow", "BTC is cut to what the limits allow")


@pytest.mark.parametrize(("eth", "fires"), [(8_000, False), (7_900, True), (12_100, True), (12_000, False)])
def test_the_total_notional_has_a_band_of_its_own(eth: int, fires: bool) -> None:
    """One market is always 100 % of the notional, so that its weight never drifts."""
    policy = FuturesPolicy((FuturesTarget("ETH", 10_000),), 20_000, 500, ROUGH, leverage_band_bps=2_000)
    plan = plan_futures(pair_book(10_000, eth * E18 // 1_000), policy, RICH, PLAN_S)
    assert (plan.trigger == "leverage_drift") is fires
    assert bool(plan.orders) is fires


def test_total_held_below_its_target_by_a_limit__does_not_drift() -> None:
    policy = replace(LEVERED, targets=(FuturesTarget("ETH", 10_000),), leverage_band_bps=1_000)
    margin_account = pair_book(10_000)
    spot = Fraction(4_000 * E18)
    first = plan_futures(margin_account, policy, spot, PLAN_S)
    size = sum(order.size_raw for order in first.orders)
    assert first.trigger == "drift"
    assert 4_900 * 10**15 <= size <= 5 * E18
    assert plan_futures(pair_book(10_000, size), policy, spot, PLAN_S).orders == ()


def test_a_leverage_of_zero_closes_every_position() -> None:
    plan = plan_futures(pair_book(10_000, eth=2 * E18), replace(POLICY, targets=(), leverage_bps=0), RICH, PLAN_S)
    assert [(order.size_raw, order.is_reduce_only) for order in plan.orders] == [(-2 * E18, True)]


def test_a_liquidation_in_sight_waits_for_nobody() -> None:
    policy = replace(POLICY, manual_triggers=("leverage", "utilisation", "spot_multiple", "drift", "leverage_drift"))
    plan = plan_futures(margin.with_moved_marks(pair_book(1_300, eth=10 * E18), {"ETH": Fraction(0)}), policy, RICH, PLAN_S)
    assert plan.is_emergency
    assert plan.orders


@pytest.mark.parametrize(
    ("limits", "deposit"),
    [
        (PLAIN, 1_000 * E18),
        (replace(PLAIN, max_leverage_bps=100_000, max_utilisation_bps=4_000), 1_000 * E18),
        (replace(PLAIN, max_leverage_bps=100_000, stress_move_bps=2_000), 1_000 * E18),
        (replace(PLAIN, max_utilisation_bps=2_500), 4_000 * E18),
    ],
    ids=["leverage", "utilisation", "stress", "the larger of two"],
)
def test_top_up__deposit_just_restores_the_limit(limits: object, deposit: int) -> None:
    """20,000 of ETH on 4,000, with 2,000 of initial margin."""
    policy = replace(LONGS, limits=limits)  # type: ignore[arg-type]  # limits of the parameters
    assert top_up_raw(pair_book(4_000, 10 * E18), policy, RICH, 0) == deposit


@pytest.mark.parametrize(
    "limits",
    [
        PLAIN,
        replace(PLAIN, max_leverage_bps=100_000, max_utilisation_bps=4_000),
        replace(PLAIN, max_leverage_bps=100_000, stress_move_bps=2_000),
    ],
    ids=["leverage", "utilisation", "stress"],
)
def test_top_up__hysteresis_and_the_collateral_s_unit_round_up(limits: FuturesLimits) -> None:
    account = replace(pair_book(4_000, 10 * E18), collateral_unit_raw=10**12)
    assert top_up_raw(account, replace(LONGS, limits=limits), RICH, 500) == 1_263_157_895


@pytest.mark.parametrize(("less", "deposit"), [(0, 1_263_157_895), (1, 0)])
def test_top_up__wallet_with_exactly_the_deposit_deposits_it(less: int, deposit: int) -> None:
    account = replace(pair_book(4_000, 10 * E18), collateral_unit_raw=10**12)
    plan = plan_futures(account, LONGS, RICH, PLAN_S, depositable_raw=1_263_157_895 - less)
    assert plan.top_up_raw == deposit


@pytest.mark.parametrize(
    ("approved", "at_hand", "deposit"),
    [
        pytest.param(1_000, 2_000, 1_000_000_000, id="approved amount suffices"),
        pytest.param(999, 2_000, 1_263_157_895, id="approved one too small"),
        pytest.param(1_100, 1_100, 1_100_000_000, id="all at hand"),
        pytest.param(1_100, 1_099, 0, id="a unit missing at hand"),
    ],
)
def test_top_up__approved_amount_is_deposited_if_it_restores(approved: int, at_hand: int, deposit: int) -> None:
    account = replace(pair_book(4_000, 10 * E18), collateral_unit_raw=10**12)
    plan = plan_futures(account, LONGS, RICH, PLAN_S, depositable_raw=at_hand * 10**6, approved_deposit_raw=approved * 10**6)
    assert plan.account_actions == ((MarginDeposit(deposit),) if deposit else ())


@pytest.mark.parametrize(("eth", "markets"), [(4_950, ["BTC"]), (4_949, ["BTC", "ETH"])])
def test_dust__change_of_a_tenth_of_the_band_is_no_order(eth: int, markets: list[str]) -> None:
    """100 of a target notional of 20,000 are dust."""
    plan = plan_futures(pair_book(10_000, eth * LOT), LONGS, RICH, PLAN_S)
    assert sorted(order.market for order in plan.orders) == markets


@pytest.mark.parametrize(("mark", "opens"), [(Fraction(2_020), True), (Fraction(2_020_001, 1_000), False)])
def test_opening__mark_on_the_bound_of_its_order_opens(mark: Fraction, opens: bool) -> None:
    policy = replace(LONGS, limits=replace(PLAIN, slippage_bps=100))
    plan = plan_futures(with_market(pair_book(10_000), "ETH", mark=mark), policy, RICH, PLAN_S)
    assert ("ETH" in [order.market for order in plan.orders]) is opens


@pytest.mark.parametrize(("basis", "opens"), [(Fraction(105, 100), True), (Fraction(10_501, 10_000), False)])
def test_opening__basis_that_equals_its_limit_opens(basis: Fraction, opens: bool) -> None:
    policy = replace(LONGS, limits=replace(PLAIN, slippage_bps=600, max_basis_bps=500))
    plan = plan_futures(with_market(pair_book(10_000), "ETH", mark=2_000 * basis), policy, RICH, PLAN_S)
    assert ("ETH" in [order.market for order in plan.orders]) is opens


@pytest.mark.parametrize(("opens_from_s", "opens"), [(PLAN_S, True), (PLAN_S + 1, False)])
def test_opening__cooldown_ends_at_its_second(opens_from_s: int, opens: bool) -> None:
    assert bool(plan_futures(pair_book(10_000), LONGS, RICH, PLAN_S, opens_from_s=opens_from_s).orders) is opens


@pytest.mark.parametrize(("least", "opens"), [(10_000, True), (10_001, False)])
def test_opening__order_of_exactly_the_venues_minimum_is_sent(least: int, opens: bool) -> None:
    account = replace(with_market(pair_book(10_000), "ETH", min_notional_raw=least * E18), is_on_chain=False)
    plan = plan_futures(account, LONGS, RICH, PLAN_S)
    assert ("ETH" in [order.market for order in plan.orders]) is opens


def test_minimum__enlarged_reduction_is_the_smallest_accepted() -> None:
    """2.4 ETH are above the limit and 6,001 dollars the minimum: 3.001 lots of 2 dollars."""
    account = replace(with_market(pair_book(4_000, 10 * E18), "ETH", min_notional_raw=6_001 * E18), is_on_chain=False)
    assert [order.size_raw for order in plan_futures(account, LONGS, RICH, PLAN_S).orders] == [-3_001 * LOT]


@pytest.mark.parametrize(
    ("max_position_bps", "orders"),
    [(0, []), (7_000, [6_990 * LOT]), (9_980, [9_960 * LOT]), (9_990, [9_970 * LOT]), (10_000, [10 * E18])],
)
def test_opening__position_above_its_largest_share_is_cut_to_it(max_position_bps: int, orders: list[int]) -> None:
    """Of the target notional after the fee of 0.1 %: 9.97 ETH are 19,940 of 19,960.12, one lot more is above 99.9 %."""
    policy = replace(LONGS, targets=(FuturesTarget("ETH", 10_000),), limits=replace(PLAIN, max_position_bps=max_position_bps))
    assert [order.size_raw for order in plan_futures(pair_book(10_000), policy, RICH, PLAN_S).orders] == orders


def test_opening__that_is_cut_leaves_a_note_and_the_other_market() -> None:
    policy = replace(
        LONGS, targets=(FuturesTarget("ETH", 8_000), FuturesTarget("BTC", 2_000)), limits=replace(PLAIN, max_position_bps=7_000)
    )
    plan = plan_futures(pair_book(10_000), policy, RICH, PLAN_S)
    assert [order.market for order in plan.orders] == ["ETH", "BTC"]
    assert any(note.startswith("ETH is cut to max_position") for note in plan.refusal_texts)


def test_reducing_plan__largest_notional_goes_first() -> None:
    plan = plan_futures(pair_book(4_000, 2 * E18, 500 * LOT), LONGS, RICH, PLAN_S)
    assert [order.market for order in plan.orders] == ["BTC", "ETH"]


@pytest.mark.parametrize(
    ("size", "divisor", "part"),
    [
        pytest.param(-10, 4, -2, id="short"),
        pytest.param(10, 4, 2, id="long"),
        pytest.param(-3, 4, -1, id="one lot at least"),
        pytest.param(-10, 1, -10, id="undivided"),
        pytest.param(-12, 4, -3, id="whole quarters"),
    ],
)
def test_smaller_orders__are_whole_lots_and_at_least_one(size: int, divisor: int, part: int) -> None:
    account = pair_book(10_000, E18)
    order = market_order(account.market("ETH"), size * LOT, 0, is_reduce_only=True)
    [smaller] = smaller_orders(account, FuturesPlan((order,), "", ""), PLAIN, {"ETH": divisor})
    assert smaller.size_raw == part * LOT


def test_smaller_orders__emergency_s_part_keeps_its_wider_bound() -> None:
    account = pair_book(10_000, E18)
    order = market_order(account.market("ETH"), -10 * LOT, 300, is_reduce_only=True)
    [smaller] = smaller_orders(account, FuturesPlan((order,), "", "", is_emergency=True), PLAIN, {"ETH": 5})
    assert smaller.bound_raw == 2 * LOT * 2_000 * 97 // 100


@pytest.mark.parametrize(
    ("size", "share", "sizes"),
    [
        pytest.param(-5, Fraction(1, 2), [-2], id="short, half"),
        pytest.param(5, Fraction(1, 2), [2], id="long, half"),
        pytest.param(-5, Fraction(1, 6), [], id="less than a lot"),
        pytest.param(-6, Fraction(1, 6), [-1], id="one lot"),
    ],
)
def test_cut_reductions__share_is_rounded_down_to_whole_lots(size: int, share: Fraction, sizes: list[int]) -> None:
    account = pair_book(10_000, -size * E18)
    order = market_order(account.market("ETH"), size * LOT, 0, is_reduce_only=True)
    assert [cut.size_raw for cut in cut_reductions(account, [order], PLAIN, share)] == [lots * LOT for lots in sizes]


def test_cut_reductions__purchase_of_one_unit_stays_a_purchase() -> None:
    account = with_market(pair_book(10_000, -1), "ETH", lot_raw=1)
    order = market_order(account.market("ETH"), 1, 0, is_reduce_only=True)
    assert [cut.size_raw for cut in cut_reductions(account, [order], PLAIN, Fraction(1))] == [1]


def test_cut_reductions__order_below_the_minimum_is_left_out() -> None:
    account = with_market(pair_book(10_000, E18), "ETH", min_notional_raw=4 * E18 + 1)
    order = market_order(account.market("ETH"), -4 * LOT, 0, is_reduce_only=True)
    assert cut_reductions(account, [order], PLAIN, Fraction(1, 2)) == []


def test_cut_reductions__whole_position_below_minimum_is_closed() -> None:
    account = with_market(pair_book(10_000, LOT), "ETH", min_notional_raw=4 * E18)
    order = market_order(account.market("ETH"), -LOT, 0, is_reduce_only=True)
    assert [cut.size_raw for cut in cut_reductions(account, [order], PLAIN, Fraction(1))] == [-LOT]


LONG_AND_SHORT = replace(POLICY, targets=(FuturesTarget("ETH", 5_000), FuturesTarget("BTC", -5_000)), funding_horizon_s=MONTH_S)


ETH_ALONE = replace(LONG_AND_SHORT, targets=(FuturesTarget("ETH", 10_000),))


def at_rates(eth: Fraction, btc: Fraction = Fraction(0)) -> MarginAccount:
    """10,000 long in ETH at 2,000 and 9,990 short in BTC at 30,000, of 10,000 of collateral."""
    margin_account = pair_book(10_000, eth=5 * E18, btc=-333 * 10**15)
    rates = {"ETH": eth, "BTC": btc}
    return replace(margin_account, markets=tuple(replace(market, funding_daily=rates[market.market]) for market in margin_account.markets))


def rated(margin_account: MarginAccount, rate: Fraction) -> MarginAccount:
    """The same account with this daily rate in ETH."""
    return replace(
        margin_account,
        markets=tuple(replace(market, funding_daily=rate if market.market == "ETH" else Fraction(0)) for market in margin_account.markets),
    )


def test_a_funding_spike_trims_by_a_plan_of_its_own() -> None:
    plan = plan_futures(at_rates(Fraction(5, 1_000)), LONG_AND_SHORT, RICH, PLAN_S)
    assert (plan.trigger, plan.reason, plan.is_reducing) == ("funding", "expected funding puts a position above its band", True)
    assert [(order.market, order.is_reduce_only) for order in plan.orders] == [("ETH", True)]


def test_a_share_above_its_band_without_funding_is_drift() -> None:
    """Two thirds in ETH, of a target of half: the little funding that it pays is not the cause."""
    margin_account = rated(pair_book(10_000, eth=10 * E18, btc=-333 * 10**15), Fraction(1, 10_000))
    assert funding_trims(margin_account, LONG_AND_SHORT) == {}
    assert plan_futures(margin_account, LONG_AND_SHORT, RICH, PLAN_S).reason == "a weight of the notional has left its band"


def test_a_market_with_dear_funding_is_not_opened_and_says_why() -> None:
    """2.5 % over the horizon is half of the band of 5 points: up to there the whole notional is opened, less its funding."""
    margin_account = rated(pair_book(10_000), Fraction(5, 1_000))
    assert (due_triggers(margin_account, ETH_ALONE, RICH), sizes_to_target(margin_account, ETH_ALONE)) == ((), {})
    two_longs = replace(LONG_AND_SHORT, targets=tuple(replace(target, weight_bps=5_000) for target in LONG_AND_SHORT.targets))
    both = plan_futures(margin_account, two_longs, RICH, PLAN_S)
    assert [order.market for order in both.orders] == ["BTC"]
    assert both.refusal_texts == ("ETH is not enlarged: it would pay 15.00 % of its notional in funding over 30 days",)
    cheap = rated(pair_book(10_000), Fraction(25, 30_000))
    assert sizes_to_target(cheap, ETH_ALONE) == {"ETH": 10 * E18 * 1000 // 1025 // 10**15 * 10**15}
    dearer = rated(pair_book(10_000), Fraction(26, 30_000))
    assert sizes_to_target(dearer, ETH_ALONE) == {}


@pytest.mark.parametrize("policy", [LONG_AND_SHORT, ETH_ALONE, replace(ETH_ALONE, leverage_band_bps=1_000)])
@given(st.lists(st.integers(-100, 100), min_size=2, max_size=12))
@examples(10)
def test_funding_never_makes_positions_oscillate(policy: FuturesPolicy, rates_bps: list[int]) -> None:
    """At one rate a second plan is empty; a trim is taken back only after the funding fell by half of the band."""
    margin_account = account_after_fills(pair_book(10_000), plan_futures(pair_book(10_000), policy, RICH, PLAN_S))
    weight = Fraction(abs(policy.targets[0].weight_bps), 10_000)
    trimmed_at = None
    for rate in (Fraction(bps, 10_000) for bps in rates_bps):
        margin_account = rated(margin_account, rate)
        before = margin_account.size_raw("ETH")
        margin_account = account_after_fills(margin_account, plan_futures(margin_account, policy, RICH, PLAN_S))
        change = margin_account.size_raw("ETH") - before
        if change < 0:
            trimmed_at = rate
        elif change > 0:
            assert before == 0 or trimmed_at is not None
            if trimmed_at is not None:
                assert (trimmed_at - rate) * 30 * weight >= Fraction(policy.band_bps, 20_000)
            trimmed_at = None
        assert plan_futures(margin_account, policy, RICH, PLAN_S).orders == (), "a plan at the same rate follows its own"
