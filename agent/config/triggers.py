"""Checks of [policy] trigger and risk, and the trigger with a zone's risk figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.config.schema import Config
from agent.config.tables.triggers import EstimateTable, RiskTable, build_trigger, is_zone
from agent.errors import ConfigError
from agent.model import NoTradeZone, RiskEstimationWindow, Trigger
from agent.policy import risk


def require_valid_zone(config: Config) -> None:
    """Raise ValueError naming field and remedy if the zone could not be evaluated."""
    risk_table = config.policy.risk
    if not is_zone(config.policy.trigger):
        return
    if config.limits.plan_cost is None:
        raise ValueError(
            "limits.plan_cost: off, but a zone needs it to limit the cost of a swap; write for"
            ' example "0.5%"'
        )
    if risk_table is None or (not risk_table.volatilities and risk_table.estimate is None):
        raise ValueError(
            "policy.risk: missing; a zone needs [policy.risk] with volatilities and correlations,"
            " or with estimate (docs/zone.md)"
        )
    symbols = [asset.symbol for asset in config.portfolio.assets]
    unknown_symbols = [symbol for symbol in risk_table.volatilities if symbol not in symbols]
    if unknown_symbols:
        raise ValueError(
            f"policy.risk.volatilities: {unknown_symbols[0]!r} is not an asset; remove it or correct"
            " its spelling"
        )
    pairs = [_pair(pair_name, symbols) for pair_name in risk_table.correlations]
    repeated_pairs = [
        pair_name
        for pair_name, pair in zip(risk_table.correlations, pairs, strict=True)
        if pairs.count(pair) > 1
    ]
    if repeated_pairs:
        raise ValueError(
            f"policy.risk.correlations: {' and '.join(repeated_pairs)} are the same pair; keep one"
        )
    zone = build_policy_trigger(config)
    symbol_by_address = {asset.address: asset.symbol for asset in config.portfolio.assets}
    if risk_table.estimate is not None:
        symbol_by_address = _configured_symbols(risk_table, risk_table.estimate, symbol_by_address)
    fault_and_remedy = (
        next(risk.faults(zone.risk, symbol_by_address), None)
        if isinstance(zone, NoTradeZone)
        else None
    )
    if fault_and_remedy is not None:
        raise ValueError("; ".join(fault_and_remedy))


def _configured_symbols(
    risk_table: RiskTable, estimate: EstimateTable, symbol_by_address: dict[str, str]
) -> dict[str, str]:
    """Return the symbols of assets with a configured volatility, by address. Raises ValueError if
    the rest cannot be estimated from prices.
    """
    if risk_table.correlation is not None:
        raise ValueError(
            "policy.risk.correlation: estimate takes correlations from prices; write only those"
            " of pairs without prices"
        )
    too_high_pairs = [
        pair_name
        for pair_name, bps in risk_table.correlations.items()
        if abs(bps) > risk.MAX_CORRELATION_BPS
    ]
    if too_high_pairs:
        raise ValueError(
            f'policy.risk.correlations: {too_high_pairs[0]} is beyond 99%; write "99%" for tokens that move'
            " as one"
        )
    estimated_symbols = [
        symbol for symbol in symbol_by_address.values() if symbol not in risk_table.volatilities
    ]
    asset_count = len(estimated_symbols)
    if estimate.min_history < (asset_count + 1) * estimate.step:
        raise ValueError(
            f"policy.risk.estimate.min_history: {asset_count} assets need at least {asset_count + 1}"
            " steps for a non-singular covariance; write a longer one"
        )
    return {
        address: symbol
        for address, symbol in symbol_by_address.items()
        if symbol in risk_table.volatilities
    }


def _pair(pair_name: str, symbols: list[str]) -> frozenset[str]:
    pair_symbols = pair_name.split("/")
    if len(pair_symbols) != 2 or len({*pair_symbols}) != 2 or not {*pair_symbols} <= {*symbols}:
        raise ValueError(
            f"policy.risk.correlations: {pair_name!r} is not a pair of assets; write for example"
            f' "{symbols[0]}/{symbols[1]}"'
        )
    return frozenset(pair_symbols)


def _with_risk(
    zone: NoTradeZone, risk_table: RiskTable | None, address_by_symbol: Mapping[str, str]
) -> NoTradeZone:
    """Add the figures of [policy.risk] to a zone. `address_by_symbol` are addresses by symbol.
    Raises ConfigError if the table is missing.
    """
    if risk_table is None:
        raise ConfigError(
            "policy.risk: missing", "write [policy.risk] with volatilities and correlations"
        )
    return NoTradeZone(
        replace(
            zone.risk,
            volatilities_bps=tuple(
                (address_by_symbol[symbol], bps) for symbol, bps in risk_table.volatilities.items()
            ),
            correlations_bps=tuple(_correlations(risk_table, address_by_symbol)),
            estimation_window=None
            if risk_table.estimate is None
            else _estimation_window(risk_table.estimate),
        )
    )


def _estimation_window(estimate: EstimateTable) -> RiskEstimationWindow:
    return RiskEstimationWindow(
        estimate.window, estimate.step, -(-estimate.min_history // estimate.step), estimate.max_age
    )


def _correlations(
    risk_table: RiskTable, address_by_symbol: Mapping[str, str]
) -> list[tuple[str, str, int]]:
    """Return (token, token, bps) of every pair of assets with a correlation."""
    bps_by_pair = {
        frozenset(pair_name.split("/")): bps for pair_name, bps in risk_table.correlations.items()
    }
    symbols, correlated_pairs = list(address_by_symbol), []
    for later_index, later_symbol in enumerate(symbols):
        for earlier_symbol in symbols[:later_index]:
            both_configured = (
                later_symbol in risk_table.volatilities
                and earlier_symbol in risk_table.volatilities
            )
            default_bps = (
                risk_table.correlation if risk_table.estimate is None or not both_configured else 0
            )
            bps = bps_by_pair.get(frozenset((later_symbol, earlier_symbol)), default_bps)
            if bps is not None:
                correlated_pairs.append(
                    (address_by_symbol[earlier_symbol], address_by_symbol[later_symbol], bps)
                )
    return correlated_pairs


def build_policy_trigger(config: Config) -> Trigger:
    """Build the trigger of [policy], a zone with its risk. Raises ConfigError."""
    address_by_symbol = {asset.symbol: asset.address for asset in config.portfolio.assets}
    risky_address_by_symbol = {
        symbol: address
        for symbol, address in address_by_symbol.items()
        if symbol != config.portfolio.numeraire
    }
    trigger = build_trigger(config.policy.trigger, risky_address_by_symbol)
    if isinstance(trigger, NoTradeZone):
        return _with_risk(trigger, config.policy.risk, address_by_symbol)
    return trigger
