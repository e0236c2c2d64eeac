"""Tests of agent/layers/futures/policy/targets.py: shares, triggers, and sizes of orders, trims and reductions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.futures.policy.targets import (
    FuturesTrigger,
    NotionalDrift,
    closing_suffices,
    due_triggers,
    emergency_sizes,
    fired_triggers,
    funding_notes,
    funding_trims,
    held_weights,
    isolated_positions_reason,
    known_breaches,
    notional_drifts,
    position_notes,
    position_trims,
    reduction_sizes,
    sizes_to_target,
    sizes_worth_an_order,
    stale_index_reason,
    stale_index_reasons,
    stress_value_per_notional,
    target_gross_notional,
    uncertain_profit_reason,
    unfinished_sizes,
    unnamed_market_reasons,
    without_hedges,
)
from agent.margin import account as margin
from agent.margin.state import after_fill_at_mark
from agent.model import Every
from agent.model.futures import FuturesPolicy, Hedge, MarginAccount, MarginTier, Position
from tests.support.constants import DAY_S, MONTH_S
from tests.support.perpetuals.accounts import E18, LIMITS, account, market
from tests.support.perpetuals.books import LOT, with_market
from tests.support.perpetuals.plans import PLAN_S, RICH, pair_book, policy_of
from tests.support.perpetuals.steps import EMPTY, book, step_of


def hedge(name: str, size: int) -> Hedge:
    return Hedge(name, name, size, PLAN_S, Fraction(1))


def paying(margin_account: MarginAccount, share: Fraction) -> MarginAccount:
    """Return the account whose longs of ETH pay this share of their notional in a month."""
    return with_market(margin_account, "ETH", funding_daily=share / 30)


HALVES_HELD = pair_book(30_000, 15 * E18, E18)
"""30,000 each of ETH and BTC, at the targets of 2x."""

# --- Shares and weights


@pytest.mark.parametrize(
    ("positions", "hedges", "positions_left"),
    [
        pytest.param([Position("ETH", -5, 7, 9)], [hedge("ETH", -5)], (), id="all hedged"),
        pytest.param([Position("ETH", -5, 7, 9)], [hedge("ETH", -4)], (Position("ETH", -1, 0),), id="one left"),
        pytest.param([Position("ETH", 2, 7, 9)], [hedge("ETH", -3)], (Position("ETH", 5, 0),), id="long beside a hedge"),
        pytest.param([], [hedge("ETH", -3)], (Position("ETH", 3, 0),), id="hedge without a position"),
        pytest.param([Position("ETH", -5, 7), Position("BTC", 1, 2)], [hedge("ETH", -5)], (Position("BTC", 1, 2),), id="another market"),
        pytest.param([Position("ETH", -5, 7), Position("BTC", -1, 2)], [hedge("ETH", -5), hedge("BTC", -1)], (), id="two hedges"),
    ],
)
def test_without_hedges_leaves_what_no_hedge_holds(
    positions: Sequence[Position], hedges: Sequence[Hedge], positions_left: tuple[Position, ...]
) -> None:
    margin_account = replace(pair_book(10_000), positions=tuple(positions))

    assert without_hedges(margin_account, policy_of(hedges=tuple(hedges))).positions == positions_left


@pytest.mark.parametrize(("eth", "weight"), [(0, Fraction(0)), (5, Fraction(1, 2)), (-5, Fraction(-1, 2)), (10, Fraction(1))])
def test_held_weights_are_shares_of_the_target_notional(eth: int, weight: Fraction) -> None:
    assert held_weights(step_of(book(10_000, eth * E18))) == {"ETH": weight}


@pytest.mark.parametrize(
    ("margin_account", "policy"),
    [
        pytest.param(replace(book(0), realised_raw=-E18), policy_of(), id="account in debt"),
        pytest.param(None, policy_of(), id="unknown account"),
        pytest.param(EMPTY, None, id="no policy"),
    ],
)
def test_held_weights_are_empty_without_a_target_notional(margin_account: MarginAccount | None, policy: FuturesPolicy | None) -> None:
    assert held_weights(step_of(margin_account, policy)) == {}


def test_target_gross_notional_of_an_account_in_debt_is_zero() -> None:
    assert target_gross_notional(replace(pair_book(0), realised_raw=-E18), policy_of()) == 0


def drift_of(name: str, notional: int, target_notional: int, share: Fraction, target_share: Fraction) -> NotionalDrift:
    """Return a drift of whole quote coins that pays no funding."""
    return NotionalDrift(name, name, Fraction(notional * E18), Fraction(target_notional * E18), share, target_share, Fraction(0))


HALF = Fraction(1, 2)
NONE = Fraction(0)


@pytest.mark.parametrize(
    ("margin_account", "policy", "drifts"),
    [
        pytest.param(
            pair_book(10_000),
            policy_of(),
            [drift_of("ETH", 0, 10_000, NONE, HALF), drift_of("BTC", 0, 10_000, NONE, HALF)],
            id="empty account",
        ),
        pytest.param(pair_book(10_000), policy_of(10_000), [drift_of("ETH", 0, 20_000, NONE, Fraction(1))], id="no target, no position"),
        pytest.param(
            HALVES_HELD,
            policy_of(10_000),
            [drift_of("ETH", 30_000, 60_000, HALF, Fraction(1)), drift_of("BTC", 30_000, 0, HALF, NONE)],
            id="position without a target",
        ),
        pytest.param(
            HALVES_HELD,
            policy_of(leverage_bps=0),
            [drift_of("ETH", 30_000, 0, HALF, NONE), drift_of("BTC", 30_000, 0, HALF, NONE)],
            id="no leverage",
        ),
        pytest.param(pair_book(0), policy_of(10_000), [drift_of("ETH", 0, 0, NONE, Fraction(1))], id="account without value"),
        pytest.param(
            HALVES_HELD,
            policy_of(hedges=(hedge("BTC", -E18),), leverage_bps=30_000),
            [drift_of("ETH", 30_000, 45_000, Fraction(1, 3), HALF), drift_of("BTC", 60_000, 45_000, Fraction(2, 3), HALF)],
            id="beside a hedge",
        ),
    ],
)
def test_notional_drifts_are_shares_of_what_is_held_or_wanted(
    margin_account: MarginAccount, policy: FuturesPolicy, drifts: Sequence[NotionalDrift]
) -> None:
    assert notional_drifts(margin_account, policy) == tuple(drifts)


def test_notional_drifts_count_funding_as_notional() -> None:
    """A quarter of half of the notional; BTC pays nothing."""
    eth, btc = notional_drifts(paying(HALVES_HELD, Fraction(1, 4)), policy_of(funding_horizon_s=MONTH_S))

    assert (eth.funding_share, eth.share_drift, eth.funded_share_drift) == (Fraction(1, 4), 0, Fraction(1, 8))
    assert eth.funded_target_notional == 24_000 * E18
    assert (btc.funding_share, btc.funded_share_drift, btc.funded_target_notional) == (0, 0, 30_000 * E18)


def test_notional_drifts_count_the_funding_of_a_target() -> None:
    eth, _ = notional_drifts(paying(pair_book(10_000), Fraction(1, 4)), policy_of(funding_horizon_s=MONTH_S))

    assert (eth.funding_share, eth.funded_target_notional) == (Fraction(1, 4), 8_000 * E18)


# --- Triggers


def fires(trigger: FuturesTrigger, margin_account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction | None = RICH) -> bool:
    return trigger in fired_triggers(margin_account, policy, spot_value)


ETH_2X = pair_book(10_000, 10 * E18)
"""20,000 of ETH on 10,000: 2x, of which 20 % are used."""
UNEVEN = pair_book(10_000, 5_500 * LOT, 300 * LOT)
"""11,000 of ETH and 9,000 of BTC: 5 points off a half each."""
EVEN = with_market(pair_book(10_000, 5 * E18, 333 * LOT), "BTC", mark=Fraction(10_000_000, 333))
"""10,000 each of ETH and BTC."""
DRIFT_WITH_FUNDING = pair_book(30_000, 12 * E18, E18)
"""24,000 of ETH beside 30,000 of BTC; 6 points below a half."""


@pytest.mark.parametrize(
    ("margin_account", "policy", "is_fired"),
    [
        pytest.param(UNEVEN, policy_of(band_bps=500), False, id="longs at the band"),
        pytest.param(UNEVEN, policy_of(band_bps=499), True, id="longs a basis point beyond"),
        pytest.param(pair_book(10_000, -5_500 * LOT, -300 * LOT), policy_of(-5_000, -5_000), False, id="shorts at the band"),
        pytest.param(pair_book(10_000, -5_500 * LOT, -300 * LOT), policy_of(-5_000, -5_000, band_bps=499), True, id="shorts beyond"),
        pytest.param(pair_book(10_000), policy_of(), True, id="nothing held"),
        pytest.param(pair_book(10_000), policy_of(band_bps=0), False, id="no band"),
        pytest.param(EVEN, policy_of(), False, id="at the weights"),
        pytest.param(EVEN, policy_of(leverage_bps=0), True, id="at the weights, no leverage"),
        pytest.param(paying(DRIFT_WITH_FUNDING, Fraction(1, 12)), policy_of(), True, id="funding does not count"),
        pytest.param(paying(DRIFT_WITH_FUNDING, Fraction(1, 12)), policy_of(funding_horizon_s=MONTH_S), False, id="funding forbids"),
    ],
)
def test_drift_fires_beyond_the_band_of_a_weight(margin_account: MarginAccount, policy: FuturesPolicy, is_fired: bool) -> None:
    assert fires(FuturesTrigger.DRIFT, margin_account, policy) is is_fired


@pytest.mark.parametrize(
    ("policy", "is_fired"),
    [
        pytest.param(policy_of(max_utilisation_bps=2_000), False, id="at the limit"),
        pytest.param(policy_of(max_utilisation_bps=1_999), True, id="a basis point beyond"),
        pytest.param(policy_of(max_utilisation_bps=1_000, stress_move_bps=1_000, leverage_bps=20_000), True, id="at the target"),
        pytest.param(policy_of(max_utilisation_bps=1_000, stress_move_bps=1_000, leverage_bps=20_001), False, id="below the target"),
        pytest.param(policy_of(max_utilisation_bps=1_000, leverage_bps=30_000), True, id="below the target, no stress move"),
        pytest.param(
            policy_of(max_utilisation_bps=1_000, stress_move_bps=9_000, leverage_bps=30_000), True, id="below the target, stress too large"
        ),
    ],
)
def test_utilisation_fires_unless_leverage_is_below_target(policy: FuturesPolicy, is_fired: bool) -> None:
    assert fires(FuturesTrigger.UTILISATION, ETH_2X, policy) is is_fired


@pytest.mark.parametrize(
    ("collateral", "policy", "is_fired"),
    [
        pytest.param(5_000, policy_of(), False, id="at max_leverage"),
        pytest.param(4_999, policy_of(), True, id="above max_leverage"),
        pytest.param(5_000, policy_of(max_leverage_bps=100_000, stress_move_bps=2_000), False, id="stress move survived"),
        pytest.param(4_999, policy_of(max_leverage_bps=100_000, stress_move_bps=2_000), True, id="stress move not survived"),
    ],
)
def test_leverage_fires_above_its_limit_or_by_the_stress_move(collateral: int, policy: FuturesPolicy, is_fired: bool) -> None:
    """20,000 of ETH; a fall of 20 % costs 4,000 and leaves a maintenance margin of 1,000."""
    assert fires(FuturesTrigger.LEVERAGE, pair_book(collateral, 10 * E18), policy) is is_fired


MULTIPLE = policy_of(10_000, band_bps=0, leverage_band_bps=1_000, spot_multiple_bps=10_000)


@pytest.mark.parametrize(
    ("lots", "policy", "spot", "is_fired"),
    [
        pytest.param(11_000, policy_of(10_000, leverage_band_bps=1_000), 10**6, False, id="at the band"),
        pytest.param(11_001, policy_of(10_000, leverage_band_bps=1_000), 10**6, True, id="a lot above"),
        pytest.param(9_000, policy_of(10_000, leverage_band_bps=1_000), 10**6, False, id="at the lower edge"),
        pytest.param(8_999, policy_of(10_000, leverage_band_bps=1_000), 10**6, True, id="a lot below"),
        pytest.param(5_000, policy_of(10_000), 10**6, False, id="no band"),
        pytest.param(8_250, MULTIPLE, 15_000, False, id="at the band of the multiple"),
        pytest.param(8_251, MULTIPLE, 15_000, True, id="a lot above that of the multiple"),
        pytest.param(10_000, MULTIPLE, 30_000, False, id="target below the multiple"),
        pytest.param(8_250, MULTIPLE, 30_000, True, id="below the target, within the multiple"),
        pytest.param(5_000, MULTIPLE, None, False, id="unknown spot value and a multiple"),
        pytest.param(
            5_000, policy_of(10_000, leverage_band_bps=1_000, spot_multiple_bps=0), None, True, id="unknown spot value, no multiple"
        ),
    ],
)
def test_leverage_drift_fires_beyond_the_band_of_the_notional(lots: int, policy: FuturesPolicy, spot: int | None, is_fired: bool) -> None:
    """The target of 20,000, or the multiple of spot if that is less, and a tenth of it."""
    spot_value = None if spot is None else Fraction(spot * E18)

    assert fires(FuturesTrigger.LEVERAGE_DRIFT, pair_book(10_000, lots * LOT), policy, spot_value) is is_fired


@pytest.mark.parametrize(("lots", "is_fired"), [(8_800, False), (8_801, True)], ids=["at the band", "a lot above"])
def test_leverage_drift_counts_a_target_less_its_funding(lots: int, is_fired: bool) -> None:
    """A quarter of funding lowers 20,000 to 16,000."""
    policy = policy_of(10_000, band_bps=0, leverage_band_bps=1_000, funding_horizon_s=MONTH_S)

    assert fires(FuturesTrigger.LEVERAGE_DRIFT, paying(pair_book(10_000, lots * LOT), Fraction(1, 4)), policy) is is_fired


@pytest.mark.parametrize(
    ("lots", "policy", "is_fired"),
    [
        pytest.param(9_950, policy_of(10_000, is_review_due=True), False, id="at a tenth of the band"),
        pytest.param(9_949, policy_of(10_000, is_review_due=True), True, id="a lot further"),
        pytest.param(9_949, policy_of(10_000), False, id="no review due"),
        pytest.param(9_950, policy_of(10_000, is_review_due=True, band_bps=0, schedule=Every(DAY_S)), False, id="at that of the template"),
        pytest.param(9_949, policy_of(10_000, is_review_due=True, band_bps=0, schedule=Every(DAY_S)), True, id="a lot beyond it"),
    ],
)
def test_schedule_fires_for_a_review_with_orders_above_dust(lots: int, policy: FuturesPolicy, is_fired: bool) -> None:
    """Dust of 5 % of 20,000 are 100: 50 lots."""
    margin_account = pair_book(10_000, lots * LOT)

    assert fires(FuturesTrigger.SCHEDULE, margin_account, policy) is is_fired
    assert bool(sizes_worth_an_order(margin_account, policy)) is (lots == 9_949)


def test_spot_multiple_of_an_unknown_spot_value_breaches_nothing() -> None:
    policy = policy_of(spot_multiple_bps=10_000)

    assert known_breaches(pair_book(10_000, E18), policy, None) == []
    assert [breach.limit_name for breach in known_breaches(pair_book(10_000, E18), policy, Fraction(1_999 * E18))] == ["spot_multiple"]


def test_due_triggers_leave_out_those_that_wait_for_the_user() -> None:
    policy = policy_of(manual_triggers=("drift",))

    assert fired_triggers(ETH_2X, policy, RICH) == (FuturesTrigger.DRIFT,)
    assert due_triggers(ETH_2X, policy, RICH) == ()


def test_due_triggers_name_a_limit_before_funding() -> None:
    policy = policy_of(10_000, -5_000, funding_horizon_s=MONTH_S)
    margin_account = paying(pair_book(3_000, 10 * E18), Fraction(15, 100))

    assert due_triggers(margin_account, policy, RICH)[:2] == (FuturesTrigger.LEVERAGE, FuturesTrigger.FUNDING)


# --- Orders to the targets


MONTHLY = policy_of(funding_horizon_s=MONTH_S)
"""A month of funding counts."""
BANDLESS = replace(MONTHLY, band_bps=0)
ETH_MONTHLY = policy_of(10_000, funding_horizon_s=MONTH_S)


@pytest.mark.parametrize(
    ("margin_account", "policy", "sizes"),
    [
        pytest.param(ETH_2X, policy_of(6_000, -4_000), {"ETH": -4_000, "BTC": -266}, id="lots below the targets"),
        pytest.param(paying(DRIFT_WITH_FUNDING, Fraction(1, 20)), MONTHLY, {"ETH": 2_285}, id="funding of half of the band"),
        pytest.param(paying(DRIFT_WITH_FUNDING, Fraction(1, 19)), MONTHLY, {}, id="funding above half of the band"),
        pytest.param(paying(DRIFT_WITH_FUNDING, Fraction(1, 20)), BANDLESS, {"ETH": 2_285}, id="funding of half of the template's band"),
        pytest.param(paying(DRIFT_WITH_FUNDING, Fraction(1, 19)), BANDLESS, {}, id="funding above half of the template's band"),
        pytest.param(paying(pair_book(30_000, 20 * E18, E18), Fraction(1, 4)), MONTHLY, {"ETH": -8_000}, id="reduction that pays funding"),
        pytest.param(paying(pair_book(30_000, 0, E18), Fraction(1, 4)), MONTHLY, {}, id="opening that pays too much"),
        pytest.param(paying(pair_book(10_000), Fraction(25, 1_000)), ETH_MONTHLY, {"ETH": 9_756}, id="whole notional, half of the band"),
        pytest.param(paying(pair_book(10_000), Fraction(26, 1_000)), ETH_MONTHLY, {}, id="whole notional, above half"),
    ],
)
def test_sizes_to_target_are_lots_that_funding_allows(margin_account: MarginAccount, policy: FuturesPolicy, sizes: dict[str, int]) -> None:
    """Expected funding is deducted from the target."""
    assert sizes_to_target(margin_account, policy) == {name: lots * LOT for name, lots in sizes.items()}


@pytest.mark.parametrize(
    ("lots", "policy", "note_count"),
    [
        pytest.param(13_500, MONTHLY, 0, id="at the band"),
        pytest.param(13_499, MONTHLY, 1, id="a lot below"),
        pytest.param(12_000, BANDLESS, 1, id="no band"),
        pytest.param(13_500, BANDLESS, 0, id="no band, at the template's"),
    ],
)
def test_funding_notes_name_a_position_outside_its_band(lots: int, policy: FuturesPolicy, note_count: int) -> None:
    """27,000 of ETH beside 33,000 of BTC are 5 points below half."""
    notes = funding_notes(paying(pair_book(30_000, lots * LOT, 1_100 * LOT), Fraction(1, 12)), policy)

    assert notes == ("ETH is not enlarged: it would pay 8.33 % of its notional in funding over 30 days",) * note_count


@pytest.mark.parametrize(("share", "is_opened"), [(Fraction(1, 50), True), (Fraction(1, 10), False)])
@pytest.mark.parametrize(
    ("changes", "trigger"),
    [({"leverage_band_bps": 2_000}, FuturesTrigger.LEVERAGE_DRIFT), ({"is_review_due": True}, FuturesTrigger.SCHEDULE)],
    ids=["leverage band", "schedule"],
)
def test_without_a_band__only_high_funding_keeps_a_market_closed(
    share: Fraction, is_opened: bool, changes: dict[str, Any], trigger: FuturesTrigger
) -> None:
    policy = replace(ETH_MONTHLY, band_bps=0, schedule=Every(DAY_S), **changes)
    margin_account = paying(pair_book(10_000), share)

    assert (trigger in due_triggers(margin_account, policy, RICH)) is is_opened
    assert bool(sizes_to_target(margin_account, policy)) is is_opened
    assert bool(funding_notes(margin_account, policy)) is not is_opened


LONG_AND_SHORT = pair_book(10_000, 5 * E18, -333 * LOT)
"""10,000 of ETH and 9,990 of BTC sold."""
MONTHLY_LONG_AND_SHORT = policy_of(5_000, -5_000, funding_horizon_s=MONTH_S)
SHORTS = pair_book(30_000, -15 * E18, -E18)
MONTHLY_SHORTS = policy_of(-5_000, -5_000, funding_horizon_s=MONTH_S)


@pytest.mark.parametrize(
    ("margin_account", "policy", "lots"),
    [
        pytest.param(paying(HALVES_HELD, Fraction(1, 10)), MONTHLY, 0, id="5 points of funding"),
        pytest.param(paying(HALVES_HELD, Fraction(30, 299)), MONTHLY, -1_368, id="more than 5 points"),
        pytest.param(paying(pair_book(20_000, 15 * E18, E18), Fraction(1, 10)), MONTHLY, 0, id="5 points, above the target"),
        pytest.param(paying(pair_book(20_000, 15 * E18, E18), Fraction(1, 9)), MONTHLY, -6_000, id="more, above the target"),
        pytest.param(paying(pair_book(30_000, 16_500 * LOT, 900 * LOT), Fraction(1, 10)), MONTHLY, -2_864, id="share at the band"),
        pytest.param(paying(pair_book(30_000, 16_501 * LOT, 900 * LOT), Fraction(1, 10)), MONTHLY, 0, id="share beyond the band is drift"),
        pytest.param(paying(pair_book(40_000, 15 * E18, E18), Fraction(7, 15)), MONTHLY, 0, id="notional at the band"),
        pytest.param(paying(pair_book(40_000, 15 * E18, E18), Fraction(1, 2)), MONTHLY, -1_667, id="notional beyond the band"),
        pytest.param(
            paying(pair_book(30_000, 1_500 * LOT, 1_900 * LOT), Fraction(1, 10)), policy_of(0, 10_000, funding_horizon_s=MONTH_S),
            -1_500, id="no target",
        ),
        pytest.param(
            paying(pair_book(30_000, 1_200 * LOT, 1_920 * LOT), Fraction(1, 10)), policy_of(-100, 9_900, funding_horizon_s=MONTH_S),
            -1_200, id="target on the other side",
        ),
        pytest.param(paying(SHORTS, Fraction(-1, 10)), MONTHLY_SHORTS, 0, id="short, 5 points"),
        pytest.param(paying(SHORTS, Fraction(-1, 4)), MONTHLY_SHORTS, 3_000, id="short that pays"),
        pytest.param(paying(SHORTS, Fraction(1, 4)), MONTHLY_SHORTS, 0, id="short that is paid"),
        pytest.param(paying(LONG_AND_SHORT, Fraction(15, 100)), MONTHLY_LONG_AND_SHORT, -653, id="long that pays"),
        pytest.param(paying(LONG_AND_SHORT, Fraction(9, 100)), MONTHLY_LONG_AND_SHORT, 0, id="long that pays little"),
        pytest.param(paying(LONG_AND_SHORT, Fraction(-15, 100)), MONTHLY_LONG_AND_SHORT, 0, id="long that is paid"),
        pytest.param(paying(LONG_AND_SHORT, Fraction(0)), MONTHLY_LONG_AND_SHORT, 0, id="no funding"),
        pytest.param(paying(LONG_AND_SHORT, Fraction(15, 100)), replace(MONTHLY_LONG_AND_SHORT, funding_horizon_s=0), 0, id="no horizon"),
        pytest.param(paying(LONG_AND_SHORT, Fraction(15, 100)), replace(MONTHLY_LONG_AND_SHORT, band_bps=0), 0, id="no band"),
        pytest.param(
            paying(pair_book(30_000, 10_500 * LOT, 1_300 * LOT), Fraction(1, 100)), MONTHLY_LONG_AND_SHORT, 0, id="funding beside drift"
        ),
    ],
)  # fmt: skip
def test_funding_trims_what_only_funding_puts_beyond_its_band(margin_account: MarginAccount, policy: FuturesPolicy, lots: int) -> None:
    trims = funding_trims(margin_account, policy)

    assert trims == ({"ETH": lots * LOT} if lots else {})
    assert funding_trims(after_fills(margin_account, trims), policy) == {}


def after_fills(margin_account: MarginAccount, sizes: dict[str, int]) -> MarginAccount:
    """Return the account after orders of these sizes at the mark, without fees."""
    for name, size_raw in sizes.items():
        value_raw = margin.position_value_raw(margin_account.market(name), size_raw)
        margin_account = margin.with_trade(margin_account, name, size_raw, -value_raw)
    return margin_account


# --- Largest position


LARGE = pair_book(10_000, 8 * E18, 80 * LOT)
"""16,000 of ETH and 2,400 of BTC of a target of 20,000."""
LARGE_SHORT = pair_book(10_000, -8 * E18, -80 * LOT)


@pytest.mark.parametrize(
    ("margin_account", "policy", "lots"),
    [
        pytest.param(pair_book(10_000, 7_000 * LOT, 30 * LOT), policy_of(max_position_bps=7_000), 0, id="at the maximum"),
        pytest.param(pair_book(10_000, 7_001 * LOT, 30 * LOT), policy_of(max_position_bps=7_000), -351, id="a lot beyond"),
        pytest.param(LARGE, policy_of(6_000, 4_000, max_position_bps=7_000), -1_350, id="share of the target notional"),
        pytest.param(LARGE_SHORT, policy_of(-6_000, -4_000, max_position_bps=7_000), 1_350, id="short"),
        pytest.param(LARGE, policy_of(6_000, 4_000, max_position_bps=7_000, leverage_bps=5_000), -5_618, id="share of the notional"),
        pytest.param(LARGE, policy_of(6_650, max_position_bps=7_000), -1_350, id="target of the kept share"),
        pytest.param(LARGE, policy_of(7_500, max_position_bps=7_000), -500, id="target below the position"),
        pytest.param(LARGE, policy_of(8_000, max_position_bps=7_000), 0, id="at its target"),
        pytest.param(LARGE, policy_of(9_000, max_position_bps=7_000), 0, id="below its target"),
        pytest.param(LARGE, policy_of(-7_500, max_position_bps=7_000), -1_350, id="target on the other side"),
        pytest.param(LARGE, policy_of(max_position_bps=7_000, hedges=(hedge("ETH", -E18),)), 0, id="includes a hedge"),
        pytest.param(LARGE, policy_of(max_position_bps=7_000, hedges=(hedge("BTC", -E18),)), -1_350, id="beside a hedge"),
    ],
)
def test_position_trims_end_at_the_maximum_less_hysteresis(margin_account: MarginAccount, policy: FuturesPolicy, lots: int) -> None:
    """66.5 % of a target of 20,000, or of what 2,400 of BTC leave: 2,400 · 0.665 / 0.335; none below its target."""
    assert position_trims(margin_account, policy) == ({"ETH": lots * LOT} if lots else {})


@pytest.mark.parametrize(
    ("policy", "reasons"),
    [
        pytest.param(policy_of(8_000, max_position_bps=7_000), ("it is at its target",), id="at its target"),
        pytest.param(policy_of(max_position_bps=7_000, hedges=(hedge("ETH", -E18),)), ("it includes a hedge",), id="hedge"),
        pytest.param(policy_of(max_position_bps=7_000), (), id="trimmed"),
    ],
)
def test_position_notes_name_large_positions_that_stay(policy: FuturesPolicy, reasons: tuple[str, ...]) -> None:
    text = "ETH is 80.00 % of the notional, above max_position of 70 %, and is not trimmed"

    assert position_notes(LARGE, policy) == tuple(f"{text}: {reason}" for reason in reasons)


# --- Reductions that limits require


LEVERAGE_ALONE = policy_of(spot_multiple_bps=0)
FOURTHS = pair_book(4_000, 5 * E18, 300 * LOT)
"""19,000 of notional on 4,000, of which 3.8x may be kept: 3,800 go."""


@pytest.mark.parametrize(
    ("margin_account", "policy", "waiting_markets", "sizes"),
    [
        pytest.param(FOURTHS, LEVERAGE_ALONE, (), {"ETH": -1_000, "BTC": -60}, id="one share of each"),
        pytest.param(FOURTHS, LEVERAGE_ALONE, ("BTC",), {"ETH": -1_900, "BTC": -114}, id="BTC waits"),
        pytest.param(with_market(FOURTHS, "BTC", is_paused=True), LEVERAGE_ALONE, (), {"ETH": -1_900, "BTC": -114}, id="BTC is paused"),
        pytest.param(FOURTHS, LEVERAGE_ALONE, ("ETH", "BTC"), {"ETH": -1_000, "BTC": -60}, id="both wait"),
        pytest.param(pair_book(4_000, 8 * E18), LEVERAGE_ALONE, (), {}, id="at the limit"),
        pytest.param(with_market(pair_book(4_000, 10 * E18), "ETH", lot_raw=E18), LEVERAGE_ALONE, (), {"ETH": -3_000}, id="whole coins"),
        pytest.param(pair_book(4_000, -10 * E18), LEVERAGE_ALONE, (), {"ETH": 2_400}, id="short"),
        pytest.param(
            pair_book(4_000, 10 * E18),
            policy_of(slippage_bps=500, spot_multiple_bps=0),
            (),
            {"ETH": -3_685},
            id="within the limit after slippage",
        ),
        pytest.param(
            ETH_2X, policy_of(max_utilisation_bps=1_000, leverage_bps=0, spot_multiple_bps=0), (), {"ETH": -5_250}, id="utilisation"
        ),
        pytest.param(ETH_2X, policy_of(spot_multiple_bps=25_000), (), {"ETH": -5_250}, id="spot multiple"),
        pytest.param(ETH_2X, policy_of(spot_multiple_bps=25_000, max_leverage_bps=15_000), (), {"ETH": -5_250}, id="tightest of two"),
        pytest.param(
            pair_book(4_000, 10 * E18),
            policy_of(max_leverage_bps=100_000, stress_move_bps=2_000, spot_multiple_bps=0),
            (),
            {"ETH": -2_400},
            id="stress move",
        ),
        pytest.param(replace(pair_book(0, 5 * E18), realised_raw=-E18), LEVERAGE_ALONE, (), {"ETH": -5_000}, id="account in debt"),
    ],
)
def test_reduction_sizes_end_below_the_limit_by_the_hysteresis(
    margin_account: MarginAccount, policy: FuturesPolicy, waiting_markets: Sequence[str], sizes: dict[str, int]
) -> None:
    """The multiple of 2.5 is of a spot value of 4,000, unless it is off."""
    assert reduction_sizes(margin_account, policy, Fraction(4_000 * E18), waiting_markets) == {
        name: lots * LOT for name, lots in sizes.items()
    }


@given(st.integers(1, 10**19), st.integers(1, 10**19), st.integers(300, 5_000), st.integers(0, 5_000))
def test_reduction_sizes_end_within_limits_and_trigger_no_second(eth_raw: int, btc_raw: int, collateral: int, stress_bps: int) -> None:
    policy = FuturesPolicy((), 0, 0, replace(LIMITS, stress_move_bps=stress_bps))
    spot_value = Fraction(3_000 * E18)
    margin_account = account(collateral, {"ETH": eth_raw, "BTC": -btc_raw}, market("ETH"), market("BTC", 1_500))

    sizes = reduction_sizes(margin_account, policy, spot_value)

    assert all(margin_account.size_raw(name) * size_raw < 0 for name, size_raw in sizes.items())
    assert all(abs(size_raw) <= abs(margin_account.size_raw(name)) for name, size_raw in sizes.items())
    account_after = after_fills(margin_account, sizes)
    assert not due_triggers(account_after, policy, spot_value)
    assert not reduction_sizes(account_after, policy, spot_value)


@pytest.mark.parametrize("sign", [1, -1], ids=["long", "short"])
@pytest.mark.parametrize("move", [Fraction(-3, 10), Fraction(0), Fraction(1, 10), Fraction(9, 10)])
def test_reduction_sizes_use_up_the_limit_of_utilisation(sign: int, move: Fraction) -> None:
    feeless = replace(market("ETH"), fee_ppm=0)
    margin_account = margin.with_moved_marks(account(3_000, {"ETH": sign * 4 * E18}, feeless), {"ETH": sign * move})
    policy = policy_of(leverage_bps=0, max_leverage_bps=10**6, max_utilisation_bps=2_000, hysteresis_bps=0, spot_multiple_bps=0)
    limit = Fraction(2, 10)

    size_raw = reduction_sizes(margin_account, policy, NONE).get("ETH", 0)

    assert bool(size_raw) is ((margin.utilisation(margin_account) or 1) > limit)
    if size_raw:
        smaller_raw = size_raw + sign * 2 * LOT
        assert (margin.utilisation(after_fill_at_mark(margin_account, "ETH", size_raw)) or 0) <= limit
        assert (margin.utilisation(after_fill_at_mark(margin_account, "ETH", smaller_raw)) or 0) > limit


@pytest.mark.parametrize(
    ("eth", "changes", "waiting_markets", "suffices"),
    [
        pytest.param(7_600, {}, ["ETH"], True, id="waiting at the limit"),
        pytest.param(7_601, {}, ["ETH"], False, id="waiting a lot above"),
        pytest.param(7_601, {}, [], True, id="nothing waits"),
        pytest.param(7_600, {"is_paused": True}, [], True, id="paused at the limit"),
        pytest.param(7_601, {"is_paused": True}, [], False, id="paused a lot above"),
    ],
)
def test_closing_suffices_if_the_rest_is_within_the_limit(
    eth: int, changes: dict[str, object], waiting_markets: Sequence[str], suffices: bool
) -> None:
    """15,200 are allowed on 4,000."""
    margin_account = with_market(pair_book(4_000, eth * LOT, 160 * LOT), "ETH", **changes)

    assert closing_suffices(margin_account, policy_of(), RICH, waiting_markets) is suffices


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
def test_unfinished_sizes_lead_to_the_goal_and_never_cross_zero(size: int, goal: int, order: int) -> None:
    assert unfinished_sizes(pair_book(10_000, size * E18), [("ETH", goal * E18)]) == ({"ETH": order * E18} if order else {})


def test_stress_value_is_the_move_and_the_maintenance_after_it() -> None:
    """20 % of loss and 6.25 % of the 80 % that are left."""
    assert stress_value_per_notional(ETH_2X, policy_of(stress_move_bps=2_000)) == Fraction(1, 4)
    assert stress_value_per_notional(pair_book(10_000), policy_of(stress_move_bps=2_000)) == 0


# --- Emergencies


@pytest.mark.parametrize(("less_raw", "sizes"), [(0, {}), (1, {"ETH": -5 * E18})], ids=["at the distance", "one base unit nearer"])
def test_emergency_sizes_close_half_within_the_distance(less_raw: int, sizes: dict[str, int]) -> None:
    """10 ETH on 2,187.5 are liquidated at 1,900, 5 % below the mark."""
    margin_account = replace(pair_book(0, 10 * E18), collateral_raw=21_875 * 10**17 - less_raw)

    assert emergency_sizes(margin_account, policy_of()) == sizes


@pytest.mark.parametrize("side", [1, -1], ids=["long", "short"])
@pytest.mark.parametrize("collateral", [1_255, 1_300, 1_500])
def test_emergency_sizes_end_beyond_distance_and_hysteresis(collateral: int, side: int) -> None:
    policy = policy_of(emergency_distance_bps=1_000, hysteresis_bps=2_000)
    margin_account = pair_book(collateral, side * 10 * E18)
    safe_distance = Fraction(12, 100)

    [size_raw] = emergency_sizes(margin_account, policy).values()

    distance = margin.liquidation_distance(after_fill_at_mark(margin_account, "ETH", size_raw), "ETH")
    assert distance is None or abs(distance) >= safe_distance
    smaller = after_fill_at_mark(margin_account, "ETH", size_raw + side * 10 * LOT)
    assert abs(size_raw) > 5 * E18
    assert abs(margin.liquidation_distance(smaller, "ETH") or 1) < safe_distance


def test_emergency_sizes_are_whole_where_the_venue_takes_no_less() -> None:
    """Half of the position, or any part, sold at the bound leaves less than the venue requires for a reduction."""
    tiers = (MarginTier(0, 100_000, 62_500),)
    margin_account = replace(account(1_300, {"ETH": 10 * E18}, market("ETH", tiers=tiers)), collateral_raw=1_260 * E18)

    assert emergency_sizes(margin_account, policy_of(emergency_slippage_bps=1_000)) == {"ETH": -10 * E18}


# --- Unknown figures


@pytest.mark.parametrize(
    ("index_s", "now_s", "reason"),
    [
        pytest.param(1_000, 1_000, "", id="now"),
        pytest.param(1_000, 1_600, "", id="at its age"),
        pytest.param(1_000, 1_601, "the index of ETH is 601 s old", id="a second older"),
        pytest.param(1_000, 999, "the index of ETH is dated in the future", id="from the future"),
        pytest.param(0, 1_000, "the time of the index of ETH is unknown", id="unknown"),
    ],
)
def test_stale_index_reason_is_empty_up_to_the_index_age(index_s: int, now_s: int, reason: str) -> None:
    margin_account = with_market(pair_book(10_000), "ETH", index_s=index_s)

    assert stale_index_reason(margin_account.market("ETH"), policy_of(), now_s) == reason


@pytest.mark.parametrize(
    ("eth", "policy", "stale_markets"),
    [
        pytest.param(E18, policy_of(), ["ETH"], id="position alone"),
        pytest.param(0, policy_of(), ["ETH", "BTC"], id="targets of an empty account"),
        pytest.param(0, policy_of(5_000, 0), ["ETH"], id="target of nothing"),
    ],
)
def test_stale_index_reasons_judge_positions_or_else_targets(eth: int, policy: FuturesPolicy, stale_markets: Sequence[str]) -> None:
    assert list(stale_index_reasons(pair_book(10_000, eth), policy, PLAN_S + 601)) == stale_markets


@pytest.mark.parametrize(
    ("eth", "is_configured", "isolated_markets", "markets"),
    [
        pytest.param(E18, False, (), ["ETH"], id="position"),
        pytest.param(E18, True, (), [], id="named position"),
        pytest.param(0, False, (), [], id="no position"),
        pytest.param(0, False, ("ETH",), ["ETH"], id="isolated position"),
    ],
)
def test_unnamed_market_counts_while_it_has_a_position(
    eth: int, is_configured: bool, isolated_markets: tuple[str, ...], markets: Sequence[str]
) -> None:
    margin_account = replace(with_market(pair_book(10_000, eth), "ETH", is_configured=is_configured), isolated_markets=isolated_markets)

    assert list(unnamed_market_reasons(margin_account)) == markets


def test_isolated_positions_are_named_together() -> None:
    assert isolated_positions_reason(pair_book(10_000)) == ""
    assert isolated_positions_reason(replace(pair_book(10_000), isolated_markets=("ETH", "BTC"))).startswith("ETH, BTC has an isolated")


def test_profit_is_uncertain_with_unknown_transfers_alone() -> None:
    assert uncertain_profit_reason(pair_book(10_000)) == ""
    assert "(gift, loan)" in uncertain_profit_reason(replace(pair_book(10_000), unknown_row_kinds=("gift", "loan")))
