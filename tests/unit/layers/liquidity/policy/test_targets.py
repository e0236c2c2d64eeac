"""Tests of agent/layers/liquidity/policy/targets.py: bands of shares, ranges that the price left, excess, and fees."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.amm.lp import minting, positions
from agent.layers.liquidity.policy.adjustments import target_adjustment
from agent.layers.liquidity.policy.targets import is_out_of_range
from agent.layers.liquidity.state import LiquidityCycle, LiquidityProgress
from agent.model import (
    AdjustLiquidity,
    Collect,
    Decision,
    Hold,
    LpV2Position,
    LpV3Position,
    Provide,
    ScreenedToken,
    StepInput,
    TokenFinding,
    UnreadableItem,
    Withdraw,
)
from agent.policy.decide import decide
from tests.support import lp_worlds
from tests.support.builders import with_limits, with_snapshot
from tests.support.decisions.liquidity_ranges import earning_step
from tests.support.lp_worlds import (
    PRICES,
    RATIO,
    SPACING,
    USD,
    WETH,
    assert_hold,
    book,
    kinds,
    lp_target,
    only_provide,
    paired,
    passes,
    planned,
    quiet,
    ranged,
    roomy,
    v2_at,
    v3_at,
    world,
    worth,
)
from tests.support.text import mentions

PAIR = v2_at().address
MOVED = LiquidityProgress(has_moved=True)


# --- the band of a share


def step_with_share(share_bps: int) -> StepInput:
    """Return a step whose position has 1,500 of 9,500, 15.79 %."""
    return world([ranged(1_500, 1_800, 2_200)], [lp_target(share_bps)], bounds=roomy(plan_cost_bps=200))


@pytest.mark.parametrize("share_bps", [1_436, 1_500, 1_754], ids=["just a tenth above it", "near the share", "just a tenth below it"])
def test_share_within_a_band_of_a_tenth_holds(share_bps: int) -> None:
    assert_hold(step_with_share(share_bps))


@pytest.mark.parametrize(("share_bps", "action_type"), [(1_435, Withdraw), (1_755, Provide)], ids=["too much", "too little"])
def test_share_beyond_a_band_of_a_tenth_is_restored(share_bps: int, action_type: type) -> None:
    assert kinds(step_with_share(share_bps)) == [action_type]


@pytest.mark.parametrize(
    ("cycle", "decision_type"),
    [
        pytest.param(LiquidityCycle(0), Hold, id="nothing sent"),
        pytest.param(LiquidityCycle(1, has_sent_action=True), AdjustLiquidity, id="after an action"),
        pytest.param(LiquidityCycle(0, has_sent_action=True, failed_withdrawal_pools=(PAIR,)), Hold, id="after a reverted withdrawal"),
    ],
)
def test_share_is_completed_within_its_band_after_an_action(cycle: LiquidityCycle, decision_type: type[Decision]) -> None:
    step = world([ranged(1_500, 1_800, 2_200)], [lp_target(1_700)], bounds=roomy(plan_cost_bps=100))

    assert isinstance(decide(cycle.with_progress(step)).decision, decision_type)


@pytest.mark.parametrize(
    ("provided_usd", "decision_type"),
    [
        pytest.param(1_590, AdjustLiquidity, id="more than a thousandth missing"),
        pytest.param(1_599, Hold, id="less than a thousandth missing"),
    ],
)
def test_share_leaves_rounding_after_an_action(provided_usd: int, decision_type: type[Decision]) -> None:
    """1,600 of 8,000 are wanted."""
    half_of_rest = Fraction(8_000 - provided_usd, 2)
    step = world(
        [ranged(provided_usd, 1_900, 2_100)],
        [lp_target(2_000)],
        values={"WETH": half_of_rest, "USDC": half_of_rest},
        bounds=roomy(min_trade=None, plan_cost_bps=None),
    )

    assert isinstance(decide(step.with_progress(MOVED)).decision, decision_type)


def test_share_counts_uncollected_fees() -> None:
    fees = (800 * USD, 0)
    position = ranged(1_000, 1_800, 2_200, owed=fees, core_owed=fees)

    assert positions.uncollected_fees(position) == fees
    assert_hold(world([position], [lp_target(1_800)]))


# --- ranges that the price left


@pytest.mark.parametrize(
    ("edge", "is_outside"),
    [
        pytest.param("low", False, id="at the lower edge"),
        pytest.param("below low", True, id="one wei below it"),
        pytest.param("below high", False, id="one wei below the upper edge"),
        pytest.param("high", True, id="at the upper edge"),
    ],
)
def test_range_contains_its_lower_edge_and_not_its_upper(edge: str, is_outside: bool) -> None:
    position = lp_worlds.v3(-600, 600)
    low_x96, high_x96 = minting.sqrt_price_range((-600, 600))
    sqrt_x96 = {"low": low_x96, "below low": low_x96 - 1, "below high": high_x96 - 1, "high": high_x96}[edge]

    assert is_out_of_range(position, Fraction(sqrt_x96**2, 2**192)) is is_outside


def test_pair_is_never_out_of_range() -> None:
    assert not is_out_of_range(paired(100), Fraction(1, 10**30))


def test_range_that_the_reference_left_is_minted_anew() -> None:
    position = ranged(1_600, 2_200, 2_600)
    step = world([position], [lp_target(1_700)], trigger=quiet())

    withdrawal, provision = planned(step).layer_actions

    assert isinstance(withdrawal, Withdraw)
    assert isinstance(provision, Provide)
    assert (withdrawal.liquidity, min(withdrawal.amounts_raw)) == (position.liquidity, 0)
    assert provision.ticks == minting.range_around(RATIO, 2_000, SPACING)
    assert mentions(withdrawal.reason, "left the", "uniswap_v3 #42")
    assert passes(step)


def test_range_that_the_reference_left_is_withdrawn_without_a_share() -> None:
    assert kinds(world([ranged(1_600, 2_200, 2_600)], [lp_target(0)], trigger=quiet())) == [Withdraw]


def test_range_that_the_reference_left_must_be_worth_its_gas() -> None:
    """The gas of a new range, too; the gas of the withdrawal alone is worth it."""
    left = ranged(150, 2_200, 2_600)
    assert_hold(world([left], [lp_target(30)], trigger=quiet()), "uniswap_v3 #42 stays out of range", "limits.plan_cost")
    assert kinds(world([left], [lp_target(0)], trigger=quiet())) == [Withdraw]


@pytest.mark.parametrize("targets", [[], [lp_target(0, v2_at())]], ids=["no target", "a target elsewhere"])
def test_range_without_a_target_is_the_owner_s(targets: list[lp_worlds.LpTarget]) -> None:
    assert_hold(world([ranged(1_600, 2_200, 2_600)], targets, trigger=quiet()))


def test_range_that_only_a_pushed_pool_left_stays() -> None:
    """The pool is pushed by 1.4 %, out of the range; the reference is still in it (T3)."""
    pool = v3_at(Fraction(1_014, 1_000))
    position = ranged(1_600, 1_985, 2_015, 1, pool)
    assert not position.tick_lower <= position.tick < position.tick_upper

    assert_hold(world([position], [lp_target(1_700, pool)], pushed=Fraction(1_014, 1_000)))


@pytest.mark.parametrize(("liquidity", "action_type"), [(1, Collect), (10**9, Withdraw)], ids=["dust", "more"])
def test_range_with_hardly_any_liquidity_is_left_with_its_fees(liquidity: int, action_type: type) -> None:
    """Anybody may add a unit to an empty position; no action has two minimums of zero."""
    owed = (2_000 * USD, 10**18)
    position = ranged(1, 1_500, 1_900, liquidity=liquidity, owed=owed, core_owed=owed)

    action = planned(world([position], [lp_target(5_000)])).layer_actions[0]

    assert isinstance(action, action_type)
    assert not isinstance(action, Withdraw) or max(action.min_raw) > 0


def test_provision_counts_only_on_minimums_of_a_withdrawal() -> None:
    step = world(
        [ranged(1_600, 1_800, 2_200), paired(0)],
        [lp_target(0), lp_target(9_000, v2_at())],
        {"WETH": 50, "USDC": 50},
        roomy(lp_max_weight_bps=10_000),
        trigger=quiet(),
    )
    withdrawal, provision = planned(step).layer_actions
    assert isinstance(withdrawal, Withdraw)
    assert isinstance(provision, Provide)
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}

    certain_raw = [
        raw_by_token[token] + min_raw for token, min_raw in zip((provision.token0, provision.token1), withdrawal.min_raw, strict=True)
    ]

    assert all(raw <= most_raw for raw, most_raw in zip(provision.desired_raw, certain_raw, strict=True))
    assert any(raw > most_raw - 1_000_000 - most_raw // 1_000 for raw, most_raw in zip(provision.desired_raw, certain_raw, strict=True)), (
        "and no less"
    )
    assert passes(step)


# --- more than the share


def test_excess_is_withdrawn_down_to_the_share() -> None:
    step = world([ranged(2_000, 1_800, 2_200)], [lp_target(1_000)])
    [action] = planned(step).layer_actions

    assert isinstance(action, Withdraw)
    assert worth(step, action) == pytest.approx(1_000, rel=1e-4)
    assert passes(step)


@pytest.mark.parametrize(
    ("fees", "share_bps", "action_type", "left"),
    [
        pytest.param(200, 1_140, Collect, 1_000, id="fees alone suffice"),
        pytest.param(100, 1_000, Withdraw, 910, id="the fees and some principal"),
        pytest.param(800, 600, Withdraw, 588, id="the fees and much principal"),
        pytest.param(800, 0, Withdraw, 0, id="all"),
    ],
)
def test_excess_is_taken_from_the_fees_first(fees: int, share_bps: int, action_type: type, left: int) -> None:
    """A withdrawal pays out all fees. The position has 1,000 beside them, the wallet 8,000."""
    owed = (fees * USD, 0)
    step = world([ranged(1_000, 1_800, 2_200, owed=owed, core_owed=owed)], [lp_target(share_bps)], bounds=roomy(plan_cost_bps=200))

    [action] = planned(step).layer_actions

    assert isinstance(action, action_type)
    [(confirmed_position, _)] = book(step).position_states
    if isinstance(action, Withdraw):
        book_after = book(step).after_withdrawal(confirmed_position, action.liquidity, (0, 0))
    else:
        book_after = book(step).after_collection(confirmed_position)
    assert book_after.position_value(*book_after.position_states[0]) / USD == pytest.approx(left, rel=1e-4)
    paid_text = "fees of 200 USDC collected" if action_type is Collect else f"{1_000 + fees - left} USDC withdrawn"
    assert action.reason.endswith(paid_text)


def liquidity_by_position(step: StepInput) -> dict[str, tuple[int, int]]:
    """Return the liquidity withdrawn, and that of the position, by name in order."""
    actions = planned(step).layer_actions
    assert all(isinstance(action, Withdraw) for action in actions)
    return {action.name: (action.liquidity, action.position_liquidity) for action in actions if isinstance(action, Withdraw)}


def test_excess_is_withdrawn_from_the_smallest_positions_first() -> None:
    step = world([ranged(1_500, 1_800, 2_200, 1), ranged(500, 1_000, 3_000, 2)], [lp_target(1_000)])

    withdrawn = liquidity_by_position(step)

    assert list(withdrawn) == ["uniswap_v3 #2", "uniswap_v3 #1"]
    assert withdrawn["uniswap_v3 #2"][0] == withdrawn["uniswap_v3 #2"][1]
    assert withdrawn["uniswap_v3 #1"][0] < withdrawn["uniswap_v3 #1"][1]


def test_excess_is_rounded_up_to_a_unit_of_liquidity() -> None:
    """Half of 3 units is 2."""
    pair = v2_at()
    position = lp_worlds.v2(3, 300, (pair.reserve0, pair.reserve1), pair=pair.address, k_last=0)
    position_value = float(book(world([position])).exposure().value) / USD
    step = world(
        [position],
        [lp_target(2_500, v2_at())],
        values={"WETH": Fraction(position_value) / 2, "USDC": Fraction(position_value) / 2},
        bounds=roomy(max_live_value=None),
        trigger=quiet(),
    )

    assert liquidity_by_position(step) == {position.name: (2, 3)}


@pytest.mark.parametrize(
    ("cap_raw", "part"),
    [
        pytest.param(10**30, 2, id="more than needed"),
        pytest.param(None, 2, id="none yet"),
        pytest.param(1, None, id="one unit"),
    ],
)
def test_excess_of_lp_tokens_stays_within_their_approval(cap_raw: int | None, part: int | None) -> None:
    position = paired(2_000)
    step = world([position], [lp_target(1_000, v2_at())], bounds=roomy(min_trade=None, plan_cost_bps=None))
    caps = () if cap_raw is None else ((PAIR, cap_raw),)

    [(liquidity, whole)] = liquidity_by_position(replace(step, progress=replace(step.progress, spend_caps=caps))).values()

    assert liquidity == (1 if part is None else pytest.approx(whole / part, rel=1e-3))


def capped(step: StepInput, cap_raw: int) -> StepInput:
    """Return the step in a cycle that approved this many LP tokens."""
    return replace(step, progress=replace(step.progress, spend_caps=((PAIR, cap_raw),)))


def test_excess_of_lp_tokens_is_named_by_what_is_withdrawn() -> None:
    """A tenth of the position is approved, half of it is too much."""
    position = paired(2_000)
    step = world([position], [lp_target(1_000, v2_at())], bounds=roomy(min_trade=None, plan_cost_bps=None))

    [action] = planned(capped(step, position.liquidity // 10)).layer_actions

    assert isinstance(action, Withdraw)
    assert action.reason.endswith(": 200 USDC withdrawn"), action.reason


def test_excess_of_lp_tokens_must_be_worth_its_gas_as_approved() -> None:
    step = world([paired(2_000)], [lp_target(1_000, v2_at())])

    assert isinstance(planned(capped(step, 10**30)).layer_actions[0], Withdraw)
    assert "0 USDC to move, limits.min_trade is 10 USDC" in decide(capped(step, 1)).decision.reason


def test_share_of_zero_withdraws_everything_above_min_trade() -> None:
    step = world([ranged(500, 1_800, 2_200, 1), ranged(300, 1_000, 3_000, 2)], [lp_target(0)])
    withdrawn = liquidity_by_position(step)

    assert len(withdrawn) == 2
    assert all(liquidity == whole for liquidity, whole in withdrawn.values())
    assert passes(step)
    assert_hold(world([ranged(5, 1_800, 2_200)], [lp_target(0)]), "5 USDC to move, limits.min_trade is 10")


# --- fees: 120 dollars of a position of 1,600


def test_fees_above_compound_above_are_provided_again() -> None:
    step = earning_step(1_770)
    collection, provision = planned(step).layer_actions

    assert isinstance(collection, Collect)
    assert isinstance(provision, Provide)
    assert collection.fees_raw == (60 * USD, 3 * 10**16)
    assert provision.token_id == 42
    assert worth(step, provision) == pytest.approx(120, rel=0.01), "the position is at its share, so all of it goes back"
    assert mentions(collection.reason, "120 USDC", "compound_above", "50 USDC")
    assert passes(step)


@pytest.mark.parametrize(
    ("share_bps", "provided_usd"),
    [
        pytest.param(1_770, 120, id="all at its share"),
        pytest.param(1_700, 0.17 * 9_720 - 1_600, id="a part above it"),
        pytest.param(1_630, None, id="none further above it"),
    ],
)
def test_fees_are_provided_up_to_the_share(share_bps: int, provided_usd: float | None) -> None:
    step = earning_step(share_bps)
    collection, *provisions = planned(step).layer_actions

    assert isinstance(collection, Collect)
    assert [worth(step, action) for action in provisions if isinstance(action, Provide)] == (
        [] if provided_usd is None else [pytest.approx(provided_usd, rel=0.02)]
    )


def step_compounding_above(above: Fraction | None) -> StepInput:
    step = earning_step(1_770)
    [target] = step.portfolio.lp_targets
    return replace(step, portfolio=replace(step.portfolio, lp_targets=(replace(target, compound_above=above),)))


@pytest.mark.parametrize("above", [Fraction(120 * USD), None], ids=["at the threshold", "off"])
def test_fees_stay_up_to_compound_above(above: Fraction | None) -> None:
    assert_hold(step_compounding_above(above))


def test_fees_a_unit_above_compound_above_are_collected() -> None:
    assert kinds(step_compounding_above(Fraction(120 * USD) - 1)) == [Collect, Provide]


def test_fees_stay_while_gas_is_above_plan_cost() -> None:
    assert_hold(with_limits(earning_step(1_770), plan_cost_bps=50), "fees of uniswap_v3 #42 are not collected: gas of")


def test_fees_of_two_positions_go_back_up_to_the_share_together() -> None:
    """Each position earned 120; both are 60 above the share, so that 60 of the first and 120 of the second go back."""
    fees = (60 * USD, 3 * 10**16)
    pool_positions = [ranged(800, 1_800, 2_200, number, owed=fees, core_owed=fees) for number in (1, 2)]
    step = world(pool_positions, [lp_target(1_809, compound_above=Fraction(50 * USD))], bounds=roomy(plan_cost_bps=200))

    actions = planned(step).layer_actions

    assert [(type(action), action.token_id) for action in actions] == [(Collect, 1), (Provide, 1), (Collect, 2), (Provide, 2)]
    assert [worth(step, action) for action in actions if isinstance(action, Provide)] == pytest.approx([60, 120], rel=0.02)


# --- what is unknown or not ours


TARGETED = world(targets=[lp_target(2_000)])
UNREADABLE = UnreadableItem("pool", TARGETED.snapshot.pools[-1].address, "no code")
UNREAD = with_snapshot(TARGETED, pools=TARGETED.snapshot.pools[:-1])


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        pytest.param(UNREAD, "the pool was not read: it is not pinned; trimtab trust pins it", id="not read"),
        pytest.param(with_snapshot(UNREAD, unreadable_items=(UNREADABLE,)), "the pool was not read: no code", id="unreadable"),
        pytest.param(
            with_snapshot(TARGETED, unreadable_items=(UNREADABLE,)), "the pool is in quarantine: no code", id="pool in quarantine"
        ),
    ],
)
def test_target_waits_while_its_pool_is_unknown(step: StepInput, reason: str) -> None:
    assert_hold(step, reason)


@pytest.mark.parametrize("share_bps", [2_000, 0], ids=["below its share", "without a share"])
def test_target_waits_while_a_token_is_in_quarantine(share_bps: int) -> None:
    """With so few assets the step halts for the same reason, so that the moves are asked for alone."""
    step = world([ranged(900, 1_800, 2_200)], [lp_target(share_bps)])
    quarantined_token = ScreenedToken(WETH.address, TokenFinding.PAUSED)
    step = replace(step, targets=replace(step.targets, quarantined_tokens=(quarantined_token,)))

    adjustment = target_adjustment(step, PRICES)

    assert adjustment.moves == ()
    assert [item.why.split(":")[0] for item in adjustment.skipped] == ["WETH is in quarantine"]


@pytest.mark.parametrize("share_bps", [2_000, 0], ids=["below its share", "without a share"])
@pytest.mark.parametrize("pushed", [Fraction(8, 10), Fraction(102, 100), Fraction(12, 10)], ids=["-20 %", "+2 %", "+20 %"])
@pytest.mark.parametrize("is_pair", [False, True], ids=["range", "pair"])
def test_target_waits_while_its_pool_is_off_the_reference(share_bps: int, pushed: Fraction, is_pair: bool) -> None:
    """T3 and T11: at a pushed price liquidity is bought too dear and sold in the wrong mix."""
    pool = v2_at(pushed) if is_pair else v3_at(pushed)
    position: LpV2Position | LpV3Position = paired(900, v2_at(pushed)) if is_pair else ranged(900, 1_800, 2_200, 1, v3_at(pushed))

    assert_hold(world([position], [lp_target(share_bps, pool)], pushed=pushed), "bps off the reference, limits.oracle_deviation is 150 bps")


def test_target_waits_after_a_failed_withdrawal() -> None:
    step = world([ranged(2_000, 1_800, 2_200)], [lp_target(1_000)])

    assert_hold(step.with_progress(LiquidityProgress(failed_withdrawal_pools=(v3_at().address,))), "its withdrawal failed in this step")
    assert kinds(step.with_progress(LiquidityProgress(failed_withdrawal_pools=(PAIR,)))) == [Withdraw]


def test_share_counts_no_stranger_s_liquidity() -> None:
    """T11: a position in our own pool that the owner did not confirm, out of range and with fees to collect."""
    gift = ranged(5_000, 2_200, 2_600, 99, owed=(10**12, 10**20), core_owed=(10**12, 10**20))
    step = world([gift], [lp_target(2_000, compound_above=Fraction(1))], confirmed=[])

    assert only_provide(step).token_id is None
    assert worth(step, only_provide(step)) == pytest.approx(1_600, rel=1e-5)
