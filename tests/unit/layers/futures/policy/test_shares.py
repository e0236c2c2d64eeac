"""Shares of the notional at exact figures: beside hedges, with funding, at the edges of bands, and where they are unknown."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.futures.policy.targets import (
    FuturesTrigger,
    due_triggers,
    fired_triggers,
    funding_notes,
    funding_trims,
    held_weights,
    notional_drifts,
    position_notes,
    position_trims,
    sizes_to_target,
    stale_index_reason,
    stale_index_reasons,
    uncertain_profit_reason,
    unnamed_market_reasons,
    without_hedges,
)
from agent.model.futures import FuturesPolicy, FuturesTarget, Hedge, MarginAccount, Position
from tests.support.constants import MONTH_S
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import LOT, with_market
from tests.support.perpetuals.plans import LONGS, PLAIN, PLAN_S, RICH, pair_book
from tests.support.perpetuals.steps import EMPTY, book, step_of

MONTHLY = replace(LONGS, funding_horizon_s=MONTH_S)
"""Half ETH, half BTC, 2x, a band of 5 points; expected funding of a month counts."""
ETH_ALONE = replace(LONGS, targets=(FuturesTarget("ETH", 10_000),), band_bps=0)


def hedge(market: str, size: int) -> Hedge:
    return Hedge(market, market, size, PLAN_S, Fraction(1))


def paying(account: MarginAccount, share: Fraction) -> MarginAccount:
    """The account whose longs of ETH pay this share of their notional in a month."""
    return with_market(account, "ETH", funding_daily=share / 30)


# Beside hedges


@pytest.mark.parametrize(
    ("size", "hedged", "rest"),
    [
        pytest.param(-5, -5, (), id="all hedged"),
        pytest.param(-5, -4, (Position("ETH", -1, 0),), id="one left"),
        pytest.param(2, -3, (Position("ETH", 5, 0),), id="long beside a hedge"),
        pytest.param(0, -3, (Position("ETH", 3, 0),), id="hedge without a position"),
    ],
)
def test_without_hedges__position_s_rest_is_what_no_hedge_holds(size: int, hedged: int, rest: tuple[Position, ...]) -> None:
    account = replace(pair_book(10_000), positions=(Position("ETH", size, 7, 9),) if size else ())
    assert without_hedges(account, replace(LONGS, hedges=(hedge("ETH", hedged),))).positions == rest


def test_without_hedges__other_markets_keep_their_positions() -> None:
    account = pair_book(10_000, 5 * E18, E18)
    policy = replace(LONGS, hedges=(hedge("ETH", 5 * E18),))
    assert without_hedges(account, policy).positions == (account.positions[1],)


def test_without_hedges__each_hedge_is_taken_out() -> None:
    policy = replace(LONGS, hedges=(hedge("ETH", 5 * E18), hedge("BTC", E18)))
    assert without_hedges(pair_book(10_000, 5 * E18, E18), policy).positions == ()


# Weights


@pytest.mark.parametrize(("eth", "weight"), [(0, Fraction(0)), (5, Fraction(1, 2)), (-5, Fraction(-1, 2)), (10, Fraction(1))])
def test_held_weights__are_shares_of_the_target_notional(eth: int, weight: Fraction) -> None:
    assert held_weights(step_of(book(10_000, eth * E18))) == {"ETH": weight}


def test_held_weights__account_in_debt_has_none() -> None:
    assert held_weights(step_of(replace(book(0), realised_raw=-E18))) == {}


def test_held_weights__unknown_account_has_none() -> None:
    assert held_weights(step_of(None)) == {}


def test_held_weights__without_a_policy_there_are_none() -> None:
    assert held_weights(step_of(EMPTY, None)) == {}


def test_drifts__market_without_target_and_position_is_left_out() -> None:
    assert [drift.market for drift in notional_drifts(pair_book(10_000), ETH_ALONE)] == ["ETH"]


def test_drifts__market_with_a_position_alone_has_no_target() -> None:
    (_, btc) = notional_drifts(pair_book(30_000, 15 * E18, E18), ETH_ALONE)
    assert (btc.market, btc.notional, btc.target_notional, btc.share, btc.target_share) == ("BTC", 30_000 * E18, 0, Fraction(1, 2), 0)


def test_drifts__without_leverage_every_target_is_nothing() -> None:
    drifts = notional_drifts(pair_book(30_000, 15 * E18, E18), replace(LONGS, leverage_bps=0))
    assert [(drift.target_notional, drift.target_share) for drift in drifts] == [(0, 0), (0, 0)]


def test_drifts__empty_account_is_below_each_target_by_its_weight() -> None:
    assert [drift.share_drift for drift in notional_drifts(pair_book(10_000), LONGS)] == [Fraction(-1, 2)] * 2


def test_drifts__account_without_value_has_shares_of_nothing() -> None:
    assert [drift.share for drift in notional_drifts(pair_book(0), LONGS)] == [0, 0]


def test_drifts__funding_enlarges_the_share_and_lowers_the_target() -> None:
    (eth, btc) = notional_drifts(paying(pair_book(30_000, 15 * E18, E18), Fraction(1, 4)), MONTHLY)
    assert (eth.funding_share, eth.funded_share_drift, eth.funded_target_notional) == (Fraction(1, 4), Fraction(1, 8), 24_000 * E18)
    assert (btc.funding_share, btc.funded_share_drift, btc.funded_target_notional) == (0, 0, 30_000 * E18)


# Leverage


def leverage_drifts(account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction | None = RICH) -> bool:
    banded = replace(policy, leverage_band_bps=1_000)
    return FuturesTrigger.LEVERAGE_DRIFT in fired_triggers(account, banded, spot_value)


@pytest.mark.parametrize(("lots", "fires"), [(11_000, False), (11_001, True), (9_000, False), (8_999, True)])
def test_leverage_drift__notional_on_the_edge_of_its_band_waits(lots: int, fires: bool) -> None:
    """A tenth of 20,000."""
    assert leverage_drifts(pair_book(10_000, lots * LOT), ETH_ALONE) is fires


def test_leverage_drift__without_a_band_there_is_none() -> None:
    assert FuturesTrigger.LEVERAGE_DRIFT not in fired_triggers(pair_book(10_000, 5 * E18), ETH_ALONE, RICH)


@pytest.mark.parametrize(
    ("lots", "spot", "fires"),
    [
        pytest.param(8_250, 15_000, False, id="at the target"),
        pytest.param(8_251, 15_000, True, id="a lot above"),
        pytest.param(10_000, 30_000, False, id="at the larger multiple"),
        pytest.param(8_250, 30_000, True, id="below the larger multiple"),
    ],
)
def test_leverage_drift__target_is_at_most_the_multiple_of_spot(lots: int, spot: int, fires: bool) -> None:
    policy = replace(ETH_ALONE, limits=replace(PLAIN, spot_multiple_bps=10_000))
    assert leverage_drifts(pair_book(10_000, lots * LOT), policy, Fraction(spot * E18)) is fires


def test_leverage_drift__unknown_spot_value_and_multiple_waits() -> None:
    policy = replace(ETH_ALONE, limits=replace(PLAIN, spot_multiple_bps=10_000))
    assert not leverage_drifts(pair_book(10_000, 5 * E18), policy, None)


def test_leverage_drift__unknown_spot_value_alone_fires() -> None:
    policy = replace(ETH_ALONE, limits=replace(PLAIN, spot_multiple_bps=0))
    assert leverage_drifts(pair_book(10_000, 5 * E18), policy, None)


@pytest.mark.parametrize(("lots", "fires"), [(8_800, False), (8_801, True)])
def test_leverage_drift__target_is_lowered_by_its_funding(lots: int, fires: bool) -> None:
    """A quarter of funding lowers 20,000 to 16,000."""
    account = paying(pair_book(10_000, lots * LOT), Fraction(1, 4))
    assert leverage_drifts(account, replace(ETH_ALONE, funding_horizon_s=MONTH_S)) is fires


def test_triggers__that_wait_for_the_user_are_not_due() -> None:
    policy = replace(LONGS, manual_triggers=("drift",))
    assert FuturesTrigger.DRIFT in fired_triggers(pair_book(10_000, 10 * E18), policy, RICH)
    assert FuturesTrigger.DRIFT not in due_triggers(pair_book(10_000, 10 * E18), policy, RICH)


# Funding


@pytest.mark.parametrize(("funding", "orders"), [(Fraction(1, 20), {"ETH": 2_285 * LOT}), (Fraction(1, 19), {})])
def test_funding__position_grows_while_it_is_half_the_band_at_most(funding: Fraction, orders: dict[str, int]) -> None:
    """Of a target of 30,000 funding leaves 28,571."""
    assert sizes_to_target(paying(pair_book(30_000, 12 * E18, E18), funding), MONTHLY) == orders


def test_funding__reduction_is_never_forbidden() -> None:
    assert sizes_to_target(paying(pair_book(30_000, 20 * E18, E18), Fraction(1, 4)), MONTHLY) == {"ETH": -8_000 * LOT}


def test_funding__new_position_that_pays_too_much_is_not_opened() -> None:
    assert sizes_to_target(paying(pair_book(30_000, 0, E18), Fraction(1, 4)), MONTHLY) == {}


@pytest.mark.parametrize(("lots", "notes"), [(13_500, 0), (13_499, 1)])
def test_funding_note__position_on_the_edge_of_its_band_has_none(lots: int, notes: int) -> None:
    """27,000 of ETH beside 33,000 of BTC, 5 points below half."""
    account = paying(pair_book(30_000, lots * LOT, 1_100 * LOT), Fraction(1, 12))
    assert len(funding_notes(account, MONTHLY)) == notes


def test_funding_note__without_a_band_there_is_none() -> None:
    assert funding_notes(paying(pair_book(30_000, 12 * E18, E18), Fraction(1, 4)), replace(MONTHLY, band_bps=0)) == ()


@pytest.mark.parametrize(("eth", "orders"), [(16_500, {"ETH": -2_864 * LOT}), (16_501, {})])
def test_funding_trim__share_on_its_edge_is_trimmed_beyond_is_drift(eth: int, orders: dict[str, int]) -> None:
    """33,000 of ETH beside 27,000 of BTC; a tenth of funding leaves 27,272 of 30,000."""
    account = paying(pair_book(30_000, eth * LOT, 900 * LOT), Fraction(1, 10))
    assert funding_trims(account, MONTHLY) == orders


@pytest.mark.parametrize(("funding", "orders"), [(Fraction(7, 15), {}), (Fraction(1, 2), {"ETH": -1_667 * LOT})])
def test_funding_trim__notional_on_the_edge_of_the_target_stays(funding: Fraction, orders: dict[str, int]) -> None:
    """Of a target of 40,000 with a band of 4,000, 30,000 with seven fifteenths are 44,000; a half leaves 26,666."""
    account = paying(pair_book(40_000, 15 * E18, E18), funding)
    assert funding_trims(account, MONTHLY) == orders


@pytest.mark.parametrize(("funding", "trimmed"), [(Fraction(1, 10), False), (Fraction(1, 9), True)])
def test_funding_trim__share_with_funding_on_the_edge_stays(funding: Fraction, trimmed: bool) -> None:
    """Half of a notional that is above its target of 40,000: a tenth of funding are 5 points."""
    assert bool(funding_trims(paying(pair_book(20_000, 15 * E18, E18), funding), MONTHLY)) is trimmed


def test_funding_trim__position_without_a_target_is_closed() -> None:
    """3,000 of ETH, 5 points without a target, pay a tenth."""
    policy = replace(MONTHLY, targets=(FuturesTarget("BTC", 10_000),))
    account = paying(pair_book(30_000, 1_500 * LOT, 1_900 * LOT), Fraction(1, 10))
    assert funding_trims(account, policy) == {"ETH": -1_500 * LOT}


@pytest.mark.parametrize(("funding", "orders"), [(Fraction(-1, 10), {}), (Fraction(-1, 4), {"ETH": 3_000 * LOT})])
def test_funding_trim__paying_short_is_bought_back_to_target(funding: Fraction, orders: dict[str, int]) -> None:
    policy = replace(MONTHLY, targets=(FuturesTarget("ETH", -5_000), FuturesTarget("BTC", -5_000)))
    assert funding_trims(paying(pair_book(30_000, -15 * E18, -E18), funding), policy) == orders


def test_funding_trim__short_that_is_paid_is_left() -> None:
    policy = replace(MONTHLY, targets=(FuturesTarget("ETH", -5_000), FuturesTarget("BTC", -5_000)))
    assert funding_trims(paying(pair_book(30_000, -15 * E18, -E18), Fraction(1, 4)), policy) == {}


# Largest position


def large(weight_bps: int, *hedges: Hedge) -> tuple[MarginAccount, FuturesPolicy]:
    """16,000 of ETH and 2,400 of BTC of a target of 20,000, where 66.5 % may be kept."""
    limits = replace(PLAIN, max_position_bps=7_000)
    policy = replace(LONGS, targets=(FuturesTarget("ETH", weight_bps),), limits=limits, hedges=hedges)
    return pair_book(10_000, 8 * E18, 80 * LOT), policy


@pytest.mark.parametrize(
    ("weight_bps", "orders"),
    [(6_650, {"ETH": -1_350 * LOT}), (7_500, {"ETH": -500 * LOT}), (8_000, {}), (9_000, {}), (-7_500, {"ETH": -1_350 * LOT})],
)
def test_position_trim__position_is_not_trimmed_below_its_target(weight_bps: int, orders: dict[str, int]) -> None:
    assert position_trims(*large(weight_bps)) == orders


def test_position_trim__position_with_a_hedge_is_left_and_named() -> None:
    account, policy = large(5_000, hedge("ETH", -E18))
    assert position_trims(account, policy) == {}
    (note,) = position_notes(account, policy)
    assert note.endswith("it includes a hedge")


def test_position_note__names_share_and_limit_at_the_target() -> None:
    (note,) = position_notes(*large(8_000))
    assert note == "ETH is 80.00 % of the notional, above max_position of 70 %, and is not trimmed: it is at its target"


def test_position_note__position_that_is_trimmed_has_none() -> None:
    assert position_notes(*large(5_000)) == ()


# Unknown figures


@pytest.mark.parametrize(
    ("index_s", "now_s", "reason"),
    [
        pytest.param(1_000, 1_000, "", id="now"),
        pytest.param(1_000, 1_600, "", id="at its age"),
        pytest.param(1_000, 1_601, "the index of ETH is 601 s old", id="a second older"),
        pytest.param(1_000, 999, "the index of ETH is -1 s old", id="from the future"),
        pytest.param(0, 1_000, "the time of the index of ETH is unknown", id="unknown"),
    ],
)
def test_index__is_current_from_its_second_to_its_age(index_s: int, now_s: int, reason: str) -> None:
    account = with_market(pair_book(10_000), "ETH", index_s=index_s)
    assert stale_index_reason(account.market("ETH"), LONGS, now_s) == reason


@pytest.mark.parametrize(
    ("eth", "btc_weight_bps", "stale"),
    [(E18, 5_000, ["ETH"]), (0, 5_000, ["ETH", "BTC"]), (0, 0, ["ETH"])],
    ids=["held alone", "targets of an empty account", "target of nothing"],
)
def test_stale_indexes__held_markets_count_or_else_the_targets(eth: int, btc_weight_bps: int, stale: list[str]) -> None:
    policy = replace(LONGS, targets=(FuturesTarget("ETH", 5_000), FuturesTarget("BTC", btc_weight_bps)))
    assert list(stale_index_reasons(pair_book(10_000, eth), policy, PLAN_S + 601)) == stale


@pytest.mark.parametrize(
    ("eth", "is_named", "markets"),
    [
        pytest.param(E18, False, ["ETH"], id="unnamed"),
        pytest.param(E18, True, [], id="named"),
        pytest.param(0, False, [], id="no position"),
    ],
)
def test_unnamed__market_counts_while_it_has_a_position(eth: int, is_named: bool, markets: list[str]) -> None:
    assert list(unnamed_market_reasons(with_market(pair_book(10_000, eth), "ETH", is_configured=is_named))) == markets


def test_unnamed__market_counts_with_an_isolated_position() -> None:
    unnamed = with_market(pair_book(10_000, 0), "ETH", is_configured=False)
    assert list(unnamed_market_reasons(replace(unnamed, isolated_markets=("ETH",)))) == ["ETH"]


def test_profit__is_uncertain_with_unknown_transfers_alone() -> None:
    assert uncertain_profit_reason(pair_book(10_000)) == ""
    assert "(gift, loan)" in uncertain_profit_reason(replace(pair_book(10_000), unknown_row_kinds=("gift", "loan")))
