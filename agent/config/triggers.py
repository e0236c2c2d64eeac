"""Checks of [policy] trigger and risk, and the trigger with a zone's risk figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.config.schema import Config
from agent.config.tables.triggers import EstimateTable, RiskTable, build_trigger, is_zone
from agent.errors import ConfigError
from agent.model import NoTradeZone, RiskEstimationWindow, Trigger
from agent.policy import risk


def require_zone(config: Config) -> None:
    """Raise ValueError naming field and remedy if the zone could not be evaluated."""
    table = config.policy.risk
    if not is_zone(config.policy.trigger):
        return
    if config.limits.plan_cost is None:
        raise ValueError(
            "limits.plan_cost: off, but a zone needs it to limit the cost of a swap; write for"
            ' example "0.5%"'
        )
    if table is None or (not table.volatilities and table.estimate is None):
        raise ValueError(
            "policy.risk: missing; a zone needs [policy.risk] with volatilities and correlations,"
            " or with estimate (docs/zone.md)"
        )
    symbols = [asset.symbol for asset in config.portfolio.assets]
    unknown_symbols = [symbol for symbol in table.volatilities if symbol not in symbols]
    if unknown_symbols:
        raise ValueError(
            f"policy.risk.volatilities: {unknown_symbols[0]!r} is not an asset; remove it or correct"
            " its spelling"
        )
    pairs = [_pair(name, symbols) for name in table.correlations]
    repeated_pairs = [
        name for name, pair in zip(table.correlations, pairs, strict=True) if pairs.count(pair) > 1
    ]
    if repeated_pairs:
        raise ValueError(
            f"policy.risk.correlations: {' and '.join(repeated_pairs)} are the same pair; keep one"
        )
    zone = build_policy_trigger(config)
    labels = {asset.address: asset.symbol for asset in config.portfolio.assets}
    if table.estimate is not None:
        labels = _require_estimate(table, table.estimate, labels)
    fault = next(risk.faults(zone.risk, labels), None) if isinstance(zone, NoTradeZone) else None
    if fault is not None:
        raise ValueError("; ".join(fault))


def _require_estimate(
    table: RiskTable, estimate: EstimateTable, labels: dict[str, str]
) -> dict[str, str]:
    """Return the symbols of assets with a configured volatility, by address. Raises ValueError if
    the rest cannot be estimated from prices.
    """
    if table.correlation is not None:
        raise ValueError(
            "policy.risk.correlation: estimate takes correlations from prices; write only those"
            " of pairs without prices"
        )
    too_high_pairs = [
        name for name, bps in table.correlations.items() if abs(bps) > risk.MAX_CORRELATION_BPS
    ]
    if too_high_pairs:
        raise ValueError(
            f'policy.risk.correlations: {too_high_pairs[0]} is beyond 99%; write "99%" for tokens that move'
            " as one"
        )
    estimated_symbols = [symbol for symbol in labels.values() if symbol not in table.volatilities]
    asset_count = len(estimated_symbols)
    if estimate.min_history < (asset_count + 1) * estimate.step:
        raise ValueError(
            f"policy.risk.estimate.min_history: {asset_count} assets need at least {asset_count + 1}"
            " steps for a non-singular covariance; write a longer one"
        )
    return {address: symbol for address, symbol in labels.items() if symbol in table.volatilities}


def _pair(name: str, symbols: list[str]) -> frozenset[str]:
    pair = name.split("/")
    if len(pair) != 2 or len({*pair}) != 2 or not {*pair} <= {*symbols}:
        raise ValueError(
            f"policy.risk.correlations: {name!r} is not a pair of assets; write for example"
            f' "{symbols[0]}/{symbols[1]}"'
        )
    return frozenset(pair)


def _with_risk(
    zone: NoTradeZone, table: RiskTable | None, assets: Mapping[str, str]
) -> NoTradeZone:
    """Add the figures of [policy.risk] to a zone. `assets` are addresses by symbol. Raises
    ConfigError if the table is missing.
    """
    if table is None:
        raise ConfigError(
            "policy.risk: missing", "write [policy.risk] with volatilities and correlations"
        )
    return NoTradeZone(
        replace(
            zone.risk,
            volatilities_bps=tuple(
                (assets[symbol], bps) for symbol, bps in table.volatilities.items()
            ),
            correlations_bps=tuple(_correlations(table, assets)),
            measuring=None if table.estimate is None else _estimation_window(table.estimate),
        )
    )


def _estimation_window(estimate: EstimateTable) -> RiskEstimationWindow:
    return RiskEstimationWindow(
        estimate.window, estimate.step, -(-estimate.min_history // estimate.step), estimate.max_age
    )


def _correlations(table: RiskTable, addresses: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """Return (token, token, bps) of every pair of assets with a correlation."""
    bps_by_pair = {frozenset(name.split("/")): bps for name, bps in table.correlations.items()}
    symbols, pairs = list(addresses), []
    for number, later in enumerate(symbols):
        for earlier in symbols[:number]:
            both_configured = later in table.volatilities and earlier in table.volatilities
            default = table.correlation if table.estimate is None or not both_configured else 0
            bps = bps_by_pair.get(frozenset((later, earlier)), default)
            if bps is not None:
                pairs.append((addresses[earlier], addresses[later], bps))
    return pairs


def build_policy_trigger(config: Config) -> Trigger:
    """Build the trigger of [policy], a zone with its risk. Raises ConfigError."""
    addresses = {asset.symbol: asset.address for asset in config.portfolio.assets}
    risky_addresses = {
        symbol: address
        for symbol, address in addresses.items()
        if symbol != config.portfolio.numeraire
    }
    trigger = build_trigger(config.policy.trigger, risky_addresses)
    if isinstance(trigger, NoTradeZone):
        return _with_risk(trigger, config.policy.risk, addresses)
    return trigger
