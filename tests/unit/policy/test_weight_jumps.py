"""A choice that one return decides, or that moves a weight far, waits for the owner; the last weights stay meanwhile."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from agent.errors import Refused
from agent.layers.inputs import apply_effective_targets
from agent.layers.signals.state import SignalState
from agent.model import (
    Allocation,
    AllocationMethod,
    AllocatorConfig,
    FuturesRisk,
    FuturesSide,
    Halt,
    InitialWeights,
    PricePoint,
    SignalAnswer,
    SignalSettings,
    StepInput,
    WeightLimit,
)
from agent.policy.decide import decide
from agent.policy.target_changes import allocator_inputs
from agent.policy.targets import choose_allocation, settings_hash
from agent.weights.returns import Returns, require_no_dominant_return
from tests.support.builders import NOW_S, token
from tests.support.planning_worlds import DAY_S, allocator, moves, recorded, weighed
from tests.support.text import mentions

METHODS = [AllocationMethod.INVERSE_VOLATILITY, AllocationMethod.MINIMUM_VARIANCE, AllocationMethod.RISK_PARITY, AllocationMethod.HRP]
WBTC = token("WBTC").address


def changed(prices: tuple[PricePoint, ...], factor: Fraction, days_ago: int) -> tuple[PricePoint, ...]:
    """The recorded prices with one of WBTC multiplied."""
    points = sorted((point for point in prices if point.token == WBTC), key=lambda point: point.at_s)
    wrong = points[-1 - days_ago]
    return tuple(replace(point, price=point.price * factor) if point is wrong else point for point in prices)


def step_of(method: AllocationMethod, prices: tuple[PricePoint, ...], **settings: object) -> StepInput:
    return weighed(allocator(method, **settings), prices)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [Fraction(100), Fraction(1, 100), Fraction(1, 60_000), Fraction(3)])
@pytest.mark.parametrize("days_ago", [0, 1, 45])
def test_no_allocator_chooses_by_one_wrong_price(method: AllocationMethod, factor: Fraction, days_ago: int) -> None:
    pytest.importorskip("skfolio")
    sound = recorded(moves())
    last = apply_effective_targets(step_of(method, sound)).history.allocation
    assert last is not None
    step = step_of(method, changed(sound, factor, days_ago))
    waiting = apply_effective_targets(step)
    assert waiting.history.allocation is None
    assert mentions(waiting.history.allocation_fault, "one return makes", "of the variance of WBTC", "trimtab weights --accept")


def test_the_owner_may_accept_what_one_return_decides() -> None:
    step = step_of(AllocationMethod.INVERSE_VOLATILITY, changed(recorded(moves()), Fraction(100), 45))
    settings = step.portfolio.allocator
    assert settings is not None
    with pytest.raises(Refused, match="one return makes") as caught:
        choose_allocation(settings, step.portfolio.assets, allocator_inputs(step), None)
    assert str(caught.value).count("trimtab weights --accept") == 1
    accepted = choose_allocation(settings, step.portfolio.assets, replace(allocator_inputs(step), accepts_jumps=True), None)
    assert accepted.weight_bps(WBTC) < 100


def returns_of(column: list[float]) -> Returns:
    rows = len(column)
    other = [0.01 * (-1) ** row for row in range(rows)]
    return Returns(("A", "B"), np.array([other, column]).T, DAY_S, 0, rows * DAY_S, 0, tuple(range(rows)))


CALM = [0.02, -0.02, 0.03, -0.03, 0.01, -0.01, 0.02, -0.02, 0.03, -0.03] * 3


LABELS = {"A": "WETH", "B": "WBTC"}


@pytest.mark.parametrize(
    "column",
    [
        pytest.param([*CALM[:15], -0.40, *CALM[15:]], id="a crash that decides"),
        pytest.param([*CALM[:15], 99.0, -0.99, *CALM[15:]], id="a wrong price"),
        pytest.param([*CALM[:15], -0.99, 99.0, *CALM[15:]], id="a price near zero"),
        pytest.param([*CALM, 5.0], id="the last"),
        pytest.param([5.0, *CALM], id="the first"),
        pytest.param([*CALM[:11], 99.0], id="nearly all of few"),
        pytest.param([*CALM[:9], -0.99], id="nearly all of ten"),
    ],
)
def test_one_return_above_half_of_a_variance_is_refused(column: list[float]) -> None:
    with pytest.raises(Refused, match="of the variance of WBTC"):
        require_no_dominant_return(returns_of(column), LABELS)


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(CALM, id="calm"),
        pytest.param([*CALM[:15], -0.10, *CALM[15:]], id="a fall that does not decide"),
        pytest.param([*CALM[:11], -0.09], id="half of few"),
        pytest.param([0.0, 0.0, 0.0, 0.5], id="too few to tell"),
    ],
)
def test_returns_without_a_dominant_one_pass(column: list[float]) -> None:
    require_no_dominant_return(returns_of(column), LABELS)


def test_half_of_a_variance_is_the_limit() -> None:
    """Of 20 returns with mean near 0, of which 18 are ±1 %, one of r % has the share r²/(18 + r²), up to the mean."""
    pairs = [0.01, -0.01] * 9
    require_no_dominant_return(returns_of([*pairs, 0.042, 0.0]), {"A": "A", "B": "B"})
    with pytest.raises(Refused, match="one return makes 51 % of the variance of B"):
        require_no_dominant_return(returns_of([*pairs, 0.047, 0.0]), {"A": "A", "B": "B"})


def last_with(step: StepInput, **bps_by_symbol: int) -> Allocation:
    """The last choice of the step's settings, with other weights."""
    chosen = apply_effective_targets(step).history.allocation
    assert chosen is not None
    weights_bps = {token(symbol).address: bps for symbol, bps in bps_by_symbol.items()}
    return replace(chosen, weights_bps=tuple(sorted(weights_bps.items())), at_s=NOW_S - 7 * DAY_S)


FAR = {"WETH": 5_000, "WBTC": 1_000, "LINK": 1_000, "UNI": 1_000, "USDC": 2_000}


@pytest.mark.parametrize("limit_bps", [500, 1_000, 2_000])
def test_a_weight_that_jumps_waits_for_the_owner(limit_bps: int) -> None:
    settings = allocator(AllocationMethod.EQUAL, max_change_bps=limit_bps)
    step = weighed(settings, recorded(moves()))
    last = last_with(step, **FAR)
    due = replace(step, history=replace(step.history, allocation=last))
    waiting = apply_effective_targets(due)
    assert waiting.history.allocation == last, "the last choice stays"
    assert mentions(waiting.targets.reasons[-1], "WETH would move from 50 % to 20 %", f"max_change of {limit_bps / 100:g} %", "--accept")
    inputs = replace(allocator_inputs(due), accepts_jumps=True)
    accepted = choose_allocation(settings, step.portfolio.assets, inputs, last)
    assert accepted.weight_bps(token("WETH").address) == 2_000


@pytest.mark.parametrize("limit_bps", [None, 3_000, 5_000])
def test_a_weight_that_moves_within_the_limit_is_chosen(limit_bps: int | None) -> None:
    settings = allocator(AllocationMethod.EQUAL, max_change_bps=limit_bps)
    step = weighed(settings, recorded(moves()))
    due = replace(step, history=replace(step.history, allocation=last_with(step, **FAR)))
    chosen = apply_effective_targets(due).history.allocation
    assert chosen.weight_bps(token("WETH").address) == 2_000


def chosen_again_after(moved_bps: int) -> tuple[Allocation, Allocation]:
    """Return the first choice of futures and the next one, if the last one had moved so far, with `max_change` of 300 bps."""
    sides = tuple(FuturesSide(f"{symbol} market", token(symbol).address, symbol != "LINK") for symbol in ("WETH", "WBTC", "LINK"))
    risk = FuturesRisk(sides, 20_000, 2_000, 2_500, 10_000)
    settings = allocator(AllocationMethod.FUTURES_VOLATILITY, (), limits=(), futures=risk, max_change_bps=300)
    step = weighed(settings, recorded(moves()))
    inputs = allocator_inputs(step)
    first = choose_allocation(settings, step.portfolio.assets, inputs, None)
    weights_bps = dict(first.market_bps)
    last = replace(first, market_bps=tuple((weights_bps | {"WBTC market": weights_bps["WBTC market"] + moved_bps}).items()))
    return first, choose_allocation(settings, step.portfolio.assets, inputs, last)


@pytest.mark.parametrize("moved_bps", [-301, 301])
def test_weight_of_futures_that_jumps_is_refused(moved_bps: int) -> None:
    with pytest.raises(Refused, match="WBTC market would move from") as caught:
        chosen_again_after(moved_bps)

    assert str(caught.value).count("trimtab weights --accept") == 1


@pytest.mark.parametrize("moved_bps", [0, -300, 300])
def test_weight_of_futures_moves_up_to_the_limit(moved_bps: int) -> None:
    first, again = chosen_again_after(moved_bps)

    assert again.weights_bps == first.weights_bps


@pytest.mark.parametrize(("gone_bps", "stays"), [(0, True), (300, True), (301, False), (-301, False)])
def test_a_market_that_loses_its_weight_counts_for_the_churn(gone_bps: int, stays: bool) -> None:
    sides = tuple(FuturesSide(f"{symbol} market", token(symbol).address, is_long=True) for symbol in ("WETH", "WBTC"))
    risk = FuturesRisk(sides, 20_000, 2_000, 2_500, 10_000)
    settings = allocator(AllocationMethod.FUTURES_VOLATILITY, (), limits=(), futures=risk, churn_bps=300)
    step = weighed(settings, recorded(moves()))
    inputs = allocator_inputs(step)
    first = choose_allocation(settings, step.portfolio.assets, inputs, None)
    bps_by_market = dict(first.market_bps)
    last_bps_by_market = bps_by_market | {"WBTC market": bps_by_market["WBTC market"] + 100, "LINK market": gone_bps}
    last = replace(first, market_bps=tuple(last_bps_by_market.items()))

    chosen = choose_allocation(settings, step.portfolio.assets, inputs, last)

    assert dict(chosen.market_bps) == (last_bps_by_market if stays else bps_by_market)


METHODS = pytest.mark.parametrize("method", [AllocationMethod.EQUAL, AllocationMethod.FUTURES_VOLATILITY])


def choice_after(method: AllocationMethod, limit_bps: int | None, gone_bps: int, *, accepts_jumps: bool = False) -> Allocation:
    """Return the choice after one that gave this share to a market that no signal names any more."""
    sides = tuple(FuturesSide(f"{symbol} market", token(symbol).address, is_long=True) for symbol in ("WETH", "WBTC"))
    risks = {AllocationMethod.FUTURES_VOLATILITY: FuturesRisk(sides, 20_000, 2_000, 2_500, 10_000)}
    settings = allocator(method, (), limits=(), futures=risks.get(method), max_change_bps=limit_bps)
    step = weighed(settings, recorded(moves()))
    inputs = allocator_inputs(step)
    first = choose_allocation(settings, step.portfolio.assets, inputs, None)
    last = replace(first, market_bps=(*first.market_bps, ("LINK market", gone_bps)))
    return choose_allocation(settings, step.portfolio.assets, replace(inputs, accepts_jumps=accepts_jumps), last)


@METHODS
@pytest.mark.parametrize(("gone_bps", "share"), [(9_000, "90 %"), (-1, "-0.01 %")])
def test_a_market_that_loses_its_weight_waits_for_the_owner(method: AllocationMethod, gone_bps: int, share: str) -> None:
    """A signal that names no futures any more would give them back to the targets of the config."""
    with pytest.raises(Refused, match=f"LINK market would leave its {share} for the target of the config") as caught:
        choice_after(method, 300, gone_bps)
    assert str(caught.value).count("trimtab weights --accept") == 1


@METHODS
@pytest.mark.parametrize(
    ("limit_bps", "gone_bps", "accepts_jumps"),
    [
        pytest.param(300, 9_000, True, id="accepted, most"),
        pytest.param(300, -1, True, id="accepted, a basis point below zero"),
        pytest.param(300, 0, False, id="within the limit, nothing"),
        pytest.param(None, 9_000, False, id="without a limit, most"),
        pytest.param(None, -1, False, id="without a limit, a basis point below zero"),
    ],
)
def test_a_market_that_loses_its_weight_goes(method: AllocationMethod, limit_bps: int | None, gone_bps: int, accepts_jumps: bool) -> None:
    chosen = choice_after(method, limit_bps, gone_bps, accepts_jumps=accepts_jumps)
    assert "LINK market" not in dict(chosen.market_bps)


@pytest.mark.parametrize(
    ("initial", "waits"),
    [
        pytest.param(InitialWeights.TARGETS, True, id="a jump from the targets"),
        pytest.param(InitialWeights.WAIT, False, id="nothing before"),
    ],
)
def test_first_choice_is_compared_with_the_initial_targets(initial: InitialWeights, waits: bool) -> None:
    step = weighed(allocator(AllocationMethod.EQUAL, max_change_bps=400, initial_weights=initial), recorded(moves()))
    assert (apply_effective_targets(step).history.allocation is None) is waits


@pytest.mark.parametrize("limit_bps", [None, 300, 2_000])
def test_a_limit_on_changes_makes_no_choice_due(limit_bps: int | None) -> None:
    """A choice that was stored without the limit is the one that the next is compared with."""
    settings = allocator(AllocationMethod.RISK_PARITY, max_change_bps=limit_bps)
    assert settings_hash(settings, weighed(settings).portfolio.assets) == "1e5af158e2b8651e"


TREND = SignalSettings("trend", 5, file="trend.py:targets", sha256="0" * 64)
CHANGES = [
    pytest.param({"signal": replace(TREND, sha256="1" * 64)}, id="hash"),
    pytest.param({"signal": replace(TREND, file="other.py:targets")}, id="file"),
    pytest.param({"signal": replace(TREND, options=(("mean", "5"),))}, id="options"),
    pytest.param({"every_s": DAY_S}, id="every"),
    pytest.param({"limits": (WeightLimit(WBTC, 0, 9_000),)}, id="limits"),
]


def answered(step: StepInput, wbtc_ppm: int) -> StepInput:
    """The step with WBTC and USDC as the signal's targets."""
    spot_ppm = ((WBTC, wbtc_ppm), (token("USDC").address, 1_000_000 - wbtc_ppm))
    return step.with_layer(SignalState((SignalAnswer("trend", "", spot_ppm),)))


def changed_allocation(initial: InitialWeights, changes: dict[str, Any], ppm: int) -> tuple[AllocatorConfig, StepInput]:
    """Return changed settings, and a step at which the signal gives WBTC this share after one at which it gave 30 %."""
    settings = allocator(AllocationMethod.SIGNAL, (), signal=TREND, max_change_bps=2_000)
    last = apply_effective_targets(answered(weighed(settings), 300_000)).history.allocation
    assert last is not None
    edited = replace(settings, initial_weights=initial, **changes)
    step = answered(weighed(edited), ppm)
    return edited, replace(step, history=replace(step.history, allocation=last))


CHANGED = pytest.mark.parametrize("changes", CHANGES)
INITIAL = pytest.mark.parametrize("initial", InitialWeights)


@INITIAL
@CHANGED
def test_change_up_to_the_limit_under_changed_settings_is_made(initial: InitialWeights, changes: dict[str, Any]) -> None:
    _, step = changed_allocation(initial, changes, 500_000)
    allocation = apply_effective_targets(step).history.allocation
    assert allocation is not None
    assert allocation.weight_bps(WBTC) == 5_000


@INITIAL
@CHANGED
@pytest.mark.parametrize("ppm", [500_100, 800_000])
def test_jump_under_changed_settings_waits_beside_exits(initial: InitialWeights, changes: dict[str, Any], ppm: int) -> None:
    _, step = changed_allocation(initial, changes, ppm)
    decision = decide(apply_effective_targets(step)).decision
    assert isinstance(decision, Halt)
    assert mentions(decision.reason, "WBTC would move from 30 % to", "max_change of 20 %", "trimtab weights --accept")


@INITIAL
@CHANGED
@pytest.mark.parametrize("ppm", [500_000, 500_100, 800_000])
def test_jump_that_the_owner_accepts_stands(initial: InitialWeights, changes: dict[str, Any], ppm: int) -> None:
    edited, step = changed_allocation(initial, changes, ppm)
    inputs = replace(allocator_inputs(step), accepts_jumps=True)
    accepted = choose_allocation(edited, step.portfolio.assets, inputs, step.history.allocation)
    settled = apply_effective_targets(replace(step, history=replace(step.history, allocation=accepted)))
    assert settled.history.allocation == accepted


@pytest.mark.parametrize("initial", InitialWeights)
def test_config_targets_replace_no_weights_of_other_settings(initial: InitialWeights) -> None:
    settings = allocator(AllocationMethod.SIGNAL, (), signal=TREND, max_change_bps=2_000)
    last = apply_effective_targets(answered(weighed(settings), 300_000)).history.allocation
    edited = replace(settings, initial_weights=initial, signal=replace(TREND, sha256="1" * 64))
    failed = weighed(edited).with_layer(SignalState((SignalAnswer("trend", "", why="it raised ValueError: no"),)))
    result = decide(apply_effective_targets(replace(failed, history=replace(failed.history, allocation=last))))
    assert isinstance(result.decision, Halt)
    assert "it raised ValueError: no" in result.decision.reason
