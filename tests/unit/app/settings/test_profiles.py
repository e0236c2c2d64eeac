"""Profiles: what goes in, what comes out, which tokens are meant, what becomes of what is held (R1.6, T16)."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent import wiring
from agent.app.settings.editing import EditReport
from agent.app.settings.profiles import profile_arguments
from agent.config.load import load_config
from agent.config.networks.coin_supplies import PACKAGE
from agent.config.networks.presets import ETHEREUM_PRESET
from agent.config.tables.limits import LimitsTable, is_tighter
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES
from agent.config.writing.profile import ASSET_KEYS, POLICY_KEYS, profile_text
from agent.errors import ConfigError, Refused
from tests.support.agents import ADDRESSES, OTHER, WALLET, config, profile, taken_over
from tests.support.foreign_text import LOOK_ALIKES
from tests.support.text import mentions, raises_code, raises_field


# there and back
@pytest.mark.parametrize("template", PORTFOLIO_TEMPLATES)
def test_a_profile_makes_another_portfolio_the_same(template: str, tmp_path: Path) -> None:
    theirs = config(tmp_path, "theirs", template=template)
    mine = config(tmp_path)
    file = tmp_path / "p.toml"
    document = taken_over(mine, file, sha256=api.export_profile(theirs, file)["sha256"])
    made_config = load_config(mine).config
    their_config = load_config(theirs).config
    assert [(a.symbol, a.address, a.target, a.feed) for a in sorted(made_config.portfolio.assets, key=lambda a: a.symbol)] == [
        (a.symbol, a.address, a.target, a.feed) for a in sorted(their_config.portfolio.assets, key=lambda a: a.symbol)
    ]
    assert all(getattr(made_config.policy, key) == getattr(their_config.policy, key) for key in POLICY_KEYS)
    ours = their_config.portfolio.weights
    assert made_config.portfolio.weights == (
        None if ours is None else ours.model_copy(update={"supplies": None}) if ours.supplies else ours
    )
    for key in LimitsTable.model_fields:
        before, theirs_value, now = (
            getattr(config.limits, key) for config in (load_config(config(tmp_path, f"x{key}")).config, their_config, made_config)
        )
        assert now == (theirs_value if is_tighter(key, theirs_value, before) else before), key
    assert (document["editing"].state, document["excluded"]) == ("written", [])
    assert not [row for row in document["assets"] if row["differs"]]
    again = tmp_path / "again.toml"
    api.export_profile(mine, again)
    first, second = (tomllib.loads(path.read_text()) for path in (file, again))
    assert sorted(first["assets"], key=lambda a: a["symbol"]) == sorted(second["assets"], key=lambda a: a["symbol"])
    assert (first["policy"], first.get("weights"), first["profile"]) == (second["policy"], second.get("weights"), second["profile"])


@pytest.mark.parametrize(("mine", "theirs"), [("equal", "moderate"), ("market-cap", "equal"), ("equal", "market-cap")])
def test_an_allocator_comes_goes_and_keeps_its_own_files(mine: str, theirs: str, tmp_path: Path) -> None:
    other = config(tmp_path, "theirs", template=theirs)
    path = config(tmp_path, template=mine)
    file = tmp_path / "p.toml"
    left_out = api.export_profile(other, file)["skipped"]
    notes = taken_over(path, file)["notes"]
    foreign = {"moderate": ["limits.futures_notional"], "market-cap": ["portfolio.weights.supplies"]}
    assert (len(notes), left_out) == (theirs == "market-cap", foreign.get(theirs, []))
    weights = load_config(other).config.portfolio.weights
    made_weights = load_config(path).config.portfolio.weights
    assert made_weights == (None if weights is None else weights.model_copy(update={"supplies": None}) if weights.supplies else weights)
    again = config(tmp_path, "again", template="market-cap")
    taken_over(again, file)
    kept = load_config(again).config.portfolio.weights
    assert (kept is not None and kept.supplies == PACKAGE) is (theirs == "market-cap")


@pytest.mark.parametrize(
    ("before", "after", "skipped"),
    [
        pytest.param('reserve = "0"', 'reserve = "2"', ["portfolio.assets.reserve"], id="reserve"),
        pytest.param('target = "25%"', 'target = "25%"\nstop_loss = "10%"', ["portfolio.assets.stop_loss"], id="order of an asset"),
        pytest.param("confirm_blocks = 3", "confirm_blocks = 0", ["policy.confirm_blocks"], id="confirmation"),
        pytest.param('method = "fifo"', 'method = "hifo"', ["tax.method"], id="tax"),
        pytest.param('volatility = "60%"', 'volatility = "50%"', ["lp.volatility"], id="liquidity"),
        pytest.param("[store]", '[holding]\nminimum = "1h"\n\n[store]', ["holding"], id="layer"),
        pytest.param("[store]", '[futures]\nvenue = "hyperliquid"\n\n[store]', ["futures"], id="futures"),
        pytest.param("keep_steps = 2000", "keep_steps = 2001", [], id="service of this machine"),
        pytest.param('max_live_value = "1000"', 'max_live_value = "1001"', [], id="money of this owner"),
    ],
)
def test_what_a_profile_lacks__is_named_if_it_is_not_that_of_a_new_config(
    tmp_path: Path, before: str, after: str, skipped: list[str]
) -> None:
    path = config(tmp_path, template="moderate")
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    loaded = replace(load_config(config(tmp_path, "other", template="moderate")), path=path)
    assert list(profile_text(loaded)[1]) == sorted(["limits.futures_notional", *skipped])


def test_triggers_of_every_form__are_carried_with_zone_risk(tmp_path: Path) -> None:
    several = [{"kind": "threshold", "relative": "10%"}, {"kind": "time", "cron": "0 9 * * mon", "timezone": "Europe/Berlin"}]
    zone = {"kind": "zone", "tracking_error_cost": "0.5bps", "horizon": "30d"}
    risk = {"volatilities": {"WETH": "80%", "USDC": "0.5%"}, "correlation": "0%"}
    for number, policy in enumerate(
        (
            {"trigger": several, "destination": "target", "cooldown": "1h", "only": "sell"},
            {"trigger": zone, "destination": "zone", "cooldown": "1h", "risk": risk},
            {"trigger": {"kind": "drawdown", "fall": "20%", "within": "1d"}, "destination": "target", "cooldown": "1h"},
        )
    ):
        path = config(tmp_path, f"mine{number}")
        taken_over(path, profile(tmp_path, policy=policy))
        taken_over(path, profile(tmp_path, policy=policy))
        assert {key: value for key, value in tomllib.loads(path.read_text())["policy"].items() if key in POLICY_KEYS} == policy
        api.export_profile(path, file := tmp_path / f"out{number}")
        assert tomllib.loads(file.read_text())["policy"] == policy
        taken_over(path, profile(tmp_path))
        assert "risk" not in tomllib.loads(path.read_text())["policy"]


def test_a_profile_holds_nothing_but_what_it_may(tmp_path: Path) -> None:
    path = config(tmp_path, template="moderate")
    file = tmp_path / "p.toml"
    api.export_profile(path, file)
    written = tomllib.loads(file.read_text())
    assert set(written) == {"profile", "assets", "policy", "limits"}
    assert {key for asset in written["assets"] for key in asset} <= set(ASSET_KEYS)
    loaded = load_config(path).config
    v2, v3 = loaded.venues
    foreign = [WALLET, v3.router, v3.factory, v3.quoter, v2.factory, v2.router, "NOT_SET_A", "wallet.json", "sqlite", "one"]
    foreign += [asset.feed for asset in loaded.portfolio.assets if asset.feed]
    assert not [value for value in foreign if f'"{value}"' in file.read_text()]
    with raises_code(ConfigError, "exists"):
        api.export_profile(path, file)


def test_other_settings__stay_as_the_owner_wrote_them(tmp_path: Path) -> None:
    path = config(tmp_path)
    path.write_text(path.read_text().replace('reserve = "0" ', 'reserve = "1.5"  # mine ', 1))
    before = path.read_text()
    taken_over(path, profile(tmp_path, limits={"turnover": "10%"}))
    after = path.read_text()
    gone, come = (sorted(set(a.splitlines()) - set(b.splitlines())) for a, b in ((before, after), (after, before)))
    assert all(line.split(" ")[0] in ("target", "trigger", "cooldown", "turnover") for line in (*gone, *come)), (gone, come)
    assert 'reserve = "1.5"  # mine' in after
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_without_a_yes(tmp_path: Path) -> None:
    path = config(tmp_path)
    before = path.read_bytes()
    content_before = list[dict[str, Any]]()

    def no(report: dict[str, Any], edited: EditReport, agent: object) -> bool:
        content_before.append(report)
        assert agent is None
        assert "NOT_SET_A" in edited.warnings[0]
        return False

    assert api.import_profile(path, api.ProfileSource(profile(tmp_path)), no)["editing"].state == "declined"
    assert api.import_profile(path, api.ProfileSource(profile(tmp_path)), None)["editing"].state == "planned"
    assert path.read_bytes() == before
    assert [(row["symbol"], row["before_bps"], row["after_bps"]) for row in content_before[0]["assets"]] == [
        ("WETH", 5_000, 6_000),
        ("USDC", 5_000, 4_000),
    ]
    assert {row["key"] for row in content_before[0]["policy"]} == {"trigger", "cooldown"}


def test_an_edit_during_the_confirmation_is_kept(tmp_path: Path) -> None:
    path = config(tmp_path)

    def late_yes(*_: object) -> bool:
        path.write_text(path.read_text() + "# of another\n")
        return True

    with pytest.raises(Refused, match="changed during the import"):
        api.import_profile(path, api.ProfileSource(profile(tmp_path)), late_yes)
    assert path.read_text().endswith("# of another\n")


def test_config_in_use__is_not_changed_without_its_chain(tmp_path: Path) -> None:
    path = config(tmp_path)
    with wiring.open_store_offline(load_config(path)):
        pass
    before = path.read_bytes()
    with raises_field("chain.rpc.url_env", "NOT_SET_A"):
        taken_over(path, profile(tmp_path))
    assert path.read_bytes() == before


# what is held
def test_asset_the_profile_lacks__is_left_or_sold_by_word(tmp_path: Path) -> None:
    mine = "WBTC=40% LINK=30% USDC=30%"
    other_config = config(tmp_path, "left", targets=mine)
    document = taken_over(other_config, profile(tmp_path))
    assert [row["symbol"] for row in document["excluded"]] == ["WBTC", "LINK"]
    assert {asset.symbol: asset.target for asset in load_config(other_config).config.portfolio.assets} == {"USDC": 4_000, "WETH": 6_000}
    sold = config(tmp_path, "sold", targets=mine)
    assert taken_over(sold, profile(tmp_path), sell_others=True)["excluded"] == []
    assert {asset.symbol: asset.target for asset in load_config(sold).config.portfolio.assets} == {
        **{"WBTC": 0, "LINK": 0},
        **{"USDC": 4_000, "WETH": 6_000},
    }


def test_numeraire__stays_and_the_wrapped_coin_becomes_a_hub(tmp_path: Path) -> None:
    path = config(tmp_path)
    file = profile(tmp_path, assets=[{"symbol": "WBTC", "target": "70%"}, {"symbol": "DAI", "target": "30%"}])
    document = taken_over(path, file)
    loaded = load_config(path).config
    assert {asset.symbol: asset.target for asset in loaded.portfolio.assets} == {"USDC": 0, "WBTC": 7_000, "DAI": 3_000}
    assert [(hub.symbol, hub.address) for hub in loaded.portfolio.hubs] == [("WETH", ETHEREUM_PRESET.wrapped_native)]
    assert loaded.limits.native_top_up is None
    assert mentions(next(row for row in document["limits"] if row["key"] == "native_top_up")["why"], "unwrapping")
    taken_over(path, profile(tmp_path))
    again = load_config(path).config.portfolio
    assert ({asset.symbol for asset in again.assets}, again.hubs) == ({"WETH", "USDC"}, [])


def test_comments_behind_a_removed_asset__stay(tmp_path: Path) -> None:
    path = config(tmp_path, targets="WETH=40% USDC=30% LINK=30%")
    before = path.read_text()
    taken_over(path, profile(tmp_path))
    comments = [line.strip() for line in before.splitlines() if line.lstrip().startswith("#")]
    kept = path.read_text()
    assert [comment for comment in comments if comment not in kept] == []


def test_assets_in_a_list__are_named_in_place_of_a_broken_file(tmp_path: Path) -> None:
    path = config(tmp_path)
    before = path.read_text()
    assets = tomllib.loads(before)["portfolio"]["assets"]
    listed = ", ".join("{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in asset.items()) + " }" for asset in assets)
    without_tables = re.sub(r"(?ms)^\[\[portfolio\.assets\]\]\n.*?(?=^\[|\Z)", "", before)
    path.write_text(without_tables.replace("[portfolio]\n", f"[portfolio]\nassets = [{listed}]\n", 1))
    with pytest.raises(ConfigError, match=r"not in the form of \[\[portfolio.assets\]\]"):
        taken_over(path, profile(tmp_path, assets=[{"symbol": "WBTC", "target": "70%"}, {"symbol": "USDC", "target": "30%"}]))


def test_maximum_age_of_a_feed__stays_with_its_token(tmp_path: Path) -> None:
    """WETH is an asset with an age of its own, becomes a hub, and an asset again; WBTC is new."""
    path = config(tmp_path)
    path.write_text(re.sub(r'^feed_max_age = "2h"', 'feed_max_age = "70m"', path.read_text(), count=1, flags=re.M))
    without_weth = profile(tmp_path, assets=[{"symbol": "WBTC", "target": "70%"}, {"symbol": "USDC", "target": "30%"}])
    taken_over(path, without_weth)
    portfolio = load_config(path).config.portfolio
    assert {token.symbol: token.feed_max_age for token in portfolio.listed_tokens} == {"WBTC": 7_200, "USDC": None, "WETH": 4_200}
    taken_over(path, profile(tmp_path))
    portfolio = load_config(path).config.portfolio
    assert {token.symbol: token.feed_max_age for token in portfolio.listed_tokens} == {"USDC": None, "WETH": 4_200}


def test_the_native_coin_is_found_by_its_name(tmp_path: Path) -> None:
    path = config(tmp_path)
    file = profile(tmp_path, assets=[{"symbol": "ETH", "address": "native", "target": "60%"}, {"symbol": "USDC", "target": "40%"}])
    taken_over(path, file)
    assert load_config(path).config.portfolio.assets[-1].native


# addresses
def test_profile_address__is_compared_shown_and_never_used(tmp_path: Path) -> None:
    path = config(tmp_path)
    file = profile(
        tmp_path,
        assets=[
            {"symbol": "WETH", "address": OTHER, "target": "50%"},
            {"symbol": "LINK", "address": OTHER, "target": "10%"},
            {"symbol": "USDC", "address": ADDRESSES["USDC"], "target": "40%"},
        ],
    )
    document = taken_over(path, file)
    assert {row["symbol"]: (row["address"], row["differs"], row["source"]) for row in document["assets"]} == {
        "WETH": (ADDRESSES["WETH"], True, "config"),
        "LINK": (ADDRESSES["LINK"], True, "preset"),
        "USDC": (ADDRESSES["USDC"], False, "config"),
    }
    assert OTHER not in path.read_text()


def test_a_symbol_of_our_own_config_means_our_own_token(tmp_path: Path) -> None:
    path = config(tmp_path, targets=f"{OTHER}=50% USDC=50%")
    path.write_text(path.read_text().replace('"T7D1AfA"', '"GOLD"'))
    taken_over(path, profile(tmp_path, assets=[{"symbol": "GOLD", "target": "60%"}, {"symbol": "USDC", "target": "40%"}]))
    assert load_config(path).config.portfolio.assets[0].address == OTHER


def test_token_list__finds_what_the_network_lacks(tmp_path: Path) -> None:
    path = config(tmp_path)
    listed = tmp_path / "list.json"
    file = profile(tmp_path, assets=[{"symbol": "GOLD", "target": "60%"}, {"symbol": "USDC", "target": "40%"}])
    with raises_field("symbol", "'GOLD'"):
        taken_over(path, file)
    entry = {"chainId": 1, "symbol": "GOLD", "decimals": 18}
    listed.write_text(json.dumps({"tokens": [{**entry, "address": OTHER}, {**entry, "address": ADDRESSES["LINK"]}]}))
    with raises_field("symbol", "several tokens"):
        taken_over(path, file, token_list=listed)
    listed.write_text(json.dumps({"tokens": [{**entry, "address": OTHER}]}))
    with raises_field("--token-list", "is pinned"):
        taken_over(path, file, token_list=listed, token_list_sha256="0" * 64)
    assert taken_over(path, file, token_list=listed)["assets"][-1]["source"] == "token list"
    assert load_config(path).config.portfolio.assets[-1].address == OTHER


@pytest.mark.parametrize("name", LOOK_ALIKES, ids=ascii)
def test_look_alike__is_refused_whosever_ours_is(name: str, tmp_path: Path) -> None:
    for number, targets in enumerate(("WETH=50% USDC=50%", "WBTC=30% DAI=30% LINK=40%")):
        path = config(tmp_path, f"mine{number}", targets=targets, numeraire=targets.split("=")[0])
        before = path.read_bytes()
        file = profile(tmp_path, assets=[{"symbol": name, "address": OTHER, "target": "50%"}, {"symbol": "USDT", "target": "50%"}])
        with raises_field("symbol", "looks like"):
            taken_over(path, file)
        assert path.read_bytes() == before


def test_profile_of_a_chosen_allocator__changes_nothing_of_its_own_config(tmp_path: Path) -> None:
    mine = config(tmp_path, template="equal")
    assert "[portfolio.weights]" in mine.read_text()
    api.export_profile(mine, file := tmp_path / "own.profile")
    assert profile_arguments(mine, file.read_text()) == ()
    mine.write_text(mine.read_text().replace('cooldown = "1d"', 'cooldown = "2d"', 1))
    assert [name for name, _ in profile_arguments(mine, file.read_text())] == ["set"]
