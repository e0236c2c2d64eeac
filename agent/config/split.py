"""From [[strategies]] and [split] to the model: each strategy with the weights, trigger and health rule that hold for it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from agent.config.build import build_policy
from agent.config.schema import Config
from agent.config.strategies import StrategyTable, as_portfolio
from agent.config.triggers import build_trigger
from agent.config.weights import build_weights, supplies_of
from agent.config.zone import ZoneTable
from agent.errors import ConfigError
from agent.model import Destination, Method, Policy, Portfolio, Threshold
from agent.model.strategies import HealthRule, Split, Strategy
from agent.policy import trigger_rules
from agent.units import largest_remainder


def build_split(config: Config) -> Split | None:
    """The strategies of the config; None where there are none. Raises ConfigError for a trigger that is none."""
    if not config.strategies or config.split is None:
        return None
    policy, assets = build_policy(config), config.portfolio.assets
    address = {asset.symbol: asset.address for asset in assets}
    found = []
    for table in config.strategies:
        own = _own_policy(config, policy, table)
        if table.weights is None:
            weights = dict(zip(address.values(), largest_remainder([Fraction(1)] * len(assets)), strict=True))
        else:
            weights = {address[symbol]: bps for symbol, bps in table.weights.items()}
        rule = table.health
        health = None if rule is None else HealthRule(rule.sharpe, rule.recover, rule.window, rule.period, rule.recover_period)
        found.append(
            Strategy(table.name, table.share, tuple(weights.items()), own.trigger, own.destination, own.cooldown_s, table.floor, health)
        )
    return Split(tuple(found), Threshold(config.split.absolute, config.split.relative))


def with_allocators(config: Config, split: Split | None, portfolio: Portfolio, folder: Path) -> Split | None:
    """The same with each strategy's allocator by token address; files of supplies are relative to `folder`. Raises ConfigError."""
    if split is None:
        return None
    tables = {one.name: one for one in config.strategies}
    found = []
    for one in split.strategies:
        weights = build_weights(as_portfolio(config.portfolio, tables[one.name]), portfolio, folder)
        found.append(replace(one, allocator=None if weights is None or weights.method is Method.FIXED else weights))
    return replace(split, strategies=tuple(found))


def all_supplies(portfolio: Portfolio, split: Split | None) -> tuple[str, ...]:
    """Tokens of which the chain has to say how many coins exist, for the portfolio's allocator or a strategy's."""
    allocators = [portfolio.weights, *(one.allocator for one in (() if split is None else split.strategies))]
    return tuple(dict.fromkeys(token for weights in allocators for token in supplies_of(replace(portfolio, weights=weights))))


def _own_policy(config: Config, policy: Policy, table: StrategyTable) -> Policy:
    """What holds for one strategy, checked as that of a portfolio is."""
    risky = {asset.symbol: asset.address for asset in config.portfolio.assets if asset.symbol != config.portfolio.numeraire}
    try:
        if isinstance(table.trigger, ZoneTable):
            raise ConfigError("policy.trigger: a zone weighs a whole portfolio", "use another trigger")
        own = replace(
            policy,
            trigger=policy.trigger if table.trigger is None else build_trigger(table.trigger, risky),
            destination=policy.destination if table.destination is None else Destination(table.destination),
            cooldown_s=policy.cooldown_s if table.cooldown is None else table.cooldown,
        )
        trigger_rules.validate_policy(own)
    except ConfigError as error:
        raise ConfigError(error.message.replace("policy.", f"strategies.{table.name}.", 1), error.remedy) from None
    return own
