"""Orders in trimtab.toml: read in exact units, and refused by field, value and remedy where they could never act."""

from __future__ import annotations

import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from agent import wiring
from agent.app import config_versions
from agent.app.positions.orders import set_orders
from agent.config.build import build_portfolio
from agent.config.load import load_config, parse_config
from agent.config.loaded import LoadedConfig
from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.orders import price_level_notes
from agent.config.writing.config_file import write_config
from agent.config.writing.order_levels import edit_order_levels
from agent.config.writing.template import render_config
from agent.errors import ConfigError, OperatorNeeded, PassingFault, Refused
from agent.model import PORTFOLIO_SUBJECT, OrderKind, OrdersConfig, OrderTerms, WeightReallocation
from agent.policy.orders import conditional as conditional_orders
from agent.store.store import ConfigVersionStore
from agent.units import Token
from tests.support import agents
from tests.support.bands import with_bands
from tests.support.text import mentions, raises_code

WETH = ETHEREUM_PRESET.wrapped_native
USDC = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"
TOKENS = {WETH: Token(WETH, "WETH", 18), USDC: Token(USDC, "USDC", 6)}


def text(asset: dict[str, Any] | None = None, whole: dict[str, Any] | None = None, numeraire: dict[str, Any] | None = None) -> str:
    """A config with these keys at WETH, in [portfolio.orders] and at USDC."""
    assets = [TemplateAsset("WETH", WETH, "50%", None, 18), TemplateAsset("USDC", USDC, "50%", None, 6)]
    document: Any = tomlkit.parse(with_bands(render_config(ETHEREUM_PRESET, WETH, assets, [], "USDC", [("A", "one"), ("B", "two")])))
    document["portfolio"]["assets"][0].update(asset or {})
    document["portfolio"]["assets"][1].update(numeraire or {})
    if whole is not None:
        document["portfolio"]["orders"] = whole
    return tomlkit.dumps(document)


def read(*args: Any, **kwargs: Any) -> OrdersConfig:
    return build_portfolio(parse_config(text(*args, **kwargs)), TOKENS).orders


def test_prices_and_shares_are_read_in_exact_units() -> None:
    levels = read(
        {"entry": "1500.5", "stop_loss": "1200", "take_profit": "150%", "trailing_stop": "1500bps"},
        {"stop_loss": "20%", "absent": "redistribute", "hysteresis": "2%", "entry_above_price": "refuse"},
    )
    assert levels == OrdersConfig(
        (
            OrderTerms(PORTFOLIO_SUBJECT, OrderKind.STOP_LOSS, None, 2_000),
            OrderTerms(WETH, OrderKind.ENTRY, Fraction(15_005 * 10**5, 10**18), None),
            OrderTerms(WETH, OrderKind.STOP_LOSS, Fraction(1_200 * 10**6, 10**18), None),
            OrderTerms(WETH, OrderKind.TAKE_PROFIT, None, 15_000),
            OrderTerms(WETH, OrderKind.TRAILING_STOP, None, 1_500),
        ),
        WeightReallocation.REDISTRIBUTE,
        200,
        True,
    )


def test_level_without_quotes__means_the_same_and_is_explained() -> None:
    bare = {"entry": 1500.5, "stop_loss": 15, "trailing_stop": 300, "take_profit": "50%"}
    assert read(bare) == read({key: str(value) for key, value in bare.items()})
    assert price_level_notes(parse_config(text(bare)).portfolio) == {
        "WETH entry": "1500.5 is a price in USDC",
        "WETH stop_loss": '15 is a price in USDC; a share is written "15%"',
        "WETH trailing_stop": "300 is a distance in USDC",
    }


def test_an_alert_is_no_order_of_a_simulation_and_off_is_none() -> None:
    levels = read({"alert_above": "0.5%", "alert_below": "off", "entry": "1500"})
    assert [term.kind for term in levels.terms] == [OrderKind.ENTRY, OrderKind.ALERT_ABOVE]
    assert [term.kind for term in levels.without_alerts.terms] == [OrderKind.ENTRY]


def test_missing_orders__are_none_and_what_is_out_waits_as_cash() -> None:
    assert read() == OrdersConfig((), WeightReallocation.CASH, 100, False)


@pytest.mark.parametrize(
    ("asset", "whole", "reason"),
    [
        pytest.param({"stop_loss": 0.2}, None, "0.2 is ambiguous", id="fraction"),
        pytest.param({"stop_loss": 0}, None, "0 is ambiguous", id="nothing"),
        pytest.param({"stop_loss": True}, None, "True is not a level; write a price in the numeraire such as", id="true"),
        pytest.param({"stop_loss": float("inf")}, None, "inf is not a level", id="infinity"),
        pytest.param({"stop_loss": "-5%"}, None, "is not a level", id="negative percentage"),
        pytest.param({"entry": "0"}, None, "'0': zero can never trigger", id="price of nothing"),
        pytest.param({"entry": "0%"}, None, "zero can never trigger", id="distance of nothing"),
        pytest.param(
            {"entry": "100%"},
            None,
            "portfolio.assets.WETH.entry: 100 % below is at or below zero, so it can never trigger",
            id="entry at zero",
        ),
        pytest.param({"stop_loss": "120%"}, None, "can never trigger; write less than 100 %", id="stop below zero"),
        pytest.param(
            {"trailing_stop": "1%"},
            None,
            "is within portfolio.orders.hysteresis of 1 %, so it could never be armed",
            id="trailing stop within the hysteresis",
        ),
        pytest.param({"take_profit": "0.5%"}, None, "could never be armed", id="take profit within the hysteresis"),
        pytest.param({"stop_loss": "0.001%"}, None, "finer than a basis point", id="finer than a basis point"),
        pytest.param(
            {"alert_below": "100%"}, None, "portfolio.assets.WETH.alert_below: 100 % below is at or below zero", id="alert at zero"
        ),
        pytest.param({"alert_above": "never"}, None, "'never' is not a level", id="alert as a word"),
        pytest.param(
            {"stop_loss": "1600", "entry": "1500"},
            None,
            "portfolio.assets.WETH.stop_loss: 1600 is not below entry 1500",
            id="stop above the entry",
        ),
        pytest.param(
            {"take_profit": "1400", "entry": "1500"}, None, "entry: 1500 is not below take_profit 1400", id="entry above the take profit"
        ),
        pytest.param(
            {"take_profit": "1400", "stop_loss": "1400"},
            None,
            "stop_loss: 1400 is not below take_profit 1400",
            id="stop at the take profit",
        ),
        pytest.param(
            None,
            {"stop_loss": "8000"},
            "portfolio.orders.stop_loss: deposits change the portfolio's value, so a price is not meaningful",
            id="price of the portfolio",
        ),
        pytest.param(None, {"entry": "5%"}, "portfolio.orders.entry: unknown key", id="entry of the portfolio"),
        pytest.param(None, {"alert_below": "5%"}, "portfolio.orders.alert_below: unknown key", id="alert of the portfolio"),
        pytest.param(None, {"hysteresis": "30%"}, "portfolio.orders.hysteresis: more than 20 %", id="hysteresis too large"),
        pytest.param(None, {"absent": "hold"}, "portfolio.orders.absent", id="unknown absence"),
    ],
)
def test_what_could_never_act_is_refused_by_name(asset: dict[str, Any] | None, whole: dict[str, Any] | None, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text(asset, whole))
    assert reason in caught.value.message


@pytest.mark.parametrize("kind", ["entry", "stop_loss", "take_profit", "trailing_stop", "alert_above"])
def test_the_numeraire_has_no_orders(kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"portfolio\.assets\.USDC\.{kind}.*numeraire"):
        parse_config(text(numeraire={kind: "10%"}))


def test_new_level__is_written_in_its_table_before_comments(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.toml"
    path.write_text(text().replace("[[portfolio.assets]]", "# Comments of the next section.\n\n[[portfolio.assets]]"))
    new, _ = edit_order_levels(path, "WETH", {"stop_loss": "10%", "take_profit": "50%"})
    table = new.split('[[portfolio.assets]]\nsymbol = "WETH"')[1].split("# Comments of the next section.")[0]
    assert new.replace('stop_loss = "10%"\ntake_profit = "50%"\n', "") == path.read_text()
    assert 'stop_loss = "10%"\ntake_profit = "50%"\n' in table


def test_edit__changes_one_level_and_leaves_the_rest_as_written(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.toml"
    path.write_text(text({"stop_loss": "1200"}))
    path.chmod(0o640)
    before = path.read_text().splitlines()
    new, changes = edit_order_levels(path, "WETH", {"stop_loss": "10%", "take_profit": "off", "entry": "1800"})
    assert changes == {"stop_loss": ("1200", "10%"), "entry": (None, "1800")}
    assert path.read_text().splitlines() == before, "nothing is written yet"
    write_config(path, new)
    lines = path.read_text().splitlines()
    assert [line for line in before if line not in lines] == ['stop_loss = "1200"']
    assert {line for line in lines if line not in before} == {'stop_loss = "10%"', 'entry = "1800"'}
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]
    write_config(path, edit_order_levels(path, PORTFOLIO_SUBJECT, {"stop_loss": "20%"})[0])
    assert parse_config(path.read_text()).portfolio.orders is not None
    write_config(path, edit_order_levels(path, PORTFOLIO_SUBJECT, {"stop_loss": "off"})[0])
    assert edit_order_levels(path, PORTFOLIO_SUBJECT, {"stop_loss": "off"})[1] == {}


def test_an_edit_that_the_config_would_refuse_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.toml"
    path.write_text(text())
    for subject, levels, reason in (
        ("USDC", {"stop_loss": "10%"}, "USDC is the numeraire"),
        ("WETH", {"stop_loss": "1500", "entry": "1400"}, "is not below entry"),
        ("DOGE", {"stop_loss": "1500"}, "'DOGE' is not an asset"),
        ("portfolio", {"entry": "10%"}, "unknown key"),
    ):
        with pytest.raises(ConfigError, match=reason):
            edit_order_levels(path, subject, levels)
    assert path.read_text() == text()


def test_the_owner_confirms_his_orders_in_words() -> None:
    config = parse_config(text({"stop_loss": "1200", "trailing_stop": "15%"}, {"stop_loss": "20%", "absent": "redistribute"}))
    orders_text = conditional_orders.format_orders(build_portfolio(config, TOKENS))
    assert mentions(orders_text, "portfolio 20 %", "WETH 1,200.00 USDC", "WETH 15 %", "redistribute", "hysteresis 1 %")
    assert conditional_orders.format_orders(build_portfolio(parse_config(text()), TOKENS)) == ""


def text_with_strategies(asset: dict[str, Any], whole: dict[str, Any] | None) -> str:
    strategy_text = '[[strategies]]\nname = "a"\nshare = "50%"\nfloor = "0%"\nallocator = "equal"\nhealth = "off"\n'
    return f'{text(asset, whole)}\n{strategy_text}{strategy_text.replace(chr(34) + "a", chr(34) + "b")}[split]\nrelative = "20%"\n'


@pytest.mark.parametrize(
    ("asset", "whole", "reason"),
    [
        pytest.param({"entry": "1500"}, None, "portfolio.assets.WETH.entry: strategies do not support entries", id="entry"),
        pytest.param({"stop_loss": "10%"}, {"absent": "redistribute"}, "portfolio.orders.absent: strategies keep", id="redistribution"),
    ],
)
def test_strategies_know_exits_into_cash_alone(asset: dict[str, Any], whole: dict[str, Any] | None, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text_with_strategies(asset, whole))
    assert reason in caught.value.message


def test_strategies_know_exits_into_cash() -> None:
    assert len(parse_config(text_with_strategies({"stop_loss": "10%"}, {"stop_loss": "20%"})).strategies) == 2


def test_an_edit_while_an_implausible_level_is_confirmed_is_kept(tmp_path: Path) -> None:
    path = agents.config(tmp_path)

    def late_yes(_: object, __: object) -> bool:
        path.write_text(path.read_text().replace('turnover = "30%"', 'turnover = "3%"', 1))
        return True

    with pytest.raises(Refused, match="changed during the edit"):
        set_orders(path, "WETH", {"stop_loss": "95%"}, late_yes)
    assert 'turnover = "3%"' in path.read_text()
    assert "stop_loss" not in tomllib.loads(path.read_text())["portfolio"]["assets"][0]


def stored_config(tmp_path: Path) -> tuple[Path, LoadedConfig]:
    """A config whose store has it as confirmed."""
    path = agents.config(tmp_path)
    loaded = load_config(path)
    with wiring.open_store_offline(loaded) as (store, _):
        config_versions.record_version(loaded, store.configs, config_versions.FIRST_ORIGIN)
    return path, loaded


def confirmed_digest(loaded: LoadedConfig) -> str | None:
    with wiring.open_store_offline(loaded) as (store, _):
        return store.configs.confirmed_digest()


def test_set_levels__are_in_file_and_store(tmp_path: Path) -> None:
    path, loaded = stored_config(tmp_path)
    set_orders(path, "WETH", {"stop_loss": "10%"})
    assert confirmed_digest(loaded) == load_config(path).digest != loaded.digest


def test_levels_that_cannot_be_recorded__are_not_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, loaded = stored_config(tmp_path)

    def disk_full(*_: object, **__: object) -> None:
        raise PassingFault("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ConfigVersionStore, "record", disk_full)
        with pytest.raises(PassingFault, match="the disk is full"):
            set_orders(path, "WETH", {"stop_loss": "10%"})
    assert load_config(path).digest == loaded.digest == confirmed_digest(loaded)


def test_levels_beside_an_unusable_store__are_not_in_the_file(tmp_path: Path) -> None:
    path, loaded = stored_config(tmp_path)
    wiring.store_file(loaded).write_bytes(b"no database")
    with raises_code(OperatorNeeded, "store"):
        set_orders(path, "WETH", {"stop_loss": "10%"})
    assert load_config(path).digest == loaded.digest


def test_edit_right_after_the_levels_are_written__is_not_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, loaded = stored_config(tmp_path)
    record_version = config_versions.record_version

    def record_late(*arguments: Any) -> None:
        path.write_text(path.read_text().replace('turnover = "30%"', 'turnover = "3%"', 1))
        record_version(*arguments)

    monkeypatch.setattr(config_versions, "record_version", record_late)
    set_orders(path, "WETH", {"stop_loss": "10%"})
    assert 'turnover = "3%"' in path.read_text()
    assert confirmed_digest(loaded) not in (loaded.digest, load_config(path).digest)
