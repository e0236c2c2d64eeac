"""[[portfolio.positions]] and [lp]: what is confirmed reaches the model, and every mistake is named with its remedy."""

from __future__ import annotations

import pytest

from agent.config.build import build_limits, build_portfolio
from agent.config.load import parse_config
from agent.config.networks.presets import ETHEREUM_PRESET
from agent.errors import ConfigError
from agent.model import ConfirmedPosition
from agent.units import Token
from tests.support.configs.liquidity import PAIR, V2, V3, with_positions
from tests.support.configs.samples import USDC_PRESET, WETH_PRESET, config_text, tokens, without_v3
from tests.support.constants import MONTH_S
from tests.support.text import raises_field


def mistake(*positions: str, changes: tuple[tuple[str, str], ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(with_positions(*positions, changes=changes))
    return str(caught.value)


def test_confirmed_positions__reach_the_portfolio() -> None:
    config = parse_config(with_positions(V3, V2))
    first, second = build_portfolio(config, tokens()).positions
    token0, token1 = sorted((WETH_PRESET.address, USDC_PRESET.address), key=lambda address: int(address, 16))
    assert (token0, token1) == (USDC_PRESET.address, WETH_PRESET.address)
    entry = (4_500 * 10**6, 15 * 10**17)
    manager = ETHEREUM_PRESET.venues[1]["position_manager"]
    assert first == ConfirmedPosition("uniswap_v3", manager, 42, token0, token1, entry, None, 6_000, MONTH_S)
    assert second == ConfirmedPosition("uniswap_v2", PAIR, None, token0, token1, (10_000_001, 0), 7, 500, MONTH_S)
    assert (first.name, second.name) == ("uniswap_v3 #42", f"uniswap_v2 {PAIR}")


def test_template__has_no_position_and_a_limit_on_their_weight() -> None:
    config = parse_config(config_text())
    assert build_portfolio(config, tokens()).positions == ()
    assert build_limits(config, Token(USDC_PRESET.address, "USDC", 6)).lp_max_weight_bps == 2_500


def without(of: str, head: str, lines: int) -> str:
    """The text without a table's head and the keys below it."""
    kept = of.splitlines(keepends=True)
    start = next(i for i, line in enumerate(kept) if line.startswith(head))
    return "".join(kept[:start] + kept[start + lines :])


def test_missing_positions__need_no_risk_or_limit() -> None:
    assert parse_config(without(config_text(('lp_max_weight = "25%"', "")), "[lp]", 3)).lp is None


@pytest.mark.parametrize(
    ("position", "changes", "reason"),
    [
        pytest.param(V3.replace("42", "-1"), (), ("portfolio.positions.-1.token_id", "write at least 0"), id="negative id"),
        pytest.param(V3.replace("42", '"forty"'), (), ("token_id", "write a whole number", "'forty'"), id="id as a word"),
        pytest.param(V3.replace("token_id = 42\n", ""), (), ("token_id", "missing"), id="missing id"),
        pytest.param(V2.replace(PAIR, PAIR[:-1] + "d"), (), ("pair", "checksum"), id="wrong checksum"),
        pytest.param(V3.replace("uniswap_v3", "curve"), (), ("kind", "uniswap_v2"), id="unknown kind"),
        pytest.param(V3 + 'range = "1"\n', (), ("range", "unknown key"), id="unknown key"),
        pytest.param(V3.replace(', USDC = "4500"', ""), (), ("entry", "has 1 tokens, but a position has two"), id="one token in the entry"),
        pytest.param(
            V3.replace("USDC", "DAI"),
            (),
            ("portfolio.positions.42.entry", "'DAI' is not an asset", "add it to portfolio.assets"),
            id="foreign token in the entry",
        ),
        pytest.param(V3.replace('"4500"', '"-4500"'), (), ("entry.USDC", "not an amount"), id="negative entry"),
        pytest.param(V3.replace('"4500"', '"1e9"'), (), ("entry.USDC", "not an amount"), id="entry in powers of ten"),
        pytest.param(V3 + "entry_block = -1\n", (), ("portfolio.positions.42.entry_block", "write at least 0"), id="negative block"),
        pytest.param(V3 + 'volatility = "0%"\n', (), ("volatility", "above 0 %"), id="no volatility"),
        pytest.param(V3 + 'volatility = "2000%"\n', (), ("volatility", "at most 1000 %"), id="volatility too large"),
        pytest.param(V3, (('volatility = "60%"', 'volatility = "60"'),), ("lp.volatility", "has no unit"), id="volatility without unit"),
        pytest.param(
            V3, (('volatility = "60%"', 'volatility = "0%"'),), ("lp.volatility", "above 0 %"), id="general volatility of nothing"
        ),
        pytest.param(V3, (('\nhorizon = "30d"', '\nhorizon = "0s"'),), ("lp.horizon", "above 0s"), id="no horizon"),
        pytest.param(V3, (('\nhorizon = "30d"', '\nhorizon = "366d"'),), ("lp.horizon", "at most 365d"), id="horizon too long"),
        pytest.param(V3, (('lp_max_weight = "25%"', ""),), ("limits.lp_max_weight: missing", '"25%"'), id="missing weight limit"),
        pytest.param(V3, (("\n[lp]", "\n[pl]"),), ("pl", "unknown key"), id="mistyped table"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(position: str, changes: tuple[tuple[str, str], ...], reason: tuple[str, ...]) -> None:
    message = mistake(position, changes=changes)
    assert all(part in message for part in reason), message


def test_positions_need_their_risk_and_their_venue() -> None:
    with raises_field("config", "lp: missing", "volatility"):
        parse_config(without(with_positions(V3), "[lp]", 3))
    with raises_field("portfolio.positions.42", "[[venues]] of kind uniswap_v3"):
        parse_config(without_v3(with_positions(V3)))


@pytest.mark.parametrize("position", [V2, V3])
def test_a_position_is_confirmed_once(position: str) -> None:
    assert f"portfolio.positions.{PAIR if position == V2 else 42}" in mistake(position, position)
    assert "given twice" in mistake(position, position)


def test_entry_finer_than_a_unit__is_refused_by_name() -> None:
    config = parse_config(with_positions(V3.replace('"4500"', '"0.0000001"')))
    with raises_field("portfolio.positions.42.entry.USDC", "6 decimal"):
        build_portfolio(config, tokens())
