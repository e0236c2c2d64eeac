"""Tests of agent/layers/liquidity/policy/deciders.py: limits, exits, swaps and targets in order, with cooldown and confirmation."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.liquidity.policy.signals import limit_signals, liquidity_signals
from agent.model import (
    AdjustLiquidity,
    ConditionalOrder,
    Decision,
    Destination,
    ExitFailures,
    ExternalTransfer,
    FeedRound,
    Halt,
    Hold,
    LpAction,
    LpV3Position,
    NoTradeZone,
    OrderKind,
    OrdersConfig,
    OrderStage,
    PastPrices,
    Provide,
    Rebalance,
    StepInput,
    TradeSide,
    Withdraw,
)
from agent.planning.proposals import decision_after_plan, propose_rebalance
from agent.policy.decide import decide
from agent.policy.orders.exits import apply_orders
from agent.policy.risk_estimates import complete_risk
from agent.policy.triggers.no_trade_zone import build_tracking
from agent.units import format_time
from tests.support.builders import NOW_S, feed_round, history, tracking, with_history, with_limits, with_snapshot
from tests.support.decisions.liquidity_plans import step_after_plan
from tests.support.lp_worlds import (
    PRICES,
    USD,
    WETH,
    assert_hold,
    kinds,
    lp_target,
    paired,
    passes,
    planned,
    quiet,
    ranged,
    roomy,
    v2_at,
    v3_at,
    world,
)
from tests.support.plans import verdict
from tests.support.standing_orders import price_of, terms
from tests.support.text import mentions

UNEVEN = {"WETH": 5_000, "USDC": 3_000}
"""Beyond the template's band."""


def above_limit(**changes: object) -> StepInput:
    """Return a step with 20 % in liquidity, above its limit of 15 %."""
    return world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500), **changes)  # type: ignore[arg-type]  # keywords of world


# --- liquidity above its limits


@pytest.mark.parametrize(
    ("past", "type_below_limit"),
    [
        pytest.param({"last_rebalance_s": NOW_S - 60}, Hold, id="in the cooldown"),
        pytest.param({"is_stopped": True}, Rebalance, id="after too many failures"),
    ],
)
def test_limit_withdrawal_waits_for_nothing(past: dict[str, object], type_below_limit: type[Decision]) -> None:
    """The guard reverts_in_row passes it, too."""
    step = above_limit(values={"WETH": 6_000, "USDC": 2_000}, past=history(**past))
    step_within = with_limits(step, lp_max_weight_bps=5_000)

    assert isinstance(decide(step).decision, AdjustLiquidity)
    assert verdict("reverts_in_row", step, planned(step)).passed
    assert isinstance(decide(step_within).decision, type_below_limit)


def test_limit_withdrawal_comes_before_a_trigger() -> None:
    step = above_limit(values={"WETH": 6_000, "USDC": 2_000})

    assert isinstance(decide(step).decision, AdjustLiquidity)
    assert isinstance(decide(step_after_plan(step)).decision, Rebalance)


@pytest.mark.parametrize("sign", [-1, 1], ids=["out", "in"])
def test_limit_withdrawal_goes_despite_unexplained_transfers(sign: int) -> None:
    step = with_limits(above_limit(), balance_jump_bps=200)
    transfer = ExternalTransfer(1, step.portfolio.numeraire.address, sign, Fraction(sign * 500 * USD), 1, 2, NOW_S, True, None)
    past = history(unexplained_transfers=(transfer,))
    step_with_transfer = replace(step, history=past)
    plan = planned(step_with_transfer)

    assert verdict("balance_jump", step_with_transfer, plan).passed
    assert verdict("max_live_value", step_with_transfer, plan).passed
    assert isinstance(decide(replace(step_after_plan(step), history=past)).decision, Halt), "and then everything else waits"


# --- confirmation by the blocks before (T3)


def confirmed_by(step: StepInput, *weth_prices: int) -> StepInput:
    """Return the step whose signals the blocks before must confirm, with these prices of WETH in them, newest first."""
    head = step.snapshot.head
    step = replace(step, policy=replace(step.policy, confirm_blocks=len(weth_prices) or 2))

    def feeds(price: int) -> tuple[FeedRound, ...]:
        weth_feed = feed_round("WETH", price)
        return tuple(weth_feed if feed.feed == weth_feed.feed else feed for feed in step.snapshot.feeds)

    past_prices = tuple(
        PastPrices(replace(head, number=head.number - back), feeds(price), step.snapshot.pools) for back, price in enumerate(weth_prices, 1)
    )
    return with_snapshot(step, past_prices=past_prices)


WITHDRAWAL_STEP = world([ranged(2_000, 1_800, 2_200)], [lp_target(1_000)], trigger=quiet())
PROVISION_STEP = world(targets=[lp_target(2_000)], trigger=quiet())


@pytest.mark.parametrize(
    ("step", "weth_prices", "decision_type"),
    [
        pytest.param(above_limit(), (2_000, 2_000), AdjustLiquidity, id="limit, confirmed"),
        pytest.param(above_limit(), (), Hold, id="limit, blocks missing"),
        pytest.param(WITHDRAWAL_STEP, (2_000, 2_000), AdjustLiquidity, id="withdrawal, confirmed"),
        pytest.param(WITHDRAWAL_STEP, (2_000, 3_000), Hold, id="withdrawal, pool off at one block"),
        pytest.param(WITHDRAWAL_STEP, (), Hold, id="withdrawal, blocks missing"),
        pytest.param(PROVISION_STEP, (2_000, 2_000), AdjustLiquidity, id="provision, confirmed"),
        pytest.param(PROVISION_STEP, (2_000, 3_000), Hold, id="provision, pool off at one block"),
        pytest.param(PROVISION_STEP, (), Hold, id="provision, blocks missing"),
    ],
)
def test_liquidity_moves_if_the_blocks_before_agree(step: StepInput, weth_prices: tuple[int, ...], decision_type: type[Decision]) -> None:
    assert isinstance(decide(confirmed_by(step, *weth_prices)).decision, decision_type)


def test_limit_signals_name_each_exceeded_limit() -> None:
    step = world([ranged(2_000, 1_800, 2_200)])

    assert limit_signals(step, PRICES) == frozenset()
    assert limit_signals(with_limits(step, lp_max_weight_bps=100), PRICES) == {("limit", "lp_max_weight")}
    assert limit_signals(with_limits(step, impermanent_loss_bps=1), PRICES) == {("limit", "impermanent_loss")}


def test_liquidity_signals_name_pool_or_position_of_each_move() -> None:
    two_pools = world([paired(0)], [lp_target(2_000), lp_target(2_000, v2_at())])

    assert liquidity_signals(two_pools, PRICES) == {("ProvideMove", v3_at().address), ("ProvideMove", v2_at().address)}
    assert liquidity_signals(WITHDRAWAL_STEP, PRICES) == {("WithdrawMove", "uniswap_v3 #42")}


# --- exits first


STOP = terms("WETH", OrderKind.STOP_LOSS, 2_100)
FIRED_STOP = ConditionalOrder(
    WETH.address, OrderKind.STOP_LOSS, OrderStage.FIRED, STOP, 1, price_of("WETH", 2_500), None, price_of("WETH", 2_000)
)


def exit_step(**past: object) -> StepInput:
    """Return a step whose stop of WETH has fired and whose wallet has none; half of its 4,000 of liquidity lies in each pool."""
    step = world(
        [ranged(2_000, 1_600, 2_500), paired(2_000)],
        [lp_target(2_000), lp_target(2_000, v2_at())],
        {"WETH": 0, "USDC": 8_000},
        trigger=quiet(),
    )
    portfolio = replace(step.portfolio, orders=OrdersConfig((STOP,)))
    return apply_orders(replace(step, portfolio=portfolio, history=history(states=(FIRED_STOP,), **past)))


RANGE_POOL = v3_at().address
PAIR_POOL = v2_at().address


@pytest.mark.parametrize(
    ("failures_age_s", "pools"),
    [
        pytest.param({}, (RANGE_POOL, PAIR_POOL), id="no failures"),
        pytest.param({RANGE_POOL: 59}, (PAIR_POOL,), id="the range backs off"),
        pytest.param({RANGE_POOL: 60}, (RANGE_POOL, PAIR_POOL), id="its wait is over"),
        pytest.param({RANGE_POOL: 59, PAIR_POOL: 59}, (RANGE_POOL, PAIR_POOL), id="both back off"),
    ],
)
def test_exit_withdraws_from_pools_that_do_not_back_off(failures_age_s: dict[str, int], pools: tuple[str, ...]) -> None:
    """An exit of its own three failures waits a minute; if all wait, guards name the reason."""
    failed_exits = tuple(ExitFailures(pool, 3, 0, NOW_S - age_s) for pool, age_s in failures_age_s.items())

    decision = decide(exit_step(failed_exits=failed_exits)).decision

    assert isinstance(decision, AdjustLiquidity)
    assert decision.only_pools == pools


@pytest.mark.parametrize(
    ("step", "pools"),
    [
        pytest.param(exit_step(failed_exits=(ExitFailures(RANGE_POOL, 3, 0, NOW_S - 10),)), [PAIR_POOL], id="the range backs off"),
        pytest.param(exit_step(), [RANGE_POOL, PAIR_POOL], id="no failures"),
        pytest.param(confirmed_by(exit_step()), [RANGE_POOL, PAIR_POOL], id="no block confirms the limit"),
    ],
)
@pytest.mark.parametrize("limit", [{"lp_max_weight_bps": 3_000}, {"impermanent_loss_bps": 1}], ids=["weight", "loss"])
def test_exit_above_a_limit_withdraws_all_of_its_pools(step: StepInput, pools: list[str], limit: dict[str, int]) -> None:
    """The limit's own withdrawal, of other pools or of a part, does not replace the exit's."""
    step = with_limits(step, **limit)

    actions = planned(step).layer_actions

    assert [action.pool for action in actions] == pools
    assert all(isinstance(action, Withdraw) and action.liquidity == action.position_liquidity for action in actions)
    assert passes(step)


def test_exit_withdraws_nothing_once_the_agent_has_stopped() -> None:
    assert isinstance(decide(exit_step()).decision, AdjustLiquidity)
    assert isinstance(decide(exit_step(stop_reason="the owner stopped it")).decision, Halt)


# --- swaps and targets


@pytest.mark.parametrize(
    ("values", "decision_type"),
    [
        pytest.param({"WETH": 4_000, "USDC": 4_000}, AdjustLiquidity, id="no trigger"),
        pytest.param(UNEVEN, Rebalance, id="a trigger"),
    ],
)
def test_provision_follows_swaps(values: dict[str, int], decision_type: type[Decision]) -> None:
    assert isinstance(decide(world(targets=[lp_target(2_000)], values=values)).decision, decision_type)


LEFT_RANGE = ranged(1_600, 2_100, 2_400, 1)


@pytest.mark.parametrize(
    ("past", "decision_type"),
    [
        pytest.param({"last_liquidity_s": NOW_S - 3_600}, AdjustLiquidity, id="at the end of the cooldown"),
        pytest.param({"last_liquidity_s": NOW_S - 3_599}, Rebalance, id="a second earlier"),
    ],
)
def test_withdrawal_precedes_swaps_outside_the_cooldown(past: dict[str, object], decision_type: type[Decision]) -> None:
    """Prices that go to and fro over the end of a range move liquidity once per cooldown, whatever triggers fire."""
    step = world([LEFT_RANGE], [lp_target(2_000)], values=UNEVEN, past=history(**past))

    assert isinstance(decide(step).decision, decision_type)
    assert isinstance(decide(with_limits(step, lp_max_weight_bps=1_000)).decision, AdjustLiquidity), "limits wait for no cooldown"


def test_withdrawal_of_targets_waits_after_too_many_failures() -> None:
    """The swap that a trigger asks for is decided, and refused by reverts_in_row."""
    decision = decide(world([LEFT_RANGE], [lp_target(2_000)], values=UNEVEN, past=history(is_stopped=True))).decision

    assert isinstance(decision, Rebalance)
    assert_hold(world([paired(2_000)], [lp_target(500)], past=history(is_stopped=True)), "failed in a row", "trimtab resume")


@pytest.mark.parametrize(
    ("past", "reason"),
    [
        pytest.param("last_rebalance_s", "the last rebalance was", id="rebalance"),
        pytest.param("last_liquidity_s", "the last liquidity action", id="liquidity action"),
    ],
)
def test_provision_waits_for_the_cooldown(past: str, reason: str) -> None:
    step = world(targets=[lp_target(2_000)], past=history(**{past: NOW_S - 3_599}))

    assert_hold(step, "1600 USDC provided", reason, f"; no rebalance follows before {format_time(NOW_S + 1)} (cooldown 1 h)")
    assert kinds(with_history(step, **{past: NOW_S - 3_600})) == [Provide]


def test_rebalance_waits_for_no_liquidity_action() -> None:
    assert isinstance(decide(world(values=UNEVEN, past=history(last_liquidity_s=NOW_S - 60))).decision, Rebalance)


def test_provision_follows_a_zone_without_a_swap_worth_its_gas() -> None:
    zone = NoTradeZone(tracking("WETH", "USDC", cost_bps=2))
    step = world(targets=[lp_target(2_000)], values={"WETH": 4_150, "USDC": 3_850}, trigger=zone, destination=Destination.ZONE)

    proposal = propose_rebalance(step)

    assert isinstance(decide(step).decision, Rebalance)
    assert isinstance(proposal.decision_result.decision, AdjustLiquidity)
    assert [type(action) for action in proposal.plan.layer_actions] == [Provide]


@pytest.mark.parametrize(
    ("values", "decision_type"),
    [
        pytest.param({"WETH": 4_150, "USDC": 3_850}, AdjustLiquidity, id="within the trigger"),
        pytest.param(UNEVEN, Rebalance, id="beyond the trigger"),
    ],
)
def test_provision_follows_swaps_of_a_tracking_rule(values: dict[str, int], decision_type: type[Decision]) -> None:
    step = world(targets=[lp_target(2_000)], values=values, trigger=build_tracking("normal"), destination=Destination.ZONE)

    assert isinstance(propose_rebalance(complete_risk(step)).decision_result.decision, decision_type)


SELLING = {"trade_side": TradeSide.SELL}


@pytest.mark.parametrize(
    ("positions", "share_bps", "values", "policy", "bounds", "action"),
    [
        pytest.param([LEFT_RANGE], 0, {"WETH": 1_000, "USDC": 7_000}, SELLING, {}, Withdraw, id="policy.only, withdrawal"),
        pytest.param([], 2_000, {"WETH": 3_000, "USDC": 5_000}, SELLING, {}, Provide, id="policy.only, provision"),
        pytest.param([], 2_000, {"WETH": 5_000, "USDC": 3_000}, {}, {"min_trade": 1_100 * USD}, Provide, id="min_trade"),
        pytest.param([], 2_000, {"WETH": 5_000, "USDC": 3_000}, {}, {"plan_cost_bps": 31}, Provide, id="plan_cost"),
    ],
)
def test_liquidity_moves_beside_swaps_that_are_not_worth_it(
    positions: list[LpV3Position],
    share_bps: int,
    values: dict[str, int],
    policy: dict[str, TradeSide],
    bounds: dict[str, int],
    action: type[LpAction],
) -> None:
    """The trigger fires in every cycle, and nothing can be traded: liquidity does not wait for it."""
    step = world(positions, [lp_target(share_bps)], values, roomy(**bounds))
    step = replace(step, policy=replace(step.policy, **policy))

    proposal = propose_rebalance(step)

    assert proposal.plan is not None, proposal.decision_result.decision
    assert [type(layer_action) for layer_action in proposal.plan.layer_actions] == [action]
    assert decision_after_plan(step).decision == proposal.decision_result.decision


def test_decision_has_the_reason_of_every_move() -> None:
    decision = decide(world([paired(0)], [lp_target(2_000), lp_target(1_000, v2_at())])).decision

    assert isinstance(decision, AdjustLiquidity)
    assert decision.reason.count("provided") == 2


def test_decision_halts_while_a_position_is_not_the_wallet_s() -> None:
    decision = decide(with_snapshot(world([ranged(500, 1_800, 2_200)], [lp_target(2_000)]), positions=())).decision

    assert isinstance(decision, Halt)
    assert mentions(decision.reason, "uniswap_v3 #42")
