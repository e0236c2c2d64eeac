"""Drift: exact shares, strict bands, ideal trades that sum to zero, and the prices at which a band is left."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.model import (
    NEW_STORE_HISTORY,
    AnyOf,
    Asset,
    AssetDrift,
    Cron,
    Destination,
    Every,
    Goal,
    GoalWeight,
    HybridTrigger,
    NoTradeZone,
    SingleTrigger,
    StagedTrigger,
    Threshold,
    Trigger,
)
from agent.policy.drift import (
    band,
    band_edge_prices,
    compute_drifts,
    corrections,
    drifts_from_balances,
    ideal_trades,
    investable_total,
    overweight_messages,
    rebalance_goal,
    unreachable_reasons,
    with_trigger_bands,
)
from agent.policy.triggers import bands
from agent.policy.triggers.rules import evaluate_trigger
from agent.units import BPS
from tests.support.builders import address, step_input, token, tracking
from tests.support.samples import examples
from tests.support.text import raises_code


def assets_of(targets_bps: list[int], reserves_raw: list[int] | None = None) -> tuple[Asset, ...]:
    reserves = reserves_raw or [0] * len(targets_bps)
    return tuple(Asset(token(f"T{i}", 6), t, r) for i, (t, r) in enumerate(zip(targets_bps, reserves, strict=True)))


def drifts_of(targets_bps: list[int], raws: list[int], trigger: Trigger, reserves_raw: list[int] | None = None) -> tuple[AssetDrift, ...]:
    assets = assets_of(targets_bps, reserves_raw)
    raw_by_token = {asset.token.address: raw for asset, raw in zip(assets, raws, strict=True)}
    return drifts_from_balances(assets, raw_by_token, {asset.token.address: Fraction(1) for asset in assets}, trigger)


RELATIVE = Threshold(None, 1_000)


@pytest.mark.parametrize(
    ("trigger", "target_bps", "low", "high"),
    [
        pytest.param(Threshold(500, None), 5_000, 4_500, 5_500, id="points"),
        pytest.param(Threshold(None, 1_000), 5_000, 4_500, 5_500, id="share of the target"),
        pytest.param(Threshold(None, 1_000), 333, Fraction(2_997, 10), Fraction(3_663, 10), id="share of an odd target"),
        pytest.param(Threshold(300, 1_000), 5_000, 4_700, 5_300, id="both, points narrower"),
        pytest.param(Threshold(300, 1_000), 2_000, 1_800, 2_200, id="both, share narrower"),
        pytest.param(Threshold(500, None), 300, 0, 800, id="down to nothing"),
        pytest.param(Threshold(500, None), 9_800, 9_300, 10_000, id="up to all"),
        pytest.param(Threshold(None, None), 5_000, 5_000, 5_000, id="no width"),
        pytest.param(HybridTrigger(Threshold(500, None), Every(86_400)), 5_000, 4_500, 5_500, id="hybrid"),
        pytest.param(Every(86_400), 5_000, 5_000, 5_000, id="schedule"),
        pytest.param(Cron("0 9 * * *", "UTC"), 5_000, 5_000, 5_000, id="cron"),
    ],
)
def test_band_has_exact_edges_of_the_narrower_width(trigger: Trigger, target_bps: int, low: object, high: object) -> None:
    assert band(trigger, target_bps) == (low, high)


FIVE_POINTS = Threshold(500, None)


@pytest.mark.parametrize(
    ("trigger", "own_band", "max_bps", "low", "high"),
    [
        pytest.param(FIVE_POINTS, Threshold(100, None), None, 4_900, 5_100, id="own band"),
        pytest.param(Every(86_400), Threshold(100, None), None, 5_000, 5_000, id="own band without a band of the trigger"),
        pytest.param(FIVE_POINTS, None, 5_200, 4_500, 5_200, id="max_weight inside the band"),
        pytest.param(FIVE_POINTS, None, 5_501, 4_500, 5_500, id="max_weight beyond the band"),
        pytest.param(FIVE_POINTS, None, 5_001, 4_500, 5_001, id="max_weight a bp above the target"),
        pytest.param(FIVE_POINTS, None, 5_000, 4_500, 5_500, id="max_weight at the target"),
        pytest.param(AnyOf((FIVE_POINTS, Threshold(300, None))), None, None, 4_700, 5_300, id="narrowest of several"),
        pytest.param(NoTradeZone(tracking("WETH")), Threshold(100, None), 5_200, 0, 10_000, id="zone"),
    ],
)
def test_band_goes_by_own_band_max_weight_and_trigger(
    trigger: Trigger, own_band: Threshold | None, max_bps: int | None, low: int, high: int
) -> None:
    assert band(trigger, 5_000, own_band, max_bps) == (low, high)


@pytest.mark.parametrize(
    ("raws", "is_outside"),
    [
        pytest.param([5_500, 4_500], False, id="on the edge"),
        pytest.param([5_501, 4_500], True, id="a base unit more"),
        pytest.param([0, 0], False, id="empty wallet"),
    ],
)
def test_drifts_take_the_bands_of_another_trigger(raws: list[int], is_outside: bool) -> None:
    drifts = with_trigger_bands(drifts_of([5_000, 5_000], raws, Every(86_400)), RELATIVE)

    assert [drift.is_outside_band for drift in drifts] == [is_outside, is_outside]
    assert [(drift.band_low_bps, drift.band_high_bps) for drift in drifts] == [(4_500, 5_500)] * 2


def test_overweight_message_begins_a_base_unit_above_the_limit() -> None:
    def messages(raws: list[int]) -> tuple[str, ...]:
        drifts = drifts_of([5_000, 5_000], raws, RELATIVE)
        return overweight_messages([replace(drift, max_bps=6_000 if drift.symbol == "T0" else None) for drift in drifts])

    assert messages([6_000, 4_000]) == ()
    (message,) = messages([6_001, 4_000])
    assert message.startswith("T0 is 60 % of the portfolio, above limits.max_weight of 60 %")


@pytest.mark.parametrize(
    "trigger", [RELATIVE, HybridTrigger(RELATIVE, Every(86_400)), StagedTrigger(Every(86_400), Every(604_800), RELATIVE)]
)
def test_the_numeraire_has_no_price_that_leaves_its_band(trigger: SingleTrigger) -> None:
    """Of two equal assets the first is named as the closest; the second is left by the price of the first."""
    drifts = drifts_of([5_000, 5_000], [5_100, 4_900], trigger)
    numeraire, other = drifts[0].token, drifts[1].token
    assert band_edge_prices(drifts, numeraire)[numeraire] == (None, None)
    assert None not in band_edge_prices(drifts, numeraire)[other]
    assert set(unreachable_reasons(drifts[0], drifts, numeraire)) == {"unit of all values, price 1"}
    of_numeraire, of_other = (evaluate_trigger(trigger, drifts, 0, NEW_STORE_HISTORY, numeraire=token) for token in (numeraire, other))
    assert "closest is T0" in of_numeraire.reason
    assert "price alone" not in of_numeraire.reason
    assert "left when its price alone rises by more than" in of_other.reason


@pytest.mark.parametrize(
    ("targets_bps", "raws", "low_reason", "high_reason"),
    [
        pytest.param([5_000, 5_000], [5, 5], "", "", id="both reachable"),
        pytest.param([5_000, 5_000], [0, 5], "holds none", "holds none", id="nothing in the wallet"),
        pytest.param([5_000, 5_000], [5, 0], "no other asset", "no other asset", id="nothing else"),
        pytest.param([500, 9_500], [5, 95], "down to 0 %", "", id="band down to zero"),
        pytest.param([501, 9_499], [5, 95], "", "", id="a bp above zero"),
        pytest.param([9_500, 500], [95, 5], "", "up to 100 %", id="band up to all"),
    ],
)
def test_unreachable_reasons_say_why_no_price_leaves_the_band(
    targets_bps: list[int], raws: list[int], low_reason: str, high_reason: str
) -> None:
    drifts = drifts_of(targets_bps, raws, FIVE_POINTS)

    reasons = unreachable_reasons(drifts[0], drifts)

    for reason, expected in zip(reasons, (low_reason, high_reason), strict=True):
        assert expected in reason
        assert bool(reason) is bool(expected)


def test_amounts_outside_the_wallet_count_for_weights_and_edges() -> None:
    assets = assets_of([5_000, 5_000])
    first, second = (asset.token.address for asset in assets)
    prices = {first: Fraction(1), second: Fraction(1)}

    in_wallet = drifts_from_balances(assets, {first: 600, second: 400}, prices, RELATIVE)
    outside = drifts_from_balances(assets, {first: 0, second: 400}, prices, RELATIVE, {"pool": {first: 600}})

    assert outside[0].share == in_wallet[0].share == Fraction(6, 10)
    assert outside[0].investable_raw == 0
    assert band_edge_prices(outside) == band_edge_prices(in_wallet)
    assert unreachable_reasons(outside[0], outside) == ("", "")


def test_share_on_the_edge_is_inside_and_a_unit_more_outside() -> None:
    on_edge = drifts_of([5_000, 5_000], [5_500, 4_500], RELATIVE)
    assert [drift.is_outside_band for drift in on_edge] == [False, False]
    beyond = drifts_of([5_000, 5_000], [5_501, 4_500], RELATIVE)
    assert [drift.is_outside_band for drift in beyond] == [True, True]
    assert beyond[0].weight_bps == 5_500


def test_weights_exclude_the_reserve() -> None:
    drifts = drifts_of([5_000, 3_000, 2_000], [600, 400, 70], RELATIVE, [100, 0, 100])
    assert [drift.investable_raw for drift in drifts] == [500, 400, 0]
    assert [drift.share for drift in drifts] == [Fraction(5, 9), Fraction(4, 9), 0]
    assert [drift.raw for drift in drifts] == [600, 400, 70]
    assert [drift.weight_bps for drift in drifts] == [5_556, 4_444, 0]
    assert [drift.drift_bps for drift in drifts] == [556, 1_444, -2_000]
    assert investable_total(drifts) == 900


def test_empty_wallet_has_shares_of_zero() -> None:
    drifts = drifts_of([5_000, 5_000], [0, 0], RELATIVE)
    assert [(drift.share, drift.weight_bps, drift.is_outside_band) for drift in drifts] == [(Fraction(0), 0, False)] * 2
    assert band_edge_prices(drifts) == {drift.token: (None, None) for drift in drifts}


def test_drifts_refuse_a_missing_balance_or_price_by_name() -> None:
    step = step_input()
    weth, usdc = (asset.token.address for asset in step.portfolio.assets)
    with raises_code(Refused, "reference_price", "WETH"):
        compute_drifts(step, {usdc: Fraction(1)})
    step = replace(step, snapshot=replace(step.snapshot, holdings=step.snapshot.holdings[:1]))
    with raises_code(Refused, "balance", "USDC"):
        compute_drifts(step, {weth: Fraction(1), usdc: Fraction(1)})


def test_drift_shows_the_address_for_an_unsafe_symbol() -> None:
    strange = Asset(token("A\n", 6, at=address("strange")), 10_000, 0)
    drifts = drifts_from_balances([strange], {strange.token.address: 1}, {strange.token.address: Fraction(1)}, RELATIVE)
    assert drifts[0].symbol == strange.token.address


def test_band_edge_prices_are_where_the_band_is_left() -> None:
    drifts = drifts_of([5_000, 5_000], [5_000, 5_000], RELATIVE)
    low, high = band_edge_prices(drifts)[drifts[0].token]
    assert (low, high) == (Fraction(9, 11), Fraction(11, 9))


def test_band_edge_price_is_none_where_no_price_reaches_it() -> None:
    none_held = drifts_of([5_000, 5_000], [0, 10], RELATIVE)
    assert [band_edge_prices(none_held)[drift.token] for drift in none_held] == [(None, None), (None, None)]
    wide = drifts_of([300, 9_700], [300, 9_700], Threshold(500, None))
    assert band_edge_prices(wide)[wide[0].token] == (None, Fraction(9_700 * 8, 92 * 300))
    assert band_edge_prices(wide)[wide[1].token][1] is None


targets = st.lists(st.integers(1, 100), min_size=2, max_size=12)
widths = st.tuples(st.none() | st.integers(1, 2_000), st.none() | st.integers(1, 9_000)).filter(lambda pair: pair != (None, None))


@st.composite
def portfolios(draw: st.DrawFn) -> tuple[AssetDrift, ...]:
    parts = draw(targets)
    bps = [part * BPS // sum(parts) for part in parts]
    bps[0] += BPS - sum(bps)
    raws = draw(st.lists(st.integers(0, 10**30), min_size=len(bps), max_size=len(bps)).filter(any))
    assets = assets_of(bps)
    prices = {a.token.address: draw(st.fractions(min_value=Fraction(1, 10**12), max_value=10**12)) for a in assets}
    raw_by_token = {a.token.address: raw for a, raw in zip(assets, raws, strict=True)}
    return drifts_from_balances(assets, raw_by_token, prices, Threshold(*draw(widths)))


@examples(20)
@given(portfolios())
def test_ideal_trades_lead_exactly_onto_the_targets(drifts: tuple[AssetDrift, ...]) -> None:
    assert sum(drift.share for drift in drifts) == 1
    assert sum(drift.weight_bps for drift in drifts) == BPS
    trades = ideal_trades(drifts)
    assert sum(trades.values()) == 0
    for drift in drifts:
        assert (drift.value + trades[drift.token]) / investable_total(drifts) == Fraction(drift.target_bps, BPS)


@examples(20)
@given(portfolios())
def test_band_edge_price_puts_the_asset_on_its_edge(drifts: tuple[AssetDrift, ...]) -> None:
    for drift in drifts:
        for price, edge_bps in zip(band_edge_prices(drifts)[drift.token], (drift.band_low_bps, drift.band_high_bps), strict=True):
            if price is not None:
                value = price * drift.investable_raw
                assert value / (investable_total(drifts) - drift.value + value) == edge_bps / BPS


@examples(20)
@given(portfolios())
def test_destinations_lie_between_the_share_and_the_target(drifts: tuple[AssetDrift, ...]) -> None:
    on_target, half, bands = goals_of(drifts)
    assert all(w.low == w.high == Fraction(drift.target_bps, BPS) for w, drift in zip(on_target, drifts, strict=True))
    assert sum(w.low for w in half) == sum(w.high for w in half) == 1
    assert all(w.low == (drift.share + Fraction(drift.target_bps, BPS)) / 2 for w, drift in zip(half, drifts, strict=True))
    lows = sum(w.low for w in bands)
    highs = sum(w.high for w in bands)
    for w, drift in zip(bands, drifts, strict=True):
        assert drift.band_low_bps <= w.low * BPS <= drift.target_bps <= w.high * BPS <= drift.band_high_bps
        assert lows - w.low <= 1 - w.high
        assert highs - w.high >= 1 - w.low


def goals_of(drifts: tuple[AssetDrift, ...]) -> tuple[tuple[GoalWeight, ...], ...]:
    return tuple(rebalance_goal(drifts, drift).weights for drift in (Destination.TARGET, Destination.HALFWAY, Destination.BAND))


def band_goals_bps(drifts: tuple[AssetDrift, ...]) -> list[tuple[object, object]]:
    return [(w.low * BPS, w.high * BPS) for w in rebalance_goal(drifts, Destination.BAND).weights]


def test_band_goal_is_clipped_to_what_others_can_offset() -> None:
    drifts = drifts_of([5_000, 4_000, 1_000], [500, 400, 100], Threshold(None, 1_000))
    assert band_goals_bps(drifts) == [(4_500, 5_500), (3_600, 4_400), (900, 1_100)]
    two = drifts_of([8_000, 2_000], [80, 20], Threshold(None, 1_000))
    assert band_goals_bps(two) == [(7_800, 8_200), (1_800, 2_200)]


def test_corrections_lead_to_the_nearest_goal_share() -> None:
    drifts = drifts_of([5_000, 5_000], [700, 300], RELATIVE)
    a, b = (drift.token for drift in drifts)
    assert corrections(drifts, rebalance_goal(drifts, Destination.TARGET)) == {a: -200, b: 200} == ideal_trades(drifts)
    assert corrections(drifts, rebalance_goal(drifts, Destination.BAND)) == {a: -150, b: 150}
    assert corrections(drifts, rebalance_goal(drifts, Destination.HALFWAY)) == {a: -100, b: 100}
    free = Goal((GoalWeight(a, Fraction(0), Fraction(1)), GoalWeight(b, Fraction(0), Fraction(1))))
    assert corrections(drifts, free) == {a: 0, b: 0}


@pytest.mark.parametrize(
    ("trigger", "reason_of", "reason"),
    [
        pytest.param(RELATIVE, bands.outside_text, "T0 at 19.87 % is 2.63 points below its band 22.5-27.5 %", id="outside its band"),
        pytest.param(
            Threshold(3_000, None),
            lambda drifts: bands.inside_text(drifts[:1], ""),
            "all within their bands; closest is T0 at 19.87 %, 19.87 points from the lower edge",
            id="inside its band",
        ),
        pytest.param(Every(86_400), bands.furthest_text, "furthest from target is T0 at 19.87 %, 5.13 points below 25 %", id="no band"),
    ],
)
def test_weight_in_a_reason_is_that_of_the_table(trigger: Trigger, reason_of: Callable[[Sequence[AssetDrift]], str], reason: str) -> None:
    """19.876 % is 19.87 % in the table, whose weights add up to 100.00 %; the distance is from the weight that is shown."""
    drifts = drifts_of([2_500, 4_000, 3_500], [19_876, 40_067, 40_057], trigger)
    assert [drift.weight_bps for drift in drifts] == [1_987, 4_007, 4_006]
    assert round(drifts[0].share * BPS) == 1_988
    assert drifts[0].weight_text == "19.87 %"
    assert reason_of(drifts).startswith(reason)


def test_distance_below_a_hundredth_is_not_shown_as_zero() -> None:
    drifts = drifts_of([5_000, 5_000], [449_999, 550_001], RELATIVE)
    assert drifts[0].is_outside_band
    assert drifts[0].weight_bps == 4_500
    assert bands.outside_text(drifts).startswith("T0 at 45 % is less than 0.01 points below its band 45-55 %")
