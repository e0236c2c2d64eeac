"""Assets that leave a portfolio whose weights are chosen: they get no share of the choice."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.load import load_config, parse_config
from agent.config.writing.edits import ConfigChanges, apply_changes, removals_as_sales
from agent.errors import ConfigError
from tests.support.agents import config, profile, taken_over
from tests.support.configs import weights
from tests.support.configs.strategies import TREND, config_with_strategies
from tests.support.configs.weights import changed

LINK = '\n[[portfolio.assets]]\nsymbol = "LINK"\naddress = "0x514910771AF9Ca656af840dff83E8264EcF986CA"\ntarget = "0%"\nreserve = "0"\n'
EQUAL = 'kind = "equal"\nevery = "7d"\nkeep = "30d"\nchurn = "1%"\nuntil_chosen = "targets"\n'
REMOVAL = ConfigChanges(removed_symbols=("WBTC",), targets=(("WETH", "80%"),))


def config_of_four(allocator: str) -> str:
    """Return a config of WETH, WBTC, USDC and LINK with this allocator."""
    return weights.config_text(allocator).replace("\n[portfolio.weights]", f"{LINK}\n[portfolio.weights]", 1)


@pytest.mark.parametrize(
    ("allocator", "fixed"),
    [
        pytest.param(EQUAL, ["WBTC"], id="none fixed"),
        pytest.param(EQUAL + 'fixed = ["USDC"]\n', ["USDC", "WBTC"], id="another fixed"),
        pytest.param(EQUAL + 'fixed = ["WBTC"]\n', ["WBTC"], id="fixed already"),
        pytest.param(EQUAL + 'limits = { WBTC = { min = "10%" } }\n', ["WBTC"], id="limited"),
        pytest.param(changed(weights.RETURNS, ("limits", None)), ["USDC", "WBTC"], id="by returns"),
    ],
)
def test_removed_asset__is_sold_whatever_the_allocator_chooses(allocator: str, fixed: list[str]) -> None:
    sale = parse_config(apply_changes(config_of_four(allocator), removals_as_sales(REMOVAL)))
    assert sale.portfolio.weights is not None
    assert sale.portfolio.weights.fixed == fixed
    assert next(asset.target for asset in sale.portfolio.assets if asset.symbol == "WBTC") == 0


@pytest.mark.parametrize(
    "allocator",
    [EQUAL + 'fixed = ["WBTC"]\n', EQUAL + 'limits = { WBTC = { min = "10%" } }\n', EQUAL],
    ids=["fixed", "limited", "free"],
)
def test_asset_that_is_gone__is_named_by_no_allocator(allocator: str) -> None:
    removed = parse_config(apply_changes(config_of_four(allocator), REMOVAL))
    assert removed.portfolio.weights is not None
    assert ("WBTC" in removed.portfolio.weights.fixed, "WBTC" in removed.portfolio.weights.limits) == (False, False)


def sell_weth_beside(changes: dict[str, str | None]) -> tuple[str, str]:
    """Return a config of two strategies with these changes, before and after WETH is taken out by a sale."""
    strategy = {key: value for key, value in (TREND | changes).items() if value is not None}
    text = config_with_strategies(strategy, strategy | {"name": '"carry"', "share": '"40%"'})
    return text, apply_changes(text, removals_as_sales(ConfigChanges(removed_symbols=("WETH",))))


@pytest.mark.parametrize("changes", [{}, {"weights": None, "allocator": '"equal"'}], ids=["by its weights", "in equal parts"])
def test_asset_of_a_strategy__is_taken_out_of_it_first(changes: dict[str, str | None]) -> None:
    with pytest.raises(ConfigError, match="strategy trend gives it a weight"):
        sell_weth_beside(changes)


def test_asset_without_a_weight_in_strategies__is_sold() -> None:
    text, changed_text = sell_weth_beside({"weights": '{ USDC = "100%" }'})
    assert changed_text != text


def test_assets_that_a_profile_lacks__get_no_share_of_its_choice(tmp_path: Path) -> None:
    path = config(tmp_path, targets="WETH=40% LINK=30% USDC=30%")
    file = profile(
        tmp_path,
        assets=[{"symbol": "WETH", "target": "50%"}, {"symbol": "WBTC", "target": "50%"}],
        weights={"kind": "equal", "every": "7d", "keep": "30d", "churn": "1%", "until_chosen": "targets"},
    )
    taken_over(path, file, sell_others=True)
    portfolio = load_config(path).config.portfolio
    assert {asset.symbol: asset.target for asset in portfolio.assets} == {"WETH": 5_000, "WBTC": 5_000, "LINK": 0, "USDC": 0}
    assert portfolio.weights is not None
    assert sorted(portfolio.weights.fixed) == ["LINK", "USDC"]
