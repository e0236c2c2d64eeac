"""The caps of a new config are worth the same in any numeraire: they are meant in dollars and converted."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.start.setup import NewConfig, usd_price, write_new_config
from agent.config.load import load_config
from agent.config.networks.presets import TemplateAsset
from agent.config.variables import Variables
from agent.localchain import LocalChain
from tests.support.constants import WALLET
from tests.support.text import raises_field

RPC = [("RPC_A", "alpha"), ("RPC_B", "beta")]
TWO = [("WETH", "50%"), ("USDC", "50%")]
CAPS = {"max_live_value": 1_000, "min_trade": 10, "pool_min_value": 50_000, "payout_per_day": 1_000}


def written(path: Path, numeraire: str, price: str | None = None) -> dict[str, Fraction]:
    """Caps of a new config, whole coins by key."""
    write_new_config(path, NewConfig("ethereum", WALLET, TWO, numeraire, RPC, numeraire_price=price))
    load_config(path)
    raw = tomllib.loads(path.read_text())
    return {key: Fraction(raw["limits"].get(key) or raw["portfolio"][key]) for key in CAPS}


@pytest.mark.parametrize("price", ["3000", "1234.57", "0.25", "104999.99"])
def test_caps_in_a_coin_are_worth_what_they_are_in_dollars(tmp_path: Path, price: str) -> None:
    caps = written(tmp_path / "trimtab.toml", "WETH", price)
    for key, dollars in CAPS.items():
        worth = caps[key] * Fraction(price)
        low, high = (Fraction(9, 10), Fraction(1)) if key in ("max_live_value", "payout_per_day") else (Fraction(1), Fraction(11, 10))
        assert low * dollars <= worth <= high * dollars, key


def test_each_cap_says_its_unit_and_what_it_was_converted_from(tmp_path: Path) -> None:
    written(path := tmp_path / "weth.toml", "WETH", "3000")
    assert 'max_live_value = "0.33"            # WETH, 1000 dollars at 3000 each: largest value' in path.read_text()
    assert 'min_trade = "0.0034"               # WETH, 10 dollars at 3000 each' in path.read_text()
    assert written(plain := tmp_path / "usdc.toml", "USDC") == CAPS
    assert 'min_trade = "10"                   # USDC' in plain.read_text()


def test_without_a_price_a_config_in_a_coin_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, _ in RPC:
        monkeypatch.delenv(variable, raising=False)
    with raises_field("--numeraire", "WETH", "caps") as caught:
        written(tmp_path / "trimtab.toml", "WETH")
    assert "--price" in caught.value.remedy
    assert "RPC_A" in caught.value.remedy
    assert not (tmp_path / "trimtab.toml").exists()


def test_feed__says_a_coin_s_worth_where_an_endpoint_is_set(chain: LocalChain) -> None:
    variables = Variables(RPC_A=chain.url or "", RPC_B="http://127.0.0.1:9/nobody")
    weth = TemplateAsset("WETH", chain.tokens["WETH"].address, "50%", chain.feed_addresses["WETH"])
    assert usd_price(weth, None, RPC, chain.clock.now_s, variables=variables) == chain.deployed_world.prices_usd["WETH"]
    assert usd_price(weth, "2500.5", RPC, chain.clock.now_s, variables=variables) == Fraction(5001, 2), "the owner's word comes first"
    for lacking in (replace(weth, feed=None), replace(weth, feed=chain.tokens["WETH"].address)):
        with raises_field("--numeraire", "its price is unknown"):
            usd_price(lacking, None, RPC, chain.clock.now_s, variables=variables)
    with raises_field("--numeraire", "its price is unknown"):
        usd_price(weth, None, RPC, lambda: chain.clock.now_s() + 90_001, variables=variables)


def test_a_new_config_asks_the_endpoints_of_the_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RPC_A", raising=False)
    env_file = tmp_path / ".env"
    env_file.write_text("RPC_A=https://a.example\n")
    env_file.chmod(0o600)
    variable_names: list[Variables] = []

    def prices(feed: str, rpc: object, variables: Variables, now_s: float) -> Iterator[Fraction]:
        variable_names.append(variables)
        yield Fraction(3_000)

    monkeypatch.setattr("agent.app.start.setup._feed_prices", prices)
    written(tmp_path / "trimtab.toml", "WETH")
    assert [variables["RPC_A"] for variables in variable_names] == ["https://a.example"]


def test_endpoints_that_tell_different_prices_decide_nothing(chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> None:
    weth = TemplateAsset("WETH", chain.tokens["WETH"].address, "50%", chain.feed_addresses["WETH"])
    prices = iter([Fraction(3_000), Fraction(3_100)])
    monkeypatch.setattr("agent.app.start.setup._feed_prices", lambda *_: prices)
    with raises_field("--numeraire", "price differs between endpoints"):
        usd_price(weth, None, RPC, variables=Variables())
