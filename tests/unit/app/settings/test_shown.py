"""The settings as the dashboard shows them: what the config says, and no secret of it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.app.documents.status import SettingsDocument
from agent.app.settings.key_meanings import key_meaning
from agent.app.settings.shown import SECTIONS, portfolio_identity, settings_document
from agent.config.load import load_config
from agent.config.networks.presets import PRESETS, TemplateAsset
from agent.config.schema import Config
from agent.config.tables.fields import ConfigTable, inner_tables
from agent.config.writing.template import render_config
from agent.model import AllocationMethod, PortfolioIdentity
from tests.cli.documents import misfits
from tests.support import agents
from tests.support.agents import WALLET
from tests.support.transactions import OTHER

SECRET = "canary4secret"
LAYER_TITLES = ("Holding", "Sweep", "Second opinions", "Hubs")
STRATEGIES = f"""[split]
relative = "20%"
[[strategies]]
name = "caps"
share = "60%"
floor = "0%"
health = "off"
weights = {{ WETH = "50%", USDC = "50%" }}
[strategies.allocator]
kind = "market_cap"
every = "30d"
max_age = "2d"
churn = "10%"
keep = "30d"
until_chosen = "targets"
supplies = "{SECRET}.csv"
[[strategies]]
name = "rest"
share = "40%"
floor = "0%"
health = "off"
allocator = "equal"
"""


@pytest.mark.parametrize(
    ("chain_id", "network", "is_local"),
    [
        pytest.param(1, "ethereum", False, id="known chain"),
        pytest.param(424_242, "chain 424242", False, id="unknown chain"),
        pytest.param(31_337, "local chain", True, id="local chain"),
    ],
)
def test_identity__names_network_and_wallet(tmp_path: Path, chain_id: int, network: str, is_local: bool) -> None:
    path = agents.config(tmp_path)
    path.write_text(path.read_text().replace("chain_id = 1\n", f"chain_id = {chain_id}\n"))
    assert portfolio_identity(path) == PortfolioIdentity(network, is_local, WALLET)
    assert pickle.loads(pickle.dumps(portfolio_identity(path))) == portfolio_identity(path)  # the dashboard reads it in a process


def test_targets_bands_limits_and_network__are_the_config_s(tmp_path: Path) -> None:
    path = agents.config(tmp_path, targets="WETH=60% USDC=40%")
    path.write_text(path.read_text().replace('target = "60%"', 'target = "60%"\nstop_loss = "20%"'))
    shown_settings = settings_document(path)
    assert misfits(SettingsDocument, shown_settings) == []
    assert shown_settings["config_hash"] == load_config(path).digest
    assert shown_settings["trigger"] == "threshold: 10 % of the target"
    asset_rows = [(asset["symbol"], asset["target_bps"], asset["band_bps"], asset["orders"]) for asset in shown_settings["assets"]]
    assert asset_rows == [("WETH", 6_000, [5_400.0, 6_600.0], "stop_loss 20%"), ("USDC", 4_000, [3_600.0, 4_400.0], "")]
    values = {setting["key"]: setting["value"] for part in shown_settings["sections"] for setting in part["settings"]}
    expected = {
        "policy.trigger.kind": "threshold", "policy.trigger.relative": "10%",
        "policy.cooldown": "1 h", "limits.slippage": "0.3 %", "limits.gas_price": "60 gwei",
        "limits.balance_jump_wait": "1 day", "portfolio.max_live_value": "1000 USDC",
        "portfolio.weights.kind": "fixed: the targets above", "reference.kind": "feed, twap", "chain.rpc": "one, two", "chain.quorum": "2",
        "wallet.address": WALLET, "execution.submit_url": "to the endpoints of the chain", "alerts.cooldown": "6 h",
    }  # fmt: skip
    assert {key: values[key] for key in expected} == expected
    assert not {key for key in values if not key_meaning(key) and not key.startswith("limits.")}, "each is a key that can be edited"


UNSHOWN_TABLES = {"data", "record", "service", "signals", "store", "telegram", "venues"}
"""Files, endpoints, code and messages, none of which decides or limits a trade."""


def test_each_table_of_the_config_is_shown_or_named_here() -> None:
    shown_tables = {key.partition(".")[0] for keys in SECTIONS.values() for key in keys} | {"limits", "portfolio"}
    assert shown_tables | UNSHOWN_TABLES == set(Config.model_fields)
    assert not shown_tables & UNSHOWN_TABLES


def test_layers_that_are_on_are_shown_with_their_meaning(tmp_path: Path) -> None:
    path = agents.config(tmp_path)
    tables = f"""
[holding]
hours = "24h"
[sweep]
to = "{OTHER}"
above = "100"
least = "10"
every = "1d"
[second_opinions]
services = ["cow", "0x"]
zero_x_env = "{SECRET.upper()}"
[[portfolio.hubs]]
symbol = "DAI"
address = "{OTHER}"
decimals = 18
"""
    text = path.read_text()
    path.write_text(text.replace("payout_addresses = []", f'payout_addresses = ["{OTHER}"]') + tables)

    sections = {section["title"]: section["settings"] for section in settings_document(path)["sections"]}

    value_by_key = {setting["key"]: setting["value"] for title in LAYER_TITLES for setting in sections[title]}
    assert value_by_key == {
        "holding.hours": "1 day", "sweep.to": OTHER, "sweep.above": "100", "sweep.least": "10", "sweep.every": "1 day",
        "second_opinions.services": "cow, 0x", "portfolio.hubs.DAI.symbol": "DAI", "portfolio.hubs.DAI.address": OTHER,
        "portfolio.hubs.DAI.decimals": "18",
    }  # fmt: skip
    assert all(setting["about"] for title in LAYER_TITLES[:3] for setting in sections[title])


@pytest.mark.parametrize("network", sorted(PRESETS))
def test_each_setting_of_a_new_config_has_its_meaning(tmp_path: Path, network: str) -> None:
    preset = PRESETS[network]
    numeraire = next(token for token in preset.tokens if token.symbol.startswith("USD"))
    assets = [TemplateAsset(token.symbol, token.address, "50%", token.feed) for token in (preset.tokens[0], numeraire)]
    path = tmp_path / "trimtab.toml"
    path.write_text(render_config(preset, WALLET, assets, [], numeraire.symbol, [("RPC_A", "one"), ("RPC_B", "two")]))
    settings = [setting for section in settings_document(path)["sections"] for setting in section["settings"]]
    assert len(settings) > 30
    assert [setting["key"] for setting in settings if not setting["about"]] == []


def test_each_key_that_a_config_may_have_has_its_meaning() -> None:
    """Keys of lists stand below a symbol or name."""
    assert [path for path in documented_paths(Config) if not key_meaning(path)] == []
    assert key_meaning("execution.rebalancer") == "Address of the Rebalancer; required if it is the router"
    assert key_meaning("portfolio.hubs.USDC.e.feed") == key_meaning("portfolio.assets.WETH.feed")
    assert key_meaning("policy.cooldown") == "Shortest time between two rebalances"
    assert key_meaning("no.such.key") == ""


def test_meaning_of_a_key__names_the_words_that_it_may_be() -> None:
    words_by_key = {
        "policy.trigger.kind": "threshold, time, hybrid, either, review, drawdown, volatility_jump, tracking, zone, function",
        "policy.trigger.1.kind": "threshold, time, hybrid, either, review, drawdown, volatility_jump, tracking, zone, function",
        "policy.destination": "target, band, halfway, zone",
        "portfolio.weights.kind": ", ".join(method.value for method in AllocationMethod),
        "second_opinions.services": "0x, kyberswap, cow",
        "alerts.cooldowns": "", "strategies.allocator": "", "policy.cooldown": "",
    }  # fmt: skip
    assert {key: key_meaning(key).partition("; choices: ")[2] for key in words_by_key} == words_by_key


def documented_paths(table: type[ConfigTable], prefix: str = "") -> Iterator[str]:
    for key, field in table.model_fields.items():
        if prefix + key == "limits":  # whose meanings stand beside their guards
            continue
        yield prefix + key
        for inner_table in inner_tables(field.annotation):
            yield from documented_paths(inner_table, f"{prefix}{key}.")


def test_under_a_zone_the_market_sets_the_bands(tmp_path: Path) -> None:
    path = agents.config(tmp_path)
    zone = 'trigger = { kind = "zone", tracking_error_cost = "0.5bps", horizon = "30d" }\n'
    zone += 'risk = { volatilities = { WETH = "80%", USDC = "0.5%" }, correlation = "0%" }'
    text = path.read_text().replace('trigger = { kind = "threshold", relative = "10%" }', zone)
    path.write_text(text.replace('destination = "target"', 'destination = "zone"'))
    assert [asset["band_bps"] for asset in settings_document(path)["assets"]] == [None, None]


def test_no_secret_file_or_variable_of_the_config_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{SECRET}_BOT", "1:" + "a" * 30)
    path = agents.config(tmp_path)
    text = path.read_text().replace('submit_url = ""', f'submit_url = "https://x.example/{SECRET}"')
    text = text.replace('url_env = "NOT_SET_A"', f'url = "https://x.example/v2/{SECRET}"').replace("NOT_SET_B", f"{SECRET}_B")
    text = text.replace('keystore = "wallet.json"', f'keystore = "{SECRET}.json"').replace("sqlite:///mine.db", f"sqlite:///{SECRET}.db")
    path.write_text(
        text.replace("[service]", f'[service]\nheartbeat_url = "https://x.example/{SECRET}"')
        + f'[telegram]\ntoken_env = "{SECRET}_BOT"\nchats = [7]\n'
        + f'[data.prices]\nsource = "https://x.example/{SECRET}.csv"\n[[alerts.targets]]\nname = "phone"\nurl_env = "{SECRET}_C"\n'
        + STRATEGIES
    )
    settings_text = json.dumps(settings_document(path))
    assert path.read_text().count(SECRET) == 10
    assert SECRET not in settings_text
    assert "to a private endpoint" in settings_text
    assert "alerts.targets.phone" in settings_text


@pytest.mark.parametrize(
    ("alert_events", "target_events", "shown_events"),
    [
        ("", "", "all events"),
        ('events = ["halt", "error"]', "", "halt, error"),
        ("", 'events = ["halt"]', "halt"),
        ("events = []", "", "none"),
    ],
    ids=["all", "of the table", "of the target", "none"],
)
def test_events_of_a_target__are_those_that_it_gets(tmp_path: Path, alert_events: str, target_events: str, shown_events: str) -> None:
    path = agents.config(tmp_path)
    target = f'[[alerts.targets]]\nname = "phone"\nurl_env = "PHONE"\n{target_events}\n'
    path.write_text(path.read_text().replace('cooldown = "6h"', f'cooldown = "6h"\n{alert_events}\n#') + target)
    settings = {item["key"]: item["value"] for section in settings_document(path)["sections"] for item in section["settings"]}
    assert settings["alerts.targets.phone.events"] == shown_events
