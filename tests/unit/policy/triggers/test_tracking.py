"""The tracking trigger on a step: when it fires, where its plans end, and what it leaves alone."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent import codec
from agent.app.documents.past.step_history import _weight_sentence, _zone_sentences
from agent.app.documents.status import PortfolioStatus, status_document
from agent.errors import Refused
from agent.model import Decision, Hold, NoTradeZone, PastPrices, Rebalance, StepInput, TradeSide
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import decide
from agent.policy.risk import covariance
from agent.policy.triggers.bands import format_band
from agent.policy.triggers.no_trade_zone import tradeoff_reason
from tests.support.builders import GWEI, history, price_of, token, v2_pool, with_history, with_limits, with_snapshot
from tests.support.decisions.tracking import (
    DEPTH,
    ON_TARGET,
    TARGETS,
    balance_changes,
    interval,
    pools_of,
    tracking_step,
    weights_after,
    zone_of,
)
from tests.support.plans import proposed_plan
from tests.support.text import mentions


@pytest.mark.parametrize("symbol", ["WETH", "WBTC", "LINK"])
@pytest.mark.parametrize("side", [1, -1], ids=["above", "below"])
@pytest.mark.parametrize(
    ("share", "kind"),
    [
        pytest.param(Fraction(99, 100), Hold, id="a hundredth within"),
        pytest.param(Fraction(101, 100), Rebalance, id="a hundredth beyond"),
    ],
)
def test_asset_fires_beyond_its_trigger_and_not_before(symbol: str, side: int, share: Fraction, kind: type[Decision]) -> None:
    usual = interval(tracking_step(), symbol)
    width = (usual.trigger_high - usual.trigger_low) / 2
    dollars = round(side * width * share * 50_000)
    decision = decide(tracking_step(balance_changes(**{symbol: dollars}))).decision
    assert isinstance(decision, kind), decision.reason
    assert symbol in decision.reason


@pytest.mark.parametrize("symbol", ["WETH", "WBTC", "LINK"])
@pytest.mark.parametrize("side", ["trigger_low", "trigger_high"])
def test_range_moves_along_with_a_price_that_moves_alone(symbol: str, side: str) -> None:
    """It is left a quarter to two fifths further on than at the price of its edge, as docs/alerts.md says."""
    edge = getattr(interval(tracking_step(), symbol), side)
    others = sum(ON_TARGET.values()) - ON_TARGET[symbol]
    change = others * edge / (1 - edge) - ON_TARGET[symbol]
    for factor, kind in ((Fraction(6, 5), Hold), (Fraction(3, 2), Rebalance)):
        moved = ON_TARGET | {symbol: round(ON_TARGET[symbol] + change * factor)}
        assert isinstance(decide(tracking_step(moved)).decision, kind)


@pytest.mark.parametrize("symbol", ["WETH", "WBTC", "LINK"])
def test_asset_is_traded_back_to_its_edge(symbol: str) -> None:
    usual = interval(tracking_step(), symbol)
    target = TARGETS[symbol] / 100
    after = weights_after(tracking_step(balance_changes(**{symbol: 6_000})))
    edge = float(usual.high) * 100 - target
    assert target + edge * 0.85 < after[symbol] < target + edge * 1.25, "the whole plan weighs all assets and its gas"
    assert all(after[other] == pytest.approx(TARGETS[other] / 100, abs=0.05) for other in TARGETS if other not in (symbol, "USDC"))


def test_correlated_assets_off_in_opposite_ways_fire_sooner() -> None:
    """A coin in place of another is less of a risk than the same coin in place of cash."""
    together = tracking_step(balance_changes(WETH=3_000, WBTC=3_000))
    apart = tracking_step(balance_changes(WETH=3_000, WBTC=-3_000))
    assert isinstance(decide(together).decision, Rebalance)
    assert isinstance(decide(apart).decision, Hold)


@pytest.mark.parametrize(("strictness", "fires"), [("relaxed", False), ("normal", True), ("strict", True)])
def test_strictness_decides_how_soon(strictness: str, fires: bool) -> None:
    step = tracking_step(balance_changes(WETH=3_300), strictness)
    assert isinstance(decide(step).decision, Rebalance if fires else Hold)


@pytest.mark.parametrize("fee_pips", [500, 10_000])
def test_costlier_pools_make_wider_ranges(fee_pips: int) -> None:
    pools = pools_of(DEPTH, fee_pips)
    usual = interval(tracking_step(), "WETH")
    changed = interval(tracking_step(pools=pools), "WETH")
    assert (changed.trigger_high - changed.trigger_low > usual.trigger_high - usual.trigger_low) is (fee_pips > 3_000)


def test_skewed_pool_counts_by_half_either_way() -> None:
    """One direction loses by it, and the width is that of the mean of both."""
    widths = []
    for skew in (Fraction(997, 1_000), Fraction(1), Fraction(1_003, 1_000)):
        ether = v2_pool(token("WETH"), token("USDC"), price_of("WETH") * skew, DEPTH)
        row = interval(tracking_step(pools=[ether, *pools_of(DEPTH)[1:]]), "WETH")
        widths.append(float(row.high - row.low))
    below, level, above = widths
    assert below == pytest.approx(above, rel=1e-3)
    assert below == pytest.approx(level * 1.5 ** (1 / 3), rel=0.05)


@pytest.mark.parametrize(("ether_pips", "link_pips"), [(500, 10_000), (10_000, 500), (3_000, 3_000)])
def test_risk_of_a_pair_counts_over_the_shorter_horizon(ether_pips: int, link_pips: int) -> None:
    """Qᵢᵢ/Σᵢᵢ are the horizons, and Qᵢⱼ = ¾·Σᵢⱼ·min(Hᵢ, Hⱼ)."""
    ether, bitcoin, link = pools_of(DEPTH)
    pools = [replace(ether, fee_pips=ether_pips), bitcoin, replace(link, fee_pips=link_pips)]
    step = tracking_step(pools=pools)
    trigger = step.policy.trigger
    assert isinstance(trigger, NoTradeZone)
    tokens = [token("WETH").address, token("LINK").address]
    over_a_year = covariance(trigger.risk, tokens)
    over_horizons = covariance(zone_of(step).risk, tokens)
    horizons = [float(over_horizons[index][index] / over_a_year[index][index]) for index in range(2)]
    assert min(horizons) < 0.9 * max(horizons)
    assert float(over_horizons[0][1] / over_a_year[0][1]) == pytest.approx(0.75 * min(horizons), rel=2e-3)


def test_asset_without_a_pool_never_fires_and_is_named() -> None:
    pools = pools_of(DEPTH)[:2]
    step = tracking_step(balance_changes(LINK=9_000), pools=pools)
    decision = decide(step).decision
    assert mentions(decision.reason, "no usable pool trades LINK")
    assert (interval(step, "LINK").trigger_low, interval(step, "LINK").trigger_high) == (0, 1)


def test_coins_that_trade_only_with_each_other_hold() -> None:
    """No pool trades the numeraire, so no range is known; a year's saving is no substitute."""
    step = tracking_step(balance_changes(WETH=9_000, WBTC=-9_000), pools=[v2_pool(token("WETH"), token("WBTC"), "1/30", DEPTH)])
    assert zone_of(step).risk.widths == ()
    assert all((row.trigger_low, row.trigger_high) == (0, 1) for row in zone_of(step).intervals)
    assert propose_rebalance(step).plan is None


def test_asset_sold_out_is_not_closest_to_an_edge() -> None:
    targets = {"WETH": 0, "WBTC": 5_000, "LINK": 2_000, "USDC": 3_000}
    step = tracking_step({"WBTC": 25_000, "LINK": 10_000, "USDC": 15_000}, targets=targets)
    decision = decide(step).decision
    assert mentions(decision.reason, "closest is LINK")


def test_target_of_zero_is_sold_to_the_last_unit() -> None:
    targets = {"WETH": 2_500, "WBTC": 2_500, "LINK": 0, "USDC": 5_000}
    step = tracking_step(ON_TARGET, targets=targets)
    after = weights_after(step)
    assert after["LINK"] == 0
    assert all(after[symbol] == pytest.approx(25, abs=0.1) for symbol in ("WETH", "WBTC"))


@pytest.mark.parametrize(("dollars", "min_trade"), [(9, 10), (60, 100), (1, 0)], ids=["small", "large", "below its gas"])
def test_target_of_zero_leaves_dust(dollars: int, min_trade: int) -> None:
    targets = {"WETH": 2_500, "WBTC": 2_500, "LINK": 0, "USDC": 5_000}
    values = {"WETH": 12_500, "WBTC": 12_500, "LINK": dollars, "USDC": 25_000 - dollars}
    decision = decide(with_limits(tracking_step(values, targets=targets), min_trade=Fraction(min_trade * 10**6))).decision
    assert isinstance(decision, Hold)
    assert decision.reason.startswith("all within their ranges")


@pytest.mark.parametrize("side", [TradeSide.SELL, TradeSide.BUY])
def test_tracking_trades_only_its_side(side: TradeSide) -> None:
    step = tracking_step(balance_changes(WETH=6_000, LINK=-9_000))
    step = replace(step, policy=replace(step.policy, trade_side=side))
    after = weights_after(step)
    before = {drift.symbol: float(drift.share) * 100 for drift in decide(step).drifts}
    is_sold = after["WETH"] < before["WETH"] - 0.1
    is_bought = after["LINK"] > before["LINK"] + 0.1
    assert (is_sold, is_bought) == (side is TradeSide.SELL, side is TradeSide.BUY)


@pytest.mark.parametrize("is_leaving", [True, False], ids=["an asset that leaves", "one side"])
def test_asset_without_a_pool_stays_beside_a_goal_without_risk(is_leaving: bool) -> None:
    targets = {"WETH": 0, "WBTC": 4_000, "LINK": 3_000, "USDC": 3_000} if is_leaving else TARGETS
    step = tracking_step(balance_changes(WETH=9_000, LINK=-3_000), targets=targets, pools=pools_of(DEPTH)[:2])
    if not is_leaving:
        step = replace(step, policy=replace(step.policy, trade_side=TradeSide.SELL))
    plan = proposed_plan(step)
    changes = plan.wallet_changes()
    assert changes[token("WETH").address] < 0
    assert changes.get(token("LINK").address, 0) == 0


@pytest.mark.parametrize("dollars", [-2_500, -1_000, 1_000, 2_500])
def test_asset_without_target_and_holdings_never_fires(dollars: int) -> None:
    """As after a stop loss: its range does not move with those of correlated assets."""
    targets = {"WETH": 3_500, "WBTC": 3_500, "LINK": 0, "USDC": 3_000}
    values = {"WETH": 17_500 + dollars, "WBTC": 17_500, "LINK": 0, "USDC": 15_000 - dollars}
    step = tracking_step(values, targets=targets)
    assert (interval(step, "LINK").trigger_low, interval(step, "LINK").high) == (0, 0)
    assert isinstance(decide(step).decision, Hold)
    assert "LINK" not in decide(step).decision.reason
    leaving = tracking_step({**values, "LINK": 500, "USDC": values["USDC"] - 500}, targets=targets)
    assert "LINK at 1 %, target 0 %, is beyond" in decide(leaving).decision.reason
    assert weights_after(leaving)["LINK"] == 0


ALL_CASH = {"WETH": 0, "WBTC": 0, "LINK": 0, "USDC": 50_000}
CHEAP_PAIR = [*pools_of(DEPTH), v2_pool(token("WETH"), token("WBTC"), "1/30", DEPTH, fee_pips=500)]


@pytest.mark.parametrize(
    ("values", "pools", "conditional_symbols"),
    [
        pytest.param(ALL_CASH, pools_of(DEPTH), {"WETH", "WBTC", "LINK"}, id="all cash"),
        pytest.param(balance_changes(WETH=9_000, WBTC=9_000), pools_of(DEPTH), {"WBTC"}, id="two overweight"),
        pytest.param(balance_changes(WETH=9_000, WBTC=-9_000), CHEAP_PAIR, {"WETH", "WBTC"}, id="pair"),
    ],
)
def test_range_without_its_target_names_its_condition(values: dict[str, int], pools: list[Any], conditional_symbols: set[str]) -> None:
    """Correlated assets move it: it holds only while the others stay as they are."""
    step = tracking_step(values, pools=pools)
    texts = [text for text in decide(step).decision.reason.split("; ") if "is beyond" in text]
    assert {text.split()[0] for text in texts if text.endswith(" % at these weights of the others")} == conditional_symbols
    for text in texts:
        row = interval(step, text.split()[0])
        assert (row.trigger_low <= row.target_bps / Fraction(10_000) <= row.trigger_high) is (text.split()[0] not in conditional_symbols)


@pytest.mark.parametrize(
    ("values", "symbols"),
    [
        pytest.param(balance_changes(WETH=-9_000, LINK=12_000), ["LINK", "WETH"], id="the furthest first"),
        pytest.param(balance_changes(WBTC=9_000, WETH=-400), ["WBTC", "WETH"], id="last what only the others bring there"),
    ],
)
def test_assets_beyond_their_ranges_are_named_by_how_far(values: dict[str, int], symbols: list[str]) -> None:
    """Pages show the first one of a long reason."""
    reason = decide(tracking_step(values)).decision.reason
    assert [text.split()[0].removesuffix(":") for text in reason.split("; ")] == symbols, reason


@pytest.mark.parametrize(
    ("values", "own", "amount"),
    [
        pytest.param(balance_changes(WETH=9_000, WBTC=-400), "WETH", "much", id="below its target, as the others are above"),
        pytest.param(balance_changes(WETH=-9_000, WBTC=400), "WETH", "little", id="above its target, as the others are below"),
        pytest.param(balance_changes(WETH=9_000), "WETH", "much", id="on its target"),
    ],
)
def test_asset_that_the_others_bring_beyond_its_range_is_not_said_to_trade_to_it(values: dict[str, int], own: str, amount: str) -> None:
    """The plan trades the others: no sentence says that this one goes away from its target."""
    step = tracking_step(values)
    decision_result = decide(step)
    zone = decision_result.zone
    after = weights_after(step)
    for drift in decision_result.drifts[:3]:
        sentences = [
            next(words for words in decision_result.decision.reason.split("; ") if drift.symbol in words),
            _weight_sentence(drift, step.portfolio.numeraire, is_zone=True, has_band=True),
            next(words for words in _zone_sentences(zone, step) if words.startswith(drift.symbol)),
        ]
        is_told = [f"the others have too {amount} that moves with it" in words for words in sentences]
        assert is_told == [drift.symbol != own] * 3, sentences
        assert (after[drift.symbol] == pytest.approx(float(drift.share) * 100, abs=0.1)) is (drift.symbol != own)


@pytest.mark.parametrize("approval_gas", [Fraction(0), Fraction(2_900)], ids=["approved before", "to approve"])
def test_approvals_are_a_cost_only_where_they_are_still_to_be_sent(approval_gas: Fraction) -> None:
    step = tracking_step(balance_changes(WETH=9_000))
    zone = propose_rebalance(step).decision_result.zone
    assert zone is not None
    assert zone.plan_tradeoff is not None
    tradeoff = replace(zone.plan_tradeoff, approval_gas=approval_gas)
    tradeoff_sentence = _zone_sentences(replace(zone, plan_tradeoff=tradeoff), step)[-1]
    assert ("approvals 0.0029 USDC" in tradeoff_sentence) is bool(approval_gas)
    for text in (tradeoff_sentence, tradeoff_reason(tradeoff, step.portfolio, zone)):
        assert ("approvals" in text) is bool(approval_gas)


def test_numeraire_has_no_range() -> None:
    step = tracking_step(balance_changes(WETH=9_000))
    decision_result = decide(step)
    sentences = [
        *_zone_sentences(decision_result.zone, step),
        *(_weight_sentence(drift, step.portfolio.numeraire, is_zone=True, has_band=True) for drift in decision_result.drifts),
    ]
    assert not [words for words in sentences if "0 % or 100 %" in words or "0-100 %" in words]


def test_first_purchase__goes_to_the_targets() -> None:
    step = tracking_step({"USDC": 50_000})
    step = with_limits(replace(step, history=history()), first_purchase_s=86_400)
    after = weights_after(step)
    assert all(after[symbol] == pytest.approx(TARGETS[symbol] / 100, abs=0.3) for symbol in ("WETH", "WBTC", "LINK"))


@pytest.mark.parametrize(("past_price", "fires"), [(3_000, True), (2_000, False)])
def test_tracking_holds_where_past_blocks_disagree(past_price: int, fires: bool) -> None:
    """The price jumped within a block: at the blocks before, nothing was beyond its trigger."""
    step = tracking_step(balance_changes(WETH=5_000), prices={"WETH": 3_000})
    head = step.snapshot.head
    before = tracking_step(prices={"WETH": past_price}).snapshot
    past = tuple(
        PastPrices(replace(head, number=head.number - back, timestamp_s=head.timestamp_s - 12 * back), before.feeds, before.pools)
        for back in (1, 2)
    )
    step = replace(with_snapshot(step, past_prices=past), policy=replace(step.policy, confirm_blocks=2))
    decision = decide(step).decision
    assert isinstance(decision, Rebalance if fires else Hold), decision.reason
    assert fires or mentions(decision.reason, "the prices did not confirm it")


@pytest.mark.parametrize("dollars", [0, 5_000, -9_000])
def test_recorded_tracking_step_decides_the_same(dollars: int) -> None:
    step = tracking_step(balance_changes(WETH=dollars))
    again = codec.loads(StepInput, codec.dumps(step))
    assert again == step
    assert decide(again) == decide(step)


def test_plan_whose_impact_takes_the_saving_is_smaller_or_none() -> None:
    """The trigger knows fees and gas; the planner knows the pools, and moves in parts."""
    deep = propose_rebalance(tracking_step(balance_changes(WETH=9_000))).plan
    shallow_pools = pools_of(1_000_000)
    shallow = propose_rebalance(tracking_step(balance_changes(WETH=9_000), pools=shallow_pools)).plan
    assert shallow.turnover < deep.turnover * Fraction(2, 3)
    for plan in (deep, shallow):
        assert plan.zone_tradeoff.covers_cost


def small_in_shallow_pools(plan_cost_bps: int) -> StepInput:
    """13,000 dollars, WBTC beyond its trigger, pools of 500,000 dollars a side, gas of 43 cents a swap."""
    values = {"WETH": 3_250, "WBTC": 7_150, "LINK": 800, "USDC": 1_800}
    step = tracking_step(values, pools=pools_of(1_000_000))
    head = replace(step.snapshot.head, base_fee_wei=GWEI)
    return with_limits(with_snapshot(step, head=head), plan_cost_bps=plan_cost_bps)


def test_plan_makes_the_swaps_whose_gas_fits_plan_cost() -> None:
    """Smaller swaps bear more gas a unit, so that the bound on a unit alone ended without a plan."""
    plan = proposed_plan(small_in_shallow_pools(50))
    assert plan.cost.total * 10_000 <= 50 * plan.turnover
    assert plan.zone_tradeoff.saved_risk > 2 * plan.zone_tradeoff.cost


def test_plan_whose_swaps_exceed_plan_cost_names_the_limit() -> None:
    decision = propose_rebalance(small_in_shallow_pools(25)).decision_result.decision
    assert isinstance(decision, Hold)
    assert decision.limiting_rule == "limits.plan_cost"
    assert mentions(decision.reason, "plan_cost allows")
    assert "floor" not in decision.reason


@pytest.mark.parametrize("gwei", [20, 200])
def test_plan__gas_rose__waits_longer(gwei: int) -> None:
    step = tracking_step(balance_changes(WETH=3_300))
    head = replace(step.snapshot.head, base_fee_wei=gwei * GWEI)
    assert isinstance(decide(step).decision, Rebalance)
    decision = decide(with_snapshot(step, head=head)).decision
    assert isinstance(decision, Hold)


def test_first_purchase_names_no_range_that_it_does_not_end_at() -> None:
    step = with_limits(replace(tracking_step({"USDC": 50_000}), history=history()), first_purchase_s=60)
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    assert decision.reason == "first purchase; WETH at 0 %, target 25 %; WBTC at 0 %, target 25 %; LINK at 0 %, target 20 %"


@pytest.mark.parametrize(
    ("targets", "closest"),
    [
        ({"WETH": 0, "WBTC": 5_000, "USDC": 5_000}, "WBTC at 50 %"),
        ({"WETH": 0, "WBTC": 0, "USDC": 10_000}, ""),
    ],
    ids=["one-left", "only-cash"],
)
def test_sold_asset_is_never_closest_to_its_range(targets: dict[str, int], closest: str) -> None:
    reason = decide(tracking_step({symbol: 5 * bps for symbol, bps in targets.items()}, targets=targets)).decision.reason
    assert "WETH" not in reason
    assert ("closest" in reason) is bool(closest)
    assert closest in reason


def step_with_skewed_pool(skew: Fraction) -> StepInput:
    """Return a step that sells WETH, in a pool whose price of it is the reference times `skew`."""
    pools = [v2_pool(token("WETH"), token("USDC"), price_of("WETH") * skew, DEPTH)]
    halves = {"WETH": 5_000, "USDC": 5_000}
    return with_limits(tracking_step({"WETH": 40_000, "USDC": 10_000}, targets=halves, pools=pools), slippage_bps=30)


def test_pools_below_their_floor_are_refused_as_with_bands() -> None:
    """A pool that lags or is pushed is a fault of the market, which alerts; a trade that is not worth it is a hold."""
    with pytest.raises(Refused, match="pays less than the floor"):
        propose_rebalance(step_with_skewed_pool(Fraction(9, 10)))


def test_pool_above_its_floor_is_traded() -> None:
    assert propose_rebalance(step_with_skewed_pool(Fraction(999, 1000))).plan is not None


def test_pool_below_its_floor_matters_only_beyond_a_range() -> None:
    """WETH fires and is not worth its gas; LINK is off its target, and would not be traded anyway."""
    depth = 200_000
    lagging = v2_pool(token("LINK"), token("USDC"), price_of("LINK") * Fraction(9, 10), depth)
    step = with_limits(tracking_step(balance_changes(WETH=3_700, LINK=1_500), pools=[*pools_of(depth)[:2], lagging]), slippage_bps=30)
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=GWEI))
    assert isinstance(decide(step).decision, Rebalance)
    decision = propose_rebalance(step).decision_result.decision
    assert isinstance(decision, Hold)
    assert mentions(decision.reason, "WETH", "is beyond", "pays less than the floor")


@pytest.mark.parametrize("is_first", [True, False])
def test_first_purchase_goes_to_the_targets_and_says_so(is_first: bool) -> None:
    step = with_limits(tracking_step({"WETH": 0, "WBTC": 0, "USDC": 10_000}), first_purchase_s=600)
    if is_first:
        step = with_history(step, last_rebalance_s=None)
    decision_result = decide(step)
    status: Any = status_document(PortfolioStatus(step, decision_result, False, "", ()))
    weth = next(holding for holding in status["holdings"] if holding["symbol"] == "WETH")
    target = [weth["target_bps"]] * 2
    assert (weth["back_to_bps"] == target) is is_first
    [sentence] = [words for words in _zone_sentences(decision_result.zone, step) if "WETH is moved beyond" in words]
    assert sentence.startswith("After the first purchase, WETH") is is_first


def test_first_rebalance_that_sells_says_the_bands_at_its_targets() -> None:
    """At the weights before it those of correlated assets end below zero."""
    targets = {"WETH": 500, "WBTC": 500, "USDC": 9_000}
    step = tracking_step({"WETH": 3_000, "WBTC": 4_000, "USDC": 3_000}, targets=targets)
    step = with_history(with_limits(step, first_purchase_s=600), last_rebalance_s=None)
    zone = decide(step).zone
    at_targets = decide(tracking_step(targets, targets=targets)).zone
    assert zone is not None
    assert at_targets is not None
    assert "0-0 %" in format_band(decide(step).drifts[0])

    for after in at_targets.intervals[:2]:
        assert after.trigger_low < after.low < Fraction(1, 20) < after.high < after.trigger_high
    for symbol in ("WETH", "WBTC"):
        [sentence] = [words for words in _zone_sentences(zone, step) if f"{symbol} is moved beyond" in words]
        assert sentence.startswith(f"After the first rebalance, {symbol}")
        low, high = re.findall(r"traded to ([\d.]+) % to ([\d.]+) %", sentence)[0]
        assert float(low) < 5 < float(high)


def test_band_that_the_weights_of_the_others_leave_no_room_is_left_out() -> None:
    """After an edit of the targets; one asset alone would be sold to nothing, all together are not."""
    targets = {"WETH": 500, "WBTC": 500, "USDC": 9_000}
    step = tracking_step({"WETH": 3_000, "WBTC": 4_000, "USDC": 3_000}, targets=targets)
    decision_result = decide(step)
    sentences = _zone_sentences(decision_result.zone, step)
    assert not [words for words in sentences if "0 % or 0 %" in words]
    assert [
        words
        for words in sentences
        if mentions(words, "WETH has no band at these weights of the others", "Correcting it alone was estimated at")
    ]
    assert _weight_sentence(decision_result.drifts[0], step.portfolio.numeraire, is_zone=True, has_band=True).endswith(
        "30.00 % against 5 %, outside."
    )
    assert [words for words in _zone_sentences(decide(tracking_step()).zone, tracking_step()) if "WETH is moved beyond" in words]


# --- Two coins with a pool of their own


def swapped_step(dollars: int, pair_fee_pips: int) -> StepInput:
    """WETH was bought for WBTC. Both have pools of 0.3 % with the numeraire, and one with each other."""
    price = price_of("WETH") / price_of("WBTC")
    pair_pool = v2_pool(token("WETH"), token("WBTC"), price, DEPTH, fee_pips=pair_fee_pips)
    return tracking_step(balance_changes(WETH=dollars, WBTC=-dollars), pools=[*pools_of(DEPTH), pair_pool])


@pytest.mark.parametrize("pair_fee_pips", [100, 500, 2_600], ids=lambda pips: f"{pips / 10_000} %")
@pytest.mark.parametrize("side", [1, -1], ids=["too-much-WETH", "too-much-WBTC"])
def test_cheap_pair_fires_beyond_its_own_trigger_and_ends_at_its_edge(pair_fee_pips: int, side: int) -> None:
    (width,) = zone_of(swapped_step(0, pair_fee_pips)).risk.pair_widths
    trigger_dollars = width.trigger_ppm * 50_000 // 1_000_000
    assert isinstance(decide(swapped_step(side * (trigger_dollars - 5), pair_fee_pips)).decision, Hold)
    step = swapped_step(side * (trigger_dollars + 5), pair_fee_pips)
    (leg,) = proposed_plan(step).legs
    assert {leg.token_in, leg.token_out} == {token("WETH").address, token("WBTC").address}
    assert weights_after(step)["WETH"] - 25 == pytest.approx(side * width.edge_ppm / 10_000, abs=0.25)


@pytest.mark.parametrize("pair_fee_pips", [2_750, 3_000, 10_000], ids=lambda pips: f"{pips / 10_000} %")
def test_pair_about_as_dear_as_a_coin_changes_nothing(pair_fee_pips: int) -> None:
    zone = zone_of(swapped_step(2_000, pair_fee_pips))
    assert zone.risk.pair_widths == ()
    assert zone.intervals == zone_of(tracking_step(balance_changes(WETH=2_000, WBTC=-2_000))).intervals


def test_correction_of_a_pair_is_priced_by_its_own_pool() -> None:
    """0.05 % of what is exchanged and a swap's gas, 150,000 at a quarter of a gwei and 2,000 dollars."""
    step = swapped_step(2_500, 500)
    (width,) = zone_of(step).risk.pair_widths
    exchanged = 2_500 - width.edge_ppm * 50_000 / 1_000_000
    assert float(interval(step, "WETH").correction.cost) / 10**6 == pytest.approx(0.0005 * exchanged + 0.075, rel=1e-3)


@pytest.mark.parametrize("side", list(TradeSide))
def test_one_sided_policy_exchanges_no_pair(side: TradeSide) -> None:
    """An exchange of two coins is a sale and a purchase."""
    step = swapped_step(2_500, 500)
    one_sided = replace(step, policy=replace(step.policy, trade_side=side))
    assert isinstance(decide(step).decision, Rebalance)
    assert isinstance(decide(one_sided).decision, Hold)
    assert zone_of(one_sided).risk.pair_widths == ()
