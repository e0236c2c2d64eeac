"""[[strategies]] and [split]: what each says becomes what it means, and every mistake is named with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.describe import binding_parameters
from agent.config.build import build_portfolio
from agent.config.load import parse_config
from agent.config.strategies import build_split, with_allocators
from agent.errors import ConfigError
from agent.layers.strategies.state import CapitalSplit, StrategyHealthRule
from agent.model import Destination, Every, NoTradeZone, Threshold
from tests.support.configs.futures import FUTURES
from tests.support.configs.liquidity import V2
from tests.support.configs.lp_targets import V2_TARGET
from tests.support.configs.pace import LIMIT, ROUNDS, TWAP
from tests.support.configs.samples import USDC_PRESET, WETH_PRESET, config_text, tokens
from tests.support.configs.strategies import CARRY, HEALTH, TREND, config_with_strategies
from tests.support.constants import DAY_S
from tests.support.text import mentions, raises_field


def built(*parts: dict[str, str], split: str = 'relative = "20%"') -> CapitalSplit:
    capital_split = build_split(parse_config(config_with_strategies(*parts, split=split)))
    assert capital_split is not None
    return capital_split


def error(*parts: dict[str, str], split: str = 'relative = "20%"') -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_with_strategies(*parts, split=split))
    return str(caught.value)


def test_what_a_strategy_does_not_say_is_that_of_the_policy() -> None:
    split = built(TREND | {"trigger": '{ kind = "time", every = "7d" }', "cooldown": '"2d"', "destination": '"halfway"'}, CARRY)
    trend, carry = split.strategies
    assert (trend.trigger, trend.destination, trend.cooldown_s) == (Every(7 * DAY_S), Destination.HALFWAY, 2 * DAY_S)
    assert (carry.trigger, carry.destination, carry.cooldown_s) == (Threshold(None, 1_000), Destination.TARGET, 3_600)
    assert trend.weights_bps == ((WETH_PRESET.address, 7_000), (USDC_PRESET.address, 3_000))
    assert carry.weights_bps == ((WETH_PRESET.address, 5_000), (USDC_PRESET.address, 5_000))
    assert (trend.share_bps, trend.floor_bps, carry.share_bps) == (6_000, 1_000, 4_000)
    assert trend.health == StrategyHealthRule(500, 800, 30 * DAY_S, 30 * DAY_S, 14 * DAY_S)
    assert carry.health is None
    assert split.band == Threshold(None, 2_000)


def test_without_strategies_the_wallet_is_one() -> None:
    assert build_split(parse_config(config_text())) is None


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((TREND, CARRY | {"share": '"30%"'}), "strategies: shares sum to 90 %, not 100 %"),
        ((TREND | {"weights": '{ WETH = "70%", DOGE = "30%" }'}, CARRY), "strategies.trend.weights: DOGE is not an asset"),
        ((TREND | {"weights": '{ WETH = "70%", USDC = "20%" }'}, CARRY), "weights sum to 90 %, not 100 %"),
        ((TREND, CARRY | {"name": '"trend"'}), "the name trend is given twice"),
        ((TREND, CARRY | {"name": '"all"'}), "reserved"),
        ((TREND | {"floor": '"61%"'}, CARRY), "floor 61 % is above its share of 60 %"),
        ((TREND | {"share": '"100%"'},), "strategies: 1 given; write two to 12"),
        ((TREND | {"allocator": '"equal"'}, CARRY), 'allocator = "equal" needs no weights'),
        ((TREND | {"name": '"a b"'}, CARRY), "strategies.0.name"),
        ((TREND | {"trigger": '{ kind = "time", every = "5m" }'}, CARRY), "strategies.trend.trigger.every: 5min"),
        ((TREND | {"trigger": '{ kind = "time", every = "1d" }', "destination": '"band"'}, CARRY), "strategies.trend.destination: band"),
        ((TREND | {"trigger": '{ kind = "threshold" }'}, CARRY), "strategies.trend.trigger: a threshold needs absolute or relative"),
        ((TREND | {"health": HEALTH.replace('"0.8"', "0.5")}, CARRY), "recover is not above sharpe"),
        ((TREND | {"health": HEALTH.replace('window = "30d"', 'window = "1d"')}, CARRY), "window is not between 7d"),
        ((TREND | {"health": HEALTH.replace("0.5", '"much"')}, CARRY), "is not a Sharpe ratio"),
        (({key: value for key, value in TREND.items() if key != "health"}, CARRY), "strategies.trend.health: missing"),
        (({key: value for key, value in TREND.items() if key != "floor"}, CARRY), "strategies.trend.floor: missing"),
    ],
)
def test_mistakes_are_named(parts: tuple[dict[str, str], ...], reason: str) -> None:
    assert reason in error(*parts)


ALLOCATOR = (
    '{ kind = "inverse_volatility", every = "7d", window = "90d", step = "1d", min_history = "30d", max_age = "2d", keep = "30d", '
    'churn = "1%", until_chosen = "targets", fixed = ["USDC"] }'
)


def test_strategy_allocator__is_the_portfolio_s_with_its_weights() -> None:
    equal = '{ kind = "equal", every = "7d", keep = "30d", churn = "1%", until_chosen = "targets" }'
    config = parse_config(config_with_strategies(TREND | {"allocator": equal}, CARRY))
    portfolio = build_portfolio(config, tokens())
    capital_split = with_allocators(config, build_split(config), portfolio, Path())
    assert [strategy.allocator is None for strategy in capital_split.strategies] == [False, True]
    assert capital_split.strategies[0].weights_bps == ((WETH_PRESET.address, 7_000), (USDC_PRESET.address, 3_000)), (
        "what counts until the first choice"
    )
    limited = equal.replace(" }", ', max_change = "5%" }')
    limited_config = parse_config(config_with_strategies(TREND | {"allocator": limited}, CARRY))
    limited_split = with_allocators(limited_config, build_split(limited_config), portfolio, Path())
    assert [part.allocator and part.allocator.max_change_bps for part in limited_split.strategies] == [500, None]
    assert mentions(error(TREND | {"allocator": ALLOCATOR}, CARRY), "strategies.trend", "allocator.fixed", "1 assets")
    assert mentions(
        error({**{key: value for key, value in TREND.items() if key != "weights"}, "allocator": equal}, CARRY), "trend", "weights"
    )


def test_strategy_allocator__a_fault_of_its_file_names_its_own_key(tmp_path: Path) -> None:
    caps = (
        '{ kind = "market_cap", every = "7d", keep = "30d", churn = "1%", until_chosen = "targets", max_age = "2d",'
        ' supplies = "nofile.csv" }'
    )
    config = parse_config(config_with_strategies(TREND | {"allocator": caps}, CARRY))
    with raises_field("strategies.trend.allocator.supplies", "nofile.csv", "cannot be read"):
        with_allocators(config, build_split(config), build_portfolio(config, tokens()), tmp_path)


def test_a_split_says_beyond_what_it_is_restored() -> None:
    assert "split: missing" in error(TREND, CARRY, split="")
    assert mentions(error(TREND, CARRY, split="# nothing"), "absolute", "relative")
    assert "capital" in error(TREND, CARRY, split='absolute = "0%"')
    assert "[[strategies]]" in error()


ZONE = '{ kind = "zone", tracking_error_cost = "0.5bps", horizon = "30d" }'
RISK = 'risk = { volatilities = { WETH = "80%", USDC = "1%" }, correlation = "0%" }'
TRIGGER = 'trigger = { kind = "threshold", relative = "10%" }'
DESTINATION = 'destination = "target"'
HEDGE = '[futures.hedge]\nhorizon = "30d"\nmin_saving = "0.5%"\ntax_rate = "25%"\ncapital_cost = "4%"\n'
WHOLE = {
    "zone": (
        lambda config: config.replace(TRIGGER, f"trigger = {ZONE}\n{RISK}", 1).replace(DESTINATION, "", 1),
        "policy.trigger: a zone with a horizon weighs the whole wallet",
        "use another trigger",
    ),
    "after-tax": (
        lambda config: config.replace(TRIGGER, 'trigger = { kind = "tracking", after_tax = true }', 1).replace(DESTINATION, "", 1),
        "policy.trigger: after_tax weighs the lots of the whole wallet",
        "use another trigger",
    ),
    "risk": (lambda config: config.replace(TRIGGER, f"{TRIGGER}\n{RISK}", 1), "policy.risk: without a trigger", "remove [policy.risk]"),
    "allocator": (
        lambda config: f'{config}[portfolio.weights]\nkind = "equal"\nevery = "7d"\nkeep = "30d"\nchurn = "1%"\nuntil_chosen = "targets"\n',
        "portfolio.weights: equal, the allocator of the whole portfolio,",
        "make it the allocator of a strategy",
    ),
    "positions": (
        lambda config: config.replace("\n[reference]", f"\n[[portfolio.positions]]\n{V2}[reference]", 1),
        "portfolio.positions: 1 of them",
        "remove [[portfolio.positions]]",
    ),
    "liquidity": (
        lambda config: config.replace("\n[store]", f"\n[[lp.targets]]\n{V2_TARGET}[store]", 1),
        "lp.targets: 1 of them",
        "remove [[lp.targets]]",
    ),
    **{
        style["style"]: (
            lambda config, style=style: _paced(config, style),
            f"execution.style: {style['style'].strip(chr(34))}, whose slices",
            'write style = "market" and remove the keys of other styles, or remove [[strategies]]',
        )
        for style in (ROUNDS, TWAP, LIMIT)
    },
    "hedges": (
        lambda config: config + FUTURES + HEDGE,
        "futures.hedge: hedges, which the strategies' weights do not count, cannot be combined with [[strategies]]",
        "remove [futures.hedge], or remove [[strategies]]",
    ),
}


def _paced(config: str, keys: dict[str, str]) -> str:
    head, tail = config.split("[execution]\n", 1)
    return head + "[execution]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()) + tail.replace('style = "market"', "", 1)


@pytest.mark.parametrize(("changed", "reason", "remedy"), WHOLE.values(), ids=WHOLE)
def test_wallet_wide_deciders__do_not_go_with_strategies(changed: Callable[[str], str], reason: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(changed(config_with_strategies(TREND, CARRY)))
    assert reason in str(caught.value)
    assert remedy in str(caught.value)


def test_zone_with_a_horizon_or_tax__is_no_strategy_trigger() -> None:
    assert mentions(error(TREND | {"trigger": ZONE}, CARRY), "strategies.trend.trigger", "a zone with a horizon", "tracking")
    taxed = '{ kind = "tracking", after_tax = true }'
    assert mentions(error(TREND | {"trigger": taxed}, CARRY), "strategies.trend.trigger", "after_tax", "lots")


def test_tracking_of_a_strategy_or_policy__has_the_config_s_risk() -> None:
    def destinations(config: str) -> dict[str, Destination]:
        split = build_split(parse_config(file_text))
        return {strategy.name: strategy.destination for strategy in split.strategies}

    strict = TREND | {"trigger": '{ kind = "tracking", strictness = "strict" }'}
    file_text = config_with_strategies(strict, CARRY).replace(TRIGGER, f"{TRIGGER}\n{RISK}", 1)
    assert destinations(file_text) == {"trend": Destination.ZONE, "carry": Destination.TARGET}
    split = build_split(parse_config(file_text))
    trigger = split.strategies[0].trigger
    assert isinstance(trigger, NoTradeZone)
    assert (trigger.risk.cost_bps, dict(trigger.risk.volatilities_bps)) == (
        Fraction(3, 2),
        {WETH_PRESET.address: 8_000, USDC_PRESET.address: 100},
    )
    tracked = config_text().replace(TRIGGER, 'trigger = { kind = "tracking" }', 1).replace(DESTINATION, "", 1)
    banded = CARRY | {"trigger": '{ kind = "threshold", relative = "10%" }'}
    file_text = config_with_strategies(TREND, banded).replace(config_text(), tracked, 1)
    assert destinations(file_text) == {"trend": Destination.ZONE, "carry": Destination.TARGET}
    with pytest.raises(ConfigError, match="'DOGE' is not an asset"):
        parse_config(config_with_strategies(strict, CARRY).replace(TRIGGER, f"{TRIGGER}\n{RISK.replace('WETH', 'DOGE')}", 1))


def test_bounds_of_each_strategy__are_named_before_any_send() -> None:
    config = parse_config(config_with_strategies(TREND, CARRY | {"trigger": '{ kind = "time", every = "7d" }', "cooldown": '"2d"'}))
    text_by_name = binding_parameters(config, build_portfolio(config, tokens()), "0xrouter")
    assert mentions(text_by_name["strategy trend"], "60 %", "10 %", "WETH 70 %, USDC 30 %")
    assert mentions(text_by_name["strategy trend"], "30 days", "0.5", "0.8", "14 days")
    assert "every 7 days" in text_by_name["strategy carry"]
    assert "cooldown 2 days" in text_by_name["strategy carry"]
    assert "health off" in text_by_name["strategy carry"]
    assert mentions(text_by_name["split"], "20 %")
    assert not any(
        name.startswith("strategy")
        for name in binding_parameters(parse_config(config_text()), build_portfolio(config, tokens()), "0xrouter")
    )
