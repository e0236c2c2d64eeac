"""Ready portfolios that `trimtab init --template` starts from: shares by class of token, with the trigger and limits that fit them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from agent.config.presets import Preset
from agent.errors import ConfigError
from agent.units import BPS, largest_remainder, parse_share_bps

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Item, Table

CORE, STABLE, HIGH_BETA = "core", "stable", "high-beta"
SUPPLIES = "supplies.csv"
CLASSES: Mapping[int, Mapping[str, tuple[str, ...]]] = {
    1: {CORE: ("WETH", "WBTC"), STABLE: ("USDC",), HIGH_BETA: ("LINK", "AAVE")},
}
"""Symbols of the preset by class and chain id: large and long known, worth one dollar, and what moves more than the market."""


BEFORE = "[reference]\n"
"""The table of the config that follows on the portfolio's."""


@dataclass(frozen=True, slots=True)
class Starter:
    """A ready portfolio: `shares` in bps by class, split evenly over its tokens; `policy` and `limits` as the config writes them.

    `futures` is how much the notional of futures may be at most, times spot value. `adjustable` says that the share of stable
    tokens can be chosen. `weights` is an allocator, which chooses other weights than `shares` from data, and `todo` what has to be
    done before it can.
    """

    name: str
    about: str
    shares: Mapping[str, int]
    policy: Mapping[str, str | Mapping[str, str]]
    limits: Mapping[str, str]
    futures: str | None = None
    adjustable: bool = False
    weights: Mapping[str, str | list[str]] = field(default_factory=dict)
    todo: str = ""


def _threshold(**widths: str) -> dict[str, str]:
    return {"kind": "threshold", **widths}


STARTERS = {
    starter.name: starter
    for starter in (
        Starter(
            "conservative",
            "mostly large coins, small trades, seldom",
            {CORE: 7_000, STABLE: 2_000, HIGH_BETA: 1_000},
            {"trigger": _threshold(relative="15%"), "destination": "target", "cooldown": "1d"},
            {
                "price_impact": "0.5%",
                "slippage": "0.3%",
                "plan_cost": "0.4%",
                "turnover": "20%",
                "daily_turnover": "20%",
                "daily_loss": "0.5%",
                "lp_max_weight": "10%",
                "impermanent_loss": "0.5%",
            },
            "1.5",
        ),
        Starter(
            "moderate",
            "half large coins, a third stable, some that move more",
            {CORE: 5_000, STABLE: 3_000, HIGH_BETA: 2_000},
            {"trigger": _threshold(relative="10%"), "destination": "target", "cooldown": "6h"},
            {"price_impact": "1%", "slippage": "0.3%", "plan_cost": "0.5%", "turnover": "30%", "daily_turnover": "60%", "daily_loss": "1%"},
            "2.5",
        ),
        Starter(
            "aggressive",
            "mostly coins that move more than the market, wide bands against churning",
            {CORE: 3_000, STABLE: 1_000, HIGH_BETA: 6_000},
            {"trigger": _threshold(relative="20%"), "destination": "halfway", "cooldown": "1h"},
            {
                "price_impact": "1.5%",
                "slippage": "0.5%",
                "plan_cost": "0.8%",
                "turnover": "40%",
                "daily_turnover": "80%",
                "daily_loss": "2%",
            },
            "4.0",
        ),
        Starter(
            "60/40",
            "sixty of large coins, forty stable, back at five points",
            {CORE: 6_000, STABLE: 4_000},
            {"trigger": _threshold(absolute="5%"), "destination": "target", "cooldown": "1d"},
            {"turnover": "20%", "daily_turnover": "20%"},
        ),
        Starter(
            "equal",
            "the same of each, whatever its price did",
            {CORE: 4_000, HIGH_BETA: 4_000, STABLE: 2_000},
            {"trigger": _threshold(relative="20%"), "destination": "target", "cooldown": "1d"},
            {"turnover": "30%", "daily_turnover": "30%"},
            weights={"kind": "equal", "every": "7d", "keep": "14d", "churn": "1%", "until_chosen": "targets"},
        ),
        Starter(
            "market-cap",
            "by what all coins of a kind are worth, none above 40 %, beside a tenth in stable coins",
            {CORE: 6_000, HIGH_BETA: 3_000, STABLE: 1_000},
            {"trigger": _threshold(relative="15%"), "destination": "target", "cooldown": "1d"},
            {"turnover": "20%", "daily_turnover": "20%"},
            weights={
                "kind": "market_cap",
                "every": "7d",
                "keep": "14d",
                "churn": "1%",
                "until_chosen": "wait",
                "max_age": "1d",
                "fixed": ["USDC"],
                "cap": "40%",
                "supplies": SUPPLIES,
            },
            todo=f"write {SUPPLIES} beside the config with lines symbol,supply,as_of for {', '.join(CLASSES[1][CORE])}: "
            "on this chain only wrapped coins can be counted",
        ),
        Starter(
            "stable-reserve",
            "large coins beside a stable reserve that is filled from gains and spent in falls; --stable sets its size",
            {CORE: 8_000, STABLE: 2_000},
            {"trigger": _threshold(absolute="5%"), "destination": "target", "cooldown": "6h"},
            {"turnover": "30%", "daily_turnover": "60%"},
            adjustable=True,
        ),
    )
}


def starter(name: str) -> Starter:
    """The ready portfolio of that name. Raises ConfigError listing what there is."""
    if name not in STARTERS:
        raise ConfigError(f"--template: {name!r} is not known", f"choose from {', '.join(STARTERS)}; trimtab templates shows them")
    return STARTERS[name]


def shares_of(one: Starter, stable: str | None) -> Mapping[str, int]:
    """Bps by class, with `stable` as the share of stable tokens where the owner chose one; the others keep their proportions."""
    if stable is None:
        return one.shares
    if not one.adjustable:
        fit = ", ".join(name for name, other in STARTERS.items() if other.adjustable)
        raise ConfigError(f"--stable: the shares of {one.name} are fixed", f"leave --stable out, or use --template {fit}")
    bps = parse_share_bps(stable, "--stable")
    if not 0 < bps < BPS:
        raise ConfigError(f"--stable: {stable} leaves nothing to rebalance", "write more than 0% and less than 100%, such as 20%")
    others = {name: share for name, share in one.shares.items() if name != STABLE}
    rest = largest_remainder([Fraction(share) for share in others.values()], BPS - bps)
    return {**dict(zip(others, rest, strict=True)), STABLE: bps}


def targets(one: Starter, preset: Preset, stable: str | None = None) -> list[tuple[str, str]]:
    """(symbol, share) of each token on that network, each class split evenly. Raises ConfigError where its tokens are not known."""
    classes = CLASSES.get(preset.chain_id)
    if classes is None:
        raise ConfigError(f"--template: no tokens are known for chain {preset.chain_id}", "give every token by --target")
    found: list[tuple[str, str]] = []
    for name, share in shares_of(one, stable).items():
        symbols = classes[name]
        for symbol, bps in zip(symbols, largest_remainder([Fraction(1)] * len(symbols), share), strict=True):
            found.append((symbol, f"{bps / 100:g}%"))
    return found


def dress(text: str, one: Starter) -> str:
    """The commented config with this portfolio's trigger and limits; comments stay where they are."""
    import tomlkit

    document = tomlkit.parse(text)
    policy, limits = (_table(document, name) for name in ("policy", "limits"))
    for key, value in one.policy.items():
        policy[key] = value if isinstance(value, str) else _inline(value)
    for key, value in one.limits.items():
        limits[key] = value
    made = tomlkit.dumps(document)
    if one.weights:
        made = made.replace(BEFORE, f"{_allocator(one)}\n{BEFORE}", 1)
    return f"# Template: {one.name}, {one.about}.\n{_futures(one)}{made}"


def _allocator(one: Starter) -> str:
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in one.weights.items())
    todo = f"# Before anything is traded: {one.todo}.\n" if one.todo else ""
    about = "# Targets are chosen anew from data; those above are only where it begins (docs/weights.md)."
    return f"{about}\n{todo}[portfolio.weights]\n{lines}\n"


def _futures(one: Starter) -> str:
    if one.futures is None:
        return ""
    return (
        f"# Its bound on futures is {one.futures} times spot value in notional. trimtab trades no futures yet:\n"
        f'# nothing reads this, and nothing but spot is traded.   futures_notional = "{one.futures}x"\n'
    )


def _table(document: TOMLDocument, name: str) -> Table:
    from tomlkit.items import Table

    found = document[name]
    if not isinstance(found, Table):
        raise ConfigError(f"[{name}] is no table of the new config", "this is a defect; report it")
    return found


def _inline(values: Mapping[str, str]) -> Item:
    """One line with spaces inside the braces, as the rest of the file has it."""
    import tomlkit

    pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
    return tomlkit.value(f"{{ {pairs} }}")
