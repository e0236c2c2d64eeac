"""Triggers and reductions of futures at exact figures: what equals a band or a limit waits, and what is cut is cut to the lot."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.futures.planning.orders import cut_reductions, market_order, plan_futures, smaller_orders, top_up_raw
from agent.layers.futures.policy.needs import deleverage_sizes
from agent.layers.futures.policy.targets import (
    FuturesTrigger,
    closing_suffices,
    emergency_sizes,
    fired_triggers,
    funding_trims,
    known_breaches,
    position_trims,
    reduction_sizes,
    stress_value_per_notional,
    target_gross_notional,
    unfinished_sizes,
)
from agent.model.futures import FuturesLimits, FuturesPlan, FuturesTarget, MarginDeposit
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import LOT, with_market
from tests.support.perpetuals.plans import LONGS, PLAIN, PLAN_S, RICH, pair_book

# Triggers


@pytest.mark.parametrize(("band_bps", "fires"), [(500, False), (499, True)])
@pytest.mark.parametrize("side", [1, -1])
def test_drift__weight_on_the_edge_of_its_band_waits(side: int, band_bps: int, fires: bool) -> None:
    """11,000 of ETH and 9,000 of BTC, each of a target of half."""
    weights = (FuturesTarget("ETH", side * 5_000), FuturesTarget("BTC", side * 5_000))
    policy = replace(LONGS, band_bps=band_bps, targets=weights)
    account = pair_book(10_000, side * 5_500 * LOT, side * 300 * LOT)
    assert (FuturesTrigger.DRIFT in fired_triggers(account, policy, RICH)) is fires


@pytest.mark.parametrize(("leverage_bps", "fires"), [(20_000, True), (20_001, False)])
def test_utilisation__counts_unless_leverage_is_below_target(leverage_bps: int, fires: bool) -> None:
    """2x with 20 % used of 10 %; the stress move of 10 % is survived."""
    limits = replace(PLAIN, max_utilisation_bps=1_000, stress_move_bps=1_000)
    policy = replace(LONGS, limits=limits, leverage_bps=leverage_bps)
    assert (FuturesTrigger.UTILISATION in fired_triggers(pair_book(10_000, 10 * E18), policy, RICH)) is fires


@pytest.mark.parametrize(("leverage_bps", "fires"), [(20_000, False), (0, True)])
def test_drift__without_leverage_every_position_is_off_target(leverage_bps: int, fires: bool) -> None:
    """10,000 each of ETH and BTC, at their weights of a half."""
    policy = replace(LONGS, leverage_bps=leverage_bps)
    account = with_market(pair_book(10_000, 5 * E18, 333 * LOT), "BTC", mark=Fraction(10_000_000, 333))
    assert (FuturesTrigger.DRIFT in fired_triggers(account, policy, RICH)) is fires


def test_utilisation__counts_below_target_without_a_stress_move() -> None:
    policy = replace(LONGS, limits=replace(PLAIN, max_utilisation_bps=1_000), leverage_bps=30_000)
    assert FuturesTrigger.UTILISATION in fired_triggers(pair_book(10_000, 10 * E18), policy, RICH)


@pytest.mark.parametrize(("collateral", "fires"), [(4_000, True), (10_000, False)])
def test_leverage__stress_move_alone_fires_it(collateral: int, fires: bool) -> None:
    policy = replace(LONGS, limits=replace(PLAIN, max_leverage_bps=100_000, stress_move_bps=2_000))
    assert (FuturesTrigger.LEVERAGE in fired_triggers(pair_book(collateral, 10 * E18), policy, RICH)) is fires


@pytest.mark.parametrize(("max_utilisation_bps", "fires"), [(2_000, False), (1_999, True)])
def test_utilisation__that_equals_its_limit_is_kept(max_utilisation_bps: int, fires: bool) -> None:
    policy = replace(LONGS, limits=replace(PLAIN, max_utilisation_bps=max_utilisation_bps))
    assert (FuturesTrigger.UTILISATION in fired_triggers(pair_book(10_000, 10 * E18), policy, RICH)) is fires


def test_spot_multiple__unknown_spot_value_breaches_nothing() -> None:
    policy = replace(LONGS, limits=replace(PLAIN, spot_multiple_bps=10_000))
    assert known_breaches(pair_book(10_000, E18), policy, None) == []


@pytest.mark.parametrize(("rate", "trimmed"), [(Fraction(1, 300), False), (Fraction(1, 299), True)])
def test_funding__position_on_its_band_s_edge_is_not_trimmed(rate: Fraction, trimmed: bool) -> None:
    """30,000 each of ETH and BTC; 10 % of funding in 30 days count as 5 points of weight."""
    account = with_market(pair_book(30_000, 15 * E18, E18), "ETH", funding_daily=rate)
    assert bool(funding_trims(account, replace(LONGS, funding_horizon_s=30 * 86_400))) is trimmed


def test_target_gross__account_in_debt_has_a_target_of_nothing() -> None:
    assert target_gross_notional(replace(pair_book(0), realised_raw=-E18), LONGS) == 0


# Reductions that limits require


@pytest.mark.parametrize(
    ("waiting", "orders"),
    [((), {"ETH": -1_000 * LOT, "BTC": -60 * LOT}), (("BTC",), {"ETH": -1_900 * LOT, "BTC": -114 * LOT})],
)
def test_reduction__cuts_by_one_share_to_the_limit_less_hysteresis(waiting: tuple[str, ...], orders: dict[str, int]) -> None:
    """19,000 of notional on 4,000 at 4x less 5 %: 3,800 go, all of them from ETH if BTC waits."""
    assert reduction_sizes(pair_book(4_000, 5 * E18, 300 * LOT), LONGS, RICH, waiting) == orders


def test_reduction__paused_market_leaves_its_part_to_the_others() -> None:
    account = with_market(pair_book(4_000, 5 * E18, 300 * LOT), "BTC", is_paused=True)
    assert reduction_sizes(account, LONGS, RICH)["ETH"] == -1_900 * LOT


def test_reduction__part_of_a_lot_is_rounded_up() -> None:
    account = with_market(pair_book(4_000, 10 * E18), "ETH", lot_raw=E18)
    assert reduction_sizes(account, LONGS, RICH) == {"ETH": -3 * E18}, "2.4 are above the limit"


def test_reduction__utilisation_ends_below_by_the_hysteresis() -> None:
    """20 % used where 10 % may be: half of 10 ETH less 5 %."""
    policy = replace(LONGS, limits=replace(PLAIN, max_utilisation_bps=1_000), leverage_bps=0)
    assert reduction_sizes(pair_book(10_000, 10 * E18), policy, RICH) == {"ETH": -5_250 * LOT}


def test_reduction__spot_multiple_ends_below_by_the_hysteresis() -> None:
    policy = replace(LONGS, limits=replace(PLAIN, spot_multiple_bps=25_000))
    assert reduction_sizes(pair_book(10_000, 10 * E18), policy, Fraction(4_000 * E18)) == {"ETH": -5_250 * LOT}


def test_reduction__tightest_of_two_breached_limits_counts() -> None:
    limits = replace(PLAIN, spot_multiple_bps=25_000, max_leverage_bps=15_000)
    assert reduction_sizes(pair_book(10_000, 10 * E18), replace(LONGS, limits=limits), Fraction(4_000 * E18)) == {"ETH": -5_250 * LOT}


def test_reduction__short_is_bought_back() -> None:
    assert reduction_sizes(pair_book(4_000, -10 * E18), LONGS, RICH) == {"ETH": 2_400 * LOT}


@pytest.mark.parametrize(("eth", "suffices"), [(7_600, True), (7_601, False)])
def test_closing__what_waits_may_equal_the_allowed_notional(eth: int, suffices: bool) -> None:
    """15,200 are allowed on 4,000."""
    account = pair_book(4_000, eth * LOT, 160 * LOT)
    assert closing_suffices(account, LONGS, RICH, ["ETH"]) is suffices


@pytest.mark.parametrize(
    ("size", "goal", "order"),
    [
        pytest.param(12, 10, -2, id="long above its goal"),
        pytest.param(12, 0, -12, id="long to nothing"),
        pytest.param(10, 10, 0, id="at its goal"),
        pytest.param(9, 10, 0, id="below its goal"),
        pytest.param(12, -10, 0, id="goal on the short side"),
        pytest.param(-12, -10, 2, id="short to its goal"),
        pytest.param(-12, 0, 12, id="short to nothing"),
        pytest.param(0, 0, 0, id="nothing"),
    ],
)
def test_unfinished__position_beyond_its_goal_never_crosses_zero(size: int, goal: int, order: int) -> None:
    assert unfinished_sizes(pair_book(10_000, size * E18), [("ETH", goal * E18)]) == ({"ETH": order * E18} if order else {})


@pytest.mark.parametrize(("less", "closes"), [(0, False), (1, True)])
def test_emergency__position_exactly_at_the_distance_stays_open(less: int, closes: bool) -> None:
    """10 ETH on 2,187.5 are liquidated at 1,900, 5 % below the mark."""
    account = replace(pair_book(0, 10 * E18), collateral_raw=21_875 * 10**17 - less)
    assert bool(emergency_sizes(account, LONGS)) is closes


@pytest.mark.parametrize(
    ("side", "leverage_bps", "order"),
    [(1, 20_000, -1_350), (-1, 20_000, 1_350), (1, 5_000, -5_618)],
    ids=["of the target notional", "short", "of the notional"],
)
def test_position_trim__ends_at_the_largest_share_less_hysteresis(side: int, leverage_bps: int, order: int) -> None:
    """66.5 % of a target of 20,000, or of what 2,400 of BTC leave: 2,400 · 0.665 / 0.335."""
    targets = (FuturesTarget("ETH", side * 6_000), FuturesTarget("BTC", side * 4_000))
    policy = replace(LONGS, targets=targets, leverage_bps=leverage_bps, limits=replace(PLAIN, max_position_bps=7_000))
    assert position_trims(pair_book(10_000, side * 8 * E18, side * 80 * LOT), policy) == {"ETH": order * LOT}


@pytest.mark.parametrize(("eth", "trimmed"), [(7_000, False), (7_001, True)])
def test_position_trim__share_that_equals_the_maximum_stays(eth: int, trimmed: bool) -> None:
    policy = replace(LONGS, limits=replace(PLAIN, max_position_bps=7_000))
    assert bool(position_trims(pair_book(10_000, eth * LOT, 30 * LOT), policy)) is trimmed


def test_stress__need_is_the_move_and_the_maintenance_after_it() -> None:
    """20 % of loss and 6.25 % of the 80 % that are left."""
    assert stress_value_per_notional(pair_book(10_000, 10 * E18), replace(LONGS, limits=replace(PLAIN, stress_move_bps=2_000))) == Fraction(
        1, 4
    )


# Deposits


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


# Orders


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


# Reductions that the owner requests


@pytest.mark.parametrize(
    ("eth", "slippage_bps", "order"),
    [
        pytest.param(10, 0, -5_006, id="long without slippage"),
        pytest.param(10, 2_000, -6_258, id="long with slippage"),
        pytest.param(-10, 0, 5_006, id="short without slippage"),
        pytest.param(-10, 2_000, 6_260, id="short with slippage"),
    ],
)
def test_deleverage__reduction_pays_for_its_fee_and_slippage(eth: int, slippage_bps: int, order: int) -> None:
    """From 2x to 1x: 10,000 of 20,000 · (1 - cost), where the fee of 1 ‰ counts on the larger of value and bound."""
    assert deleverage_sizes(pair_book(10_000, eth * E18), Fraction(1), ["ETH"], slippage_bps) == {"ETH": order * LOT}


def test_deleverage__leverage_that_is_reached_needs_no_order() -> None:
    assert deleverage_sizes(pair_book(10_000, 5 * E18), Fraction(1), ["ETH"], 0) == {}


def test_deleverage__account_in_debt_closes_everything() -> None:
    account = replace(pair_book(0, 5 * E18), realised_raw=-E18)
    assert deleverage_sizes(account, Fraction(1), ["ETH"], 0) == {"ETH": -5 * E18}
