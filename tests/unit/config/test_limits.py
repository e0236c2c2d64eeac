"""Tests of agent/config/limits.py: maximum weights in the config, and the targets and choices that they bound."""

from __future__ import annotations

import pytest

from agent.config.build import build_portfolio
from agent.config.load import parse_config
from agent.errors import ConfigError
from tests.support.configs import weights
from tests.support.configs.samples import config_text, tokens
from tests.support.configs.strategies import CARRY, TREND, config_with_strategies
from tests.support.configs.weights import RETURNS
from tests.support.text import mentions


def config_with_max_weight(limit: str, config: str = "") -> str:
    """Return the template's config, or this one, with a limit of weights."""
    return (config or config_text()).replace("# max_weight = ", f"max_weight = {limit}\n# ", 1)


def config_error(limit: str, config: str = "") -> str:
    with pytest.raises(ConfigError) as raised:
        parse_config(config_with_max_weight(limit, config))
    return raised.value.message


def max_weights_bps(config: str) -> list[int | None]:
    """Return the maximum weights of WETH and USDC."""
    return [asset.max_bps for asset in build_portfolio(parse_config(config), tokens()).assets]


# --- One limit for any asset, and those of single assets.


@pytest.mark.parametrize(
    ("limit", "max_bps"),
    [
        pytest.param('"60%"', [6_000, None], id="a share alone leaves the numeraire out"),
        pytest.param('{ any = "60%" }', [6_000, None], id="any leaves the numeraire out"),
        pytest.param('{ any = "40%", WETH = "55%", USDC = "70%" }', [5_500, 7_000], id="an asset's own goes first"),
    ],
)
def test_max_weight_of_an_asset_is_its_own_or_that_of_any(limit: str, max_bps: list[int | None]) -> None:
    assert max_weights_bps(config_with_max_weight(limit)) == max_bps


def test_max_weight_is_off_in_the_template() -> None:
    assert max_weights_bps(config_text()) == [None, None]


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        pytest.param('{ WBTC = "60%" }', "limits.max_weight.WBTC: not an asset; choose from WETH, USDC", id="no asset"),
        pytest.param('{ any = "0%" }', "0 % for WETH is not above 0 % and at most 100 %", id="zero"),
        pytest.param('{ any = "101%" }', "at most 100 %", id="more than all"),
        pytest.param('"0.6"', "'0.6' has no unit", id="no unit"),
        pytest.param('{ WETH = "0,6" }', "'0,6' has no unit", id="a comma"),
        pytest.param("[1]", "limits.max_weight", id="a list"),
    ],
)
def test_max_weight_refuses_a_mistake_by_its_name(limit: str, reason: str) -> None:
    assert reason in config_error(limit)


# --- What it bounds, at the limit and one hundredth of a percent below.


KEPT_TARGET = '{{ any = "60%", USDC = "{}" }}'
CAPPED_ALLOCATOR = '{ kind = "equal", every = "7d", keep = "30d", churn = "1%", until_chosen = "targets", cap = "60%" }'
FINE_TREND = TREND | {"weights": '{ WETH = "70.01%", USDC = "29.99%" }'}


def equal_thirds() -> str:
    """Return a config of two strategies that divide three assets equally."""
    strategies = [
        f'[[strategies]]\nname = "{name}"\nshare = "50%"\nfloor = "0%"\nallocator = "equal"\nhealth = "off"\n' for name in ("a", "b")
    ]
    three_assets = weights.config_text("").replace("[portfolio.weights]", "")
    by_band = three_assets.replace('kind = "tracking", strictness = "normal"', 'kind = "threshold", relative = "10%"')
    return "\n".join([by_band.replace("\n[policy]", '\n[policy]\ndestination = "target"'), *strategies, '[split]\nrelative = "20%"\n'])


@pytest.mark.parametrize(
    ("config", "lowest", "too_low", "terms"),
    [
        pytest.param("", '"50%"', '"49.99%"', ["portfolio.assets.WETH.target", "50 %", "49.99 %"], id="a target"),
        pytest.param(
            weights.config_text(RETURNS), '"60%"', '"59.99%"', ["portfolio.weights.limits.WETH.max: 60 %", "59.99 %"],
            id="an allocator's choice",
        ),
        pytest.param(
            weights.config_text(RETURNS), KEPT_TARGET.format("20%"), KEPT_TARGET.format("19.99%"), ["portfolio.assets.USDC.target: 20 %"],
            id="a target that the allocator leaves",
        ),
        pytest.param(config_with_strategies(TREND, CARRY), '"62%"', '"61.99%"', ["strategies", "62 %"], id="strategies together"),
        pytest.param(
            config_with_strategies(FINE_TREND, CARRY), '"62.01%"', '"62%"', ["strategies: 62.01 % for WETH"], id="strategies, rounded up"
        ),
        pytest.param(
            config_with_strategies(TREND | {"allocator": CAPPED_ALLOCATOR}, CARRY), '"62%"', '"61.99%"', ["strategies: 62 % for WETH"],
            id="a weight above its allocator's cap",
        ),
        pytest.param(equal_thirds(), '"33.34%"', '"33.33%"', ["strategies: 33.34 % for WETH"], id="equal thirds, rounded up"),
    ],
)  # fmt: skip
def test_max_weight_bounds_what_the_config_aims_at(config: str, lowest: str, too_low: str, terms: list[str]) -> None:
    parse_config(config_with_max_weight(lowest, config))

    assert mentions(config_error(too_low, config), *terms)


def test_max_weight_bounds_the_target_of_the_numeraire() -> None:
    assert "portfolio.assets.USDC.target: 50 %" in config_error('{ USDC = "40%" }')


@pytest.mark.parametrize(
    "own_limit", ['cap = "60%"\nlimits = { WETH = { min = "10%" } }', 'cap = "60%"'], ids=["beside a minimum", "alone"]
)
def test_max_weight_bounds_the_cap_of_an_allocator(own_limit: str) -> None:
    capped_returns = f"{RETURNS.partition('cap =')[0]}{own_limit}\n"

    assert "portfolio.weights.cap: 60 % for WETH" in config_error('"50%"', weights.config_text(capped_returns))
