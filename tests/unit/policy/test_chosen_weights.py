"""Chosen weights in a step: which targets they give, when a choice is due, how long it stands, and what halts where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import codec
from agent.execution.bookkeeping import record_allocation
from agent.layers.inputs import apply_effective_targets
from agent.model import (
    Allocation,
    AllocationMethod,
    ConditionalOrder,
    Halt,
    InitialWeights,
    OrderKind,
    OrdersConfig,
    OrderStage,
    PricePoint,
    Rebalance,
    StepInput,
    TokenSupply,
)
from agent.policy.decide import decide
from agent.policy.target_changes import allocation_history_s
from agent.units import BPS
from agent.weights import extras
from tests.support.builders import NOW_S, token
from tests.support.constants import HOUR_S
from tests.support.decisions.chosen_weights import SUPPLIES, chosen_of, hold_reason
from tests.support.planning_worlds import DAY_S, PLAIN, allocator, bps_of, limit, moves, recorded, weighed
from tests.support.standing_orders import price_of, terms
from tests.support.stores import chosen_weights
from tests.support.text import mentions
from tests.support.transactions import new_store

DATA_METHODS = [AllocationMethod.INVERSE_VOLATILITY, AllocationMethod.MINIMUM_VARIANCE, AllocationMethod.RISK_PARITY, AllocationMethod.HRP]


def later(step: StepInput, by_s: int, chosen: Allocation | None = None, prices: tuple[PricePoint, ...] | None = None) -> StepInput:
    """The step at a later block, with what the store remembers then."""
    now_s = NOW_S + by_s
    head = replace(step.snapshot.head, timestamp_s=now_s)
    feeds = tuple(replace(feed_round, updated_at_s=now_s - 60, started_at_s=now_s - 60) for feed_round in step.snapshot.feeds)
    snapshot = replace(step.snapshot, head=head, now_s=now_s, feeds=feeds)
    history = replace(step.history, allocation=chosen, prices=step.history.prices if prices is None else prices)
    return replace(step, snapshot=snapshot, history=history)


# what comes out
@pytest.mark.parametrize("method", [AllocationMethod.EQUAL, AllocationMethod.MARKET_CAP, *DATA_METHODS])
def test_chosen_weights_sum_up_and_leave_the_fixed_reserve(method: AllocationMethod) -> None:
    step = apply_effective_targets(weighed(allocator(method), recorded(moves()), supplies=SUPPLIES))
    targets = bps_of(step)
    assert sum(targets.values()) == BPS
    assert targets["USDC"] == 2_000
    assert targets != PLAIN
    assert dict(chosen_of(step).weights_bps) == {token(symbol).address: bps for symbol, bps in targets.items()}
    assert any(method.value in wish for wish in step.targets.reasons)
    assert isinstance(decide(step).decision, Rebalance), "the targets moved away from what is held"


@pytest.mark.parametrize("method", [AllocationMethod.EQUAL, AllocationMethod.MARKET_CAP, *DATA_METHODS])
def test_weights_do_not_depend_on_the_order_of_assets_or_prices(method: AllocationMethod) -> None:
    step = weighed(allocator(method), recorded(moves()), supplies=SUPPLIES)
    reversed_step = replace(step, portfolio=replace(step.portfolio, assets=step.portfolio.assets[::-1]))
    shuffled = replace(reversed_step, history=replace(step.history, prices=step.history.prices[::-1]))
    assert (
        bps_of(apply_effective_targets(step))
        == bps_of(apply_effective_targets(reversed_step))
        == bps_of(apply_effective_targets(shuffled))
        == bps_of(apply_effective_targets(step))
    )


@pytest.mark.parametrize("method", [AllocationMethod.EQUAL, AllocationMethod.MARKET_CAP, *DATA_METHODS])
def test_weight_limits_hold_to_the_basis_point(method: AllocationMethod) -> None:
    limits = (limit("WETH", 0, 1_900), limit("WBTC", 500, 2_500), limit("LINK", 1_500, 4_000), limit("UNI", 0, 2_200))
    targets = bps_of(apply_effective_targets(weighed(allocator(method, limits=limits), recorded(moves()), supplies=SUPPLIES)))
    assert sum(targets.values()) == BPS
    for symbol, low, high in (("WETH", 0, 1_900), ("WBTC", 500, 2_500), ("LINK", 1_500, 4_000), ("UNI", 0, 2_200)):
        assert low <= targets[symbol] <= high


def test_market_cap_weights_are_supply_times_price_with_a_cap() -> None:
    step = weighed(allocator(AllocationMethod.MARKET_CAP), recorded(moves()), supplies=SUPPLIES)
    caps = {"WETH": 120_000_000 * 2_000, "WBTC": 100_000 * 60_000, "LINK": 600_000_000, "UNI": 600_000_000}
    whole = sum(caps.values())
    weights_bps = bps_of(apply_effective_targets(step))
    assert all(abs(weights_bps[symbol] - Fraction(8_000 * cap, whole)) < 1 for symbol, cap in caps.items())
    capped = allocator(AllocationMethod.MARKET_CAP, limits=(limit("WETH", 0, 4_000),))
    weights_bps = bps_of(apply_effective_targets(weighed(capped, recorded(moves()), supplies=SUPPLIES)))
    rest = whole - caps["WETH"]
    assert weights_bps["WETH"] == 4_000
    assert all(abs(weights_bps[symbol] - Fraction(4_000 * caps[symbol], rest)) < 1 for symbol in ("WBTC", "LINK", "UNI"))
    assert "limit: WETH" in chosen_of(weighed(capped, recorded(moves()), supplies=SUPPLIES)).why


def test_supply_of_the_owner_counts_before_that_of_the_chain() -> None:
    supplies = (TokenSupply(token("WBTC").address, 19_800_000 * 10**8, "supplies.csv of 2026-11-01"),)
    allocation = chosen_of(weighed(allocator(AllocationMethod.MARKET_CAP, supplies=supplies), recorded(moves()), supplies=SUPPLIES))
    assert allocation.weight_bps(token("WBTC").address) > allocation.weight_bps(token("WETH").address)
    assert mentions(allocation.sample_text, "WBTC", "supplies.csv", "2026-11-01")
    assert mentions(allocation.sample_text, "WETH", "contract")


def test_allocation_reports_its_data() -> None:
    allocation = chosen_of(weighed(allocator(AllocationMethod.RISK_PARITY), recorded(moves())))
    assert (allocation.return_count, allocation.last_price_s, allocation.first_price_s) == (90, NOW_S - HOUR_S, NOW_S - HOUR_S - 90 * DAY_S)
    wish = apply_effective_targets(weighed(allocator(AllocationMethod.RISK_PARITY), recorded(moves()))).targets.reasons[0]
    assert "90 returns" in wish
    assert "equal contributions to the variance" in wish


# when
def test_allocation_stands_until_the_next_is_due() -> None:
    step = weighed(allocator(AllocationMethod.INVERSE_VOLATILITY), recorded(moves()))
    first = chosen_of(step)
    other = recorded(moves(seed=99), until_s=NOW_S + 6 * DAY_S)
    assert chosen_of(later(step, 6 * DAY_S, first, other)) == first
    after = chosen_of(later(step, 7 * DAY_S, first, other))
    assert after.at_s == NOW_S + 7 * DAY_S
    assert after.weights_bps != first.weights_bps


def test_prices_are_read_only_by_a_step_that_chooses() -> None:
    step = weighed(allocator(AllocationMethod.INVERSE_VOLATILITY), recorded(moves()))
    first = chosen_of(step)
    assert allocation_history_s(step.portfolio, None, NOW_S) == 91 * DAY_S
    assert allocation_history_s(step.portfolio, first, NOW_S + DAY_S) == 0
    assert allocation_history_s(step.portfolio, first, NOW_S + 7 * DAY_S) == 91 * DAY_S
    assert allocation_history_s(replace(step.portfolio, allocator=None), None, NOW_S) == 0


def test_changed_settings_choose_anew_at_once() -> None:
    step = weighed(allocator(AllocationMethod.INVERSE_VOLATILITY), recorded(moves()))
    first = chosen_of(step)
    other = weighed(allocator(AllocationMethod.INVERSE_VOLATILITY, every_s=14 * DAY_S), recorded(moves()))
    reserve = weighed(allocator(AllocationMethod.INVERSE_VOLATILITY), recorded(moves()), targets=PLAIN | {"USDC": 3_000, "WETH": 1_500})
    for changed in (other, reserve):
        allocation = chosen_of(later(changed, HOUR_S, first))
        assert allocation.at_s == NOW_S + HOUR_S
        assert allocation.settings_hash != first.settings_hash


def test_allocation_within_the_churn_changes_no_weight() -> None:
    step = weighed(allocator(AllocationMethod.INVERSE_VOLATILITY, churn_bps=300), recorded(moves()))
    first = chosen_of(step)
    nearly = moves()
    nearly[-1] *= 1.5
    again = chosen_of(later(step, 7 * DAY_S, first, recorded(nearly, until_s=NOW_S + 7 * DAY_S)))
    assert again.at_s == NOW_S + 7 * DAY_S
    assert again.weights_bps == first.weights_bps
    assert "so the weights stay" in again.why
    strict = replace(step, portfolio=replace(step.portfolio, allocator=allocator(AllocationMethod.INVERSE_VOLATILITY)))
    moved = chosen_of(later(strict, 7 * DAY_S, chosen_of(strict), recorded(nearly, until_s=NOW_S + 7 * DAY_S)))
    assert moved.weights_bps != first.weights_bps


def test_header_from_the_future_sets_no_allocation_time() -> None:
    step = weighed(allocator(AllocationMethod.EQUAL))
    head = replace(step.snapshot.head, timestamp_s=NOW_S + 900 * DAY_S)
    assert chosen_of(replace(step, snapshot=replace(step.snapshot, head=head))).at_s == NOW_S + 30


def test_allocation_is_recorded_once(tmp_path: Path) -> None:
    step = weighed(allocator(AllocationMethod.EQUAL))
    store = new_store("file", tmp_path)
    allocations = store.allocations
    record_allocation(step.history, allocations)
    assert allocations.newest() is None, "nothing is chosen yet"
    chosen = chosen_of(step)
    for history in (replace(step.history, allocation=chosen), replace(step.history, allocation=chosen), step.history):
        record_allocation(history, allocations)
        assert chosen_weights(store) == [chosen]
    other = replace(chosen, at_s=chosen.at_s + DAY_S)
    record_allocation(replace(step.history, allocation=other), allocations)
    assert chosen_weights(store) == [other, chosen]


def test_step_with_an_allocation_survives_its_codec() -> None:
    step = apply_effective_targets(weighed(allocator(AllocationMethod.EQUAL), recorded(moves()), supplies=SUPPLIES))
    assert codec.loads(StepInput, codec.dumps(step)) == step


# bad input
def silent(symbol: str) -> tuple[PricePoint, ...]:
    return tuple(point for point in recorded(moves()) if point.token != token(symbol).address)


def unmoved() -> tuple[PricePoint, ...]:
    flat = moves()
    flat[:, 1] = 0
    return recorded(flat)


def twins() -> tuple[PricePoint, ...]:
    """WBTC moves exactly as WETH does."""
    same = moves()
    same[:, 1] = same[:, 0]
    return recorded(same)


BAD: list[tuple[Callable[[], tuple[PricePoint, ...]], str]] = [
    (tuple, "no prices of"),
    (lambda: silent("LINK"), "no prices of LINK within 90 days"),
    (lambda: recorded(moves(days=29)), "29 returns of 1 day"),
    (lambda: recorded(moves(), until_s=NOW_S - 3 * DAY_S), "are 3 days old, max_age is 2 days"),
    (unmoved, "the price of WBTC does not move"),
]


@pytest.mark.parametrize(("prices", "reason"), BAD, ids=[reason for _, reason in BAD])
@pytest.mark.parametrize("method", DATA_METHODS)
def test_insufficient_prices_halt_by_name(method: AllocationMethod, prices: Callable[[], tuple[PricePoint, ...]], reason: str) -> None:
    why = hold_reason(weighed(allocator(method), prices()))
    assert mentions(why, "no target weights", f"{method.value}")
    assert reason in why


@pytest.mark.parametrize("method", DATA_METHODS[1:])
def test_singular_covariance_halts_and_names_the_pair(method: AllocationMethod) -> None:
    assert mentions(hold_reason(weighed(allocator(method), twins())), "singular", "WBTC", "WETH")


def test_inverse_volatility_needs_no_correlations() -> None:
    weights_bps = bps_of(apply_effective_targets(weighed(allocator(AllocationMethod.INVERSE_VOLATILITY), twins())))
    assert abs(weights_bps["WETH"] - weights_bps["WBTC"]) <= 1


@pytest.mark.parametrize(
    ("supplies", "reason"),
    [
        ([*SUPPLIES[:3], ("UNI", 0)], "the market cap of UNI is zero: its contract gives a supply of zero"),
        (SUPPLIES[:3], "the supply of UNI could not be read"),
    ],
)
def test_market_cap_without_a_supply_halts_by_name(supplies: list[tuple[str, int]], reason: str) -> None:
    assert reason in hold_reason(weighed(allocator(AllocationMethod.MARKET_CAP), recorded(moves()), supplies=supplies))


def test_market_cap_takes_recorded_prices_under_confirmation() -> None:
    step = weighed(allocator(AllocationMethod.MARKET_CAP), supplies=SUPPLIES)
    assert bps_of(apply_effective_targets(step))["WETH"] > 0  # confirm_blocks = 0: the price of this block is as good as any
    careful = replace(step, policy=replace(step.policy, confirm_blocks=3))
    assert "no price" in hold_reason(careful)
    assert mentions(hold_reason(careful), "max_age", "none")
    old = replace(careful, history=replace(careful.history, prices=recorded(moves(), until_s=NOW_S - 3 * DAY_S)))
    assert mentions(hold_reason(old), "max_age", "72.0 h")


def test_gaps_in_prices_are_skipped_and_reported() -> None:
    allocation = chosen_of(
        weighed(allocator(AllocationMethod.HRP), tuple(point for point in recorded(moves()) if not 40 <= day_of(point) < 43))
    )
    assert allocation.return_count == 86
    assert "4 intervals" in allocation.sample_text


def day_of(point: PricePoint) -> int:
    return (NOW_S - HOUR_S - point.at_s) // DAY_S


def test_initial_weights_decide_before_the_first_allocation() -> None:
    wait = weighed(allocator(AllocationMethod.HRP), ())
    assert isinstance(decide(apply_effective_targets(wait)).decision, Halt)
    targets = apply_effective_targets(weighed(allocator(AllocationMethod.HRP, initial_weights=InitialWeights.TARGETS), ()))
    assert bps_of(targets) == PLAIN
    assert not isinstance(decide(targets).decision, Halt)
    assert any(mentions(wish, "hrp", "prices") for wish in targets.targets.reasons)


def test_last_allocation_stands_for_its_max_age() -> None:
    step = weighed(allocator(AllocationMethod.HRP, initial_weights=InitialWeights.TARGETS), recorded(moves()))
    first = chosen_of(step)
    later_step = apply_effective_targets(later(step, 21 * DAY_S, first))
    assert dict(first.weights_bps) == {asset.token.address: asset.target_bps for asset in later_step.effective_assets}
    assert later_step.history.allocation == first
    assert any("no new weights" in wish and "the last ones" not in wish for wish in later_step.targets.reasons)
    why = hold_reason(later(step, 21 * DAY_S + 1, first))
    assert "max_age" in why
    assert "portfolio.weights.keep" in why


def test_missing_package_halts_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> object:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(extras, "import_module", missing)
    assert "skfolio.cluster" in hold_reason(weighed(allocator(AllocationMethod.HRP), recorded(moves())))


def test_fixed_weights_are_those_of_the_config() -> None:
    step = weighed(allocator(AllocationMethod.FIXED))
    assert apply_effective_targets(step) is step


def test_stop_sells_while_no_weights_can_be_chosen() -> None:
    step = weighed(allocator(AllocationMethod.HRP), ())
    stop = terms("WETH", OrderKind.STOP_LOSS, 2_100)
    fired_order = ConditionalOrder(
        stop.token, OrderKind.STOP_LOSS, OrderStage.FIRED, stop, 1, price_of("WETH", 2_500), None, price_of("WETH", 2_000)
    )
    history = replace(step.history, orders=replace(step.history.orders, states=(fired_order,)))
    step_after_stop = apply_effective_targets(
        replace(step, portfolio=replace(step.portfolio, orders=OrdersConfig((stop,))), history=history)
    )
    decision = decide(step_after_stop).decision
    assert isinstance(decision, Rebalance)
    assert decision.is_exit
    assert "no target weights" in hold_reason(step)
    assert decide(apply_effective_targets(step)).drifts, "what is held is shown all the same"
