"""What a control may change of strategies, liquidity targets and by a profile: targets within the limits of the present config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.app import config_versions
from agent.app.controls.shown_plans import require_no_widening
from agent.app.settings.profiles import profile_arguments
from agent.app.settings.shown import settings_document
from agent.config.load import load_config, load_config_text, parse_config
from agent.config.schema import Config
from agent.config.tables.liquidity import LpTargetTable
from agent.config.tables.strategies import StrategyTable
from agent.config.writing.edits import apply_changes, parse_changes
from agent.errors import ConfigError, Refused
from agent.store.opening import open_store
from agent.web.controls import form_arguments
from tests.support import agents
from tests.support.builders import OWNER
from tests.support.configs.lp_targets import V2_TARGET, V3_TARGET, config_with_targets
from tests.support.configs.strategies import CARRY, TREND, config_with_strategies
from tests.support.text import raises_field

STRATEGIES = config_with_strategies(TREND, CARRY)
LIQUIDITY = config_with_targets(V3_TARGET, V2_TARGET)
WITH_EXIT = apply_changes(LIQUIDITY, parse_changes(["portfolio.assets.WETH.stop_loss=10%"], [], [], []))
SHARES = ("strategies.trend.share=50%", "strategies.carry.share=50%")


def applied(text: str, arguments: tuple[tuple[str, str], ...]) -> str:
    """The config's text after an edit by these arguments of a control."""
    values: dict[str, list[str]] = {"set": [], "target": []}
    for name, value in arguments:
        values[name].append(value)
    return apply_changes(text, parse_changes(values["set"], values["target"], [], []))


def require(text: str, *sets: str) -> None:
    after = applied(text, tuple(("set", change) for change in sets))
    assert parse_config(after) != parse_config(text)
    require_no_widening(parse_config(text), parse_config(after))


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        (STRATEGIES, SHARES),
        (STRATEGIES, ("strategies.trend.weights.WETH=60%", "strategies.trend.weights.USDC=40%")),
        (LIQUIDITY, ("lp.targets.0.share=0%",)),
        (WITH_EXIT, ("lp.targets.0.share=5%",)),
        (LIQUIDITY, ("lp.targets.0.share=12%", "lp.targets.1.share=2%", "policy.cooldown=9h")),
    ],
)
def test_shares_and_weights_may_change(text: str, sets: tuple[str, ...]) -> None:
    require(text, *sets)


@pytest.mark.parametrize(
    ("text", "sets", "key"),
    [
        pytest.param(STRATEGIES, (*SHARES, "strategies.trend.floor=0%"), "strategies.trend.floor", id="floor of a strategy"),
        pytest.param(STRATEGIES, ("strategies.trend.health=off",), "strategies.trend.health", id="health off"),
        pytest.param(STRATEGIES, ("strategies.carry.name=other",), "strategies.carry.allocator", id="another strategy"),
        pytest.param(STRATEGIES, ("split.relative=90%",), "split.relative", id="band of the split"),
        pytest.param(LIQUIDITY, ("lp.targets.0.share=5%", "lp.targets.0.width=1%"), "lp.targets.0.width", id="width of a range"),
        pytest.param(WITH_EXIT, ("lp.targets.0.share=1%", "lp.targets.1.share=6%"), "lp.targets.1.share", id="another target's share"),
        pytest.param(LIQUIDITY, ("lp.volatility=1%",), "lp.volatility", id="volatility"),
        pytest.param(LIQUIDITY, ("lp.targets=[]",), "lp.targets", id="no targets"),
    ],
)
def test_nothing_else_of_them_may(text: str, sets: tuple[str, ...], key: str) -> None:
    with pytest.raises(Refused) as refused:
        require(text, *sets)
    assert [(verdict.guard, verdict.measured_text) for verdict in refused.value.verdicts] == [("control_edit", key)]


def test_a_control_undoes_what_a_control_did(tmp_path: Path) -> None:
    """T28: the share of liquidity rises up to what the owner confirmed, although an exit is set."""
    path = tmp_path / "trimtab.toml"
    store = open_store(f"sqlite:///{tmp_path / 'trimtab.db'}", 1, OWNER)
    lower = applied(WITH_EXIT, (("set", "lp.targets.0.share=1%"),))
    for text, origin in ((WITH_EXIT, config_versions.EDIT_ORIGIN), (lower, config_versions.CONTROL_ORIGIN)):
        loaded = load_config_text(text, path, "the config")
        config_versions.record_version(loaded, store.configs, origin)
    owner = config_versions.owner_confirmed_config(loaded, store.configs)
    require_no_widening(loaded.config, parse_config(WITH_EXIT), owner)
    with pytest.raises(Refused, match=r"lp\.targets\.0\.share"):
        require_no_widening(loaded.config, parse_config(applied(WITH_EXIT, (("set", "lp.targets.0.share=11%"),))), owner)
    store.close()


@pytest.mark.parametrize("before", [LIQUIDITY, WITH_EXIT])
def test_liquidity_share__rises_not_beside_a_control_s_exit(before: str) -> None:
    """The owner confirmed no exit, so that compared with their config alone the share might rise."""
    after = applied(WITH_EXIT, (("set", "lp.targets.0.share=12%"),))
    with pytest.raises(Refused, match=r"lp\.targets\.0\.share"):
        require_no_widening(parse_config(before), parse_config(after), parse_config(LIQUIDITY))


def test_a_sum_above_the_limit_of_liquidity_is_no_config() -> None:
    with raises_field("lp.targets", "lp_max_weight"):
        parse_config(applied(LIQUIDITY, (("set", "lp.targets.0.share=99%"),)))


def strategies_of(config: Config) -> Sequence[StrategyTable | LpTargetTable]:
    return config.strategies


def lp_targets_of(config: Config) -> Sequence[StrategyTable | LpTargetTable]:
    assert config.lp is not None
    return config.lp.targets


@pytest.mark.parametrize(
    ("text", "section", "count", "tables_of"),
    [
        pytest.param(STRATEGIES, "Strategies", 4, strategies_of, id="strategies"),
        pytest.param(LIQUIDITY, "Liquidity", 2, lp_targets_of, id="liquidity"),
    ],
)
def test_page__offers_what_may_change_and_its_form_does(
    tmp_path: Path, text: str, section: str, count: int, tables_of: Callable[[Config], Sequence[StrategyTable | LpTargetTable]]
) -> None:
    path = tmp_path / "trimtab.toml"
    path.write_text(text)
    path.chmod(0o600)
    offered = {part["title"]: part for part in settings_document(path)["sections"] if part["editable"]}
    assert offered.keys() == {section}, "what the config does not have is not offered"
    part = offered[section]
    values = {setting["key"]: setting["value"] for setting in part["settings"]}
    assert len(part["editable"]) == count
    shares = [key for key in part["editable"] if key.endswith(".share")]
    fields: dict[str, list[str]] = {f"set:{key}": [values[key]] for key in part["editable"]}
    fields |= {f"was:{key}": [values[key]] for key in part["editable"]}
    assert form_arguments("edit", fields) == ()
    fields[f"set:{shares[0]}"], fields[f"set:{shares[1]}"] = [values[shares[1]]], [values[shares[0]]]
    after = parse_config(applied(text, form_arguments("edit", fields)))
    require_no_widening(parse_config(text), after)
    assert [f"{table.share / 100:g}%" for table in tables_of(after)] == [values[shares[1]], values[shares[0]]]


def test_a_profile_is_an_edit_that_a_control_may_make(tmp_path: Path) -> None:
    theirs = agents.config(tmp_path, "theirs", targets="WETH=70% USDC=30%")
    mine = agents.config(tmp_path)
    file = tmp_path / "p.toml"
    theirs.write_text(
        theirs.read_text()
        .replace(
            'trigger = { kind = "threshold", relative = "10%" }',
            'trigger = [{ kind = "threshold", absolute = "5%" }, { kind = "time", every = "7d" }]',
        )
        .replace('target = "70%"', 'target = "70%"\nband = "7%abs"')
        .replace('slippage = "0.3%"', 'slippage = "0.1%"')
        .replace('turnover = "30%"', 'turnover = "5%"', 1)
    )
    api.export_profile(mine, file)
    assert profile_arguments(mine, file.read_text()) == (), "a config's own profile changes nothing of it"
    file.unlink()
    api.export_profile(theirs, file)
    arguments = profile_arguments(mine, file.read_text(), (("in-slices", "yes"),))
    assert arguments[0] == ("in-slices", "yes")
    before = load_config(mine).config
    config = load_config(theirs).config
    after = parse_config(applied(mine.read_text(), arguments[1:]))
    require_no_widening(before, after)
    assert [(asset.target, asset.band) for asset in after.portfolio.assets] == [
        (asset.target, asset.band) for asset in config.portfolio.assets
    ]
    assert after.policy == config.policy
    assert after.limits.turnover == config.limits.turnover != before.limits.turnover
    assert after.limits.slippage == before.limits.slippage, "exits are subject to it"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"assets": [{"symbol": "WETH", "target": "60%"}, {"symbol": "LINK", "target": "40%"}]}, "a new asset, LINK"),
        ({"weights": {"kind": "equal", "every": "7d", "churn": "10%", "keep": "14d", "until_chosen": "targets"}}, "another allocator"),
        ({"profile": {"format": 1, "chain_id": 10, "numeraire": "USDC"}}, "chain"),
        ({"wallet": {"address": agents.OTHER}}, "wallet"),
    ],
)
def test_what_a_control_cannot_import_is_left_to_the_terminal(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    file = agents.profile(tmp_path, **changes)
    with pytest.raises(ConfigError) as refused:
        profile_arguments(agents.config(tmp_path), file.read_text())
    assert reason in refused.value.message


def test_asset_the_profile_lacks__is_sold_and_a_band_not_dropped(tmp_path: Path) -> None:
    mine = agents.config(tmp_path, targets="WETH=50% USDC=30% LINK=20%")
    text = agents.profile(tmp_path).read_text()
    assert ("target", "LINK=0%") in profile_arguments(mine, text)
    mine.write_text(mine.read_text().replace('target = "50%"', 'target = "50%"\nband = "7%abs"'))
    with pytest.raises(ConfigError, match="no band of WETH"):
        profile_arguments(mine, text)
