"""Portfolio templates of `trimtab init --template`: shares by token class, with trigger and
limits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING

from agent.config.networks.coin_supplies import PACKAGE, package_supplies
from agent.config.networks.presets import (
    Preset,
)
from agent.config.writing.template import FUTURES_NOTIONAL_COMMENT, replace_setting
from agent.errors import ConfigError
from agent.foreign_text import bounded_toml
from agent.units import BPS, Token, largest_remainder, parse_share_with_unit_bps

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Item, Table

CORE = "core"
STABLE = "stable"
HIGH_BETA = "high-beta"
TOKEN_CLASSES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    CORE: (("WETH", "ETH"), ("WBTC", "BTCB", "cbBTC")),
    STABLE: (("USDC",),),
    HIGH_BETA: (("LINK", "AERO", "UNI"), ("AAVE",)),
}
"""Tokens by class, each with the symbols that stand for it. Of these the first in a network's list
is taken; without any the token is left out.
"""
SMALL_TEMPLATE = "small"
"""Template of a small portfolio; scripts/make/past_results.py measures its year on rollups."""
ALLOCATOR_ANCHOR = "[reference]\n"
"""Header of the table that follows those of the portfolio."""


@dataclass(frozen=True, slots=True)
class PortfolioTemplate:
    """A ready portfolio: `shares` in bps by class, split evenly over its tokens; `policy` and
    `limits` in the config's notation. `futures_multiple` is the maximum futures notional as a
    multiple of the spot value. `has_adjustable_stable_share` allows choosing the share of stable
    tokens. `allocator_values` is an allocator in place of `shares`.
    """

    name: str
    about: str
    shares: Mapping[str, int]
    policy: Mapping[str, str | Mapping[str, str]]
    limits: Mapping[str, str]
    futures_multiple: str | None = None
    has_adjustable_stable_share: bool = False
    allocator_values: Mapping[str, str | list[str]] = field(default_factory=dict)


def _tracking(strictness: str = "normal") -> dict[str, str]:
    return {"kind": "tracking", "strictness": strictness}


PORTFOLIO_TEMPLATES = {
    template.name: template
    for template in (
        PortfolioTemplate(
            "conservative",
            "70 % large coins, 20 % stable, 10 % smaller coins; conservative in its few and small trades, not in what it holds",
            {CORE: 7_000, STABLE: 2_000, HIGH_BETA: 1_000},
            {"trigger": _tracking("relaxed"), "cooldown": "1d"},
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
        PortfolioTemplate(
            "moderate",
            "50 % large coins, 30 % stable, 20 % smaller coins",
            {CORE: 5_000, STABLE: 3_000, HIGH_BETA: 2_000},
            {"trigger": _tracking(), "cooldown": "6h"},
            {
                "price_impact": "1%",
                "slippage": "0.3%",
                "plan_cost": "0.5%",
                "turnover": "30%",
                "daily_turnover": "60%",
                "daily_loss": "1%",
            },
            "2.5",
        ),
        PortfolioTemplate(
            "aggressive",
            "60 % smaller coins, which move more, 30 % large coins, 10 % stable; trades less, and further from its targets",
            {CORE: 3_000, STABLE: 1_000, HIGH_BETA: 6_000},
            {"trigger": _tracking("relaxed"), "cooldown": "1h"},
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
        PortfolioTemplate(
            "60/40",
            "60 % large coins, 40 % stable",
            {CORE: 6_000, STABLE: 4_000},
            {"trigger": _tracking(), "cooldown": "1d"},
            {"turnover": "20%", "daily_turnover": "20%"},
        ),
        PortfolioTemplate(
            "equal",
            "the same share of each token, one of them stable",
            {CORE: 4_000, HIGH_BETA: 4_000, STABLE: 2_000},
            {"trigger": _tracking(), "cooldown": "1d"},
            {"turnover": "30%", "daily_turnover": "30%"},
            allocator_values={
                "kind": "equal",
                "every": "7d",
                "keep": "14d",
                "churn": "1%",
                "until_chosen": "targets",
            },
        ),
        PortfolioTemplate(
            "market-cap",
            "by market capitalisation, at most 40 % each, with 10 % in stablecoins; even shares"
            " stand here until the agent has chosen, and it buys nothing before",
            {CORE: 6_000, HIGH_BETA: 3_000, STABLE: 1_000},
            {"trigger": _tracking(), "cooldown": "1d"},
            {"turnover": "20%", "daily_turnover": "20%"},
            allocator_values={
                "kind": "market_cap",
                "every": "7d",
                "keep": "14d",
                "churn": "1%",
                "max_change": "20%",
                "until_chosen": "wait",
                "max_age": "1d",
                "fixed": ["USDC"],
                "cap": "40%",
                "supplies": PACKAGE,
            },
        ),
        PortfolioTemplate(
            "stable-reserve",
            "large coins with a stable reserve, filled from gains and spent after falls; --stable"
            " sets its size",
            {CORE: 8_000, STABLE: 2_000},
            {"trigger": _tracking(), "cooldown": "6h"},
            {"turnover": "30%", "daily_turnover": "60%"},
            has_adjustable_stable_share=True,
        ),
        PortfolioTemplate(
            SMALL_TEMPLATE,
            "60 % large coins, 40 % stable, for some hundred dollars on a rollup: plans of low cost",
            {CORE: 6_000, STABLE: 4_000},
            {"trigger": _tracking(), "cooldown": "1d"},
            {"plan_cost": "0.5%", "turnover": "30%", "daily_turnover": "30%"},
        ),
    )
}


def find_template(name: str) -> PortfolioTemplate:
    """Return the template with this name. Raises ConfigError listing all names."""
    if name not in PORTFOLIO_TEMPLATES:
        raise ConfigError(
            f"--template: {name!r} is not known",
            f"choose from {', '.join(PORTFOLIO_TEMPLATES)}; trimtab templates shows them",
        )
    return PORTFOLIO_TEMPLATES[name]


def template_shares(template: PortfolioTemplate, stable_share: str | None) -> Mapping[str, int]:
    """Return bps by class. `stable_share`, if given, is the share of stable tokens; the other
    classes keep their proportions. Raises ConfigError for a share that does not fit the template.
    """
    if stable_share is None:
        return template.shares
    if not template.has_adjustable_stable_share:
        adjustable_names = ", ".join(
            name
            for name, other_template in PORTFOLIO_TEMPLATES.items()
            if other_template.has_adjustable_stable_share
        )
        raise ConfigError(
            f"--stable: the shares of {template.name} are fixed",
            f"omit --stable, or use --template {adjustable_names}",
        )
    stable_bps = parse_share_with_unit_bps(stable_share, "--stable")
    if not 0 < stable_bps < BPS:
        raise ConfigError(
            f"--stable: {stable_share} leaves nothing to rebalance",
            "write more than 0 % and less than 100 %, such as 20%",
        )
    other_share_by_class = {
        name: share for name, share in template.shares.items() if name != STABLE
    }
    other_shares = largest_remainder(
        [Fraction(share) for share in other_share_by_class.values()], BPS - stable_bps
    )
    return {**dict(zip(other_share_by_class, other_shares, strict=True)), STABLE: stable_bps}


def template_targets(
    template: PortfolioTemplate, preset: Preset, stable_share: str | None = None
) -> list[tuple[str, str]]:
    """Return (symbol, share) of each token on that network: each class split evenly, or with equal
    weights the whole over the tokens that the network has. Raises ConfigError if no token of a class
    is known there, or if the share of one rounds to zero.
    """
    preset_symbols = [token.symbol for token in preset.tokens]
    symbols_by_class = {
        token_class: tuple(
            known_symbols[0]
            for symbols in alternatives
            if (known_symbols := [symbol for symbol in preset_symbols if symbol in symbols])
        )
        for token_class, alternatives in TOKEN_CLASSES.items()
    }
    shares = template_shares(template, stable_share)
    for token_class in shares:
        if not symbols_by_class[token_class]:
            symbols_text = ", ".join(chain.from_iterable(TOKEN_CLASSES[token_class]))
            raise ConfigError(
                f"--template: {template.name} needs a {token_class} token ({symbols_text}), and none"
                f" is known for chain {preset.chain_id}",
                "choose another template, or give every token with --target",
            )
    shares_and_symbols = [
        (class_bps, symbols_by_class[token_class]) for token_class, class_bps in shares.items()
    ]
    if template.allocator_values.get("kind") == "equal":
        shares_and_symbols = [(BPS, sum((symbols for _, symbols in shares_and_symbols), ()))]
    targets: list[tuple[str, str]] = []
    for class_bps, symbols in shares_and_symbols:
        for symbol, target_bps in zip(
            symbols, largest_remainder([Fraction(1)] * len(symbols), class_bps), strict=True
        ):
            if target_bps == 0:
                raise ConfigError(
                    f"--stable: {stable_share} leaves nothing for {symbol}", "write a smaller share"
                )
            targets.append((symbol, f"{target_bps / 100:g}%"))
    return targets


def require_supplies(
    template: PortfolioTemplate, preset: Preset, targets: Iterable[tuple[str, str]]
) -> None:
    """Raise ConfigError if the template's allocator needs supplies that the package lacks there."""
    if template.allocator_values.get("supplies") == PACKAGE:
        symbols = dict(targets)
        package_supplies(
            (
                Token(token.address, token.symbol, token.decimals or 0)
                for token in preset.tokens
                if token.symbol in symbols
            ),
            preset.wrapped_native,
            preset.chain_id,
        )


def apply_template(config_text: str, template: PortfolioTemplate) -> str:
    """Return the commented config with this portfolio's trigger, limits and allocator."""
    import tomlkit

    document = tomlkit.parse(bounded_toml(config_text))
    policy, limits = (_table(document, name) for name in ("policy", "limits"))
    for key, value in template.policy.items():
        policy[key] = value if isinstance(value, str) else _inline_table(value)
    for key, value in template.limits.items():
        limits[key] = value
    if template.futures_multiple is not None:
        futures_notional = tomlkit.item(f"{template.futures_multiple}x")
        limits.add("futures_notional", futures_notional.comment(FUTURES_NOTIONAL_COMMENT))
        futures_notional.trivia.comment_ws = " " * 10
    templated_text = tomlkit.dumps(document)
    if template.allocator_values:
        templated_text = replace_setting(
            templated_text,
            re.escape(ALLOCATOR_ANCHOR),
            f"{_allocator_text(template)}\n{ALLOCATOR_ANCHOR}",
        )
    return f"# Template: {template.name}, {template.about}.\n{templated_text}"


def _allocator_text(template: PortfolioTemplate) -> str:
    weight_lines = "\n".join(
        f"{key} = {json.dumps(value)}" for key, value in template.allocator_values.items()
    )
    about_comment = (
        "# Targets are chosen from data; those above are the starting values (docs/weights.md)."
    )
    return f"{about_comment}\n[portfolio.weights]\n{weight_lines}\n"


def _table(document: TOMLDocument, name: str) -> Table:
    from tomlkit.items import Table

    table = document[name]
    if not isinstance(table, Table):
        raise ConfigError(f"[{name}] is not a table of the new config", "this is a bug; report it")
    return table


def _inline_table(value_by_key: Mapping[str, str]) -> Item:
    """Return an inline table with spaces inside the braces, like the rest of the file."""
    import tomlkit

    entries_text = ", ".join(f"{key} = {json.dumps(value)}" for key, value in value_by_key.items())
    return tomlkit.value(f"{{ {entries_text} }}")
