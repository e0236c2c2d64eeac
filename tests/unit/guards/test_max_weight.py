"""limits.max_weight: no target, choice or purchase takes an asset above it; selling and exits are never held back."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.app.describe import limit_text
from agent.config.build import build_portfolio
from agent.config.load import parse_config
from agent.errors import ConfigError
from agent.guards.case import build_guard_case
from agent.layers.strategies.policy.netting import strategy_drifts
from agent.layers.strategies.state import StrategyHealth, StrategyState
from agent.model import Every, OrderKind, Plan, Rebalance, StepInput, Threshold, WeightReallocation
from agent.policy.decide import decide
from agent.policy.drift import band, overweight_messages, with_trigger_bands
from agent.policy.orders.exits import apply_orders
from tests.support.builders import raw, step_input, strategy, token
from tests.support.configs.samples import config_text as config_text_of_template
from tests.support.configs.samples import tokens
from tests.support.configs.strategies import CARRY, TREND, config_with_strategies
from tests.support.configs.weights import RETURNS, config_text
from tests.support.decisions.max_weights import step_with_max_weights
from tests.support.plans import Swap, evidence, plan_of, sell_weth, verdict
from tests.support.standing_orders import terms, three
from tests.support.text import mentions

WETH, USDC, WBTC = token("WETH"), token("USDC"), token("WBTC")


def config_with_max_weight(limit: str, config: str = "") -> str:
    """The template's config, or this one, with a limit of weights."""
    return (config or config_text_of_template()).replace("# max_weight = ", f"max_weight = {limit}\n# ", 1)


def config_error(limit: str, config: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_with_max_weight(limit, config))
    return caught.value.message


def test_a_share_alone_is_that_of_any_asset_but_the_numeraire() -> None:
    for limit in ('"60%"', '{ any = "60%" }'):
        assets = build_portfolio(parse_config(config_with_max_weight(limit)), tokens()).assets
        assert [asset.max_bps for asset in assets] == [6_000, None]


def test_an_asset_s_own_limit_goes_before_that_of_any() -> None:
    config_of_text = parse_config(config_with_max_weight('{ any = "40%", WETH = "55%", USDC = "70%" }'))
    assert [asset.max_bps for asset in build_portfolio(config_of_text, tokens()).assets] == [5_500, 7_000]
    assert limit_text("max_weight", config_of_text.limits.max_weight, "USDC") == "any 40%, WETH 55%, USDC 70%"
    assert [asset.max_bps for asset in build_portfolio(parse_config(config_text_of_template()), tokens()).assets] == [None, None]


def test_a_target_at_its_limit_is_read_and_a_basis_point_more_is_refused() -> None:
    parse_config(config_with_max_weight('"50%"'))
    message = config_error('"49.99%"')
    assert mentions(message, "portfolio.assets.WETH.target", "50%", "limits.max_weight", "49.99%")
    assert "USDC.target: 50%" in config_error('{ USDC = "40%" }')


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ('{ WBTC = "60%" }', "limits.max_weight.WBTC: not an asset; choose from WETH, USDC"),
        ('{ any = "0%" }', "0% for WETH is not above 0% and at most 100%"),
        ('{ any = "101%" }', "at most 100%"),
        ('"0.6"', "'0.6' has no unit"),
        ('{ WETH = "0,6" }', "'0,6' has no unit"),
        ("[1]", "limits.max_weight"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(limit: str, message: str) -> None:
    assert message in config_error(limit)


def test_what_an_allocator_may_choose_counts_like_a_target() -> None:
    assert mentions(config_error('"50%"', config_text(RETURNS)), "portfolio.weights.limits.WETH.max: 60%", "limits.max_weight", "50%")
    parse_config(config_with_max_weight('"60%"', config_text(RETURNS)))
    for own_limit in ('cap = "60%"\nlimits = { WETH = { min = "10%" } }', 'cap = "60%"'):
        capped_returns = f"{RETURNS.partition('cap =')[0]}{own_limit}\n"
        assert "portfolio.weights.cap: 60% for WETH" in config_error('"50%"', config_text(capped_returns))


def test_what_strategies_want_together_counts_like_a_target() -> None:
    """60 % of the capital wants 70 % of WETH, 40 % of it half: 62 % in all."""
    parse_config(config_with_max_weight('"62%"', config_with_strategies(TREND, CARRY)))
    assert mentions(config_error('"61%"', config_with_strategies(TREND, CARRY)), "strategies", "62%", "limits.max_weight", "61%")


def test_what_strategies_want_together_is_rounded_up() -> None:
    """60 % of 70.01 % and 40 % of half are 62.006 %."""
    finer_config = config_with_strategies(TREND | {"weights": '{ WETH = "70.01%", USDC = "29.99%" }'}, CARRY)
    assert "strategies: 62.01% for WETH" in config_error('"62%"', finer_config)
    parse_config(config_with_max_weight('"62.01%"', finer_config))


def test_a_weight_above_the_cap_of_its_allocator_counts() -> None:
    """It is the weight until the first choice."""
    allocator = '{ kind = "equal", every = "7d", keep = "30d", churn = "1%", until_chosen = "targets", cap = "60%" }'
    config = config_with_strategies(TREND | {"allocator": allocator}, CARRY)
    assert "strategies: 62% for WETH" in config_error('"61.99%"', config)
    parse_config(config_with_max_weight('"62%"', config))


def test_equal_parts_of_three_assets_are_rounded_up() -> None:
    halves = [f'[[strategies]]\nname = "{name}"\nshare = "50%"\nfloor = "0%"\nallocator = "equal"\nhealth = "off"\n' for name in ("a", "b")]
    three_assets = config_text("").replace("[portfolio.weights]", "")
    by_band = three_assets.replace('kind = "tracking", strictness = "normal"', 'kind = "threshold", relative = "10%"')
    config = "\n".join([by_band.replace("\n[policy]", '\n[policy]\ndestination = "target"'), *halves, '[split]\nrelative = "20%"\n'])
    assert "strategies: 33.34% for WETH" in config_error('"33.33%"', config)
    parse_config(config_with_max_weight('"33.34%"', config))


def test_an_asset_that_keeps_its_target_is_no_choice_of_the_allocator() -> None:
    parse_config(config_with_max_weight('{ any = "60%", USDC = "20%" }', config_text(RETURNS)))
    assert "portfolio.assets.USDC.target: 20%" in config_error('{ any = "60%", USDC = "19.99%" }', config_text(RETURNS))


def buy_weth(step: StepInput, dollars: int) -> Plan:
    return plan_of(step, [Swap(step.snapshot.pools[0], USDC.address, raw(dollars, USDC))])


def weight_after(step: StepInput, plan: Plan) -> Fraction:
    case = build_guard_case(step, plan, evidence(step, plan))
    weth = (case.balance_raw(WETH.address) + case.replay.delta_raw(WETH.address)) * case.price(WETH.address)
    return weth * 10_000 / (weth + case.balance_raw(USDC.address) + case.replay.delta_raw(USDC.address))


def test_a_purchase_that_ends_a_basis_point_above_its_limit_is_refused() -> None:
    plan = buy_weth(step_input(values={"WETH": 5_000, "USDC": 5_000}), 400)
    weight_bps = int(weight_after(step_with_max_weights({}), plan))
    assert verdict("max_weight", step_with_max_weights({"WETH": weight_bps}), plan).passed, "in whole basis points"
    config_of_text = verdict("max_weight", step_with_max_weights({"WETH": weight_bps - 1}), plan)
    assert (config_of_text.passed, config_of_text.limit) == (False, f"WETH {weight_bps - 1} bps")
    assert config_of_text.measured_text.startswith("WETH at ")


def test_what_is_above_its_limit_may_be_sold_and_not_bought() -> None:
    step = step_with_max_weights({"WETH": 6_000}, {"WETH": 8_000, "USDC": 2_000})
    assert verdict("max_weight", step, sell_weth(step, Fraction(1, 2))).passed
    assert not verdict("max_weight", step, buy_weth(step, 20)).passed
    assert verdict("max_weight", step_with_max_weights({}, {"WETH": 8_000, "USDC": 2_000}), buy_weth(step, 20)).limit == "off"


def test_an_exit_into_a_limited_numeraire_is_not_held_back_and_a_rebalance_is() -> None:
    step = step_with_max_weights({"USDC": 5_500})
    plan = sell_weth(step, 1)
    assert not verdict("max_weight", step, plan).passed
    assert isinstance(plan.decision, Rebalance)
    assert verdict("max_weight", step, replace(plan, decision=replace(plan.decision, is_exit=True))).passed
    assert verdict("max_weight", step, replace(plan, decision=replace(plan.decision, by_hand=True))).passed


def test_a_swap_by_hand_buys_nothing_above_its_limit() -> None:
    step = step_with_max_weights({"WETH": 5_100})
    plan = buy_weth(step, 400)
    assert isinstance(plan.decision, Rebalance)
    assert not verdict("max_weight", step, replace(plan, decision=replace(plan.decision, by_hand=True))).passed


def test_a_weight_above_its_limit_is_outside_its_band_and_is_told() -> None:
    """A band of 10 % of 50 % reaches to 55 %; the limit of 52 % ends it there."""
    step = step_with_max_weights({"WETH": 5_200}, {"WETH": 5_300, "USDC": 4_700})
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance)
    assert [asset.band_high_bps for asset in decided.drifts] == [5_200, 5_500]
    assert mentions(overweight_messages(decided.drifts)[0], "WETH", "53 %", "limits.max_weight", "52 %")
    assert overweight_messages(decide(step_with_max_weights({"WETH": 5_300}, {"WETH": 5_300, "USDC": 4_700})).drifts) == ()
    assert with_trigger_bands(decided.drifts, Threshold(300, None))[0].band_high_bps == 5_200


def test_a_limit_at_the_target_leaves_the_band_as_it_is() -> None:
    """Else every move of the price would be traded."""
    trigger = Threshold(None, 1_000)
    assert band(trigger, 5_000, None, 5_000) == band(trigger, 5_000)
    assert band(trigger, 5_000, None, 5_200) == (4_500, 5_200)
    assert band(trigger, 5_000, None, 9_000) == (4_500, 5_500)
    assert band(Every(86_400), 5_000, None, 5_200) == (5_000, 5_000)


def test_what_is_shared_out_to_the_others_stops_at_their_limits_and_the_rest_waits_as_cash() -> None:
    bot = three(terms("WETH", OrderKind.STOP_LOSS, 1_500), absent=WeightReallocation.REDISTRIBUTE)
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    bot.look({"WETH": 1_500, "WBTC": 60_000})
    step = bot.seen({"WETH": 1_500, "WBTC": 60_000})
    assets = tuple(replace(asset, max_bps=4_500 if asset.token.symbol == "WBTC" else None) for asset in step.portfolio.assets)
    config_with_max_weight = apply_orders(replace(step, portfolio=replace(step.portfolio, assets=assets)))
    assert {asset.token.symbol: asset.target_bps for asset in apply_orders(step).effective_assets} == {
        "WETH": 0,
        "WBTC": 6_000,
        "USDC": 4_000,
    }
    assert {asset.token.symbol: asset.target_bps for asset in config_with_max_weight.effective_assets} == {
        "WETH": 0,
        "WBTC": 4_500,
        "USDC": 5_500,
    }


def test_the_limit_is_of_the_whole_portfolio_and_of_no_strategy() -> None:
    """One that wants 90 % of WETH for half of the capital drifts within its own band of 9 points."""
    step = step_with_max_weights({"WETH": 9_100})
    asset = strategy("trend", 5_000, {"WETH": 9_000, "USDC": 1_000})
    prices = {WETH.address: Fraction(2_000 * 10**6, 10**18), USDC.address: Fraction(1)}
    raw_by_token = {WETH.address: raw(Fraction(46, 20), WETH), USDC.address: raw(400, USDC)}
    drifts, _ = strategy_drifts(step, asset, StrategyState("trend", StrategyHealth.ACTIVE, 0), raw_by_token, prices)
    assert (drifts[0].weight_bps, drifts[0].band_high_bps, drifts[0].is_outside_band) == (9_200, 9_900, False)
