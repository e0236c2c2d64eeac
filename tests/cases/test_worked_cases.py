"""The worked cases of the requirements, as far as deciding goes: which asset triggers, and what is to be bought and sold."""

from fractions import Fraction

from agent.model import Every, Hold, PriceSource, Rebalance, StepInput, Threshold
from agent.policy.decide import decide
from agent.policy.drift import band_edge_prices, compute_drifts, ideal_trades, investable_total
from agent.reference import reference_prices
from agent.units import BPS
from tests.support.builders import step_input
from tests.support.text import mentions

COIN = 10**6
TENTH = Threshold(None, 1_000)


def _trades(step: StepInput) -> dict[str, Fraction]:
    """Whole coins to buy (positive) or sell by symbol."""
    drifts = decide(step).drifts
    return {d.symbol: value / COIN for d, value in zip(drifts, ideal_trades(drifts).values(), strict=True)}


def _outside(step: StepInput) -> list[str]:
    return [d.symbol for d in decide(step).drifts if d.is_outside_band]


def test_w1__one_winner_is_sold_for_the_loser_and_the_others() -> None:
    quarter = dict.fromkeys(("WETH", "WBTC", "ARB", "USDC"), 2_500)
    step = step_input(
        quarter,
        {"WETH": 325, "WBTC": 200, "ARB": 250, "USDC": 250},
        {"WETH": 2_600, "WBTC": 40_000},
        trigger=Threshold(500, None),
    )
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance)
    assert investable_total(decided.drifts) / COIN == 1_025
    assert _outside(step) == ["WETH", "WBTC"]
    assert _trades(step) == {"WETH": Fraction("-68.75"), "WBTC": Fraction("56.25"), "ARB": Fraction("6.25"), "USDC": Fraction("6.25")}
    assert all(d.value + ideal_trades(decided.drifts)[d.token] == Fraction("256.25") * COIN for d in decided.drifts)


def _w2(**values: int) -> StepInput:
    return step_input({"WBTC": 5_000, "WETH": 3_000, "USDC": 2_000}, values, {"WBTC": 58_000, "WETH": 2_700}, trigger=TENTH)


def test_w2__one_plan_sells_the_overweight_and_buys_the_rest() -> None:
    step = _w2(WBTC=5_800, WETH=2_700, USDC=1_500)
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance)
    assert mentions(decided.decision.reason, "WBTC", "58 %", "3 points", "45-55 %", "USDC", "15 %", "18-22 %")
    assert [d.band_low_bps for d in decided.drifts] == [4_500, 2_700, 1_800]
    assert [d.band_high_bps for d in decided.drifts] == [5_500, 3_300, 2_200]
    assert _trades(step) == {"WBTC": -800, "WETH": 300, "USDC": 500}
    assert [w.low for w in decided.decision.goal.weights] == [Fraction(1, 2), Fraction(3, 10), Fraction(1, 5)]


def test_w2__share_on_the_edge_of_its_band_does_not_trigger() -> None:
    step = _w2(WBTC=5_220, WETH=2_700, USDC=2_080)
    decided = decide(step)
    assert [d.share for d in decided.drifts] == [Fraction(522, 1_000), Fraction(27, 100), Fraction(208, 1_000)]
    assert isinstance(decided.decision, Hold)
    assert mentions(decided.decision.reason, "closest", "WETH", "27 %", "0 points", "27-33 %")


def test_w4_one_asset_doubles_alone() -> None:
    step = step_input(
        {"WBTC": 5_000, "WETH": 3_000, "ARB": 2_000},
        {"WBTC": 5_000, "WETH": 3_000, "ARB": 4_000},
        {"WBTC": 50_000, "ARB": 2},
        kinds=[PriceSource.SPOT],
        trigger=TENTH,
    )
    decided = decide(step)
    assert [d.share for d in decided.drifts] == [Fraction(5, 12), Fraction(1, 4), Fraction(1, 3)]
    assert [d.weight_bps for d in decided.drifts] == [4_167, 2_500, 3_333]
    assert _outside(step) == ["WBTC", "WETH", "ARB"]
    assert _trades(step) == {"WBTC": 1_000, "WETH": 600, "ARB": -1_600}


def test_w8_a_half_acts_below_4500_and_above_5500_of_10000() -> None:
    for weth, acts in ((4_499, True), (4_500, False), (5_000, False), (5_500, False), (5_501, True)):
        decision = decide(step_input(values={"WETH": weth, "USDC": 10_000 - weth}, trigger=TENTH)).decision
        assert isinstance(decision, Rebalance) is acts


def test_w8__alert_prices_are_minus_18_2_and_plus_22_2_percent() -> None:
    step = step_input(trigger=TENTH)
    weth = decide(step).drifts[0]
    low, high = band_edge_prices(decide(step).drifts)[weth.token]
    assert low is not None
    assert high is not None
    assert low / weth.price - 1 == Fraction(-2, 11)
    assert high / weth.price - 1 == Fraction(2, 9)
    assert [round(float(price / weth.price - 1) * 100, 1) for price in (low, high)] == [-18.2, 22.2]
    prices = reference_prices(step).price_by_token
    for edge, hair in ((low, Fraction(-1, BPS)), (high, Fraction(1, BPS))):
        assert not compute_drifts(step, prices | {weth.token: edge})[0].is_outside_band
        assert compute_drifts(step, prices | {weth.token: edge * (1 + hair)})[0].is_outside_band
    assert not compute_drifts(step, prices | {weth.token: weth.price * Fraction(9, 10)})[0].is_outside_band
    assert not compute_drifts(step, prices | {weth.token: weth.price * Fraction(11, 10)})[0].is_outside_band


def test_time_triggers_reach_the_same_trades_as_bands() -> None:
    values = {"WBTC": 5_800, "WETH": 2_700, "USDC": 1_500}
    prices = {"WBTC": 58_000, "WETH": 2_700}
    timed = step_input({"WBTC": 5_000, "WETH": 3_000, "USDC": 2_000}, values, prices, trigger=Every(86_400))
    assert isinstance(decide(timed).decision, Rebalance)
    assert _trades(timed) == _trades(_w2(**values))
