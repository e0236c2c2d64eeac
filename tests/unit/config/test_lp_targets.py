"""[[lp.targets]]: what is wanted reaches the model, and every mistake is named with its remedy."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.chain.pools.reading import PoolRef, V2Reader, V3Reader
from agent.config.build import build_portfolio
from agent.config.liquidity import build_targets, counted_positions
from agent.config.load import parse_config
from agent.config.networks.presets import ETHEREUM_PRESET
from agent.errors import ConfigError
from agent.model import LpPositionChange, LpTarget
from agent.units import Token
from tests.support.builders import address
from tests.support.configs.lp_targets import PAIR, POOL, REFS, TWO, V2_TARGET, V3_TARGET, config_with_targets
from tests.support.configs.samples import USDC_PRESET, tokens, without_v3
from tests.support.constants import MONTH_S
from tests.support.text import raises_field


def built(*targets: str, refs: tuple[PoolRef, ...] = REFS) -> tuple[LpTarget, ...]:
    config = parse_config(config_with_targets(*targets))
    return build_targets(config, build_portfolio(config, tokens()), refs)


def test_targets__reach_the_portfolio_with_their_pools() -> None:
    first, second = built(V3_TARGET, V2_TARGET)
    manager = ETHEREUM_PRESET.venues[1]["position_manager"]
    above = Fraction(25_500_000)
    assert first == LpTarget("uniswap_v3", manager, POOL, *TWO, 3_000, 60, 1_000, 2_000, above, 6_000, MONTH_S)
    assert second == LpTarget("uniswap_v2", PAIR, PAIR, *TWO, 3_000, None, 500, None, None, 7_000, MONTH_S)


def test_fees__stay_if_compounding_is_off_and_none_is_a_target() -> None:
    [target] = built(V3_TARGET.replace('"25.5"', '"off"').replace("10%", "0%"))
    assert (target.compound_above, target.share_bps) == (None, 0)


@pytest.mark.parametrize(
    ("targets", "changes", "reason"),
    [
        pytest.param(
            (V3_TARGET.replace("10%", "26%"),),
            (),
            ("lp.targets: shares sum to 26 %, but limits.lp_max_weight is 25 %", "lower the shares"),
            id="share above the limit",
        ),
        pytest.param((V3_TARGET.replace("10%", "21%"), V2_TARGET), (), ("shares sum to 26 %",), id="two shares above the limit"),
        pytest.param(
            (V3_TARGET,), (('lp_max_weight = "25%"', 'lp_max_weight = "off"'),), ("limits.lp_max_weight: missing or off",), id="limit off"
        ),
        pytest.param((V3_TARGET,), (('lp_max_weight = "25%"', ""),), ("limits.lp_max_weight: missing or off",), id="missing limit"),
        pytest.param((V3_TARGET, V3_TARGET), (), (f"lp.targets.{POOL}: given twice; list each pool once",), id="repeated pool"),
        pytest.param((V3_TARGET.replace('"20%"', '"5bps"'),), (), ("width", "from 0.1 % to 1000 %"), id="width too small"),
        pytest.param((V3_TARGET.replace('"20%"', '"1001%"'),), (), ("width", "from 0.1 % to 1000 %"), id="width too large"),
        pytest.param((V3_TARGET.replace('"20%"', '"20"'),), (), ("width", "has no unit"), id="width without unit"),
        pytest.param((V3_TARGET.replace('width = "20%"\n', ""),), (), (f"lp.targets.{POOL}.width", "missing"), id="missing width"),
        pytest.param((V3_TARGET.replace('compound_above = "25.5"\n', ""),), (), ("compound_above", "missing"), id="missing threshold"),
        pytest.param((V3_TARGET.replace('"25.5"', '"-1"'),), (), ("compound_above", "not an amount"), id="negative threshold"),
        pytest.param((V3_TARGET.replace("10%", "101%"),), (), ("share", "at most 100 %"), id="share above a whole"),
        pytest.param((V3_TARGET.replace("10%", "-1%"),), (), ("share", "negative"), id="negative share"),
        pytest.param((V2_TARGET + 'width = "20%"\n',), (), ("width", "unknown key"), id="width of a pair"),
        pytest.param((V2_TARGET.replace("70%", "0%"),), (), ("volatility", "above 0 %"), id="no volatility"),
        pytest.param((V3_TARGET.replace(POOL, POOL[:-1] + "9"),), (), ("pool", "checksum"), id="wrong checksum"),
        pytest.param((V3_TARGET.replace("uniswap_v3", "curve"),), (), ("kind", "uniswap_v2"), id="unknown kind"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(
    targets: tuple[str, ...], changes: tuple[tuple[str, str], ...], reason: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_with_targets(*targets, changes=changes))
    assert all(part in str(caught.value) for part in reason), str(caught.value)


def test_a_target_needs_its_venue() -> None:
    with pytest.raises(ConfigError, match=rf"lp\.targets\.{POOL}.*needs \[\[venues\]\] of kind uniswap_v3"):
        parse_config(without_v3(config_with_targets(V3_TARGET)))


def test_v3_target__needs_the_position_manager_of_its_venue() -> None:
    manager = f'position_manager = "{ETHEREUM_PRESET.venues[1]["position_manager"]}"\n'
    config_text = config_with_targets(V3_TARGET)
    assert config_text.count(manager) == 1
    with pytest.raises(ConfigError, match=rf"lp\.targets\.{POOL}: needs position_manager in \[\[venues\]\] of kind uniswap_v3"):
        parse_config(config_text.replace(manager, ""))


@pytest.mark.parametrize("refs", [(), (REFS[0],), (PoolRef(POOL, "uniswap_v2", V2Reader(), *TWO, 3_000),)])
def test_a_pool_that_its_venue_does_not_know_is_refused_by_name(refs: tuple[PoolRef, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"lp\.targets\.{POOL}.*not a priced pool of uniswap_v3"):
        built(V3_TARGET, refs=refs)


def test_a_pool_with_a_token_that_is_no_asset_is_refused_by_name() -> None:
    config = parse_config(config_with_targets(V3_TARGET))
    portfolio = build_portfolio(config, tokens())
    hub = address("hub")
    with_hub = replace(portfolio, hubs=(*portfolio.hubs, Token(hub, "HUB", 18)))
    with raises_field(f"lp.targets.{POOL}", "HUB", "portfolio.assets"):
        build_targets(config, with_hub, (PoolRef(POOL, "uniswap_v3", V3Reader(), USDC_PRESET.address, hub, 3_000, 60),))


def test_threshold_finer_than_a_unit__is_refused_by_name() -> None:
    with raises_field(f"lp.targets.{POOL}.compound_above", "6 decimal"):
        built(V3_TARGET.replace('"25.5"', '"0.0000001"'))


def test_venue_with_liquidity__stays_in_the_config() -> None:
    whole = parse_config(config_with_targets(V2_TARGET))
    without = parse_config(without_v3(config_with_targets(V2_TARGET)))
    mint = LpPositionChange("uniswap_v3", ETHEREUM_PRESET.venues[1]["position_manager"], 7, POOL, *TWO, 3_000, (-60, 60), 100, 0, (1, 1), 5)
    gone = replace(mint, ticks=None, liquidity_delta=-100, liquidity_before=100)
    assert [confirmed_position.token_id for confirmed_position in counted_positions(whole, build_portfolio(whole, tokens()), (mint,))] == [
        7
    ]
    portfolio = build_portfolio(without, tokens())
    assert counted_positions(without, portfolio, (mint, gone)) == ()
    with raises_field("venues.uniswap_v3", "missing", "uniswap_v3 #7"):
        counted_positions(without, portfolio, (mint,))
