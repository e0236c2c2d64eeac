"""trimtab.toml: every mistake is named with its field, its value and the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.build import build_execution, build_limits, build_policy, build_portfolio, build_reference
from agent.config.load import load_config, load_config_text, parse_config
from agent.config.networks.presets import ETHEREUM_PRESET
from agent.config.tables.fields import parse_address, parse_duration_s, parse_gas_price_wei
from agent.errors import ConfigError
from agent.model import Cron, Destination, Every, HybridTrigger, PriceSource, Threshold
from agent.units import Token, format_duration
from tests.support.configs.samples import USDC_PRESET, WALLET, WETH_PRESET, config_error, config_text, tokens
from tests.support.text import raises_field


def test_the_template_is_a_valid_config() -> None:
    config = parse_config(config_text())
    assert config.chain.chain_id == 1
    assert config.chain.min_operators == 2
    portfolio = build_portfolio(config, tokens())
    assert [asset.target_bps for asset in portfolio.assets] == [5000, 5000]
    assert portfolio.numeraire == Token(USDC_PRESET.address, "USDC", 6)
    limits = build_limits(config, portfolio.numeraire)
    assert limits.price_impact_bps == 100
    assert limits.slippage_bps == 30
    assert limits.gas_price_wei == 60 * 10**9
    assert limits.gas_per_day_wei == 5 * 10**16
    assert limits.min_trade == Fraction(10_000_000)
    assert limits.max_live_value == Fraction(1_000_000_000)
    assert build_policy(config).trigger == Threshold(None, 1000)
    assert build_policy(config).destination is Destination.TARGET
    assert build_reference(config).sources == (PriceSource.FEED, PriceSource.TWAP)
    assert build_reference(config).twap_window_s == 1800
    assert build_execution(config, ()).router == ETHEREUM_PRESET.venues[1]["router"]


def test_every_limit_can_be_off() -> None:
    off = re.sub(r'^(\w+) = "[^"]*"(.*)$', r'\1 = "off"\2', config_text().split("[limits]")[1].split("[execution]")[0], flags=re.M)
    accept = 'i_accept = ["slippage", "price_impact", "plan_cost", "daily_loss"]'
    before = config_text().split("[limits]")[0]
    after = config_text().split("[execution]")[1]
    config = parse_config(
        before.replace('max_live_value = "1000"', 'max_live_value = "off"') + f"[limits]\n{accept}\n#" + off + "[execution]" + after
    )
    limits = build_limits(config, Token(USDC_PRESET.address, "USDC", 6))
    assert {getattr(limits, name) for name in limits.__slots__} == {None}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        pytest.param("[store]", "[nonsense]\nx = 1\n[store]", ("nonsense", "unknown key"), id="unknown table"),
        pytest.param(
            'slippage = "0.3%"', 'slippige = "0.3%"', ("limits.slippige", "unknown key", "limits.slippage: missing"), id="mistyped key"
        ),
        pytest.param('target = "50%"', 'target = "40%"', ("portfolio.assets", "90 %", "add 10 %"), id="weights below a whole"),
        pytest.param('target = "50%"', "target = 50", ("portfolio.assets.WETH.target", "no unit", "50%"), id="target without unit"),
        pytest.param('target = "50%"', 'target = "50.001%"', ("finer than one basis point",), id="finer than a basis point"),
        pytest.param('target = "50%"', 'target = "half"', ("not a share", "'half'"), id="share as a word"),
        pytest.param(
            f'address = "{WETH_PRESET.address}',
            f'address = "{USDC_PRESET.address}',
            ("given twice", USDC_PRESET.address),
            id="repeated address",
        ),
        pytest.param('symbol = "WETH"', 'symbol = "USDC"', ("symbol USDC is given twice",), id="repeated symbol"),
        pytest.param(
            f'address = "{WETH_PRESET.address}',
            'address = "' + WETH_PRESET.address.replace("aaA39", "aAa39"),
            ("assets.WETH.address", "checksum"),
            id="wrong checksum",
        ),
        pytest.param(WETH_PRESET.address, "0x1234", ("chain.wrapped_native", "not an address"), id="short address"),
        pytest.param('symbol = "WETH"', 'symbol = "\\u001b[31mX"', ("portfolio.assets.0.symbol",), id="symbol that steers"),
        pytest.param('numeraire = "USDC"', 'numeraire = "EUR"', ("numeraire 'EUR'",), id="unknown numeraire"),
        pytest.param('reserve = "0"', 'reserve = "-1"', ("not an amount",), id="negative reserve"),
        pytest.param('kind = ["feed", "twap"]', 'kind = ["spot"]', ("spot", "allow_spot"), id="spot as a source"),
        pytest.param(
            'keystore = "wallet.json"', "test_account = 0", ("test_account", "local chains only"), id="test account on a live chain"
        ),
        pytest.param('keystore = "wallet.json"', 'keystore = "a"\nkey_env = "B"', ("more than one key source",), id="two key sources"),
        pytest.param(
            'url_env = "RPC_A"',
            'url_env = "RPC_A"\nurl = "http://secret"',
            ("exactly one of url and url_env",),
            id="two addresses of an endpoint",
        ),
        pytest.param("confirmations = 2", "confirmations = 0", ("chain.confirmations", "got 0"), id="no confirmations"),
        pytest.param('cooldown = "1h"', 'cooldown = "soon"', ("policy.cooldown", "not a duration"), id="cooldown as a word"),
        pytest.param(
            'balance_jump_wait = "24h"', 'balance_jump_wait = "31d"', ("limits.balance_jump_wait", "more than 30d"), id="wait too long"
        ),
        pytest.param(
            'deposit_auto = "10%"',
            'deposit_auto = "26%"',
            ("limits.deposit_auto", "26 % is above 25 %", "flows confirm"),
            id="automatic deposit above its limit",
        ),
        pytest.param(
            'deposit_auto = "10%"', 'deposit_auto = "10"', ("limits.deposit_auto", "no unit"), id="automatic deposit without unit"
        ),
        pytest.param('deposit_auto = "10%"', 'deposit_auto = "-1%"', ("limits.deposit_auto", "negative"), id="negative automatic deposit"),
        pytest.param('gas_price = "60 gwei"', 'gas_price = "60"', ("limits.gas_price", "60 gwei"), id="gas price without unit"),
        pytest.param('kind = "threshold", relative = "10%"', 'kind = "moon"', ("policy.trigger",), id="unknown trigger"),
        pytest.param(
            'kind = "threshold", relative = "10%"', 'kind = "threshold"', ("needs absolute or relative",), id="threshold without band"
        ),
        pytest.param(
            'kind = "threshold", relative = "10%"', 'kind = "time"', ("exactly one of every and cron",), id="time without schedule"
        ),
        pytest.param('kind = "threshold", relative = "10%"', 'kind = "time", cron = "0 9 * * *"', ("timezone",), id="two schedules"),
        pytest.param('kind = "threshold", relative = "10%"', 'kind = "time", every = "5m"', ("30m",), id="interval too short"),
        pytest.param("[chain]", "[chain", ("not valid TOML",), id="broken TOML"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(old: str, new: str, words: tuple[str, ...]) -> None:
    message = config_error((old, new))
    for word in words:
        assert word in message, message


ANY_MAX_WEIGHT = '# max_weight = { any = "60%" }'
AT_THEIR_BOUNDS: dict[str, list[tuple[str, str]]] = {
    "jump wait": [('balance_jump_wait = "24h"', 'balance_jump_wait = "30d"')],
    "deposits": [('deposit_auto = "10%"', 'deposit_auto = "25%"')],
    "deadline": [('deadline = "90s"', 'deadline = "30m"')],
    "jitter": [('jitter = "10%"', 'jitter = "50%"')],
    "maximum weight": [(ANY_MAX_WEIGHT, 'max_weight = { any = "100%" }')],
    "numeraire has none": [
        ('target = "50%"', 'target = "40%"'),
        ('target = "50%"', 'target = "60%"'),
        (ANY_MAX_WEIGHT, 'max_weight = { any = "40%" }'),
    ],
    "tip and signer": [('# min_tip = "1 gwei"', 'min_tip = "5 gwei"')],
    "tip and price": [('# min_tip = "1 gwei"', 'min_tip = "1 gwei"'), ('gas_price = "60 gwei"', 'gas_price = "1 gwei"')],
    "spot prices": [('kind = ["feed", "twap"]', 'allow_spot = true\nkind = ["spot"]')],
}


@pytest.mark.parametrize("changes", AT_THEIR_BOUNDS.values(), ids=AT_THEIR_BOUNDS)
def test_a_value_at_its_bound_is_accepted(changes: list[tuple[str, str]]) -> None:
    parse_config(config_text(*changes))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ([('deadline = "90s"', 'deadline = "1801s"')], "execution.deadline"),
        ([('deadline = "90s"', 'deadline = "0s"')], "execution.deadline"),
        ([('twap_window = "30m"', 'twap_window = "1799s"')], "reference.twap_window"),
        ([('jitter = "10%"', 'jitter = "50.01%"')], "policy.jitter"),
        ([(ANY_MAX_WEIGHT, 'max_weight = { any = "0%" }')], "0 % for WETH is not above 0 %"),
        ([('native_top_up = "0.1"', 'native_top_up = "0.05"')], "limits.native_top_up"),
        ([('native_floor = "0.05"', 'native_floor = "off"')], "limits.native_top_up"),
        ([('deposit_auto = "10%"', 'deposit_auto = "25.01%"')], "limits.deposit_auto"),
        ([('# min_tip = "1 gwei"', 'min_tip = "5.1 gwei"')], "execution.min_tip"),
        ([('# min_tip = "1 gwei"', 'min_tip = "1 gwei"'), ('gas_price = "60 gwei"', 'gas_price = "0.9 gwei"')], "execution.min_tip"),
    ],
)
def test_a_value_beyond_its_bound_is_named(changes: list[tuple[str, str]], field: str) -> None:
    assert field in config_error(*changes)


def test_an_endpoint_url_never_shows_in_an_error() -> None:
    message = config_error(('url_env = "RPC_A"', 'url = "http://canary-secret"\nurl_env = "X"'))
    assert "canary" not in message


def test_one_operator_is_enough_only_when_named() -> None:
    rpc_tables = ('[[chain.rpc]]\nurl_env = "RPC_B"      # the URL is secret and stays in the environment\noperator = "two"', "")
    assert parse_config(config_text(rpc_tables)).chain.min_operators == 2
    assert parse_config(config_text(rpc_tables, ("# single_operator", "single_operator"))).chain.min_operators == 1


def test_an_unset_url_variable_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def url() -> str:
        return load_config_text(config_text(), tmp_path / "trimtab.toml", "config").config.chain.rpc[0].read_url()

    monkeypatch.delenv("RPC_A", raising=False)
    with raises_field("chain.rpc.url_env", "RPC_A"):
        url()
    monkeypatch.setenv("RPC_A", "http://x")
    assert url() == "http://x"


def test_triggers_are_built(tmp_path: Path) -> None:
    def trigger(new: str) -> object:
        return build_policy(parse_config(config_text(('kind = "threshold", relative = "10%"', new)))).trigger

    assert trigger('kind = "threshold", absolute = "5%"') == Threshold(500, None)
    assert trigger('kind = "time", every = "1d"') == Every(86400)
    assert trigger('kind = "hybrid", relative = "10%", cron = "0 9 * * mon", timezone = "Europe/Berlin"') == HybridTrigger(
        Threshold(None, 1000), Cron("0 9 * * mon", "Europe/Berlin")
    )


def test_a_band_destination_needs_a_band() -> None:
    message = config_error(
        ('kind = "threshold", relative = "10%"', 'kind = "time", every = "1d"'), ('destination = "target"', 'destination = "band"')
    )
    assert "policy.destination" in message


def test_a_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trimtab init"):
        load_config(tmp_path / "trimtab.toml")


def test_relative_paths_lie_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "trimtab.toml").write_text(config_text())
    loaded = load_config(tmp_path / "trimtab.toml")
    assert loaded.store_url == f"sqlite:///{tmp_path / 'trimtab.db'}"
    assert loaded.keystore_path == tmp_path / "wallet.json"


@given(st.integers(1, 10**8))
def test_duration_is_read_as_it_is_shown(seconds: int) -> None:
    assert parse_duration_s(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5_400), ("1w 2d", 777_600), ("1 d 0.5 h", 88_200), ("10 min", 600), ("1 day 2 h", 93_600), ("2 days", 172_800)],
)
def test_duration_may_have_several_units(text: str, seconds: int) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "m", "7", "30m 1h", "1h1h", "3 mins", "3 dayss", "1 ays", "1h-5m", "1e3s"])
def test_duration_without_number_unit_or_order_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a duration"):
        parse_duration_s(text)


def test_fields_are_read_in_their_units() -> None:
    assert parse_duration_s("1.5h") == 5400
    assert parse_gas_price_wei("0.5 gwei") == 5 * 10**8
    assert parse_address(WALLET.lower()) == WALLET


@pytest.mark.parametrize(
    ("parse", "wrong_value", "reason"),
    [
        pytest.param(parse_duration_s, "0.1s", "duration: '0.1s' is not a whole number of seconds", id="tenth of a second"),
        pytest.param(parse_duration_s, 90, "duration: 90", id="number without unit"),
        pytest.param(parse_gas_price_wei, "0.1 wei", "gas price: '0.1 wei' is not a whole number of wei", id="tenth of a wei"),
        pytest.param(parse_address, 5, "address: 0x5 is a number, not an address", id="number for an address"),
        pytest.param(parse_address, f"0x{'0' * 40}", "is the zero address, which nobody owns", id="zero address"),
        pytest.param(parse_address, f"0x{'0' * 36}dEaD", "is a burn address, which nobody owns", id="dead at the end"),
        pytest.param(parse_address, f"0xdead{'0' * 36}", "is a burn address, which nobody owns", id="dead at the front"),
        pytest.param(parse_address, f"0xdead{'0' * 16}{'42069' * 4}", "is a burn address, which nobody owns", id="dead with digits"),
    ],
)
def test_value_that_cannot_be_read_is_named(parse: Callable[[object], object], wrong_value: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse(wrong_value)
